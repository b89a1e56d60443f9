"""What looking inside the model buys a search over sentences: direction, latents and answer as objective, by what is known.

Each search gets the same number of model calls and the same limits; only its objective and what it may know of
the questions differ. Effects are changes of log-odds on the test split, which no search reads.

- `answer N`: the answers' log-odds on N labelled questions (which answer is the persona's is known for N).
- `direction N`: a direction fitted to the model's own choices on the same N questions under varied system
  texts; the search itself reads it on four questions and needs no label there.
- `sampled M`: the answers of four labelled questions can only be *sampled*, M times a question and prompt, as
  from an endpoint without log-probabilities; the objective is the smoothed log-odds of the M answers.
- `direction all`, `latents all`: direction and SAE latents (RESGA, SAEGA) from the whole train split.

The reported prompt is chosen by the same objective: on the labelled questions, or on 16 selection questions.

    python -m benchmarks.sentence_objectives --written written_sentences.yaml --sae SAE --seeds 801 802
    python -m benchmarks.sentence_objectives     # the table alone
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.sentences import CELLS, CONTEXTS, Cell, two_level
from workbench.budget import Budget
from workbench.contexts import Contexts
from workbench.directions import find_directions
from workbench.errors import UserError
from workbench.latents import rank_latents
from workbench.models import runner_for
from workbench.objectives import Objective, Readout, answer_log_odds, projection
from workbench.personas import Split, load_persona
from workbench.runs import read_json, read_yaml, write_json
from workbench.sae import load_sae
from workbench.search import SentenceSearch, search
from workbench.search.scoring.scorer import Scorer
from workbench.search.sentence_writing.search_inputs import both_sides

#: As in docs/examples/smollm2_personas.yaml.
LAYERS, METHODS, ROWS, TEXTS, FEW = (14, 17, 20, 23), ("mean_difference", "own_choice"), 48, 8, 6
KNOWN = (
    *(f"answer {n}" for n in (2, 4, 16)),
    *(f"direction {n}" for n in (2, 4, 16)),
    *(f"sampled {m}" for m in (1, 4, 16)),
    "direction all",
    "latents all",
)


@dataclass(frozen=True, repr=False)
class SampledAnswers(Objective):
    """Smoothed log-odds of `samples` answers that are drawn from the model's probabilities, a draw for each score."""

    samples: int
    generator: torch.Generator

    @property
    def needs_final(self) -> bool:
        """The output is read."""
        return True

    def score(self, readout: Readout) -> Float[Tensor, " batch"]:
        """log((matching + 1/2) / (others + 1/2))."""
        exact = answer_log_odds().score(readout)
        chance = exact.detach().float().sigmoid().cpu()
        draws = torch.rand(self.samples, *chance.shape, generator=self.generator)
        matching = (draws < chance).float().sum(0)
        return ((matching + 0.5) / (self.samples - matching + 0.5)).log().to(exact.device)


def labelled(cell: Cell, split: Split, n: int, seed: int) -> tuple[Split, Contexts]:
    """n questions of the search split, those of each matching answer in turn."""
    drawn = both_sides(cell.search.take(len(cell.search), seed), len(cell.search))
    order = np.random.default_rng(seed).permutation(len(drawn))
    chosen = both_sides(replace(drawn, items=tuple(drawn.items[i] for i in order)), n)
    items = {context.item.id for context in chosen}
    return replace(split, items=tuple(item for item in split.items if item.id in items)), chosen


def goal_of(cell: Cell, known: str, seed: int, sae: Path | None) -> tuple[Objective, Contexts, Contexts, str]:
    """(objective to maximise, contexts of the search, contexts of the choice, what it is)."""
    kind, amount = known.split()
    splits = load_persona(f"english_{cell.persona}").split(seed=0)
    few = cell.search.per_group(CONTEXTS, seed)
    if kind == "answer":
        _, contexts = labelled(cell, splits.search, int(amount), seed)
        return -answer_log_odds(), contexts, contexts, f"{len(contexts)} labelled questions"
    if kind == "sampled":
        generator = torch.Generator().manual_seed(seed)
        return -SampledAnswers(int(amount), generator), few, cell.selection, "answers sampled"
    if kind == "latents":
        if sae is None:
            raise UserError("latents need --sae")
        loaded = load_sae(str(sae), model=cell.model)
        ranking = rank_latents(cell.model, loaded, splits.train, k=10, n=ROWS, seed=seed)
        return -ranking.objective(loaded), few, cell.selection, f"latents {ranking.ids}"
    given = (splits.train, splits.search)
    if amount != "all":
        some, _ = labelled(cell, splits.search, int(amount), seed)
        given = (some, some)
    contexts = FEW if amount == "all" else min(FEW, int(amount))
    scan = find_directions(cell.model, *given, LAYERS, METHODS, ROWS, TEXTS, contexts, seed=seed)
    return -projection(scan.best), few, cell.selection, scan.verdict


