"""Every stage with model and SAE on a device of their own: the first study on CUDA once failed at the SAE."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT


@pytest.mark.parametrize("backend", ["hooked", "bridge"])
@pytest.mark.parametrize("part", ["study", "attribution", "mixed", "audit", "sentences"])
def test_no_tensor_of_the_cpu_meets_the_models(part, backend):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.support.strict_device", part, backend]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_a_step_waits_for_the_device_twice():
    """For the tokens that children are drawn from, and for the scores; the first step also for the vocabulary's sizes."""
    command = [sys.executable, "-m", "tests.support.strict_device", "waits", "hooked"]
    ran = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    first, *others = json.loads(ran.stdout.splitlines()[-1])
    assert [sum(step.values()) for step in others] == [2, 2], others
    assert sum(first.values()) <= 6, first
