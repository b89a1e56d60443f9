"""Settings of a study: one frozen value, equal in Python and in YAML, that refuses unknown keys."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workbench.attribution import ESTIMATORS
from workbench.budget import Budget
from workbench.conditions.condition_registry import STUDY_CONDITIONS, default_conditions, default_primary
from workbench.directions import DIRECTION_METHODS
from workbench.errors import UserError
from workbench.registry import Registry
from workbench.runs import parse_yaml, read_text, resolved
from workbench.search import SEARCH_METHODS
from workbench.study.asking_protocol import AskingProtocol

Sign = Literal["suppress", "induce"]
Slot = Literal["system", "before_question", "after_question", "answer_opening"]
#: Pattern of a cross-entropy limit relative to the written prompts.
WRITTEN = r"^written(\+\d+(\.\d+)?)?$"


def registered(registry: Registry[Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """Check that all names are registered, and return these names unchanged.

    Args:
        registry: The registry, such as that of search methods.
        names: The names.

    Raises:
        UserError: A name is not registered; the message lists the registered ones.
    """
    for name in names:
        registry[name]
    return names


def _shown_default(made: Callable[[], tuple[str, ...]]) -> Callable[[dict[str, Any]], None]:
    """Return a function that puts a default from a registry into the JSON schema."""
    return lambda schema: schema.update(default=list(made()))


class FrozenSettings(BaseModel):
    """Base of all settings, which refuses unknown keys.

    The text after each field is its description in the JSON schema.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelSettings(FrozenSettings):
    """The studied model, and the device on which it runs."""

    name: str = "organism"
    """organism, smollm2-135m, smollm2-sycophant, smollm2-personas, a directory, or a Hugging Face name."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, mps, or balanced (over several GPUs)."""
    dtype: str = "float32"
    """float32, bfloat16 or float16."""
    backend: Literal["auto", "hooked", "bridge"] = "auto"
    """HookedTransformer (hooked) or TransformerBridge (bridge); auto: hooked if it supports the
    architecture."""
    revision: str | None = None
    """Branch, tag or commit of a Hugging Face repository."""


class DataSettings(FrozenSettings):
    """Questions of the study, and how they are assigned to the four splits by question group."""

    path: str | None = None
    """A published contrast file or one of your own, relative to the study file; null: the organism's own
    questions."""
    world: int = 0
    """Seed of the organism's world."""
    split_seed: int = Field(default=0, ge=0, lt=1 << 63)
    """Seed by which question groups are assigned to the splits."""
    fractions: tuple[float, float, float, float] = (0.3, 0.15, 0.15, 0.4)
    """Fractions of the question groups in train, search, selection and test."""
    train_items: int | None = Field(default=None, ge=2)
    """Largest number of train questions; null: all."""
    search_items: int | None = Field(default=None, ge=1)
    """Largest number of search questions; null: all."""
    selection_items: int | None = Field(default=None, ge=1)
    """Largest number of selection questions; null: all."""
    test_items: int | None = Field(default=None, ge=1)
    """Largest number of test questions; null: all."""


class DirectionSettings(FrozenSettings):
    """How directions are fitted and ranked."""

    layers: tuple[int, ...] | None = None
    """Layers at which directions are fitted; null: all."""
    methods: tuple[str, ...] | None = None
    """Methods by which directions are fitted; null: the default ones."""
    rows: int = Field(default=384, ge=8)
    """Number of train rows for each method."""
    texts: int = Field(default=24, ge=4)
    """Number of system texts whose effect a direction must predict."""
    contexts: int = Field(default=24, ge=2)
    """Number of search questions under each of these texts. Whether there is a direction is only tested with at
    least 5 question groups."""
    unshown: Literal["stop", "go_on"] = "stop"
    """What to do if no layer and method shows a direction (docs/directions.md): stop, or go_on with the best
    one."""

    @field_validator("methods")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return names if names is None else registered(DIRECTION_METHODS, names)


