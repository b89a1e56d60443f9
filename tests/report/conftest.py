"""A run directory with every file that the report reads."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.example_run import write_example_run

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """make_run(hostile=False, without=(), tokens=8, latents=8) writes a run directory and gives its path."""

    def make(hostile: bool = False, without: tuple[str, ...] = (), tokens: int = 8, latents: int = 8) -> Path:
        directory = tmp_path / "run"
        write_example_run(directory, hostile, tokens, latents)
        for name in without:
            (directory / name).unlink()
        return directory

    return make
