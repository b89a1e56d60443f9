"""Contexts made of ids alone."""

import pytest

from tests.support.search_contexts import contexts_of_ids
from workbench.contexts import Contexts


@pytest.fixture(params=[True, False], ids=["shared prefix", "own prefixes"])
def contexts(request: pytest.FixtureRequest) -> Contexts:
    return contexts_of_ids(request.param)
