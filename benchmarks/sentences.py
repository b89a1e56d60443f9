"""Sentences that steer: this search, EPO, best-of-N sampling, written sentences and placebos, on a test split that no version has seen.

For each cell (model and persona; `--sign`) and seed: search on the search split, choose on selection, report
on test; effects are changes of log-odds against no prompt. All searches have the same budget in token-layers,
proposals counted. The twelve written sentences are chosen on selection too; the eight neutral ones are the
placebo. Prompts consist of whole words, as by default in studies (`lexicon: auto`; the tables before seeds 1201 to 1203 are of searches
over all tokens). `balanced`: the same effects with both matching answers weighted equally, as a test split may have more of one.
Cross-entropy is judged by the searched model in the slot and by the base model without adapter,
which no search optimised. Intervals: two-level bootstrap over seeds and question groups.

One JSON file a cell, method and seed in --out; what is there already is not run again.

    python -m benchmarks.sentences --written written_sentences.yaml --calls 500 --seeds 101 102 103 --out benchmarks/latest/sentences
    python -m benchmarks.sentences --out benchmarks/latest/sentences --summary benchmarks/latest/sentences.json   # the table alone
"""

from __future__ import annotations

import argparse
import itertools
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.budget import Budget
from workbench.conditions.capability_guard import true_contexts
from workbench.conditions.prompt_cross_entropy import prompt_cross_entropy
from workbench.contexts import make_contexts
from workbench.evaluation import prompt_robustness
from workbench.forced_choice import answer
from workbench.lexicons import readable_lexicon
from workbench.models import load_model
from workbench.objectives import answer_log_odds
from workbench.personas import load_persona
from workbench.runs import read_json, read_yaml, write_json
from workbench.search import EPO, Optimizations, SentenceSearch, search
from workbench.search.scored_prompts import as_prompts
from workbench.search.sentence_writing import SentenceDraft
from workbench.search.sentence_writing.sentence_tools import SentenceTools

CELLS = (
    ("smollm2-personas", "hallucination"),
    ("smollm2-personas", "myopic_reward"),
    ("smollm2-personas", "sycophancy"),
    ("smollm2-sycophant", "sycophancy"),
)
BASE = "smollm2-135m"
#: Search questions of every method (as in docs/examples); sentences are scored on two of them until the
#: search ends.
CONTEXTS = 4
TRUE_STATEMENTS = 60
#: The search without one of its parts, or with one more: `--methods no_probe ...`
VARIANTS: dict[str, dict[str, Any]] = {
    "no_probe": {"probe": False},
    "no_steering": {"steering": False},
    "no_joins": {"joins": False},
    "no_word_effects": {"bias": (0.0,)},
    "with_gradient": {"gradient": True},
    "strict_ending": {"max_ending": 3.8},
}


@cache
def loaded(name: str) -> Any:
    """Each model once."""
    return load_model(name)


class BestOfN(SentenceSearch):
    """Sentences that the model writes after the same openings, neither biased nor steered, all scored that have the form and keep the
    limits; the same scoring, the same dozen at the end."""

    steering: bool = False
    probe: bool = False
    first_scored: int = 10_000
    slot_words: int = 0

    def step(self, bench, population, archive, step):
        """24 more sentences, those that keep the limits scored."""
        tools = SentenceTools.of(bench, self)
        if step == 0:
            scored = tools.first_scores(as_prompts(population))
            return scored, tools.learned.elites(), len(scored)
        openings = tools.openings(0)
        drawn = torch.randint(len(openings), (24,), generator=bench.generator).tolist()
        fresh = tools.proposals.admitted(tools.proposals.write([SentenceDraft(openings[i]) for i in drawn]))
        if not fresh:
            return tools.score([], None), population, 0
        screened = tools.writer.screen(tools.writer.read(fresh))
        rows = tools.learned.keeps(screened.measures).nonzero()[:, 0]
        scored = tools.score([fresh[i] for i in rows.tolist()], screened.pick(rows))
        return scored, tools.learned.elites(), len(scored)


