"""`run(study, out)`: the stages in order, each done once, saved, and loaded again when the run is resumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from workbench.comparison import Comparison, OffTargetMeasures, compare
from workbench.directions import Direction, load_directions, save_directions
from workbench.errors import UserError
from workbench.latents import LatentRanking
from workbench.models import runner_for
from workbench.report import write_report
from workbench.runs import RunDirectory, read_run_file, read_table, write_run_file, write_table, write_text
from workbench.sae import Sae
from workbench.schema import EvaluationRow, FrontierFile, LatentsFile, SearchFile, SearchStepRow
from workbench.search import Checkpoint, Frontier, SearchProgress, write_frontiers
from workbench.study import stages
from workbench.study.attribution_stage import explain
from workbench.study.off_target_measures import off_target_measures
from workbench.study.stages import ChosenDirections, Material
from workbench.study.study_settings import Study

#: Told after each bit of progress: the stage's name and how much of it is done, 0 to 1.
Report = Callable[[str, float], None]
#: Told after each step of a search: the stage's name and where the search stands.
Watch = Callable[[str, SearchProgress], None]


def run(
    study: Study, out: str | Path | RunDirectory, resume: bool = False, report: Report | None = None, model: Any = None, watch: Watch | None = None
) -> RunDirectory:
    """The whole study: directions, latents, searches, comparison on the test split, attribution, report.

    out: a new directory (or the run in it, with resume). report: progress callback. model: a loaded model (sweeps load it
    once). watch: callback of the searches' steps. Raises UserError for what the user can mend; what was finished before stays and is
    not done again.
    """
    directory = out if isinstance(out, RunDirectory) else RunDirectory.create(out, resume)
    tell = report or (lambda stage, share: None)
    with directory.lock():
        _write_study(directory, study)
        material = _stage_load(directory, study, model, tell)
        with runner_for(material.model).rendering(study.protocol.template):
            beside = off_target_measures(material)  # its files are read before anything is computed
            directions = _directions(directory, material, tell)
            sae = stages.sae_of(material)
            latents = _latents(directory, material, sae, tell)
            found = _searches(directory, material, directions, sae, latents, tell, watch)
            chosen = _comparison(directory, material, directions, sae, latents, found, beside, tell)
            _attribution(directory, material, directions, sae, latents, chosen, tell)
        with directory.stage("report", ["report.html"]):
            write_report(directory.path, directory.file("report.html"))
        tell("report", 1.0)
    return directory


def _write_study(directory: RunDirectory, study: Study) -> None:
    """study.yaml says what was asked; a resumed run must ask the same."""
    path = directory.file("study.yaml")
    if path.exists() and Study.load(path) != study:
        raise UserError(f"{path} describes another study: resume with the same settings, or begin a new run")
    write_text(path, study.to_yaml())


def _stage_load(directory: RunDirectory, study: Study, model: Any, tell: Report) -> Material:
    tell("load", 0.0)
    material = Material.load(study, model)
    runner = runner_for(material.model)
    hashes = {"model": runner.fingerprint, "data": material.persona.hash, **{s.name: s.hash for s in stages.splits_of(material.splits)}}
    directory.note(
        device=str(runner.device),
        seeds={"study": study.seed, "split": study.data.split_seed},
        hashes=hashes,
        notes={"batch_tokens": study.search.batch_tokens, "warnings": [*study.protocol.departures, *material.persona.warnings]},
    )
    tell("load", 1.0)
    return material


def _stage(directory: RunDirectory, material: Material, name: str, files: Sequence[str]) -> AbstractContextManager[None]:
    """A stage of the run, with the model's FLOPs."""
    meter = runner_for(material.model).meter
    return directory.stage(name, files, lambda: meter.flops)


def _directions(directory: RunDirectory, material: Material, tell: Report) -> ChosenDirections:
    vectors, facts = directory.file("direction.safetensors"), directory.file("direction.json")
    if not directory.done("directions"):
        tell("directions", 0.0)
        with _stage(directory, material, "directions", ["direction.safetensors", "direction.json"]):
            scan = stages.scan(material)
            save_directions([scan.best, *stages.controls(material.study, scan)], vectors)
            write_run_file(facts, scan.to_file())
    tell("directions", 1.0)
    best, *randoms = load_directions(vectors)
    return ChosenDirections(best, tuple(randoms))


def _latents(directory: RunDirectory, material: Material, sae: Sae | None, tell: Report) -> LatentRanking | None:
    if sae is None:
        tell("latents", 1.0)
        return None
    path = directory.file("latents.json")
    if not directory.done("latents"):
        tell("latents", 0.0)
        with _stage(directory, material, "latents", ["latents.json"]):
            write_run_file(path, stages.latents(material, sae).to_file())
    tell("latents", 1.0)
    return LatentRanking.from_file(read_run_file(path, LatentsFile))


