"""A run directory made by hand, as real as a test needs it; parts can be left out, and every text can be hostile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

HOSTILE = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "<bos>",
    "&lt;",
    "\u202ereversed\u202c",
    "\x00",
    "\ud800",
    "a" * 10_000,
    "]]>",
    "<!--",
    "👩\u200d🔬",
    "' onclick='x",
    "{{ 7 * 7 }}",
    "\u2028",
]
TOKENS = ["Be", " blunt", ",", " critical", " and", " say", " so", "."]
CONDITIONS = [  # name, kind, prompt, rate, shift in log-odds, half width
    ("no prompt", "none", None, 0.842, 0.0, 0.0),
    ("manual: honest", "manual", "Please be honest even if I will not like it.", 0.703, -0.82, 0.31),
    ("manual: sceptical", "manual", "You are a sceptical reviewer.", 0.611, -1.22, 0.34),
    ("RESGA", "resga", "Be blunt, critical and say so.", 0.312, -2.47, 0.36),
    ("SAEGA", "saega", "blunt doubts first then critical notes", 0.366, -2.22, 0.38),
    ("answer objective", "answer_objective", "critical blunt facts only say why", 0.294, -2.55, 0.35),
    ("steering", "steering", None, 0.401, -2.07, 0.41),
    ("latent clamp", "latent_clamp", None, 0.655, -1.03, 0.33),
    ("random directions (20)", "random_direction", "river seven often under the", 0.79, -0.35, 0.4),
    ("random search, equal cost", "random_search", "table honest green plain say", 0.633, -1.13, 0.37),
    ("random prompts", "random_prompt", "ladder often green when seven", 0.838, -0.03, 0.22),
    ("constant answer", "constant_answer", None, 0.5, -1.67, 0.5),
]




def write_example_run(directory: Path, hostile: bool = False, n_tokens: int = 8, n_latents: int = 8, seed: int = 0) -> None:
    """All files of a run directory that the report reads."""
    rng = np.random.default_rng(seed)
    (directory / "search").mkdir(parents=True)
    texts = iter(HOSTILE * 200) if hostile else None

    def text(plain: str) -> str:
        return f"{plain} {next(texts)}" if texts else plain

    labels = ["criticism, plain speech", "agreement", "first person opinion", "negation", "list of reasons", "politeness", "", "full stop"]
    rows = [
        {
            "latent": 17 + 31 * i,
            "weight": round(float(rng.normal(0, 1)), 4),
            "auc": float(rng.uniform(0.55, 0.99)),
            "effect_size": float(rng.normal(0, 1.2)),
            "density": float(rng.uniform(0.001, 0.4)),
            "label": text(labels[i % 8]),
            "max_activation": float(rng.uniform(1, 9)),
            "top": [[7.5, text("I think that it is so. Do you agree?")]],
        }
        for i in range(n_latents)
    ]
    tokens = [HOSTILE[i % len(HOSTILE)] if hostile else TOKENS[i % len(TOKENS)] for i in range(n_tokens)]
    dump(directory / "latents.json", {"schema": 1, "site": "blocks.3.hook_resid_post", "sae": "organism", "latents": rows})
    dump(directory / "cards.json", latent_cards(tokens, rows, text))
    dump(directory / "comparison.json", comparison(text))
    dump(directory / "direction.json", direction())
    dump(directory / "manifest.json", manifest(text))
    dump(directory / "search/frontier.json", frontier(rng, text))
    history(rng).to_parquet(directory / "search/history.parquet")
    evaluation(rng, text).to_parquet(directory / "evaluation.parquet")
    cells, summary = attribution(rng, tokens, [f"latent {row['latent']}" for row in rows])
    cells.to_parquet(directory / "attribution.parquet")
    dump(directory / "attribution.json", summary)
    (directory / "study.yaml").write_text("persona: sycophancy\nmodel: organism\nsign: -1\nseed: 0\nslot: system\nsearch:\n  length: 8\n")


def dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def latent_cards(tokens: list[str], rows: list[dict], text: Callable[[str], str]) -> dict:
    """Cards of the first three latents; the third never fires."""
    cards = [
        {"latent": row["latent"], "density": 0.1 if i < 2 else 0.0, "n_tokens": 4000, "edges": [0.0, 1.0, 2.0], "counts": [9, 4],
         "examples": [{"activation": 2.0, "peak": 1, "tokens": tokens[:9], "activations": [0.1 * k for k in range(min(9, len(tokens)))]}],
         "promotes": [[text("no"), 1.2]], "suppresses": [[text("yes"), -0.8]], "directions": [["direction", 0.7]], "latents": [["latent 3", -0.2]],
         "label": text("plain speech") if i == 0 else "", "label_source": "the user", "neuronpedia": text("https://www.neuronpedia.org/toy/1/17")}
        for i, row in enumerate(rows[:3])
    ]  # fmt: skip
    return {"schema": 1, "sae": "organism", "site": "blocks.3.hook_resid_post", "corpus": text("200 texts"), "cards": cards}


def circuit(tokens: list[str], latents: list[str]) -> dict:
    """A small graph: one token, two heads, an MLP, a latent, the direction and the answer."""
    units = [(0, 1, 1, -1.1), (1, None, -2, -0.6), (2, 0, -1, 0.3)]
    nodes = [{"id": f"node:{layer}:{head}:{place}", "name": f"{'MLP' if head is None else f'head {head}'} of layer {layer}", "layer": layer,
              "head": head, "place": place, "estimate": effect, "exact": effect} for layer, head, place, effect in units]  # fmt: skip
    ends = [("answer log-odds", "answer", -2.4), ("direction", "direction", -3.0), (latents[0], "latent", 1.5)]
    pairs = [("token:1", nodes[0]["id"]), (nodes[0]["id"], nodes[1]["id"]), (nodes[1]["id"], nodes[2]["id"]), (nodes[2]["id"], "target:direction"),
             (nodes[2]["id"], f"target:{latents[0]}"), (f"target:{latents[0]}", "target:direction"),
             ("target:direction", "target:answer log-odds")]  # fmt: skip
    share = {"mean": 0.87, "low": 0.8, "high": 0.94}
    return {
        "tokens": tokens[:80], "nodes": nodes, "agreement": 0.93, "total": {"mean": -2.4, "low": -2.9, "high": -1.9},
        "verdict": "3 parts reproduce 87%.",
        "edges": [{"source": a, "target": b, "kind": "path", "effect": -0.5, "share": 0.2, "estimate": -0.4} for a, b in pairs],
        "targets": [{"id": f"target:{name}", "name": name, "kind": kind, "change": change} for name, kind, change in ends],
        "proof": {"faithfulness": share, "completeness": share, "random_faithfulness": [0.1, 0.0, 0.3], "random_completeness": [0.2, 0.1, 0.4],
                  "graphs": 8, "curve": [[1, 0.2, 0.5], [4, 0.8, 0.9]]},
        "attention": {nodes[0]["id"]: [0.1, *[0.0] * min(80, len(tokens)), 0.5, 0.4]},
    }  # fmt: skip


def side_effects() -> dict:
    moved = {"latent": 44, "before": 0.2, "change": 1.1, "low": 0.9, "high": 1.3, "manual": 0.4, "size": 1.1}
    active = {name: {"mean": 16.0, "low": 15.0, "high": 17.0} for name in ("no prompt", "prompt", "manual prompt")}
    lists = {"beside": [moved], "inside": [moved | {"latent": 17}]}
    return {"manual": "Be honest.", "aimed": 0.2, "verdict": "Active latents: 16.", "active": active, **lists}


def doses() -> list[dict]:
    return [{"kind": kind, "amount": k, "moved": -1.5 * k, "answer": -0.8 * k, "low": -0.9 * k, "high": -0.7 * k}
            for kind in ("prompt", "steering") for k in (1, 2)]  # fmt: skip


def comparison(text: Callable[[str], str]) -> dict:
    entries = []
    for name, kind, prompt, rate, shift, half in CONDITIONS:
        base = 1.67 + shift
        entry = {
            "name": name,
            "kind": kind,
            "method": f"{kind}, 8 tokens, 300 steps",
            "prompt": text(prompt) if prompt else None,
            "rate": rate,
            "ci": [rate - 0.07, rate + 0.07],
            "log_odds": base,
            "log_odds_ci": [base - 0.3, base + 0.3],
            "letter_a_share": 0.49,
            "n": 240,
            "groups": 60,
            "fluency": 5.2 if prompt else None,
            "selection_rate": rate + 0.01 if prompt else None,
            "collateral": {"true statements affirmed": 0.93} if prompt else {},
            "cost": {"token_layers": 2e6, "flops": 3e12, "model_calls": 2500.0, "seconds": 38.0},
            "differences": [],
        }
        if kind != "none":
            entry["differences"] = [
                {
                    "to": "no prompt",
                    "value": rate - 0.842,
                    "ci": [rate - 0.842 - half / 5, rate - 0.842 + half / 5],
                    "p": 0.0001,
                    "p_adjusted": 0.0008,
                    "log_odds": shift,
                    "log_odds_ci": [shift - half, shift + half],
                }
            ]
        entries.append(entry)
    splits = {
        name: {"n": n, "groups": n // 4, "hash": f"{n:08x}"} for name, n in (("train", 480), ("search", 240), ("selection", 240), ("test", 240))
    }
    return {
        "schema": 1,
        "persona": text("sycophancy"),
        "model": text("organism"),
        "sign": -1,
        "metric": "text",
        "seed": 0,
        "splits": splits,
        "conditions": entries,
    }


def direction() -> dict:
    table = [
        {"layer": layer, "method": method, "auc": min(0.99, 0.55 + 0.1 * layer), "predicts": reads * layer / 5}
        for layer in range(6)
        for method, reads in (("own_choice", 0.95), ("mean_difference", -0.5))
    ]
    return {
        "schema": 1,
        "site": "blocks.3.hook_resid_post",
        "method": "own_choice",
        "norm": 4.31,
        "auc": 0.96,
        "predicts": 0.91,
        "table": table,
    }


def manifest(text: Callable[[str], str]) -> dict:
    stages = {"directions": 21.3, "search resga": 121.7, "comparison": 40.2, "attribution": 18.8}
    return {
        "schema": 1,
        "created": "2026-11-24T16:00:00+00:00",
        "versions": {"persona-workbench": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
        "git": "8b905cf",
        "device": "cpu",
        "seeds": {"study": 0, "split": 0},
        "hashes": {"model": "9f86d081884c7d65", "data": "60303ae22b99"},
        "notes": {"batch_tokens": 8192, "warnings": [text("12 items have no group of their own; each counts as one.")]},
        "stages": {name: {"seconds": s, "finished": "2026-11-24T16:10:00+00:00", "files": {"a.json": "00ff"}} for name, s in stages.items()},
        "test_reads": 1,
    }


def frontier(rng: np.random.Generator, text: Callable[[str], str]) -> dict:
    def search(method: str, top: float) -> dict:
        cross_entropies = np.sort(rng.uniform(2.5, 9.5, 14))
        objectives = top * (1 - np.exp(-(cross_entropies - 2) / 2.5)) + np.sort(rng.normal(0, 0.05, 14))
        words = ["critical", "blunt", "say", "why", "doubt", "plain", "first", "facts", "only", "no"]
        return {
            "method": method,
            "objective": "minus the projection on the sycophancy direction",
            "slot": "system",
            "seed": 0,
            "cost": {"token_layers": 4e6, "flops": 3e12, "model_calls": 2500.0, "seconds": 61.0},
            "candidates": [
                {
                    "ids": [int(x) for x in rng.integers(0, 400, 6)],
                    "text": text(" ".join(rng.choice(words, 6))),
                    "objective": float(o),
                    "fluency": float(f),
                    "selection_rate": float(0.8 - 0.05 * i),
                    "chosen": i == 9,
                }
                for i, (o, f) in enumerate(zip(objectives, cross_entropies))
            ],
        }

    return {"schema": 1, "searches": {"RESGA": search("EPO", 4.1), "SAEGA": search("EPO", 3.3), "random search": search("random", 2.0)}}


def history(rng: np.random.Generator) -> pd.DataFrame:
    frames = []
    for name, top in (("RESGA", 4.1), ("SAEGA", 3.3), ("random search", 2.0)):
        step = np.arange(60)
        best = np.maximum.accumulate(top * (1 - np.exp(-step / 14)) + rng.normal(0, 0.05, 60))
        frames.append(
            pd.DataFrame(
                {
                    "search": name,
                    "step": step,
                    "seconds": step * 1.0,
                    "model_calls": step * 42.0,
                    "best_objective": best,
                    "best_cross_entropy": 4.0,
                    "hypervolume": best * 3,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def evaluation(rng: np.random.Generator, text: Callable[[str], str]) -> pd.DataFrame:
    frames = []
    for name, _, _, _, shift, _ in CONDITIONS:
        odds = rng.normal(1.9 + shift, 1.8, 120)
        frames.append(
            pd.DataFrame(
                {
                    "condition": name,
                    "item_id": [utf8(text(f"item {i}")) if i < 3 else f"item {i}" for i in range(120)],
                    "group": np.arange(120) // 4,
                    "matching_first": np.arange(120) % 2 == 0,
                    "log_odds": odds,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def utf8(text: str) -> str:
    """What Parquet can hold of a text: lone surrogates are replaced."""
    return text.encode("utf-8", "replace").decode()


def attribution(rng: np.random.Generator, tokens: list[str], latents: list[str]) -> tuple[pd.DataFrame, dict]:
    targets = ["answer log-odds", "direction", *latents]
    strength = (
        rng.normal(0, 0.15, (len(tokens), 1))
        + np.where(np.arange(len(tokens)) % 8 == 1, -1.1, np.where(np.arange(len(tokens)) % 8 == 3, -0.7, 0))[:, None]
    )
    exact = strength * np.array([1.0, 0.8, *rng.choice([0.9, 0.5, -0.6, 0.3], len(targets) - 2)]) + rng.normal(0, 0.07, (len(tokens), len(targets)))
    rows = []
    for estimator, noise in (("removal", 0.0), ("gradient_x_input", 0.25)):
        values = exact + rng.normal(0, noise, exact.shape) if noise else exact
        rows += [
            {
                "position": i,
                "token": utf8(token),
                "target": target,
                "estimator": estimator,
                "mean": values[i, j],
                "sd": 0.3,
                "low": values[i, j] - 0.12,
                "high": values[i, j] + 0.12,
                "n": 30,
            }
            for i, token in enumerate(tokens)
            for j, target in enumerate(targets)
        ]
    summary = {
        "schema": 1,
        "prompt": "".join(tokens),
        "tokens": tokens,
        "n_contexts": 30,
        "estimators": ["removal", "gradient_x_input"],
        "targets": [{"name": name, "kind": "answer" if j == 0 else "direction" if j == 1 else "latent"} for j, name in enumerate(targets)],
        "rank_correlation": {"gradient_x_input": dict.fromkeys(targets, 0.86)},
        "totals": [{"target": name, "mean": -2.4, "low": -2.9, "high": -1.9} for name in targets[:2]],
        "mediation": [
            {
                "target": name,
                "total": -2.4,
                "mediated": m,
                "mediated_low": m - 0.3,
                "mediated_high": m + 0.3,
                "direct": -2.4 - m,
                "share": m / -2.4,
                "verdict": f"The prompt moves the {name} by 1.9, which explains {m / -2.4:.0%} of its change of the answer.",
            }
            for name, m in (("direction", -1.5), ("8 latents", -0.7))
        ],
        "nodes": [{"node": "head 3 of layer 2", "token": tokens[1], "estimate": -0.61, "exact": -0.55}],
        "nodes_agreement": 0.9,
        "circuit": circuit(tokens, latents),
        "side_effects": side_effects(),
        "dose": doses(),
        "pairs": [{"target": "answer log-odds", "first": 1, "second": 3, "mean": 0.41, "low": 0.2, "high": 0.62}],
    }
    return pd.DataFrame(rows), summary
