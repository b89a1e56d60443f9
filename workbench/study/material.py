"""The inputs of a study (model, persona, splits), and the objects that are made from them when needed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from workbench.conditions import CapabilityGuard, true_contexts
from workbench.conditions.prompt_cross_entropy import prompt_cross_entropy
from workbench.contexts import Contexts, make_contexts
from workbench.lexicons import Lexicon, lexicon_file, make_lexicon, readable_lexicon
from workbench.models import base_of, find_source, load_model, runner_for
from workbench.models.loading import provenance
from workbench.models.weights_hash import source_hash, weights_hash
from workbench.personas import Metric, Persona, Split, Splits, load_persona
from workbench.prompt_tokens import lexicon
from workbench.runs import file_hash
from workbench.sae import Sae, load_sae
from workbench.study.asking_protocol import AskingProtocol
from workbench.study.persona_model_check import choose_metric
from workbench.study.study_settings import Study
from workbench.world import World

#: Number of search and selection questions by which the metric is chosen if the study names none.
_METRIC_QUESTIONS = 24


@dataclass(frozen=True)
class Material:
    """The inputs of a study: settings, model, persona and splits.

    Contexts (questions in their chat template), the SAE and other objects are made when first used.

    Attributes:
        study: The settings.
        model: The loaded model.
        persona: The persona, with the study's metric, normalization and protocol.
        splits: Splits of the questions, with at most as many items as the study allows.
    """

    study: Study
    model: Any
    persona: Persona
    splits: Splits

    @classmethod
    def load(cls, study: Study, model: Any = None) -> Material:
        """Load the model, persona and questions that a study's settings name.

        Args:
            study: The settings.
            model: A loaded model (sweeps load it once); None to load the study's own.
        """
        material = cls.of(study, load_persona(study.persona, study.data.path, study.data.world), model)
        options = study.model
        if study.search.judge not in ("auto", "none"):
            find_source(study.search.judge)  # refuses a wrong name before any search
        if model is not None:
            return material
        loaded = load_model(options.name, options.device, options.dtype, options.backend, options.revision)
        return replace(material, model=loaded)

    @classmethod
    def of(cls, study: Study, persona: Persona, model: Any) -> Material:
        """Use a loaded persona in place of the one that a study's settings name.

        Args:
            study: The settings; their metric, normalization, protocol and splits apply.
            persona: The persona.
            model: A loaded model.
        """
        persona = study.protocol.persona(persona)
        if study.metric is not None:
            persona = replace(persona, metric=study.metric)
        if study.normalization is not None:
            persona = replace(persona, normalization=study.normalization)
        splits = persona.split(study.data.split_seed, study.data.fractions)
        limited = {
            s.name: _limited(s, getattr(study.data, f"{s.name}_items"), study.data.split_seed)
            for s in splits_of(splits)
        }
        return cls(study, model, persona, study.protocol.splits(Splits(**limited)))

    @property
    def metric_is_open(self) -> bool:
        """Whether the study chooses by measurement how answers are scored: by letters or by their texts."""
        return (
            self.study.metric is None
            and self.persona.letters is not None
            and self.study.protocol == AskingProtocol()
        )

    def choose_metric(self) -> tuple[Metric, str]:
        """Choose the metric that suits persona and model, on search and selection questions.

        Returns:
            The metric, and the reason in one line.
        """
        asked = self.splits.search
        items = (*asked.items, *self.splits.selection.items)
        questions = replace(asked, name="search and selection", items=items).take(_METRIC_QUESTIONS)
        return choose_metric(self.model, self.persona, questions, self.study.slot)

    def with_metric(self, metric: Metric) -> Material:
        """Return the same inputs with answers scored by the given metric.

        Args:
            metric: "letters" or "text".
        """
        if metric == self.persona.metric:
            return self
        return Material.of(self.study.model_copy(update={"metric": metric}), self.persona, self.model)

    @cached_property
    def search_contexts(self) -> Contexts:
        """Questions in their chat template on which a search along directions or latents scores every prompt.

        They are search questions. A protocol that follows the published study has a single context without a
        question.
        """
        return (
            self.search_questions
            if self.study.protocol.search_behind == "questions"
            else _alone(self.model, self.search_questions)
        )

    @cached_property
    def search_questions(self) -> Contexts:
        """Questions of the search split in their chat template, as many as the setting `search.contexts`.

        They are from different question groups as far as possible.
        """
        every = self._contexts(self.splits.search)
        n = self.study.search.contexts
        chosen = every.per_group(n, self.study.seed)
        return chosen if len(chosen) >= min(n, len(every)) else every.take(n, self.study.seed)

    @cached_property
    def selection_contexts(self) -> Contexts:
        """Contexts (questions in their chat template) of the whole selection split."""
        return self._contexts(self.splits.selection)

    @cached_property
    def guard(self) -> CapabilityGuard:
        """Check on selection questions that limits how much steering may harm other behaviour of the model.

        It includes agreement with true statements if the persona has any.
        """
        split = self.splits.selection
        if not self.persona.true_items:
            return CapabilityGuard()
        return CapabilityGuard(
            truth=true_contexts(self.model, split, self.study.slot, self.study.data.selection_items or 60)
        )

    @cached_property
    def sae(self) -> Sae | None:
        """SAE of the study; None if the study has none."""
        name = self.study.sae
        return load_sae("organism" if name == "auto" else name, self.model) if self.has_sae else None

    @property
    def has_sae(self) -> bool:
        """Whether the study has an SAE.

        The setting "auto" means an SAE only on the organism (the small test model of this package).
        """
        name = self.study.sae
        return name != "none" and (name != "auto" or self.study.model.name == "organism")

    @cached_property
    def judge(self) -> tuple[str, Any] | None:
        """Name and model of a second model that measures the prompts' cross-entropy; None without one."""
        name, options = self._judge_name, self.study.model
        return None if name is None else (name, load_model(name, options.device, options.dtype))

    @property
    def _judge_name(self) -> str | None:
        wanted = self.study.search.judge
        name = base_of(self.study.model.name) if wanted == "auto" else wanted
        return None if name == "none" else name

    @property
    def lexicon(self) -> Lexicon | Bool[Tensor, " d_vocab"] | None:
        """Tokens from which the searches may build prompts; None for all tokens.

        The setting "auto" means whole words of natural language. On the organism (the small test model of
        this package) it means the ordinary words of the model's artificial vocabulary.
        """
        wanted = self.study.search.lexicon
        if wanted == "all":
            return None
        if wanted == "world" or (wanted == "auto" and self.study.model.name == "organism"):
            return lexicon(self.model, World(self.study.data.world).lexicon.ordinary_words)
        return readable_lexicon(self.model) if wanted == "auto" else make_lexicon(self.model, wanted)

    def cross_entropy_limit(self, contexts: Contexts, wanted: float | str | None) -> float | None:
        """Return the largest cross-entropy that a found prompt may have, in nats per token.

        Args:
            contexts: Questions in whose chat template the persona's own prompts are measured.
            wanted: The setting. A number is returned unchanged. `written+x` means the mean cross-entropy of
                the prompts that the persona's authors wrote, plus x. None means no limit.

        Returns:
            The limit; None without a limit, or if the persona has no written prompts.
        """
        if not isinstance(wanted, str):
            return wanted
        prompts = self.persona.manual_prompts.get(self.study.sign, ())
        if not prompts:
            return None
        written = float(np.mean([prompt_cross_entropy(self.model, contexts, prompt) for prompt in prompts]))
        return written + float(wanted.partition("+")[2] or 0)

    def input_hashes(self) -> dict[str, str]:
        """Return a hash of every input of the study by name, by which a resumed run recognizes changes.

        Returns:
            "model", "model files" (all files, if the model was loaded from files), "tokenizer" (vocabulary
            and chat template), "data", "persona" (all but its questions), one entry per split, "SAE" if there
            is one, one entry per text file that the settings name, and one for each other model
            ("search.judge", "proposer.model") and persona (`beside.NAME`). Each is a sha256 or a fingerprint.
        """
        persona, tokenizer = self.persona, runner_for(self.model).tokenizer
        hashes = {
            "model": runner_for(self.model).fingerprint,
            "data": persona.hash,
            "persona": _text_hash(_texts(persona)),
        }
        hashes["tokenizer"] = _text_hash([tokenizer.chat_template, sorted(tokenizer.get_vocab().items())])
        hashes |= {split.name: split.hash for split in splits_of(self.splits)}
        if self.sae is not None:
            hashes["SAE"] = _text_hash([self.sae.fingerprint, self.sae.settings])
        files = {
            "attribution.corpus": self.study.attribution.corpus,
            "collateral.texts": self.study.collateral.texts,
            "collateral.capability": self.study.collateral.capability,
            "search.lexicon": lexicon_file(self.study.search.lexicon),
        }
        hashes |= {name: file_hash(path) for name, path in files.items() if path is not None}
        hashes |= self._model_files() | {
            name: weights_hash(model) for name, model in self._other_models().items()
        }
        for name in self.study.beside:
            other = load_persona(name, None, self.study.data.world)
            hashes[f"beside.{name}"] = _text_hash([other.hash, *_texts(other)])
        return hashes

    def _model_files(self) -> dict[str, str]:
        """Return the hash of the model's files, or nothing for a model that was made in a notebook.

        The fingerprint alone is not enough: it reads 64 numbers of each weight, and no settings.
        """
        found = provenance(runner_for(self.model).model)
        return {"model files": source_hash(found.source)} if found else {}

    def _other_models(self) -> dict[str, str]:
        """Return the models that stages load apart from the studied one, by the setting that names them."""
        proposer, judge = self.study.proposer, self._judge_name
        proposes = (
            proposer.model is not None
            and proposer.base_url is None
            and bool({"llm_proposed", "gepa"} & set(self.study.conditions))
        )
        return ({"search.judge": judge} if judge else {}) | (
            {"proposer.model": str(proposer.model)} if proposes else {}
        )

    def others(self) -> list[Material]:
        """Load the inputs of the other personas that the study names, with the same model and settings."""
        data = self.study.data.model_copy(update={"path": None})
        studies = [
            self.study.model_copy(update={"persona": name, "data": data, "beside": {}})
            for name in self.study.beside
        ]
        return [Material.load(study, self.model) for study in studies]

    def _contexts(self, split: Split) -> Contexts:
        return make_contexts(
            self.model,
            split,
            self.study.slot,
            self.study.metric,
            self.study.protocol.orders,
            seed=self.study.seed,
        )


