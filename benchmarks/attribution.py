"""Does attribution find what was planted, does the circuit carry the effect, and what does it cost? On the organism, whose words are known.

1. For every persona, prompts of 8 words: 2 or 3 planted single words among neutral ones, on selection
   contexts. For each estimator, means over prompts with intervals: `sign_precision`, the fraction of the k
   tokens of largest effect that are planted and have the planted sign (k = planted words); `truth`, rank
   correlation of the tokens' effects with the planted ones; `removal`, with exact removal. Next to it the
   same for a shuffled attribution (removal's effects dealt to the tokens at random).
2. The circuit of some of these prompts: faithfulness and completeness, against random graphs of the same size
   and places; rank correlation of estimated and exact effects.
3. Mediation: fraction of the effect through the direction that own-choice data give at the SAE's layer,
   through the latents together, and through random directions of the activations' own covariance.
4. Attribution patching against exact patching: correlation, and processor seconds for all nodes, measured in
   turns.
5. Processor seconds of a ledger by number of contexts and latents.

    python -m benchmarks.attribution [--prompts 12] [--circuits 2] [--out benchmarks/latest/attribution.json]
    python -m benchmarks.attribution --model smollm2-135m --data PATH/caa/sycophancy.json --prompts 2   # no
    truth: removal judges

Seconds are of this process alone (time.process_time, one thread), so that a busy machine does not show in
them.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr

from workbench.attribution import (
    AttributionOptions,
    AttributionProblem,
    Ledger,
    ShapleyValues,
    TokenReplacement,
    attribute,
)
from workbench.attribution import heads_and_mlps as units
from workbench.attribution.attribution_patching import about_answer, estimate, exact_effects, strongest
from workbench.attribution.attribution_targets import as_targets
from workbench.attribution.circuit import circuit
from workbench.contexts import Contexts, make_contexts
from workbench.directions import find_directions, random_directions
from workbench.latents import rank_latents
from workbench.models import load_model, runner_for
from workbench.objectives import latent_activation, neutral_prompts
from workbench.personas import Splits, load_persona
from workbench.prompt_tokens import encode_prompt
from workbench.runs import read_json, write_json
from workbench.sae import load_sae
from workbench.statistics import cluster_interval
from workbench.world import World

ESTIMATORS = (
    "gradient_x_input",
    "integrated_gradients",
    "relevance",
    TokenReplacement(draws=4),
    ShapleyValues(pairs=4),
)
SHUFFLES = 200


def planted_prompts(world: World, persona: str, n: int) -> list[tuple[str, np.ndarray]]:
    """(text, planted effect of each word), the same for the same persona."""
    neutral = [word for word in world.neutral_words if " " not in word]
    planted = [(e.phrase, e.log_odds) for e in world.effects if e.persona == persona and " " not in e.phrase]
    rng, made = random.Random(f"attribution {persona}"), []
    while len(made) < n:
        chosen = rng.sample(planted, rng.choice((2, 3)))
        words = chosen + [(word, 0.0) for word in rng.sample(neutral, 8 - len(chosen))]
        rng.shuffle(words)
        text = " ".join(word for word, _ in words)
        if world.effect_of(persona, text) == sum(effect for _, effect in chosen):  # no phrase made by chance
            made.append((text, np.array([effect for _, effect in words])))
    return made


def sign_precision(effects: np.ndarray, truth: np.ndarray) -> float:
    """Fraction of the k largest effects (k: planted words) on planted words with the planted sign."""
    k = int((truth != 0).sum())
    top = np.argsort(-np.abs(effects), kind="stable")[:k]
    return float(np.mean([truth[i] != 0 and np.sign(effects[i]) == np.sign(truth[i]) for i in top]))


def shuffled(effects: np.ndarray, truth: np.ndarray, seed: int) -> float:
    """The same of effects dealt at random, mean over SHUFFLES."""
    rng = np.random.default_rng(seed)
    return float(np.mean([sign_precision(rng.permutation(effects), truth) for _ in range(SHUFFLES)]))


def judge(ledgers: list[tuple[Ledger, np.ndarray]]) -> dict[str, dict[str, Any]]:
    """Figures of every estimator over prompts."""
    found: dict[str, dict[str, Any]] = {}
    for name in ledgers[0][0].estimates:
        effects = [ledger.means(name)[:, 0] for ledger, _ in ledgers]
        judged = [ledger.means()[:, 0] for ledger, _ in ledgers]
        rows: dict[str, list[float]] = {
            "removal": [spearmanr(e, j).statistic for e, j in zip(effects, judged)]
        }
        if any(truth.any() for _, truth in ledgers):
            truths = [truth for _, truth in ledgers]
            rows["sign_precision"] = [sign_precision(e, t) for e, t in zip(effects, truths)]
            rows["truth"] = [spearmanr(e, t).statistic for e, t in zip(effects, truths)]
            rows["shuffled_sign_precision"] = [
                shuffled(e, t, i) for i, (e, t) in enumerate(zip(effects, truths))
            ]
        found[name] = {key: interval(values) for key, values in rows.items()}
    return found


def interval(values: list[float]) -> dict[str, float | None]:
    """Mean over prompts with its 95 % interval."""
    i = cluster_interval(values, range(len(values)))
    low, high = i.to_json()
    return {
        "mean": round(i.estimate, 3),
        "low": None if low is None else round(low, 3),
        "high": None if high is None else round(high, 3),
    }


def circuits(model: Any, contexts: Contexts, texts: list[str]) -> list[dict[str, Any]]:
    """Proof of each prompt's circuit."""
    rows = []
    for text in texts:
        runner, began = runner_for(model), time.process_time()
        found = circuit(
            AttributionProblem(runner, encode_prompt(runner, contexts, text), contexts, as_targets({}))
        )
        row: dict[str, Any] = {
            "prompt": text,
            "total": found.total.estimate,
            "agreement": found.agreement,
            "seconds": time.process_time() - began,
        }
        if found.proof is not None:
            p = found.proof
            row |= {
                "faithfulness": p.faithfulness.estimate,
                "faithfulness_ci": p.faithfulness.to_json(),
                "random_faithfulness": p.random_faithfulness,
                "completeness": p.completeness.estimate,
                "completeness_ci": p.completeness.to_json(),
                "random_completeness": p.random_completeness,
                "curve": p.curve,
            }
        paths = [e for e in found.edges if e.kind == "path"]
        row["edges_agreement"] = float(
            spearmanr([e.estimate for e in paths], [e.effect for e in paths]).statistic
        )
        rows.append(row)
    return rows