class SearchSettings(FrozenSettings):
    """Settings of the prompt searches, the same for every search of the study."""

    method: str = "epo"
    """A registered search method: beam, epo, gcg, guided, random, sentences."""
    options: dict[str, Any] = {}
    """Options of the method, such as length, population and children."""
    budget: Budget = Budget(steps=40)
    """Limits of each search: steps, model_calls, flops, seconds; the first that is reached ends it."""
    contexts: int = Field(default=16, ge=1)
    """Number of search questions that every prompt is scored on."""
    neutral: int = Field(default=24, ge=4)
    """Number of neutral prompts whose scores set the scale of the objective."""
    batch_tokens: int = Field(default=8192, ge=64)
    """Largest number of tokens in one batch of any stage (a quarter of it with gradients); a smaller number
    needs less memory."""
    halving: float = Field(default=0.0, ge=0, lt=1)
    """Successive halving: fraction of the questions that all children are scored on first; 0: off."""
    max_cross_entropy: Annotated[float, Field(gt=0)] | Annotated[str, Field(pattern=WRITTEN)] | None = None
    """Largest cross-entropy (nats per token) of a prompt that may be chosen; written: the mean of the
    persona's written prompts; written+1.5: that mean plus 1.5; null: no limit (in a search over sentences:
    written). Formerly max_fluency."""
    judge: str = "auto"
    """Second model that judges the prompts' cross-entropy in the comparison and that no search uses: a name
    or a directory; auto: the model without its adapter, if it has one; none: no second model."""
    lexicon: str = "auto"
    """Allowed tokens: words (whole English words, separated by spaces), latin, all, world (the ordinary words
    of the organism's world), or a file with one word per line; auto: world on the organism, else words, or
    latin if the vocabulary has too few words."""
    start: Literal["random", "manual"] = "random"
    """First population: random tokens, or one prompt from the persona's first manual prompt."""

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        return registered(SEARCH_METHODS, (name,))[0]


class ProposerSettings(FrozenSettings):
    """Language model that writes prompts for comparison with found ones (conditions llm_proposed, gepa)."""

    model: str | None = None
    """Name of the model, as in model.name; null: the studied model; with base_url: the model's name at the
    endpoint."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint (.../v1)."""
    key_variable: str | None = None
    """Environment variable that holds the endpoint's key."""
    temperature: float | None = Field(default=0.8, ge=0)
    """Sampling temperature of the replies; null if the endpoint accepts none."""

    @model_validator(mode="after")
    def _named(self) -> ProposerSettings:
        if self.base_url is not None and self.model is None:
            raise ValueError("an endpoint needs the name of its model in proposer.model")
        return self


class OffTargetSettings(FrozenSettings):
    """Side effects that are measured for each compared prompt or intervention."""

    items: int = Field(default=40, ge=2)
    """Number of true statements, of questions of each other persona, and of questions of the capability
    file."""
    texts: str | None = None
    """File of unrelated texts, one per line; null: built-in prose, or the organism's statements."""
    capability: str | None = None
    """A/B file whose matching option is the correct one, such as CAA's MMLU; null: not measured."""


class AttributionSettings(FrozenSettings):
    """Attribution of the chosen prompt's effect to its tokens, and descriptions of SAE latents."""

    contexts: int = Field(default=24, ge=2)
    """Number of selection questions that effects are averaged over."""
    estimators: tuple[str, ...] = ("removal", "gradient_x_input")
    """Estimators of workbench.attribution; removal is exact."""
    circuit: int = Field(default=12, ge=0)
    """Number of heads and MLPs in the circuit; 0: no circuit."""
    cards: int = Field(default=12, ge=0)
    """Number of latents that get a card with their top texts; 0: none."""
    corpus: str | None = None
    """File of texts for the cards; null: the train questions."""
    texts: int = Field(default=200, ge=1)
    """Number of texts of the corpus that are read."""

    @field_validator("estimators")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return registered(ESTIMATORS, names)


