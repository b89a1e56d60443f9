"""Test whether prompts that were found on one model work on other models (future work in arXiv 2601.02896).

1. The chosen prompt of every search is read from the run directories, with its effect on the model that it
   was found on.
2. Each other model is loaded once. A prompt is transferred as text and tokenized anew. If its tokens change
   inside the other model's chat template, it is listed with that reason and never cut.
3. All prompts for one persona and set of questions are compared on the held-out questions of the run, paired
   with no prompt on the same model, with Holm's correction over the prompts.

The test questions are evaluated once more on each model; nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.comparison import Comparison, ComparisonOptions, compare, run_rows
from workbench.conditions import Found
from workbench.contexts import make_contexts
from workbench.errors import UserError
from workbench.html_text import ShowsTable
from workbench.models import load_model, runner_for
from workbench.prompt_tokens import encode_prompt
from workbench.runs import RunDirectory, read_run_file
from workbench.schema import FrontierFile
from workbench.study import Study
from workbench.study.material import Material
from workbench.study.study_settings import ModelSettings

_FIGURES = (
    "rate",
    "rate_low",
    "rate_high",
    "shift",
    "shift_low",
    "shift_high",
    "p",
    "p_adjusted",
    "letter_a",
    "cross_entropy",
    "tokens",
)


@dataclass(frozen=True, repr=False)
class TransferResult(ShowsTable):
    """Effects of the chosen prompts of finished runs on other models.

    Attributes:
        table: One row per prompt and model. `shift` is the change of the mean log-odds relative to no prompt
            on that model, with its interval. `shift_at_source` is that change on the model that the prompt
            was found on. `kept` is the first divided by the second, None if the effect at the source may be
            zero. `problem` says why a prompt could not be used on the model.
        comparisons: The whole comparison of each model and question set.

    Example:
        >>> wb.transfer(["runs/mine"], ["smollm2-135m"]).table[["prompt", "kept"]]  # doctest: +SKIP
    """

    table: pd.DataFrame
    comparisons: tuple[Comparison, ...]

    def shown_table(self) -> tuple[str, pd.DataFrame]:
        """Return the caption and the rows of the table that notebooks show for a transfer between models."""
        return (
            f"{self.table['prompt'].nunique()} prompts on {self.table['model'].nunique()} models",
            self.table,
        )


@dataclass(frozen=True)
class _Prompt:
    """A chosen prompt of a run's search, with its figures on the model that it was found on."""

    run: str
    search: str
    text: str
    study: Study
    figures: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.run}: {self.search}"

    @property
    def questions(self) -> str:
        return self.figures["questions"]


def transfer(runs: Sequence[str | Path], models: Sequence[str | ModelSettings]) -> TransferResult:
    """Measure the effects of the chosen prompts of finished runs on other models.

    Args:
        runs: Run directories.
        models: Names or directories as for `load_model`, or `ModelSettings` (with device and dtype).

    Returns:
        One row per prompt and model.

    Raises:
        UserError: A directory is no finished run, the data of a run have changed, or a model is unknown.

    Example:
        >>> wb.transfer(["runs/mine"], ["smollm2-135m"]).table  # doctest: +SKIP
    """
    if not runs or not models:
        raise UserError("transfer needs at least one run and one model")
    prompts = [prompt for run in runs for prompt in _prompts(Path(run))]
    tables, comparisons = [], []
    for wanted in models:
        settings = wanted if isinstance(wanted, ModelSettings) else ModelSettings(name=wanted)
        model = load_model(
            settings.name, settings.device, settings.dtype, settings.backend, settings.revision
        )
        for members in _by_questions(prompts):
            with runner_for(model).rendering(members[0].study.protocol.template):
                comparison, table = _on(model, settings, members)
            tables.append(table)
            comparisons += [comparison] if comparison is not None else []
    return TransferResult(pd.concat(tables, ignore_index=True), tuple(comparisons))


def _prompts(path: Path) -> list[_Prompt]:
    run = RunDirectory.open(path)
    if not run.done("comparison"):
        raise UserError(f"{path}: its comparison is not done; finish the run first")
    study, figures = (
        Study.load(run.path / "study.yaml"),
        {row["condition"]: row for row in run_rows(run.path)},
    )
    if "metric" in run.manifest().notes:
        study = study.model_copy(update={"metric": run.manifest().notes["metric"]["used"]})
    searches = read_run_file(run.path / "search/frontier.json", FrontierFile).searches
    chosen = {name: next(c.text for c in search.candidates if c.chosen) for name, search in searches.items()}
    if not chosen:
        raise UserError(f"{path}: this run searched no prompt that could be transferred")
    return [_Prompt(path.name, name, text, study, figures[name]) for name, text in chosen.items()]


def _by_questions(prompts: Iterable[_Prompt]) -> list[list[_Prompt]]:
    """Group prompts that have the same questions, slot, metric and sign."""
    found: dict[tuple[str, ...], list[_Prompt]] = {}
    for prompt in prompts:
        study = prompt.study
        found.setdefault(
            (prompt.questions, study.slot, f"{study.metric} {study.normalization}", study.sign), []
        ).append(prompt)
    return list(found.values())


def _on(
    model: Any, settings: ModelSettings, prompts: Sequence[_Prompt]
) -> tuple[Comparison | None, pd.DataFrame]:
    """Compare all prompts of one question set on one model."""
    study = prompts[0].study
    test = Material.load(study, model).splits.test
    if test.hash != prompts[0].questions:
        raise UserError(
            f"{prompts[0].run}: the data of its test split changed since the run: {test.hash[:12]} now, {prompts[0].questions[:12]} then"
        )
    contexts = make_contexts(model, test, study.slot, study.metric, study.protocol.orders, seed=study.seed)
    problems = {prompt.name: _problem(model, contexts, prompt.text) for prompt in prompts}
    fit = [
        Found(p.text, p.figures["kind"], "transferred", name=p.name) for p in prompts if not problems[p.name]
    ]
    if not fit:
        return None, pd.DataFrame([_row(prompt, settings, {}, problems[prompt.name]) for prompt in prompts])
    options = ComparisonOptions(orders=study.protocol.orders, seed=study.seed, model_name=settings.name)
    comparison = compare(model, test, fit, study.slot, sign=study.sign, metric=study.metric, options=options)
    figures = comparison.table.set_index("condition").to_dict("index")
    rows = [_row(prompt, settings, figures.get(prompt.name, {}), problems[prompt.name]) for prompt in prompts]
    return comparison, pd.DataFrame(rows)


def _problem(model: Any, contexts: Any, text: str) -> str:
    try:
        encode_prompt(model, contexts, text)
    except UserError as error:
        return str(error)
    return ""


def _row(prompt: _Prompt, settings: ModelSettings, figures: dict[str, Any], problem: str) -> dict[str, Any]:
    source = prompt.figures
    row = {
        "run": prompt.run,
        "search": prompt.search,
        "prompt": prompt.text,
        "persona": source["persona"],
        "sign": source["sign"],
    }
    row |= {"found_on": source["model"], "model": settings.name} | {
        name: figures.get(name) for name in _FIGURES
    }
    ends = source["shift_low"], source["shift_high"]
    sure = None not in ends and ends[0] * ends[1] > 0
    kept = figures["shift"] / source["shift"] if sure and figures else None
    return row | {"shift_at_source": source["shift"], "kept": kept, "problem": problem}
