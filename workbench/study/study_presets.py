"""Predefined studies: the demo on the embedded model, and the paper's study on any model under two protocols.

*published* does what the code of arXiv 2601.02896 does, including defects that define its figure
(`asking_protocol.PUBLISHED`; the report lists each). It reads one layer and takes the mean difference of 256
pairs (TruthfulQA 200) at the answer's last token. Prompts of 8 tokens are searched by EPO (population 16, 32
children, 512 tokens per position, 300 steps, fluency weights 0.5 to 4, restarts every 50). They are scored
alone for sycophancy, and after 16 and 32 training questions for myopic reward and hallucination. They are put
after the question, and chosen and judged on test questions.

*corrected* has the same persona, data, search size and place of the prompt. Everything else is the
workbench's default: chat template, splits by claim, both option orders, a layer chosen by its predictions,
z-scored objectives, a selection split that is separate from test, and controls.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, get_args

import pandas as pd

from workbench.budget import Budget
from workbench.errors import UserError
from workbench.study.asking_protocol import PUBLISHED
from workbench.study.study_settings import (
    AttributionSettings,
    DataSettings,
    DirectionSettings,
    ModelSettings,
    OffTargetSettings,
    SearchSettings,
    Sign,
    Study,
)

ProtocolName = Literal["published", "corrected"]
Size = Literal["full", "small"]


@dataclass(frozen=True)
class _Persona:
    """Published data of a persona.

    Attributes:
        file: Name of the published file.
        metric: How answers are scored.
        pairs: Number of pairs in the paper's code.
        questions: Number of search questions in the paper's code; 0 for none.
    """

    file: str
    metric: Literal["letters", "text"]
    pairs: int
    questions: int


#: Published data of each persona, with file names as in the repositories that publish them.
PERSONAS = {
    "sycophancy": _Persona("caa/sycophancy.json", "letters", 256, 0),
    "myopic_reward": _Persona("anthropic_evals/myopic-reward.jsonl", "letters", 256, 16),
    "hallucination": _Persona("truthfulqa/TruthfulQA.csv", "text", 200, 32),
}
#: The paper's models: layers with a public SAE of the same model, and the name of the SAE. (The paper's own
#: example used another model's SAE.)
SAES = {
    "llama-3.1-8b-instruct": ((11, 15, 19), "llama-3.1-8b-instruct/{layer}"),
    "qwen2.5-7b-instruct": ((11, 15, 19), "qwen2.5-7b-instruct/{layer}"),
    "gemma-3-4b-it": ((9, 17, 22), "gemma-3-4b-it/{layer}"),
}
#: Layer of the published preset. The paper sweeps layers 8, 14, 18 and 25.
LAYER = 14


def demo_study(persona: str = "sycophancy", sign: Sign = "suppress", seed: int = 0) -> Study:
    """Return a demo study on a small test model (the organism), which two CPU cores finish in a few minutes.

    Its search budget is in steps or model calls instead of seconds. So the same seed gives the same prompts
    on a busy machine too.

    Args:
        persona: A persona that was trained into the test model. For a name that begins with `english_`, a
            test model of English is used and the prompts are whole sentences.
        sign: Intended effect: "suppress" or "induce".
        seed: Seed of searches and random controls.
    """
    if persona.startswith("english_"):
        return _language_demo(persona, sign, seed)
    options = {
        "length": 8,
        "population": 6,
        "children": 12,
        "top_k": 48,
        "restart_every": 0,
        "gradient_contexts": 4,
    }
    return Study(
        name=f"demo {persona}",
        persona=persona,
        sign=sign,
        seed=seed,
        directions=DirectionSettings(rows=256, texts=20, contexts=16),
        search=SearchSettings(method="epo", options=options, budget=Budget(steps=24), contexts=8),
    )


def first_study(persona: str | None = None, model: str = "organism", sign: Sign = "suppress") -> Study:
    """Return a study from which to make one's own: small, with settings that suit the model.

    On the organism (the package's own small model) it is the demo. Any other model has a real vocabulary, in
    which searches over single tokens end at strings that are no language. Its study therefore searches over
    whole sentences; it has no SAE, looks for a direction in all layers, and goes on if none is shown.

    Args:
        persona: Name of a persona or a persona file. None: sycophancy by the questions that suit the model, the
            organism's own or those with the user's feedback on an argument.
        model: Name or directory of the model.
        sign: Intended effect: "suppress" or "induce".

    Example:
        >>> first_study(model="qwen2.5-7b-instruct").search.method
        'sentences'
    """
    if model == "organism":
        return demo_study(persona or "sycophancy", sign)
    study = _language_demo(persona or "feedback_sycophancy", sign, 0)
    # The demo has too few texts to test whether there is a direction. Without a direction the report says so, and the
    # search on the answer still has a result.
    enough: dict[str, Any] = {"texts": 16, "contexts": 12, "unshown": "go_on"}
    if model != study.model.name:
        enough["layers"] = None
        study = study.model_copy(update={"model": ModelSettings(name=model)})
    study = study.model_copy(update={"directions": study.directions.model_copy(update=enough)})
    return study.model_copy(
        update={
            "conditions": ("manual", "neutral_text", "random_text", "resga", "answer_objective"),
            "primary": ("resga", "answer_objective"),
            "collateral": OffTargetSettings(items=12),
            "attribution": AttributionSettings(contexts=4, estimators=("removal",), circuit=0, cards=0),
        }
    )


def _language_demo(persona: str, sign: Sign, seed: int) -> Study:
    """Return the demo in English on the real-language organism (extra smollm2).

    It searches over whole sentences and has the matching controls.
    """
    return Study(
        name=f"demo {persona}",
        persona=persona,
        sign=sign,
        seed=seed,
        model=ModelSettings(name="smollm2-personas"),
        data=DataSettings(
            fractions=(0.3, 0.15, 0.15, 0.4),
            train_items=48,
            search_items=16,
            selection_items=12,
            test_items=40,
        ),
        sae="none",
        directions=DirectionSettings(
            layers=(17, 20), methods=("mean_difference", "own_choice"), rows=48, texts=8, contexts=6
        ),
        search=SearchSettings(method="sentences", budget=Budget(model_calls=500), contexts=4, neutral=8),
        conditions=("constant_answer", "manual", "neutral_text", "random_tokens", "answer_objective"),
        primary=("answer_objective",),
        random_directions=0,
        random_prompts=1,
        attribution=AttributionSettings(contexts=6, circuit=0, cards=0),
    )


def presets() -> pd.DataFrame:
    """Return a table of the studies of the paper (arXiv 2601.02896) that `preset` can make, one row each.

    The columns are persona, model, protocol, layers (at which directions are fitted), sae, data (file of
    questions) and defects_kept (number of known defects of the published protocol that the study keeps).
    """
    rows = []
    for persona, model, protocol in product(PERSONAS, SAES, get_args(ProtocolName)):
        study = preset(persona, model, protocol)
        layers = ", ".join(map(str, study.directions.layers or ()))
        row = {"persona": persona, "model": model, "protocol": protocol, "layers": layers, "sae": study.sae}
        rows.append(row | {"data": study.data.path, "defects_kept": len(study.protocol.departures)})
    return pd.DataFrame(rows)


def as_file(study: Study) -> str:
    """Return a study as the text of a YAML file, which begins with comments.

    The comments say how to run the study and which known defects of the published protocol it keeps.

    Args:
        study: The settings.
    """
    data = " --data PATH` (the published data: docs/paper_study.md)" if study.data.path else "`"
    lines = [f"{study.name}: `workbench run FILE --out DIR{data}"]
    lines += study.protocol.departures or ("corrected: none of the published defects is kept",)
    return "".join(f"# {line}\n" for line in lines) + study.to_yaml()


def preset(
    persona: str,
    model: str = "llama-3.1-8b-instruct",
    protocol: ProtocolName = "corrected",
    sign: Sign = "suppress",
    size: Size = "full",
    layer: int | None = None,
    data: str | None = None,
) -> Study:
    """Return the settings of a persona's study as in the paper (arXiv 2601.02896).

    They can be run or written to a file. No model or data are loaded.

    Args:
        persona: "sycophancy", "myopic_reward" or "hallucination".
        model: One of the paper's models (with its SAE, on a GPU in bfloat16); "organism" (a small test model
            with known effects, its own SAE and questions); or any name or directory (no SAE, on the CPU).
        protocol: "published" repeats the paper's protocol with its defects. "corrected" chooses on held-out
            questions and has cluster-robust statistics.
        sign: Intended effect: "suppress" or "induce".
        size: "full", or "small" to try the study on a CPU with the same stages and less of each.
        layer: The only layer that is read. None means 14 for "published". For "corrected" it means a few
            layers; the one whose direction best predicts the effects of prompts is chosen.
        data: The file of questions. None means the published file's name, or the generated questions of the
            "organism".

    Returns:
        The study.

    Raises:
        UserError: A name is unknown.

    Example:
        >>> wb.preset("sycophancy").model.dtype
        'bfloat16'
    """
    for value, known in (
        (persona, tuple(PERSONAS)),
        (protocol, get_args(ProtocolName)),
        (size, get_args(Size)),
    ):
        if value not in known:
            raise UserError(f"unknown preset part {value!r}: expected one of {', '.join(known)}")
    about, paper = PERSONAS[persona], SAES.get(model)
    make = _published if protocol == "published" else _corrected
    study = make(about, (layer,) if layer is not None else None, paper[0] if paper else None)
    wanted = study.directions.layers or ((paper[0][1],) if paper else ())
    changes: dict[str, Any] = {
        "name": f"{persona} on {model}, {protocol}",
        "persona": persona,
        "sign": sign,
        "model": ModelSettings(name=model, device="cuda", dtype="bfloat16")
        if paper
        else ModelSettings(name=model),
        "data": study.data.model_copy(update={"path": data or about.file}),
        "sae": paper[1].format(layer=min(paper[0], key=lambda k: abs(k - wanted[len(wanted) // 2])))
        if paper
        else "none",
    }
    if model == "organism" and data is None:
        changes |= _on_the_organism(study)
    study = study.model_copy(update=changes)
    return study if size == "full" else _small(study)


def _on_the_organism(study: Study) -> dict[str, Any]:
    """Return the changes of a preset for the organism, whose questions are generated and not published.

    They have no published option order, and its letters have no one-token form with a closing bracket. So
    both orders and plain letters are used.
    """
    return {
        "data": study.data.model_copy(update={"path": None}),
        "sae": "auto",
        "protocol": study.protocol.model_copy(update={"letters": "letter", "orders": "both"}),
    }


def _published(about: _Persona, layers: tuple[int, ...] | None, _: tuple[int, ...] | None) -> Study:
    options = {
        "length": 8,
        "population": 16,
        "children": 32,
        "top_k": 512,
        "restart_every": 50,
        "fluency_low": 0.5,
        "fluency_high": 4.0,
    }
    protocol: dict[str, str] = {"search_behind": "questions" if about.questions else "nothing"}
    if about.metric == "text":
        protocol |= {"letters": "letter", "orders": "both"}  # no letters are requested
    return Study(
        slot="after_question",
        metric=about.metric,
        seed=42,
        # 80 % to train on (TruthfulQA half), a part of which is for the search; the selection split is not
        # used.
        data=DataSettings(
            split_seed=42,
            fractions=(0.3, 0.15, 0.05, 0.5) if about.metric == "text" else (0.5, 0.25, 0.05, 0.2),
        ),
        latents=10,
        directions=DirectionSettings(
            layers=layers or (LAYER,),
            methods=("mean_difference",),
            rows=2 * about.pairs,
            texts=8,
            contexts=8,
            unshown="go_on",
        ),
        search=SearchSettings(
            method="epo",
            options=options,
            budget=Budget(steps=300),
            contexts=max(1, about.questions),
            lexicon="all",
        ),
        conditions=("manual", "random_tokens", "resga", "saega", "gcg", "random_direction", "steering"),
        random_directions=1,
        protocol=PUBLISHED.model_copy(update=protocol),
    )


def _corrected(about: _Persona, layers: tuple[int, ...] | None, known: tuple[int, ...] | None) -> Study:
    options = {
        "length": 8,
        "population": 16,
        "children": 32,
        "top_k": 512,
        "restart_every": 50,
        "gradient_contexts": 8,
    }
    return Study(
        slot="after_question",
        metric=about.metric,
        data=DataSettings(fractions=(0.3, 0.15, 0.15, 0.4)),
        latents=20,
        directions=DirectionSettings(layers=layers or known, rows=512, texts=24, contexts=24),
        search=SearchSettings(
            method="epo", options=options, budget=Budget(steps=300), contexts=16, halving=0.25, lexicon="all"
        ),
        conditions=(
            "constant_answer",
            "manual",
            "random_tokens",
            "neutral_text",
            "random_text",
            "resga",
            "saega",
            "answer_objective",
            "random_direction",
            "random_search",
            "gcg",
            "steering",
            "few_shot",
        ),
    )


def _small(study: Study) -> Study:
    """Return the same study with few items, steps and controls, on the same layers."""
    options = study.search.options | {
        "length": 4,
        "population": 4,
        "children": 8,
        "top_k": 64,
        "restart_every": 0,
    }
    if "gradient_contexts" in options:
        options["gradient_contexts"] = 2
    search = {
        "options": options,
        "budget": Budget(steps=4),
        "contexts": min(4, study.search.contexts),
        "neutral": 8,
    }
    data = {"train_items": 24, "search_items": 8, "selection_items": 8, "test_items": 24}
    return study.model_copy(
        update={
            "data": study.data.model_copy(update=data),
            "directions": study.directions.model_copy(update={"rows": 48, "texts": 6, "contexts": 6}),
            "search": study.search.model_copy(update=search),
            "conditions": tuple(
                c
                for c in study.conditions
                if c not in ("gcg", "few_shot", "random_direction", "random_search", "random_text")
            ),
            "random_directions": 0,
            "random_prompts": 1,
            "latents": 5,
            "attribution": AttributionSettings(contexts=4, circuit=0, cards=0),
        }
    )
