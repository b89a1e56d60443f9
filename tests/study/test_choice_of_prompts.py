"""What a study chooses on selection: by effect; of whole sentences, the shortest good one that keeps true statements."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from workbench.search import SEARCH_METHODS
from workbench.study.stages.comparison import choose


class Recorded:
    """Stands for a frontier, and keeps how it was asked to choose."""

    def __init__(self, method: str) -> None:
        self.method, self.options = method, {}

    def choose(self, model: object, contexts: object, limit: float | None, **options: object) -> Recorded:
        self.options = {"model": model, "contexts": contexts, "limit": limit} | options
        return self


@pytest.mark.parametrize("method", [*SEARCH_METHODS, "written by hand"])
def test_only_sentences_are_chosen_with_true_statements_and_short(method: str) -> None:
    study = SimpleNamespace(
        search=SimpleNamespace(max_cross_entropy=4.0), protocol=SimpleNamespace(choose_on="selection")
    )
    material = SimpleNamespace(
        model="model",
        study=study,
        search_contexts="search",
        selection_contexts="selection",
        guard=SimpleNamespace(truth="true statements"),
        cross_entropy_limit=lambda contexts, wanted: wanted,
    )
    chosen = choose(material, {"resga": Recorded(method)})["resga"].options
    wanted = method == "sentences"
    assert chosen == {
        "model": "model",
        "contexts": "selection",
        "limit": 4.0,
        "truth": "true statements" if wanted else None,
        "shortest": wanted,
    }
