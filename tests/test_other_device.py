"""Every stage with model and autoencoder on a device of their own: the first study on CUDA once failed at the autoencoder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "strict_device.py"


@pytest.mark.parametrize("backend", ["hooked", "bridge"])
@pytest.mark.parametrize("part", ["study", "attribution", "audit"])
def test_no_tensor_of_the_cpu_meets_the_models(part, backend):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, PROGRAM, part, backend], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