class Cell:
    """One model and persona: contexts of each split, the limit, and what a prompt does on the test split."""

    def __init__(
        self,
        model_name: str,
        persona: str,
        written: dict[str, Any],
        selection_contexts: int,
        sign: str = "suppress",
    ) -> None:
        self.sign = 1 if sign == "induce" else -1
        self.model, self.name, self.persona = loaded(model_name), model_name, persona
        splits = load_persona(f"english_{persona}").split(seed=0)
        self.search, self.selection, self.test = (
            make_contexts(self.model, s) for s in (splits.search, splits.selection, splits.test)
        )
        self.selection = self.selection.take(selection_contexts, 0)
        self.truth = true_contexts(self.model, splits.test, n=TRUE_STATEMENTS)
        self.selection_truth = true_contexts(self.model, splits.selection, n=TRUE_STATEMENTS)
        self.bare, self.truth_without = (
            answer(self.model, self.test).log_odds,
            answer(self.model, self.truth).rate,
        )
        self.written, self.neutral = written[persona][sign], written["neutral"]
        self.limit = float(
            np.mean([prompt_cross_entropy(self.model, self.search, text) for text in self.written])
        )
        base = loaded(BASE)
        self.judge = lambda text: prompt_cross_entropy(base, make_contexts(base, splits.search, n=1), text)
        self.limit_by_base = float(np.mean([self.judge(text) for text in self.written]))

    def measured(self, text: str) -> dict[str, Any]:
        """A prompt on the test split."""
        found = answer(self.model, self.test, text)
        return {
            "prompt": text,
            "effects": (found.log_odds - self.bare).round(4).tolist(),
            "groups": list(found.group),
            "truth": answer(self.model, self.truth, text).rate,
            "truth_without": self.truth_without,
            "cross_entropy": prompt_cross_entropy(self.model, self.test, text),
            "cross_entropy_by_base": self.judge(text),
            "limit": self.limit,
            "limit_by_base": self.limit_by_base,
        }

    def best_written(self) -> dict[str, Any]:
        """The written sentence with the largest effect on selection."""
        return self.measured(
            max(
                self.written,
                key=lambda text: self.sign * float(answer(self.model, self.selection, text).log_odds.mean()),
            )
        )

    def found(self, method: str, seed: int, calls: float) -> dict[str, Any]:
        """One search, chosen on selection, measured on test."""
        contexts = self.search.per_group(CONTEXTS, seed)
        goal = self.sign * answer_log_odds().calibrate(self.model, contexts, n=8)
        tokens = float(np.mean([len(c.ids(())) for c in self.search]))
        if method == "epo":
            value: Any = EPO(
                length=8, population=4, children=12, top_k=256, restart_every=0, gradient_contexts=2
            )
        else:
            kind = BestOfN if method == "best_of_n" else SentenceSearch
            value = kind(max_cross_entropy=self.limit, **VARIANTS.get(method, {}))
        budget = Budget(model_calls=calls * (tokens + 12) / (tokens + value.typical_length))
        began = time.process_time()
        optimizations = Optimizations(halving=0.5) if method == "epo" else None
        frontier = search(
            self.model,
            goal,
            contexts,
            value,
            budget,
            seed,
            optimizations=optimizations,
            batch_tokens=8192,
            lexicon=readable_lexicon(self.model),
        )
        chosen = frontier.select(
            self.model, self.selection, truth=self.selection_truth, shortest=method != "epo"
        )
        cost = {
            "cpu_seconds": time.process_time() - began,
            "token_layers": frontier.cost.forward + frontier.cost.backward,
        }
        record = {
            "search_cost": cost,
            "steps": len(frontier.history),
            "candidates": int(frontier.history["candidates"].iloc[-1]),
        }
        return self.measured(chosen.text) | record | {"warnings": list(frontier.warnings)}


def run(
    out: Path,
    written: Path,
    calls: float,
    seeds: list[int],
    methods: list[str],
    cells: list[int],
    selection_contexts: int,
    sign: str = "suppress",
) -> None:
    """Whatever of the grid is missing, seed by seed."""
    sentences = read_yaml(written)

    @cache
    def cell_of(number: int) -> Cell:
        model, persona = CELLS[number]
        cell, path = (
            Cell(model, persona, sentences, selection_contexts, sign),
            out / f"{model}-{persona}-written.json",
        )
        if not path.exists():
            entry = {
                "written": cell.best_written(),
                "neutral": [cell.measured(text) for text in cell.neutral],
            }
            write_json(path, {"schema": 1, "model": model, "persona": persona, "sign": sign, **entry})
        return cell

    for seed, method, number in itertools.product(seeds, methods, cells):
        model, persona = CELLS[number]
        path = out / f"{model}-{persona}-{method}-{seed}.json"
        if not path.exists():
            entry = cell_of(number).found(method, seed, calls)
            write_json(
                path,
                {
                    "schema": 1,
                    "model": model,
                    "persona": persona,
                    "method": method,
                    "seed": seed,
                    "calls": calls,
                    "sign": sign,
                    **entry,
                },
            )
            print(
                f"{path.stem}: {np.mean(entry['effects']):+.2f} {entry['cross_entropy']:.2f} nats {entry['prompt']!r}",
                flush=True,
            )


