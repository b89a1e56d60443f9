"""Every stage with model and SAE on a device of their own: the first study on CUDA once failed at the SAE."""

import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT


@pytest.mark.parametrize("backend", ["hooked", "bridge"])
@pytest.mark.parametrize("part", ["study", "attribution", "audit", "sentences"])
def test_no_tensor_of_the_cpu_meets_the_models(part, backend):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.support.strict_device", part, backend]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-2000:]
