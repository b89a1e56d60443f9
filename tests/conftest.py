"""Everything runs offline, on one thread a test process (same sums in the same order), without a hub."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def organism():
    """The embedded model, loaded once."""
    import workbench as wb

    return wb.load_model("organism")


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """Tiny checkpoints of every family and the models made of them, each once."""
    from tests.support.tiny_families import tiny_families

    return tiny_families(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser without a network, one a file."""
    from tests.support.browser import open_browser

    with open_browser(tmp_path_factory.mktemp("profile")) as context:
        context.set_default_timeout(60_000)
        yield context
