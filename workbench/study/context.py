"""`StudyContext`: the state of a running study, with its inputs and what its stages have found so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from workbench.comparison import OffTargetMeasures
from workbench.conditions.prompt_proposers import check_endpoint
from workbench.directions import Direction
from workbench.directions.activation_sampling import deal_texts
from workbench.errors import UserError
from workbench.latents import LatentRanking
from workbench.models import Runner, runner_for
from workbench.models.chat_template import PINNED_DATE, writes_date
from workbench.models.model_description import describe_model
from workbench.runs import RunDirectory, file_hash, write_text
from workbench.search import Frontier, SearchProgress
from workbench.study.material import Material
from workbench.study.off_target_measures import off_target_measures
from workbench.study.progress_file import ProgressRecorder
from workbench.study.study_settings import Study

#: Called on progress with the stage's name and the fraction of the stage that is done, 0 to 1.
Report = Callable[[str, float], None]
#: Called after each step of a search with the stage's name and the search's progress.
Watch = Callable[[str, SearchProgress], None]


@dataclass(frozen=True)
class ChosenDirections:
    """The directions that a study searches along.

    Attributes:
        best: The chosen direction of the persona.
        randoms: Random directions, as controls.
    """

    best: Direction
    randoms: tuple[Direction, ...]


@dataclass(frozen=True)
class StudyContext:
    """State of a running study, which each stage reads and extends by its results.

    Attributes:
        directory: The run directory.
        material: Model, persona, splits and settings.
        report: Callback for the progress of stages.
        watch: Callback for the steps of searches; None for none.
        off_target: Measures of side effects that are taken for every compared condition (a prompt or
            intervention), by name.
        directions: The chosen direction and the random ones; None before they are found.
        other_directions: Directions of the other personas that the study names, in the same order.
        latents: SAE latents, ranked by how well they distinguish the persona; None without an SAE.
        searches: The prompts that each search found (a frontier of objective against fluency), by the
            search's name.
        chosen: The same prompts, measured on selection questions, with the best one of each search marked.
        recorder: Writer of progress.json.
        loaded_here: Whether the study loaded its model itself, so that another process can load it too.
    """

    directory: RunDirectory
    material: Material
    report: Report
    watch: Watch | None = None
    off_target: OffTargetMeasures = field(default_factory=dict)
    directions: ChosenDirections | None = None
    other_directions: tuple[Direction, ...] = ()
    latents: LatentRanking | None = None
    searches: Mapping[str, Frontier] = field(default_factory=dict)
    chosen: Mapping[str, Frontier] = field(default_factory=dict)
    recorder: ProgressRecorder | None = None
    loaded_here: bool = False

    @classmethod
    def begin(
        cls,
        study: Study,
        directory: RunDirectory,
        model: Any = None,
        report: Report | None = None,
        watch: Watch | None = None,
        force: bool = False,
    ) -> StudyContext:
        """Begin or resume a study: load its model and data, and record hashes of all inputs in the manifest.

        A resumed run must have the same settings and inputs as its finished stages; model, data, splits, SAE
        and text files are compared by hash.

        Args:
            study: The settings.
            directory: The run directory.
            model: A loaded model; None to load the study's own.
            report: Callback for the progress of stages.
            watch: Callback for the steps of searches.
            force: Whether to resume although inputs differ; the run's report then says so.

        Raises:
            UserError: Settings or inputs differ from those of the finished stages; the message names them.
        """
        if study.proposer.base_url is not None:
            check_endpoint(study.proposer.base_url, study.proposer.key_variable)
        _write_study(study, directory)
        recorder, shown = ProgressRecorder(directory), report or (lambda stage, share: None)

        def tell(stage: str, share: float) -> None:
            recorder.report(stage, share)
            shown(stage, share)

        tell("load", 0.0)
        material = Material.load(study, model)
        deal_texts(
            material.persona.varied_system_texts, study.directions.texts, study.seed
        )  # raises an error for too few texts before a stage begins
        with runner_for(material.model).limited(study.search.batch_tokens):
            material = _with_metric(material, directory)
        context = cls(directory, material, tell, watch, recorder=recorder, loaded_here=model is None)
        recorder.decode = context.runner.decode
        _note(context, force)
        with context.rendering():
            context = replace(
                context, off_target=off_target_measures(context.material)
            )  # its files are read before anything is computed
        tell("load", 1.0)
        return context

    @classmethod
    def reopened(cls, directory: RunDirectory, watch: Watch | None = None) -> StudyContext:
        """Open a study that another process has begun, to compute some of its stages; nothing is written.

        Args:
            directory: The run directory.
            watch: Callback for the steps of searches.

        Raises:
            UserError: The inputs differ from those whose hashes the other process recorded.
        """
        material = Material.load(Study.load(directory.file("study.yaml")))
        with runner_for(material.model).limited(material.study.search.batch_tokens):
            material = _with_metric(material, directory)
        noted, found = directory.manifest().hashes, material.input_hashes()
        if changed := [name for name, value in found.items() if noted.get(name) != value]:
            raise UserError(f"{directory.path}: changed while the run goes on: {', '.join(changed)}")
        return cls(directory, material, lambda stage, share: None, watch)

    @property
    def study(self) -> Study:
        """Settings of the running study."""
        return self.material.study

    @property
    def model(self) -> Any:
        """The model of the study, loaded."""
        return self.material.model

    @property
    def runner(self) -> Runner:
        """Runner of the model, which runs forward passes and counts their FLOPs."""
        return runner_for(self.material.model)

    @contextmanager
    def rendering(self) -> Iterator[None]:
        """Apply the study's rendering of questions and its batch size to all passes inside a `with` block.

        Questions use the model's chat template, or plain text if the study reproduces the published protocol.
        No batch has more tokens than the setting `search.batch_tokens`.
        """
        with (
            self.runner.rendering(self.study.protocol.template),
            self.runner.limited(self.study.search.batch_tokens),
        ):
            yield

    def progress(self, stage: str) -> Callable[[SearchProgress], None]:
        """Return a function that a search calls after each of its steps, to record its progress.

        Args:
            stage: Name of the search's stage.
        """

        def on_step(progress: SearchProgress) -> None:
            if self.recorder:
                self.recorder.step(stage, progress)
            self.report(stage, min(progress.used, 0.999))
            if self.watch:
                self.watch(stage, progress)

        return on_step


def _write_study(study: Study, directory: RunDirectory) -> None:
    path, before = directory.file("study.yaml"), directory.manifest()
    if path.exists():
        if Study.load(path) != study:
            raise UserError(
                f"{path} describes another study: resume with the same settings, or begin a new run"
            )
        if before.stages and before.hashes.get("study.yaml", file_hash(path)) != file_hash(path):
            raise UserError(
                f"{path} was changed since this run wrote it: finished stages had other settings; restore it, or begin a new run"
            )
    write_text(path, study.to_yaml())
    directory.note(hashes={"study.yaml": file_hash(path)})


def _with_metric(material: Material, directory: RunDirectory) -> Material:
    """Return the material with the metric that suits persona and model, if the study leaves the metric open.

    A resumed run keeps the metric of its finished stages. The metric and the reason are noted in the
    manifest.
    """
    if not material.metric_is_open:
        return material
    before = directory.manifest()
    noted: dict[str, Any] | None = before.notes.get("metric")
    if (
        noted is None or not before.stages
    ):  # without a finished stage other inputs are allowed, so the note may be about those
        used, why = material.choose_metric()
        noted = {"used": used, "why": why}
        directory.note(notes={"metric": noted})
    return material.with_metric(noted["used"])


def _note(context: StudyContext, force: bool) -> None:
    """Record device, seeds, hashes and warnings in the manifest.

    Inputs that differ from those of finished stages are refused, unless `force` is set.
    """
    study, material, directory = context.study, context.material, context.directory
    before, hashes = directory.manifest(), material.input_hashes()
    changed = [
        name for name, value in hashes.items() if before.stages and before.hashes.get(name, value) != value
    ]
    changed += ["SAE"] if before.stages and "SAE" in before.hashes and "SAE" not in hashes else []
    warnings = [*study.protocol.departures, *material.persona.warnings]
    if changed and not force:
        raise UserError(
            f"{directory.path}: finished stages of this run used other inputs ({', '.join(changed)}): restore them, begin a new "
            "run, or go on with --force"
        )
    warnings += [f"This run was resumed with other versions: {line}." for line in directory.other_versions()]
    mixed = [
        *before.notes.get("mixed_inputs", []),
        *(name for name in changed if name not in before.notes.get("mixed_inputs", [])),
    ]
    if mixed:
        warnings.append(
            f"This run was resumed with other inputs than its finished stages had: {', '.join(mixed)}."
        )
    notes: dict[str, Any] = {"batch_tokens": study.search.batch_tokens, "warnings": warnings}
    if writes_date(context.runner.tokenizer):
        notes["template_date"] = PINNED_DATE.isoformat()
    if (described := describe_model(material.model)) is not None:
        notes["model"] = asdict(described)
    notes["persona"] = {"about": material.persona.description}
    directory.note(
        device=str(context.runner.device),
        seeds={"study": study.seed, "split": study.data.split_seed},
        hashes=hashes,
        notes=notes | ({"mixed_inputs": mixed} if mixed else {}),
    )
