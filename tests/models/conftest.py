"""Token ids for the tiny families."""

import pytest
import torch
from jaxtyping import Int
from torch import Tensor


@pytest.fixture
def ids() -> Int[Tensor, "batch pos"]:
    """Three random sequences of 20 tokens, more than three times the families' sliding window of 6."""
    return torch.randint(4, 330, (3, 20), generator=torch.Generator().manual_seed(0))
