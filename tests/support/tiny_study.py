"""A study of the organism that takes seconds."""

from __future__ import annotations

from workbench.budget import Budget
from workbench.study import Study
from workbench.study.study_settings import (
    AttributionSettings,
    DataSettings,
    DirectionSettings,
    OffTargetSettings,
    SearchSettings,
)

TINY = Study(
    data=DataSettings(train_items=24, search_items=6, selection_items=8, test_items=24),
    directions=DirectionSettings(
        layers=(1, 2), methods=("own_choice", "mean_difference"), rows=48, texts=6, contexts=4
    ),
    search=SearchSettings(
        options={"length": 4, "population": 3, "children": 6, "top_k": 32},
        budget=Budget(steps=3),
        contexts=3,
        neutral=6,
    ),
    conditions=("constant_answer", "manual", "random_tokens", "resga", "saega", "steering"),
    random_directions=0,
    random_prompts=1,
    latents=3,
    attribution=AttributionSettings(contexts=3),
    collateral=OffTargetSettings(items=6),
)