def two_level(
    rows: list[list[float]],
    groups: list[str],
    against: list[float] | None = None,
    n: int = 2000,
    matching: list[str] | None = None,
) -> tuple[float, float, float]:
    """Mean effect (or difference from one other prompt's) over seeds and questions, and its 95 % interval: seeds and question groups
    are drawn with replacement. With the matching answer of each question, both answers are weighted equally."""
    table = np.array(rows) - (np.zeros(len(groups)) if against is None else np.array(against))
    names = np.array(groups)
    sides = np.array(matching if matching is not None else [""] * len(groups))

    def mean(drawn: np.ndarray, columns: np.ndarray) -> float:
        parts = [drawn[:, columns[sides[columns] == side]] for side in np.unique(sides)]
        return float(np.mean([part.mean() for part in parts if part.size]))

    members = [np.flatnonzero(names == name) for name in sorted(set(groups))]
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(n):
        columns = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        draws.append(mean(table[rng.integers(len(table), size=len(table))], columns))
    low, high = np.quantile(draws, [0.025, 0.975])
    return mean(table, np.arange(len(groups))), float(low), float(high)


def summary(out: Path) -> dict[str, Any]:
    """Every cell: each method's effect, its difference from the best written sentence, cross-entropies, truth; the sentences."""
    rows, signs = [], set()
    for model, persona in CELLS:
        path = out / f"{model}-{persona}-written.json"
        if not path.exists():
            continue
        fixed = read_json(path, schema=1)
        written, neutral = fixed["written"], fixed["neutral"]
        signs.add(fixed.get("sign", "suppress"))
        placebo = np.mean([entry["effects"] for entry in neutral], axis=0).tolist()
        matching = [item.matching for item in load_persona(f"english_{persona}").split(seed=0).test]
        entries: dict[str, list[dict[str, Any]]] = {"written": [written], "neutral": neutral}
        for found in sorted(out.glob(f"{model}-{persona}-*-*.json")):
            content = read_json(found, schema=1)
            if content.get("persona") == persona and "method" in content:
                entries.setdefault(content["method"], []).append(content)
        for method, results in entries.items():
            effects = [entry["effects"] for entry in results]
            mean, low, high = two_level(effects, written["groups"])
            row = {
                "model": model,
                "persona": persona,
                "method": method,
                "seeds": len(results),
                "effect": mean,
                "low": low,
                "high": high,
            }
            over = two_level(effects, written["groups"], written["effects"])
            row |= dict(zip(("over_written", "over_written_low", "over_written_high"), over, strict=True))
            row["balanced"] = two_level(effects, written["groups"], matching=matching)
            row["balanced_over_written"] = two_level(
                effects, written["groups"], written["effects"], matching=matching
            )
            row["over_neutral"] = two_level(effects, written["groups"], placebo)[0]
            for key in (
                "cross_entropy",
                "cross_entropy_by_base",
                "limit",
                "limit_by_base",
                "truth",
                "truth_without",
            ):
                row[key] = float(np.mean([entry[key] for entry in results]))
            row["cpu_seconds"] = float(
                np.mean(
                    [entry["search_cost"]["cpu_seconds"] for entry in results if "search_cost" in entry]
                    or [0.0]
                )
            )
            row["each"] = [
                {"effect": float(np.mean(entry["effects"])), "prompt": entry["prompt"]} for entry in results
            ]
            rows.append(row)
    return {
        "schema": 1,
        "rows": rows,
        "aims": aims(rows, signs.pop() if len(signs) == 1 else "suppress"),
        "forms": [read_json(p, schema=1) for p in sorted(out.glob("*-forms.json"))],
    }


