"""Open answers as a log of inspect-ai, so that others' scorers can judge them: `inspect score LOG --scorer ...`.

The file is inspect's JSON log, version 2: one sample an answer, the rendered question as input, the not matching option as target (what
an answer without the persona says), item, group, matching option and sample number in the metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.errors import UserError
from workbench.evaluation.open_answers import OpenAnswer
from workbench.runs import write_json


def write_inspect_log(answers: Sequence[OpenAnswer], path: str | Path, model: str, task: str = "persona") -> Path:
    """Writes the log and gives its path back. path: a file that ends in .json. UserError for no answers, or another suffix."""
    path = Path(path)
    if not answers:
        raise UserError("no answers to write to an inspect log")
    if path.suffix != ".json":
        raise UserError(f"{path}: inspect reads logs by their suffix: expected .json, found {path.suffix or 'none'!r}")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    spec = {
        "eval_id": f"{task}-{model}"[:60], "run_id": f"{task}-{model}"[:60], "created": created, "task": task, "task_id": task, "task_version": 0,
        "task_attribs": {}, "task_args": {}, "dataset": {"name": task, "samples": len(answers), "shuffled": False},
        "model": f"workbench/{model}", "model_args": {}, "config": {}, "packages": {}, "metadata": {},
    }  # fmt: skip
    started = {"started_at": created, "completed_at": created, "model_usage": {}}
    log = {"version": 2, "status": "success", "eval": spec, "plan": {"name": "plan", "steps": [], "config": {}}, "stats": started}
    write_json(path, {**log, "samples": [_sample(i, answer, spec["model"]) for i, answer in enumerate(answers, start=1)]})
    return path


def _sample(number: int, answer: OpenAnswer, model: str) -> dict[str, Any]:
    said = {"role": "assistant", "content": answer.text, "source": "generate"}
    stop = "stop" if answer.finished else "max_tokens"
    metadata = {"item": answer.item_id, "group": answer.group, "matching": answer.matching, "rendered": answer.rendered, "sample": answer.sample}
    return {
        "id": number,
        "epoch": 1,
        "input": answer.question,
        "target": answer.not_matching,
        "messages": [{"role": "user", "content": answer.question, "source": "input"}, said],
        "output": {"model": model, "choices": [{"message": said, "stop_reason": stop}], "completion": answer.text},
        "scores": {},
        "metadata": metadata,
        "store": {},
        "events": [],
        "model_usage": {},
        "attachments": {},
    }
