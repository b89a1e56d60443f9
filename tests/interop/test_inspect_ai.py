"""Logs that we write are scored, listed and shown by inspect-ai itself."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import workbench as wb
from tests.support.toy_models import toy_persona
from workbench.evaluation import OpenAnswer, write_inspect_choices, write_inspect_log

inspect_log = pytest.importorskip(
    "inspect_ai.log", reason="inspect-ai is not installed: pip install inspect-ai==0.3.285"
)


def command(*arguments: str | Path) -> str:
    found = shutil.which("inspect", path=str(Path(sys.executable).parent))
    assert found, "inspect-ai brings a command"
    done = subprocess.run(
        [found, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def said(number: int, text: str) -> OpenAnswer:
    return OpenAnswer(
        str(number), f"g{number}", f"Question {number}?", f"Question {number}?", text, True, "Yes", "No"
    )


def test_the_documented_command_scores_open_answers(tmp_path):
    path = write_inspect_log(
        [said(1, "Yes, sure"), said(2, "No way"), said(3, "No"), said(4, "Hm")], tmp_path / "open.json", "toy"
    )
    assert "accuracy" in command("score", path, "--scorer", "includes", "--overwrite")
    log = inspect_log.read_eval_log(str(path))
    assert [sample.scores["includes"].value for sample in log.samples] == ["I", "C", "C", "I"]
    assert log.results.scores[0].metrics["accuracy"].value == 0.5


def test_forced_choices_are_listed_scored_and_shown_with_their_log_probabilities(pair, tmp_path):
    contexts = wb.make_contexts(pair.runner, toy_persona().split().test, n=4)
    answers = wb.answer(pair.runner, contexts)
    logs = tmp_path / "logs"
    logs.mkdir()
    path = write_inspect_choices(pair.runner, contexts, answers, logs, "tiny")
    (listed,) = inspect_log.list_eval_logs(str(logs))
    log = inspect_log.read_eval_log(listed)
    assert listed.name.endswith(path.name) and log.eval.model == "none/tiny"
    for sample, log_odds in zip(log.samples, answers.log_odds, strict=True):
        (entry,) = sample.output.choices[0].logprobs.content
        first, second = entry.top_logprobs
        assert math.isclose(first.logprob - second.logprob, abs(log_odds), rel_tol=1e-6)
        assert sample.scores["matching"].value == int(log_odds > 0)
    command("view", "bundle", "--log-dir", logs, "--output-dir", tmp_path / "site")
    assert (tmp_path / "site/index.html").is_file() and (tmp_path / "site/logs" / path.name).is_file()
