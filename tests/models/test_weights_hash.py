"""A model's files as one hash: equal wherever they are, another for one bit anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.tiny_families import TinyFamilies
from workbench.errors import UserError
from workbench.models.weights_hash import weights_hash


def test_equal_files_are_equal_and_one_bit_anywhere_is_another(
    families: TinyFamilies, tmp_path: Path
) -> None:
    here, there = (
        Path(shutil.copytree(families.directory("llama"), tmp_path / name)) for name in ("here", "there")
    )
    plain = weights_hash(str(here))
    assert weights_hash(str(there)) == plain and len(plain) == 64
    for name, place in (
        ("model.safetensors", -5),
        ("model.safetensors", -3001),
        ("tokenizer.json", 40),
        ("config.json", -1),
    ):
        content = bytearray((there / name).read_bytes())
        content[place] ^= 1 if name == "model.safetensors" else 0
        (there / name).write_bytes(content if name == "model.safetensors" else bytes(content) + b"\n")
        assert weights_hash(str(there)) != plain
        shutil.copy(here / name, there / name)
    assert weights_hash(str(there)) == plain


def test_no_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model directory"):
        weights_hash(str(tmp_path / "nothing"))
