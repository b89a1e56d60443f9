"""A few mutated inputs of every reader that is quick (`make fuzz` has 50,000 of all)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.fuzz_readers import (
    _data_readers,
    _model_readers,
    _setting_readers,
    _vector_readers,
    _word_readers,
    try_one,
)


@pytest.mark.parametrize(
    "make", [_data_readers, _setting_readers, _vector_readers, _word_readers, _model_readers]
)
def test_mutated_inputs_are_read_or_refused_in_one_line(make, tmp_path: Path) -> None:
    for reader in make(tmp_path / "inputs"):
        rng = random.Random(reader.name)
        for _ in range(4 if reader.name.startswith("model") else 25):
            try_one(reader, reader.mutated(rng))
        reader.path.write_bytes(reader.sound)
        assert not [fault for fault in reader.faults if not fault.startswith("took")], (
            reader.name
        )  # times are for `make fuzz`