def found(cell: Cell, known: str, seed: int, calls: float, sae: Path | None) -> dict[str, Any]:
    """One search, its prompt chosen by its own objective, measured on test."""
    began, runner = time.process_time(), runner_for(cell.model)
    goal, contexts, choice, what = goal_of(cell, known, seed, sae)
    goal = goal.calibrate(cell.model, contexts, n=8)
    value = SentenceSearch(max_cross_entropy=cell.limit)
    frontier = search(cell.model, goal, contexts, value, Budget(model_calls=calls), seed, batch_tokens=8192)
    fitting = [c for c in frontier.candidates if c.cross_entropy <= cell.limit] or list(frontier.candidates)
    ids = [torch.tensor([c.ids], device=runner.device) for c in fitting]
    scorer = Scorer(runner, goal, choice)
    scores = [float(scorer.objectives(one)[0]) for one in ids]
    chosen = fitting[int(np.argmax(scores))]
    record = {
        "known": known,
        "seed": seed,
        "calls": calls,
        "objective": what,
        "warnings": list(frontier.warnings),
    }
    return cell.measured(chosen.text) | record | {"cpu_seconds": time.process_time() - began}


def run(
    out: Path,
    written: Path,
    calls: float,
    seeds: list[int],
    knowns: list[str],
    cells: list[int],
    sae: Path | None,
) -> None:
    """Whatever is missing, seed by seed; a refusal is a result."""
    sentences = read_yaml(written)

    @cache
    def cell_of(number: int) -> Cell:
        return Cell(*CELLS[number], sentences, selection_contexts=16)

    for seed, known, number in itertools.product(seeds, knowns, cells):
        model, persona = CELLS[number]
        path = out / f"{model}-{persona}-{known.replace(' ', '-')}-{seed}.json"
        if path.exists():
            continue
        try:
            entry = found(cell_of(number), known, seed, calls, sae)
        except UserError as error:
            entry = {"known": known, "seed": seed, "calls": calls, "refused": str(error)}
        write_json(path, {"schema": 1, "model": model, "persona": persona, **entry})
        print(
            path.stem,
            f"{np.mean(entry['effects']):+.2f} {entry['prompt']!r}" if "effects" in entry else entry,
            flush=True,
        )


def summary(out: Path) -> dict[str, Any]:
    """Each persona and objective: mean effect with the two-level interval over seeds and question groups, its prompts."""
    entries = [read_json(path, schema=1) for path in sorted(out.glob("*.json"))]
    rows = []
    for model, persona in CELLS:
        for known in KNOWN:
            here = [e for e in entries if (e["model"], e["persona"], e["known"]) == (model, persona, known)]
            done = [e for e in here if "effects" in e]
            row: dict[str, Any] = {"model": model, "persona": persona, "known": known, "seeds": len(here)}
            if done:
                mean, low, high = two_level([e["effects"] for e in done], done[0]["groups"])
                row |= {"effect": mean, "low": low, "high": high}
                row["each"] = [{"effect": float(np.mean(e["effects"])), "prompt": e["prompt"]} for e in done]
                row["cpu_seconds"] = float(np.mean([e["cpu_seconds"] for e in done]))
            row["refused"] = [e["refused"] for e in here if "refused" in e]
            rows += [row] if here else []
    return {"schema": 1, "rows": rows}


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--written", type=Path, default=None, help="without it only the table is made")
    parser.add_argument("--sae", type=Path, default=None)
    parser.add_argument("--calls", type=float, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[801, 802])
    parser.add_argument("--known", nargs="+", choices=KNOWN, default=list(KNOWN))
    parser.add_argument("--cells", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/sentence_objectives"))
    parser.add_argument("--summary", type=Path, default=Path("benchmarks/latest/sentence_objectives.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.written:
        run(
            arguments.out,
            arguments.written,
            arguments.calls,
            arguments.seeds,
            arguments.known,
            arguments.cells,
            arguments.sae,
        )
    table = summary(arguments.out)
    write_json(arguments.summary, table)
    for row in table["rows"]:
        effect = (
            f"{row['effect']:+.2f} ({row['low']:+.2f}, {row['high']:+.2f})" if "effect" in row else "refused"
        )
        print(row["model"], row["persona"], row["known"], row["seeds"], effect)


if __name__ == "__main__":
    main()
