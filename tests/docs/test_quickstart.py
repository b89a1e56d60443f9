"""The README's quick start shows its progress, ends within a minute on one core, and prints what the README says."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

_BLOCK = re.compile(r"## Quick start\n.*?```python\n(.*?)```.*?```\n(.*?)```", re.DOTALL)


@pytest.mark.slow
def test_the_quick_start_prints_the_figures_of_the_readme(tmp_path):
    found = _BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found is not None
    code, said = found.groups()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    before = spent.ru_utime + spent.ru_stime
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    number = re.compile(r"[-+]?\d+\.\d+")
    progress, printed = done.stdout.partition("Comparison(")[::2]
    assert (progress + done.stderr).count("step ") >= 10, "a line per step"
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert used.ru_utime + used.ru_stime - before < 60, (
        "processor time, which a busy machine does not lengthen"
    )
    printed = [float(n) for n in number.findall(printed)]
    assert len(printed) > 10
    assert printed == pytest.approx([float(n) for n in number.findall(said)], abs=0.011)
