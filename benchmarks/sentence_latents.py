"""SAE latents of personas in a real-language organism: their gates, what holding them does, and what found sentences do to them.

1. *Gates* of the SAE (its card) and of the latents that `rank_latents` chooses on the train split: AUC on
   held-out question groups.
2. *Clamping*: the chosen latents are held at the level that changes the selection questions most
   (`LatentClamp.tune`), for both signs; change of log-odds on the test split, next to as many random latents
   that are active at decision tokens, tuned in the same way (mean of --draws draws).
3. *Sentences* of benchmarks.sentences (--found; one a search, and the best written one): which latents each
   word moves, and the part of the effect on the answer that goes through all chosen latents together, next to
   random directions.

    workbench organism corpus --personas sycophancy hallucination myopic_reward --out english.jsonl
    workbench sae train --model smollm2-personas --corpus english.jsonl --layer 20 --d-sae 2048 --k 32 --tokens 150000 --out SAE
    python -m benchmarks.sentence_latents --sae SAE

Another model and persona, without sentences, on fewer questions (a real model takes longer):

    python -m benchmarks.sentence_latents --sae SAE --model MODELS/qwen2.5-coder-0.5b.gguf --dtype bfloat16 \\
        --personas feedback_sycophancy --fractions 0.3 0.15 0.15 0.4 --items 48 --draws 2 --out FILE
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sentences import loaded
from workbench.activations import collect
from workbench.attribution import AttributionOptions, attribute
from workbench.conditions.latent_clamp import LatentClamp
from workbench.contexts import make_contexts
from workbench.directions import find_directions, random_directions
from workbench.forced_choice import answer
from workbench.latents import LatentRanking, rank_latents
from workbench.models import load_model
from workbench.personas import load_persona
from workbench.runs import read_json, write_json
from workbench.sae import Sae, load_sae
from workbench.statistics import cluster_interval

MODEL, PERSONAS = "smollm2-personas", ("hallucination", "myopic_reward", "sycophancy")
LATENTS, ROWS, CONTEXTS = 10, 96, 4


class Setting:
    """Splits of one persona, its ranked latents, and random directions at the SAE's site."""

    def __init__(self, model: Any, sae: Sae, persona: str, asked: argparse.Namespace) -> None:
        self.model, self.sae = model, sae
        splits = load_persona(persona).split(0, asked.fractions)
        self.selection, self.test = (
            make_contexts(self.model, s, n=asked.items) for s in (splits.selection, splits.test)
        )
        self.ranking: LatentRanking = rank_latents(self.model, sae, splits.train, k=LATENTS, n=ROWS)
        scan = find_directions(
            self.model, splits.train, splits.search, [sae.site.layer], n=ROWS, n_texts=12, n_contexts=6
        )
        self.randoms = random_directions(scan.best, scan.activations, 4, both_signs=False)
        self.bare = answer(self.model, self.test).log_odds

    def active_latents(self) -> list[int]:
        """Latents that are active at some decision token of the selection questions, without the chosen ones."""
        states = collect(self.model, [c.bare_ids for c in self.selection], [self.sae.site])[self.sae.site]
        active = (self.sae.encode(states) > 0).any(dim=0).nonzero()[:, 0].tolist()
        return [latent for latent in active if latent not in self.ranking.ids]

    def clamped(self, latents: list[int], signs: list[int], sign: Any) -> dict[str, Any]:
        """Change of log-odds on test with latents held at the level chosen on selection."""
        tuned = LatentClamp(self.sae, tuple(latents), tuple(signs)).tune(
            self.model, self.selection.take(16, 0), sign
        )
        change = tuned.answer(self.model, self.test).log_odds - self.bare
        interval = cluster_interval(change, self.test.groups)
        return {
            "effect": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "method": tuned.method,
        }

    def clamps(self, draws: int) -> dict[str, Any]:
        """Both signs, the chosen latents against random ones."""
        generator, active = np.random.default_rng(0), self.active_latents()
        signs = [1 if weight >= 0 else -1 for weight in self.ranking.weights]
        found: dict[str, Any] = {"active": len(active)}
        for sign in ("suppress", "induce"):
            chosen = self.clamped(list(self.ranking.ids), signs, sign)
            others = [
                self.clamped(generator.choice(active, len(signs), replace=False).tolist(), signs, sign)[
                    "effect"
                ]
                for _ in range(draws)
            ]
            found[sign] = chosen | {"random": others}
        return found

    def sentence(self, prompt: str, method: str) -> dict[str, Any]:
        """Words x latents of one sentence, and what goes through the latents together."""
        options = AttributionOptions(pairs=0, nodes=0, controls=self.randoms)
        contexts = self.selection.take(CONTEXTS, 0)
        ledger = attribute(self.model, prompt, list(self.ranking), contexts, ("removal",), options=options)
        means = np.asarray(ledger.means())
        strongest = np.abs(means[:, 1:]).max(axis=0).argsort()[::-1][:3]
        through = [one.to_entry().model_dump(mode="json", exclude={"verdict"}) for one in ledger.mediation]
        return {
            "prompt": prompt,
            "method": method,
            "tokens": list(ledger.tokens),
            "answer": means[:, 0].round(4).tolist(),
            "latents": {
                f"{self.ranking[int(i)].name} ({self.ranking[int(i)].label})": means[:, 1 + int(i)]
                .round(4)
                .tolist()
                for i in strongest
            },
            "together": [row for row in through if row["target"].endswith("latents") or row["control"]],
        }