def _searches(
    directory: RunDirectory, material: Material, directions: ChosenDirections, sae: Sae | None, latents: LatentRanking | None, tell: Report,
    watch: Watch | None,
) -> dict[str, Frontier]:  # fmt: skip
    """Every search of the study, one file a search, each resumed from its checkpoint."""
    found = {}
    others = _beside(directory, material)
    for name, (plain, method) in stages.objectives(material.study, directions, sae, latents).items():
        objective = stages.with_besides(material.study, plain, others)
        stem = name.replace(" ", "_")
        files = [f"search/{stem}.json", f"search/{stem}.parquet"]
        if not directory.done(f"search {name}"):
            checkpoint = Checkpoint(directory.file(f"search/{stem}.checkpoint.safetensors"))
            with _stage(directory, material, f"search {name}", files):
                frontier = stages.run_search(material, objective, method, checkpoint, _progress(f"search {name}", tell, watch))
                write_run_file(directory.file(files[0]), frontier.to_file())
                write_table(directory.file(files[1]), frontier.history, SearchStepRow)
            checkpoint.path.unlink(missing_ok=True)
        tell(f"search {name}", 1.0)
        found[name] = Frontier.from_file(read_run_file(directory.file(files[0]), SearchFile), read_table(directory.file(files[1]), SearchStepRow))
    return found


def _beside(directory: RunDirectory, material: Material) -> tuple[Direction, ...]:
    """Directions of the personas beside the study's own (none, and no file, where it names none)."""
    if not material.study.beside:
        return ()
    path = directory.file("direction_beside.safetensors")
    if not directory.done("directions beside"):
        with _stage(directory, material, "directions beside", [path.name]):
            save_directions(stages.beside_directions(material), path)
    return tuple(load_directions(path))


def _progress(stage: str, tell: Report, watch: Watch | None) -> Callable[[SearchProgress], None]:
    def on_step(progress: SearchProgress) -> None:
        tell(stage, min(progress.used, 0.999))
        if watch:
            watch(stage, progress)

    return on_step


def _comparison(
    directory: RunDirectory,
    material: Material,
    directions: ChosenDirections,
    sae: Sae | None,
    latents: LatentRanking | None,
    found: dict[str, Frontier],
    beside: OffTargetMeasures,
    tell: Report,
) -> dict[str, Frontier]:
    """Choice on the selection split, then one reading of the test split."""
    if directory.done("comparison"):
        tell("comparison", 1.0)
        entries = read_run_file(directory.file("search/frontier.json"), FrontierFile).searches
        return {name: Frontier.from_file(entries[name], found[name].history) for name in found}
    tell("comparison", 0.0)
    with _stage(directory, material, "comparison", ["evaluation.parquet", "comparison.json", "search/frontier.json", "search/history.parquet"]):
        chosen = stages.choose(material, found)
        write_frontiers(directory.path, chosen)
        conditions = stages.make_conditions(material, directions, sae, latents, chosen)
        tell("comparison", 0.5)
        if material.study.protocol.choose_on == "test":
            directory.count_test_read()
        directory.count_test_read()
        comparison = _compare(material, conditions, beside)
        write_table(directory.file("evaluation.parquet"), comparison.rows, EvaluationRow)
        write_run_file(directory.file("comparison.json"), comparison.to_file())
    tell("comparison", 1.0)
    return chosen


def _compare(material: Material, conditions: list[Any], beside: OffTargetMeasures) -> Comparison:
    study = material.study
    names = {condition.name for condition in conditions}
    test = material.splits.test
    return compare(
        material.model,
        test,
        conditions,
        slot=study.slot,
        primary=tuple(n for n in study.primary if n in names),
        sign=study.sign,
        metric=study.metric,
        orders=study.protocol.orders,
        seed=study.seed,
        splits=stages.splits_of(material.splits),
        model_name=study.model.name,
        collateral=beside,
    )


def _attribution(
    directory: RunDirectory,
    material: Material,
    directions: ChosenDirections,
    sae: Sae | None,
    latents: LatentRanking | None,
    chosen: dict[str, Frontier],
    tell: Report,
) -> None:
    """The ledger of the study's main prompt, on selection contexts (the test split is not read again)."""
    name = stages.best_search(material.study, chosen)
    if name is None or directory.done("attribution"):
        tell("attribution", 1.0)
        return
    tell("attribution", 0.0)
    files = ["attribution.parquet", "attribution.json"]
    if sae is not None and material.study.attribution.cards:
        files += ["cards.json", "cards.parquet"]
    with _stage(directory, material, "attribution", files):
        text = next(c.text for c in chosen[name].candidates if c.chosen)
        explain(directory, material, directions, sae, latents, name, text)
    tell("attribution", 1.0)