def mediated(model: Any, splits: Splits, contexts: Contexts, texts: list[str]) -> list[dict[str, Any]]:
    """Shares through the direction, the latents, and random directions, for each prompt."""
    sae = load_sae("organism")
    scan = find_directions(
        model,
        splits.train,
        splits.search,
        [sae.site.layer],
        ["own_choice_within"],
        n=256,
        n_texts=12,
        n_contexts=8,
    )
    latents = rank_latents(model, sae, splits.train, k=10, n=256)
    randoms = random_directions(scan.best, scan.activations, 3, both_signs=False)
    targets = {
        "direction": scan.best,
        **{f"random {i}": d for i, d in enumerate(randoms)},
        **{row.name: row for row in latents},
    }
    rows = []
    for text in texts:
        ledger = attribute(model, text, targets, contexts, (), options=AttributionOptions(pairs=0, nodes=0))
        rows += [
            {"prompt": text, **{k: v for k, v in entry.to_entry() if k != "verdict"}}
            for entry in ledger.mediation
        ]
    return rows


def patching(model: Any, contexts: Contexts, text: str, n: int = 24) -> dict[str, float]:
    """Estimates of all nodes against exact patches of the n strongest and n random others; seconds for all, in turns."""
    runner = runner_for(model)
    problem = about_answer(
        AttributionProblem(runner, encode_prompt(runner, contexts, text), contexts, as_targets({}))
    )
    (other,) = neutral_prompts(runner, contexts, 1, len(problem.prompt), 0)
    order = strongest(estimate(problem, other), 10**9)
    keys = order[:n] + [
        order[int(i)] for i in n + np.random.default_rng(0).permutation(max(0, len(order) - n))[:n]
    ]
    exact, seconds = [], {"estimate": [], "exact": []}
    for chunk in range(0, len(keys), 8):
        began = time.process_time()
        estimates = estimate(problem, other)
        between = time.process_time()
        exact += exact_effects(problem, other, keys[chunk : chunk + 8])
        seconds["estimate"].append(between - began)
        seconds["exact"].append((time.process_time() - between) / len(keys[chunk : chunk + 8]))
    guesses = [estimates[key] for key in keys]
    nodes = int(np.prod(units.grid_shape(problem)))
    one, all_ = float(np.median(seconds["estimate"])), float(np.median(seconds["exact"])) * nodes
    return {
        "nodes": nodes,
        "pearson": float(pearsonr(guesses, exact).statistic),
        "spearman": float(spearmanr(guesses, exact).statistic),
        "estimate_seconds": one,
        "exact_seconds_all_nodes": all_,
        "ratio": all_ / one,
    }