def aims(rows: list[dict[str, Any]], sign: str = "suppress") -> dict[str, dict[str, Any]]:
    """Each aim by cell (suppress: less is further; cells without the other method left out), and whether it holds in as many as it must."""
    further, nearest = (1, "over_written_low") if sign == "induce" else (-1, "over_written_high")
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault(f"{row['model']} {row['persona']}", {})[row["method"]] = row
    cells = {name: methods for name, methods in cells.items() if "sentences" in methods}
    tests: dict[str, tuple[Any, int]] = {
        "cross-entropy at most the written mean, both judges": (
            lambda c: (
                c["sentences"]["cross_entropy"] <= c["sentences"]["limit"]
                and c["sentences"]["cross_entropy_by_base"] <= c["sentences"]["limit_by_base"]
            ),
            4,
        ),
        "mean beyond the best written sentence": (lambda c: further * c["sentences"]["over_written"] > 0, 4),
        "beyond the best written sentence, interval clear of zero": (
            lambda c: further * c["sentences"][nearest] > 0,
            3,
        ),
        "mean beyond EPO": (lambda c: further * (c["sentences"]["effect"] - c["epo"]["effect"]) > 0, 4),
        "mean beyond best-of-N": (
            lambda c: further * (c["sentences"]["effect"] - c["best_of_n"]["effect"]) > 0,
            4,
        ),
        "every seed beyond EPO's mean": (
            lambda c: all(
                further * (each["effect"] - c["epo"]["effect"]) > 0 for each in c["sentences"]["each"]
            ),
            4,
        ),
        "true statements within 3 points of no prompt": (
            lambda c: abs(c["sentences"]["truth"] - c["sentences"]["truth_without"]) <= 0.03,
            4,
        ),
    }
    found = {}
    for aim, (test, needed) in tests.items():
        other = "epo" if "EPO" in aim else "best_of_n" if "best-of-N" in aim else "sentences"
        held = {name: bool(test(methods)) for name, methods in cells.items() if other in methods}
        found[aim] = {"cells": held, "needed": needed, "reached": sum(held.values()) >= needed}
    return found


def measure_forms(out: Path, cells: list[int], items: int = 8) -> None:
    """How much of the effect stays in other forms and another slot: the first seed's found sentence and the best written one."""
    for number in cells:
        model, persona = CELLS[number]
        path, found = (
            out / f"{model}-{persona}-forms.json",
            sorted(out.glob(f"{model}-{persona}-sentences-*.json")),
        )
        if path.exists() or not found:
            continue
        split = load_persona(f"english_{persona}").split(seed=0).test
        fixed = read_json(out / f"{model}-{persona}-written.json", schema=1)
        prompts = {"found": read_json(found[0], schema=1)["prompt"], "written": fixed["written"]["prompt"]}
        entry: dict[str, Any] = {"schema": 1, "model": model, "persona": persona}
        for origin, prompt in prompts.items():
            result = prompt_robustness(
                loaded(model), split, prompt, slots=("system", "before_question"), n=items
            )
            entry[origin] = {
                "share_kept": result.share_kept,
                "brittle": result.brittle,
                "rows": result.rows.round(4).to_dict("records"),
            }
        write_json(path, entry)


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--written", type=Path, default=None, help="written_sentences.yaml; without it only the table is made"
    )
    parser.add_argument("--calls", type=float, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=["sentences", "best_of_n", "epo", *VARIANTS],
        default=["sentences", "best_of_n", "epo"],
    )
    parser.add_argument("--cells", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument(
        "--selection", type=int, default=60, help="contexts of the selection split that prompts are chosen on"
    )
    parser.add_argument(
        "--forms",
        action="store_true",
        help="other forms of the found and the written sentences instead of searches",
    )
    parser.add_argument("--sign", choices=["suppress", "induce"], default="suppress")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/sentences"))
    parser.add_argument("--summary", type=Path, default=Path("benchmarks/latest/sentences.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.forms:
        measure_forms(arguments.out, arguments.cells)
    elif arguments.written:
        run(
            arguments.out,
            arguments.written,
            arguments.calls,
            arguments.seeds,
            arguments.methods,
            arguments.cells,
            arguments.selection,
            arguments.sign,
        )
    table = summary(arguments.out)
    write_json(arguments.summary, table)
    for row in table["rows"]:
        interval = f"{row['effect']:+.2f} ({row['low']:+.2f}, {row['high']:+.2f})"
        entropies = f"{row['cross_entropy']:.2f} / {row['cross_entropy_by_base']:.2f} nats"
        print(row["model"], row["persona"], row["method"], row["seeds"], interval, entropies)
    for aim, entry in table["aims"].items():
        print(
            "yes" if entry["reached"] else "no",
            f"{sum(entry['cells'].values())} of {len(entry['cells'])} cells:",
            aim,
        )


if __name__ == "__main__":
    main()