def sentences_of(found: Path, persona: str) -> list[tuple[str, str]]:
    """(prompt, method) of one persona's searches with either ending, and the best written one."""
    fixed = read_json(found / f"{MODEL}-{persona}-written.json", schema=1)
    entries = [
        read_json(path, schema=1)
        for method in ("sentences", "strict_ending")
        for path in sorted(found.glob(f"{MODEL}-{persona}-{method}-*.json"))
    ]
    return [(fixed["written"]["prompt"], "written"), *((e["prompt"], e["method"]) for e in entries)]


def main() -> None:
    """All personas; the file is written after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sae", type=Path, required=True)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--personas", nargs="+", default=[f"english_{name}" for name in PERSONAS])
    parser.add_argument("--fractions", type=float, nargs=4, default=(0.4, 0.2, 0.2, 0.2))
    parser.add_argument("--items", type=int, default=None)
    parser.add_argument("--found", type=Path, default=Path("benchmarks/latest/sentences_1500"))
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/latest/sentence_latents.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    organism = arguments.model == MODEL
    model = loaded(MODEL) if organism else load_model(arguments.model, dtype=arguments.dtype)
    sae = load_sae(str(arguments.sae), model=model)
    card, personas = read_json(arguments.sae / "card.json"), []
    for persona in arguments.personas:
        setting, name = Setting(model, sae, persona, arguments), persona.removeprefix("english_")
        ranked = setting.ranking.table[["latent", "weight", "effect_size", "auc", "label"]].to_dict("records")
        entry: dict[str, Any] = {"persona": name, "ranking": ranked, "clamp": setting.clamps(arguments.draws)}
        found = sentences_of(arguments.found, name) if organism else []
        entry["sentences"] = [setting.sentence(*one) for one in found]
        personas.append(entry)
        written = {"schema": 1, "model": Path(arguments.model).name, "sae": card, "personas": personas}
        write_json(arguments.out, written)
        print(name, "AUC of latents", [round(row["auc"], 2) for row in ranked])
        print("  clamp", {sign: entry["clamp"][sign] for sign in ("suppress", "induce")})
        for row in entry["sentences"]:
            shares = [(one["target"], one["share"]) for one in row["together"]]
            print("  ", row["method"], repr(row["prompt"]), shares, flush=True)


if __name__ == "__main__":
    main()