def _alone(model: Any, contexts: Contexts) -> Contexts:
    """Return one context without a question.

    The prompt follows the first token of a text, and the prompt's last token is read.
    """
    tokenizer = runner_for(model).tokenizer
    start = tokenizer.bos_token or tokenizer.eos_token
    ids = (tokenizer.convert_tokens_to_ids(start),)
    return replace(
        contexts,
        items=(replace(contexts[0], prefix_text=start, suffix_text="", prefix_ids=ids, suffix_ids=()),),
    )


def splits_of(splits: Splits) -> tuple[Split, Split, Split, Split]:
    """Return the splits in the order train, search, selection, test."""
    return splits.train, splits.search, splits.selection, splits.test


def _limited(split: Split, n: int | None, seed: int) -> Split:
    return split if n is None else split.take(n, seed)


def _texts(persona: Persona) -> list[Any]:
    """Return everything of a persona that is not included in the hash of its questions."""
    asked = [
        None if persona.letters is None else asdict(persona.letters),
        persona.metric,
        persona.normalization,
    ]
    texts = [persona.description, dict(persona.manual_prompts), persona.varied_system_texts]
    return [*texts, [item.content for item in persona.true_items], *asked]


def _text_hash(value: Any) -> str:
    """Return the sha256 of texts, numbers, and lists and mappings of these."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=list).encode()).hexdigest()
