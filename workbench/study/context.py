"""`StudyContext`: a study under way, that is where it runs, what it works on, and what its stages have found so far."""

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
from workbench.study.asking_protocol import AskingProtocol
from workbench.study.material import Material
from workbench.study.off_target_measures import off_target_measures
from workbench.study.persona_model_check import choose_metric
from workbench.study.progress_file import ProgressRecorder
from workbench.study.study_settings import Study

#: Questions, of the search and selection splits, by which the metric of a study that names none is chosen.
_METRIC_QUESTIONS = 24
#: Told after each bit of progress: the stage's name and how much of it is done, 0 to 1.
Report = Callable[[str, float], None]
#: Told after each step of a search: the stage's name and where the search is.
Watch = Callable[[str, SearchProgress], None]


@dataclass(frozen=True)
class ChosenDirections:
    """The chosen direction, and the random ones as controls."""

    best: Direction
    randoms: tuple[Direction, ...]


@dataclass(frozen=True)
class StudyContext:
    """A study under way. A stage reads what earlier ones found, and gives back a context with its own findings.

    Attributes:
        directory: The run directory.
        material: Model, persona, splits and settings.
        report, watch: Callbacks of the stages and of the searches' steps.
        off_target: Measures that are read for every condition, by name.
        directions: The chosen and the random directions.
        other_directions: Those of the other personas that the study names, in its order.
        latents: The ranked latents, None without an SAE.
        searches: Frontiers by the search's name, as found.
        chosen: The same, measured on the selection split, the best prompt of each marked.
        recorder: Writes progress.json.
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
        """Loads what the study names and records its hashes in the manifest.

        A resumed run must have the same settings and the same inputs as its finished stages: model, data,
        splits, SAE and text files are compared by hash. UserError names what differs; with `force` the run
        goes on and its report says so.
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
        )  # too few are told before a stage begins
        with runner_for(material.model).limited(study.search.batch_tokens):
            material = _with_metric(material, directory)
        context = cls(directory, material, tell, watch, recorder=recorder)
        recorder.decode = context.runner.decode
        _note(context, force)
        with context.rendering():
            context = replace(
                context, off_target=off_target_measures(context.material)
            )  # its files are read before anything is computed
        tell("load", 1.0)
        return context

    @property
    def study(self) -> Study:
        """The study's settings."""
        return self.material.study

    @property
    def model(self) -> Any:
        """The loaded model."""
        return self.material.model

    @property
    def runner(self) -> Runner:
        """The model's runner; its meter counts the FLOPs of a stage."""
        return runner_for(self.material.model)

    @contextmanager
    def rendering(self) -> Iterator[None]:
        """Inside it, questions are rendered as the study's protocol says, and no batch has more than `search.batch_tokens` tokens."""
        with (
            self.runner.rendering(self.study.protocol.template),
            self.runner.limited(self.study.search.batch_tokens),
        ):
            yield

    def progress(self, stage: str) -> Callable[[SearchProgress], None]:
        """What a search is given to tell its steps to."""

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
    """The material with the metric that the persona's check on this model recommends, if the study leaves it open.

    A resumed run keeps that of its finished stages. What was taken, and why, is noted in the manifest.
    """
    study, asked = material.study, material.splits.search
    if study.metric is not None or material.persona.letters is None or study.protocol != AskingProtocol():
        return material
    before = directory.manifest()
    noted = before.notes.get("metric")
    if (
        noted is None or not before.stages
    ):  # without a finished stage other inputs are allowed: the note may be theirs
        questions = replace(
            asked, name="search and selection", items=(*asked.items, *material.splits.selection.items)
        ).take(_METRIC_QUESTIONS)
        used, why = choose_metric(material.model, material.persona, questions, study.slot)
        noted = {"used": used, "why": why}
        directory.note(notes={"metric": noted})
    return (
        material
        if noted["used"] == material.persona.metric
        else Material.load(study.model_copy(update={"metric": noted["used"]}), material.model)
    )


def _note(context: StudyContext, force: bool) -> None:
    """Device, seeds, hashes and warnings into the manifest; other inputs than those of the finished stages are refused."""
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