def cost(model: Any, splits: Splits, text: str) -> list[dict[str, float]]:
    """Seconds of a ledger (removal, gradient x input, pairs, mediation; no circuit) by contexts and latents."""
    sae, rows = load_sae("organism"), []
    for n_contexts, n_latents in ((4, 0), (4, 200), (16, 0), (16, 20), (16, 200), (32, 20)):
        contexts = make_contexts(model, splits.selection, n=n_contexts)
        targets = as_targets([latent_activation(sae, [i]) for i in range(n_latents)])
        began = time.process_time()
        attribute(model, text, targets, contexts, ("gradient_x_input",), options=AttributionOptions(nodes=0))
        rows.append(
            {"contexts": n_contexts, "latents": n_latents, "seconds": round(time.process_time() - began, 2)}
        )
    return rows


def organism(options: argparse.Namespace, asked: dict[str, Any]) -> None:
    """All figures of the embedded model, written after each persona."""
    model, world = load_model("organism"), World()
    for persona in options.personas:
        splits = load_persona(persona).split(seed=0)
        contexts = make_contexts(model, splits.selection, n=options.contexts)
        prompts = planted_prompts(world, persona, options.prompts)
        plain = AttributionOptions(pairs=0, mediation=False, nodes=0)
        ledgers = [
            (attribute(model, text, {}, contexts, ESTIMATORS, options=plain), truth)
            for text, truth in prompts
        ]
        strong = [
            text for text, truth in sorted(prompts, key=lambda pair: -abs(pair[1].sum()))[: options.circuits]
        ]
        figures: dict[str, Any] = {"estimators": judge(ledgers)}
        if strong:
            figures["circuits"], figures["mediated"] = (
                circuits(model, contexts, strong),
                mediated(model, splits, contexts, strong),
            )
            figures["patching"] = patching(model, contexts, strong[0])
        if options.cost:
            figures["cost"] = cost(model, splits, prompts[0][0])
        save(options.out, asked | {"fingerprint": runner_for(model).fingerprint}, {persona: figures})


def save(path: Path, asked: dict[str, Any], personas: dict[str, Any]) -> None:
    """Figures join those that are there already from the same model and settings; others are replaced."""
    before = read_json(path) if path.is_file() else {}
    kept = before.get("personas", {}) if before.get("asked") == asked else {}
    write_json(path, {"schema": 1, "benchmark": "attribution", "asked": asked, "personas": kept | personas})


def real(options: argparse.Namespace, asked: dict[str, Any]) -> None:
    """The same on a real model, where removal is the only judge."""
    model, persona = load_model(options.model), load_persona("sycophancy", options.data)
    contexts = make_contexts(model, persona.split(seed=0).selection, n=options.contexts)
    texts = [text for side in persona.manual_prompts.values() for text in side][: options.prompts]
    plain = AttributionOptions(pairs=0, mediation=False, nodes=0)
    ledgers = [
        (attribute(model, text, {}, contexts, ESTIMATORS[:3], options=plain), np.zeros(1)) for text in texts
    ]
    figures = {"estimators": judge(ledgers), "circuits": circuits(model, contexts, texts[: options.circuits])}
    save(options.out, asked | {"fingerprint": runner_for(model).fingerprint}, {persona.name: figures})


def main() -> None:
    """Run and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/attribution.json"))
    parser.add_argument("--model", default="organism")
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--personas", nargs="+", default=list(World().personas))
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--contexts", type=int, default=8)
    parser.add_argument("--circuits", type=int, default=2)
    parser.add_argument("--cost", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    asked = {key: getattr(options, key) for key in ("model", "prompts", "contexts", "circuits")}
    (organism if options.model == "organism" else real)(options, asked)


if __name__ == "__main__":
    main()
