"""Search methods on a planted landscape without a model: what each needs until it has what random search ends with.

The landscape copies what was measured on the organism (docs/performance.md, Quality): a few of 440 words have
large effects that do not depend on their place, sums saturate, some adjacent pairs count, neighbours add
noise that is fixed for each prompt, and first-order gains are mostly noise (`signal`: the fraction of a
word's effect that the gradient sees). Fluency is a random bigram model.

    python -m benchmarks.landscape --seeds 5
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.search_quality import METHODS
from workbench.runs import write_json
from workbench.search import (
    ChildProposals,
    ScoredPrompts,
    SearchMethod,
    SearchToolkit,
    hypervolume,
    pareto_frontier,
)
from workbench.search.scoring.cross_entropy import PreparedParents
from workbench.search.scoring.log_prob_table import WholeTable

WORDS = 440
EFFECTS = (4.7, 4.0, 3.7, 3.2, 1.9, 1.6, 1.5, 1.4, 1.2, 1.0, 0.8, 0.7)
PAIRS = {(100, 101): 4.0, (102, 103): 3.0, (104, 105): 2.5, (106, 107): 2.0}
LIMIT = 8.0


class Stand(SimpleNamespace):
    """Stands for a runner: what is kept for one is kept by its identity."""

    __hash__ = object.__hash__


class WordNumbers:
    """The tokenizer of the landscape: a text is its words' numbers."""

    def __call__(self, texts: str | list[str], **_: Any) -> dict[str, Any]:
        if isinstance(texts, str):
            return {"input_ids": [int(word) for word in texts.split() if word.isdigit()]}
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """The numbers as words."""
        return [str(number) for number in ids]

    def batch_decode(self, rows: list[list[int]], **_: Any) -> list[str]:
        """Each row as the text of its numbers."""
        return [" ".join(map(str, row)) for row in rows]


class Landscape:
    """Stands in a scorer's place. signal, noise: of the first-order gains, in units of the effects."""

    def __init__(self, signal: float = 0.1, noise: float = 1.0) -> None:
        rng = np.random.default_rng(0)
        self.effects = rng.normal(0, 0.06, WORDS)
        self.effects[: len(EFFECTS)], self.effects[len(EFFECTS) : 2 * len(EFFECTS)] = (
            EFFECTS,
            [-e for e in EFFECTS],
        )
        self.bigrams = torch.tensor(rng.normal(0, 1, (WORDS + 1, WORDS))).log_softmax(-1).float()
        self.signal, self.noise, self.scored = signal, noise, 0
        words = lambda ids: " ".join(map(str, ids))  # noqa: E731
        tokenizer = WordNumbers()
        embed = lambda ids: torch.nn.functional.one_hot(ids, WORDS).float()  # noqa: E731
        self.runner = Stand(
            device=torch.device("cpu"),
            dtype=torch.float32,
            decode=words,
            tokenizer=tokenizer,
            embed=embed,
            generate=self._generate,
            shape=SimpleNamespace(d_vocab=WORDS),
            embeddings=lambda start, stop: torch.eye(WORDS)[start:stop],
        )
        self.contexts = [
            SimpleNamespace(
                prefix_text="", suffix_text="", prefix_ids=(), suffix_ids=(), ids=tuple, lead="", in_text=True
            )
        ]

    def prepare(self, ids: Tensor) -> PreparedParents:
        table = self.bigrams[self._left(ids)]
        own = -table.gather(-1, ids[..., None])[..., 0]
        return PreparedParents(ids, own.mean(1), WholeTable(table), own, [])

    def score_children(
        self, prepared: PreparedParents, children: ChildProposals
    ) -> tuple[ScoredPrompts, ScoredPrompts]:
        self.scored += len(children)
        return self._score(prepared.ids), self._score(children.ids)

    def gradients(self, ids: Tensor, n_contexts: int, first: int, weights: Tensor | None = None) -> Tensor:
        """What the slope of every word at every place seems to be (cross-entropy has none)."""
        return torch.stack([self._slope(row) for row in ids.tolist()])

    def _slope(self, row: list[int]) -> Tensor:
        rest = 1 - np.tanh(sum(self.effects[row]) / LIMIT) ** 2
        return torch.tensor(
            self.signal * rest * self.effects[None] + _fixed(row).normal(0, self.noise, (len(row), WORDS))
        ).float()

    def _score(self, ids: Tensor) -> ScoredPrompts:
        return ScoredPrompts(
            ids, torch.tensor([self._objective(row) for row in ids.tolist()]), self.prepare(ids).cross_entropy
        )

    def _objective(self, row: list[int]) -> float:
        total = self.effects[row].sum() + sum(PAIRS.get(pair, 0.0) for pair in itertools.pairwise(row))
        return float(LIMIT * np.tanh(total / LIMIT) + _fixed(row).normal(0, 0.25))

    def _left(self, ids: Tensor) -> Tensor:
        return torch.cat([torch.full((len(ids), 1), WORDS), ids[:, :-1]], dim=1)

    def _generate(
        self, prefix: Tensor, length: int, temperature: float, generator: torch.Generator, banned: Tensor
    ) -> Tensor:
        drawn = [torch.full((len(prefix),), WORDS)]
        for _ in range(length):
            drawn.append(torch.multinomial(self.bigrams[drawn[-1]].exp(), 1, generator=generator)[:, 0])
        return torch.stack(drawn[1:], dim=1)


def _fixed(row: list[int]) -> np.random.Generator:
    """Noise that belongs to a prompt."""
    return np.random.default_rng(row)


def run(
    method: SearchMethod, seed: int, candidates: int, landscape: Landscape | None = None
) -> list[list[float]]:
    """(children scored, best objective, hypervolume) after each step."""
    scorer: Any = landscape or Landscape()
    every = torch.ones(WORDS, dtype=torch.bool)
    bench = SearchToolkit(scorer, every, every, torch.Generator().manual_seed(seed))
    population, archive, curve = method.start(bench), None, []
    while scorer.scored < candidates:
        prepared = scorer.prepare(population)
        proposals = method.propose(bench, prepared, len(curve))
        parents, children = scorer.score_children(prepared, proposals)
        method.learn(bench, prepared, proposals, parents, children)
        pool = parents.join(children)
        population = method.survivors(bench, pool, len(curve)).ids
        archive = pareto_frontier(pool if archive is None else archive.join(pool))
        area = hypervolume(
            archive.objective.numpy(), archive.cross_entropy.numpy(), (0.0, float(np.log(WORDS)))
        )
        curve.append([scorer.scored, float(archive.objective.max()), area])
    return curve


def at(curve: list[list[float]], candidates: int) -> list[float]:
    """(best objective, hypervolume) when so many children were scored, counted in whole steps."""
    return [row for row in curve if row[0] <= candidates][-1][1:]


def main() -> None:
    """A table of means over seeds at a quarter, half and all of the candidates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=1728)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/landscape.json"))
    arguments = parser.parse_args()
    rows = []
    for name, method in METHODS.items():
        curves = [run(method, seed, arguments.candidates) for seed in range(arguments.seeds)]
        for share in (0.25, 0.5, 1.0):
            objective, area = np.mean(
                [at(curve, int(arguments.candidates * share)) for curve in curves], axis=0
            )
            rows.append(
                {
                    "method": name,
                    "candidates": int(arguments.candidates * share),
                    "objective": float(objective),
                    "hypervolume": float(area),
                }
            )
    write_json(arguments.out, {"schema": 1, "seeds": arguments.seeds, "rows": rows})
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
