"""The doctor says what is right, and names what was broken on purpose."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.tiny_checkpoints import FAMILIES, tiny_tokenizer
from tests.support.tiny_families import TinyFamilies
from workbench.errors import UserError
from workbench.models.doctor import ModelDiagnosis, diagnose, lost_tokens


def _detail(diagnosis: ModelDiagnosis, check: str) -> str:
    (row,) = [row for row in diagnosis.rows if row.check == check]
    return row.detail


def _failed(diagnosis: ModelDiagnosis) -> list[str]:
    return [row.check for row in diagnosis.rows if row.ok is False]


@pytest.mark.parametrize("family", FAMILIES)
def test_sound_models_are_sound(families: TinyFamilies, family: str) -> None:
    diagnosis = diagnose(families.directory(family))
    assert diagnosis.ok, str(diagnosis)
    assert len(diagnosis.rows) > 12
    assert "HookedTransformer" in _detail(diagnosis, "backend")


@pytest.mark.parametrize("dtype", ("bfloat16", "float64"))
def test_the_bridge_and_other_dtypes(families: TinyFamilies, dtype: str) -> None:
    diagnosis = diagnose(families.directory("gemma2"), dtype=dtype, backend="bridge")
    assert diagnosis.ok, str(diagnosis)
    assert "TransformerBridge, with key-value caches" in _detail(diagnosis, "backend")


def test_system_role_and_bos_in_words(families: TinyFamilies) -> None:
    assert _detail(diagnose(families.directory("gemma3")), "system role").startswith(
        "none: use the slots before_question"
    )
    llama = diagnose(families.directory("llama"))
    assert _detail(llama, "system role") == "yes"
    assert "'<|bos|>' is first in a chat text; the tokenizer would put a second one" in _detail(llama, "BOS")
    qwen = diagnose(families.directory("qwen2"))
    assert _detail(qwen, "BOS") == "this tokenizer has none"
    assert "14 rows of the model belong to no token" in _detail(qwen, "token round trip")


def test_templates_that_do_harm_are_named(families: TinyFamilies, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(families.directory("llama"), tmp_path / "model"))
    own = (directory / "chat_template.jinja").read_text()
    template = (
        "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    (directory / "chat_template.jinja").write_text(template)
    assert _detail(diagnose(directory), "system role").startswith("none: use the slots"), (
        "a system text that would vanish is refused"
    )
    (directory / "chat_template.jinja").write_text(
        own.replace("{{ bos_token }}", "{{ bos_token }}{{ bos_token }}")
    )
    assert _failed(diagnose(directory)) == ["BOS"]
    (directory / "chat_template.jinja").write_text(
        own.replace("{{ bos_token }}", "{{ 'A helpful system text.' }}")
    )
    assert "not first in a chat text" in _detail(diagnose(directory), "BOS")


def test_wrong_logits_are_found(families: TinyFamilies, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversion that forgets the RoPE scaling: the doctor must see it, in the logits and nowhere else."""
    import workbench.models.loading as load

    right = load.hooked_config

    def wrong(*arguments: object):
        config = right(*arguments)
        config.use_NTK_by_parts_rope = False
        return config

    monkeypatch.setattr(load, "hooked_config", wrong)
    assert _failed(diagnose(families.directory("llama"))) == [
        "logits against Hugging Face",
        "logits after a chat text",
    ]


def test_a_model_that_does_not_load_is_one_row(families: TinyFamilies, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(families.directory("llama"), tmp_path / "model"))
    whole = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(whole[:-1])
    diagnosis = diagnose(directory)
    assert not diagnosis.ok and len(diagnosis.rows) == 1 and "cut short" in diagnosis.rows[0].detail
    with pytest.raises(UserError, match="quantised weights are not supported"):
        diagnose(directory, dtype="int4")


def test_it_shows_itself_as_text_table_and_json(families: TinyFamilies, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(families.directory("gpt2"), tmp_path / "<img src=x>"))
    diagnosis = diagnose(directory)
    assert json.loads(json.dumps(diagnosis.to_json()))["ok"] is True
    assert "<img" not in diagnosis._repr_html_() and "<table" in diagnosis._repr_html_()
    assert len(str(diagnosis).splitlines()) == len(diagnosis.rows) == len(diagnosis.frame())


def test_lost_tokens_are_the_ones_that_come_back_as_others() -> None:
    """By hand, one token at a time: bytes of longer characters are lost, whole words are not."""
    tokenizer = tiny_tokenizer()
    expected = [
        i
        for i in range(len(tokenizer))
        if tokenizer(tokenizer.decode([i]), add_special_tokens=False)["input_ids"] != [i]
    ]
    lost = lost_tokens(tokenizer)
    assert lost == expected and 0 < len(lost) < len(tokenizer)
    assert tokenizer.convert_tokens_to_ids("a") not in lost
