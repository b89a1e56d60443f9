"""A run directory with every file that the report reads, made by the program itself."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.real_run import EVERY_SECTION, copy_of
from workbench.study import run

MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def real_run(organism, tmp_path_factory) -> Path:
    """The run itself: not to be changed."""
    return run(EVERY_SECTION, tmp_path_factory.mktemp("real") / "run", model=organism).path


@pytest.fixture
def make_run(real_run, tmp_path: Path) -> MakeRun:
    """make_run(hostile=False, without=(), tokens=0, latents=0) copies the run, with changes, and gives the copy's path."""
    return lambda **changes: copy_of(real_run, tmp_path / "run", **changes)
