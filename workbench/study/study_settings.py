"""What a user writes: one frozen value, the same in Python and in YAML, that refuses keys it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workbench.budget import Budget
from workbench.errors import UserError
from workbench.runs import parse_yaml, read_text
from workbench.study.asking_protocol import AskingProtocol

Sign = Literal["suppress", "induce"]
Slot = Literal["system", "before_question", "after_question", "answer_opening"]

#: Conditions that a study can name, in the order of its table. "no prompt" always comes first.
CONDITIONS = (
    "constant_answer",
    "manual",
    "random_tokens",
    "random_text",
    "resga",
    "saega",
    "answer_objective",
    "random_direction",
    "random_search",
    "gcg",
    "steering",
    "steering_prompt",
    "steering_decision",
    "conditional_steering",
    "steering_caa",
    "steering_persona_vector",
    "latent_clamp",
    "few_shot",
    "soft_prompt",
    "llm_proposed",
    "gepa",
)

#: Conditions that must be asked for: dearer, or a second form of one that is there.
ON_REQUEST = (
    *("gcg", "steering_prompt", "steering_decision", "conditional_steering", "steering_caa", "steering_persona_vector", "latent_clamp"),
    *("few_shot", "soft_prompt", "llm_proposed", "gepa"),
)

#: Conditions of a study that names none: what every comparison needs and what costs little.
USUAL = tuple(name for name in CONDITIONS if name not in ON_REQUEST)


class FrozenSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(FrozenSettings):
    """name: "organism", "smollm2-135m", a directory, or a hub name. backend: "auto", "hooked" or "bridge"."""

    name: str = "organism"
    device: str = "cpu"
    dtype: str = "float32"
    backend: Literal["auto", "hooked", "bridge"] = "auto"
    revision: str | None = None


class DataSettings(FrozenSettings):
    """path: a published or own contrast file (None: the organism's own items, in the world with the seed `world`). split_seed,
    fractions: how groups are dealt to train, search, selection, test. The counts limit the items that are used of each split (None: all)."""

    path: str | None = None
    world: int = 0
    split_seed: int = Field(0, ge=0, lt=1 << 63)
    fractions: tuple[float, float, float, float] = (0.3, 0.15, 0.15, 0.4)
    train_items: int | None = Field(None, ge=2)
    search_items: int | None = Field(None, ge=1)
    selection_items: int | None = Field(None, ge=1)
    test_items: int | None = Field(None, ge=1)


class DirectionSettings(FrozenSettings):
    """layers: None for all. methods: None for the default ones. rows: train rows a method; texts: system texts whose effect
    must be predicted; contexts: search contexts under each of them."""

    layers: tuple[int, ...] | None = None
    methods: tuple[str, ...] | None = None
    rows: int = Field(384, ge=8)
    texts: int = Field(24, ge=4)
    contexts: int = Field(24, ge=2)


class SearchSettings(FrozenSettings):
    """method: name in the table of methods; options: its fields. contexts: search contexts that every prompt is scored on.
    neutral: prompts that the objectives' scale is measured on. lexicon: "world" allows only the ordinary words of the organism's
    world, "all" every token that may stand in a prompt; "auto" is "world" on the organism. max_fluency: no prompt less fluent
    than this (nats a token) is chosen. start: "random", or "manual": one prompt of the first population is the persona's first
    manual prompt, repeated or cut to the search's length."""

    method: str = "epo"
    options: dict[str, Any] = {}
    budget: Budget = Budget(steps=40)
    contexts: int = Field(16, ge=1)
    neutral: int = Field(24, ge=4)
    batch_tokens: int = Field(8192, ge=64)
    halving: float = Field(0.0, ge=0, lt=1)
    max_fluency: float | None = Field(None, gt=0)
    lexicon: Literal["auto", "all", "world"] = "auto"
    start: Literal["random", "manual"] = "random"


class ProposerSettings(FrozenSettings):
    """Who writes prompts for the conditions llm_proposed and gepa. model: as in `model.name`; None: the studied model itself. With
    base_url (.../v1) it is the name of a model at an OpenAI-compatible endpoint; key_variable: the environment variable of its key."""

    model: str | None = None
    base_url: str | None = None
    key_variable: str | None = None

    @model_validator(mode="after")
    def _named(self) -> ProposerSettings:
        if self.base_url is not None and self.model is None:
            raise ValueError("an endpoint needs the name of its model in proposer.model")
        return self


class OffTargetSettings(FrozenSettings):
    """What is measured beside each effect. items: of the true statements, of each other persona of the organism, and of the capability
    file. texts: a file of unrelated texts, one a line (None: prose, or the organism's statements). capability: an A/B file whose matching
    option is the correct one, such as CAA's MMLU (None: not measured)."""

    items: int = Field(40, ge=2)
    texts: str | None = None
    capability: str | None = None


class AttributionSettings(FrozenSettings):
    """contexts: selection contexts that the ledger averages over. estimators: names of workbench.attribution. circuit: heads and MLPs in
    the circuit (0: none). cards: latents that get a card (0: none), read on `texts` texts of the file `corpus` (None: the train
    questions as the model sees them)."""

    contexts: int = Field(24, ge=2)
    estimators: tuple[str, ...] = ("removal", "gradient_x_input")
    circuit: int = Field(12, ge=0)
    cards: int = Field(12, ge=0)
    corpus: str | None = None
    texts: int = Field(200, ge=1)


class Study(FrozenSettings):
    """One study, from contrast pairs to a report.

    persona: the organism's "sycophancy", "hallucination" or "myopic_reward", a name for `data.path`, or a persona file.
    sign: what is wanted of it. slot: where the prompt stands. sae: "auto" (the organism's own where the model is the
    organism, otherwise none), "none", a release, or a directory. latents: how many SAEGA uses. random_directions: searches
    along random directions. random_prompts: how many random prompts of each kind. protocol: as published, or (the default)
    corrected. primary: the conditions
    that the study is about (Holm's correction covers them). beside: other personas that the searches must suppress, induce or hold
    where they are, each weighted `beside_weight` against the study's own; what happened to them stands in the collateral.
    """

    schema_: Literal[1] = Field(1, alias="schema")
    name: str = "study"
    persona: str = "sycophancy"
    sign: Sign = "suppress"
    slot: Slot = "system"
    metric: Literal["letters", "text"] | None = None
    seed: int = Field(0, ge=0, lt=1 << 63)
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    sae: str = "auto"
    latents: int = Field(10, ge=1)
    directions: DirectionSettings = DirectionSettings()
    search: SearchSettings = SearchSettings()
    conditions: tuple[str, ...] = USUAL
    random_directions: int = Field(2, ge=0)
    random_prompts: int = Field(2, ge=1)
    primary: tuple[str, ...] = ("resga", "saega")
    beside: dict[str, Literal["suppress", "induce", "hold"]] = {}
    beside_weight: float = Field(1.0, gt=0)
    proposer: ProposerSettings = ProposerSettings()
    collateral: OffTargetSettings = OffTargetSettings()
    attribution: AttributionSettings = AttributionSettings()
    protocol: AskingProtocol = AskingProtocol()

    @field_validator("conditions")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in CONDITIONS]
        if unknown:
            raise ValueError(f"unknown condition {unknown[0]!r}: expected some of {', '.join(CONDITIONS)}")
        return names

    def to_yaml(self) -> str:
        """Every setting, resolved, as it stands in study.yaml."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str, source: str = "study") -> Study:
        """The study that a YAML text describes; UserError names the source and the field."""
        content = parse_yaml(text, source)
        if not isinstance(content, dict):
            raise UserError(f"{source}: expected a mapping of settings, found {type(content).__name__}")
        return cls.of(content, source)

    @classmethod
    def of(cls, content: dict[str, Any], source: str = "study") -> Study:
        """The study of these settings; UserError names the source and the field."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "study"
            raise UserError(f"{source}, field {where}: {first['msg']} (found {first.get('input')!r})") from error

    @classmethod
    def load(cls, path: str | Path) -> Study:
        """The study in a YAML file; a relative data path is taken from the file's own directory."""
        study = cls.from_yaml(read_text(path), str(path))
        if study.data.path is None or Path(study.data.path).is_absolute():
            return study
        beside = (Path(path).parent / study.data.path).resolve()
        return study.model_copy(update={"data": study.data.model_copy(update={"path": str(beside)})})