class Study(FrozenSettings):
    """All settings of a study: a persona, a model, searches for prompts and their comparison (docs/study.md).

    Example:
        >>> wb.Study(persona="hallucination", sign="induce").search.method
        'epo'
    """

    schema_: Literal[1] = Field(default=1, alias="schema")
    """Version of this format."""
    name: str = "study"
    """Name in tables and reports."""
    persona: str = "sycophancy"
    """A persona of `workbench persona list`; a name for the questions of data.path; or a persona file."""
    sign: Sign = "suppress"
    """What is wanted: less of the persona (suppress) or more (induce)."""
    slot: Slot = "system"
    """Place of the prompt in the chat."""
    metric: Literal["letters", "text"] | None = None
    """How answers are scored: letters (the two option letters) or text (the whole answers); null: the
    persona's own metric, or the other one if only that can show an effect."""
    normalization: Literal["sum", "mean", "character", "pmi"] | None = None
    """How whole text answers are scored: sum of the tokens' log-probabilities, mean per token, sum per
    character, or pmi; null: the persona's own."""
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    """Seed of searches and random controls."""
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    sae: str = "auto"
    """SAE of the latents: none, an SAELens release/id, a directory, or auto (the organism's SAE on the
    organism, otherwise none)."""
    latents: int = Field(default=10, ge=1)
    """Number of latents in SAEGA's objective."""
    directions: DirectionSettings = DirectionSettings()
    search: SearchSettings = SearchSettings()
    conditions: tuple[str, ...] = Field(
        default_factory=default_conditions, json_schema_extra=_shown_default(default_conditions)
    )
    """Compared conditions; "no prompt" is always included."""
    random_directions: int = Field(default=2, ge=0, le=10_000)
    """Number of searches along random directions (a control)."""
    random_prompts: int = Field(default=2, ge=1, le=10_000)
    """Number of random prompts of each kind (a control)."""
    primary: tuple[str, ...] = Field(
        default_factory=default_primary, json_schema_extra=_shown_default(default_primary)
    )
    """Conditions that the study is about; Holm's correction covers these."""
    beside: dict[str, Literal["suppress", "induce", "hold"]] = {}
    """Other personas that the searches suppress, induce or hold."""
    beside_weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Weight of each other persona relative to the study's own."""
    proposer: ProposerSettings = ProposerSettings()
    collateral: OffTargetSettings = OffTargetSettings()
    attribution: AttributionSettings = AttributionSettings()
    protocol: AskingProtocol = AskingProtocol()

    @field_validator("conditions")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return registered(STUDY_CONDITIONS, names)

    def to_yaml(self) -> str:
        """Return all settings, including defaults, as the YAML text of study.yaml."""
        return yaml.safe_dump(
            self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True
        )

    @classmethod
    def from_yaml(cls, text: str, source: str = "study") -> Study:
        """Read the study that a YAML text describes.

        Args:
            text: The YAML text.
            source: Name of the text in error messages.

        Raises:
            UserError: The text is no valid study; the message names the source and the field.
        """
        content = parse_yaml(text, source)
        if not isinstance(content, dict):
            raise UserError(f"{source}: expected a mapping of settings, found {type(content).__name__}")
        return cls.of(content, source)

    @classmethod
    def of(cls, content: dict[str, Any], source: str = "study") -> Study:
        """Build a study from a mapping of settings.

        A key's former name is accepted with a notice on standard error.

        Args:
            content: The settings.
            source: Name of their source in error messages.

        Raises:
            UserError: A setting is invalid; the message names the source and the field.
        """
        try:
            return cls.model_validate(_renamed(content, source))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "study"
            raise UserError(
                f"{source}, field {where}: {first['msg']} (found {first.get('input')!r})"
            ) from error

    def checked(self) -> Study:
        """Validate the study again and return it, because `model_copy(update=...)` does not validate.

        Raises:
            UserError: A setting is invalid; the message names the field.
        """
        try:
            content = self.model_dump(mode="json", by_alias=True, warnings=False)
        except (ValueError, AttributeError, TypeError) as error:  # pydantic: a type that has no JSON
            raise UserError(
                f"study: a setting cannot be written to its file: {' '.join(str(error).split())}"
            ) from error
        return self.of(content)

    @classmethod
    def load(cls, path: str | Path) -> Study:
        """Read the study in a YAML file; a relative data path is relative to the file's directory."""
        study = cls.from_yaml(read_text(path), str(path))
        if study.data.path is None or Path(study.data.path).is_absolute():
            return study
        beside = resolved(Path(path).parent / study.data.path)
        return study.model_copy(update={"data": study.data.model_copy(update={"path": str(beside)})})


#: Renamed settings: (section, old key) -> new key.
RENAMED = {("search", "max_fluency"): "max_cross_entropy"}


def _renamed(content: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the settings with former keys under their new names, and print a notice for each that is set."""
    content = dict(content)
    for (part, old), new in RENAMED.items():
        settings = content.get(part)
        if isinstance(settings, dict) and old in settings:
            if new in settings:
                raise UserError(f"{source}, field {part}: both {new} and its former name {old} are given")
            if settings[old] is not None:
                print(f"{source}: {part}.{old} is now called {part}.{new}", file=sys.stderr)
            content[part] = {
                **{key: value for key, value in settings.items() if key != old},
                new: settings[old],
            }
    return content
