"""Train the organism's SAE: TopK, at the middle layer where directions best predict the effects of prompts.

1. `find_directions` runs for each persona. The layer with the highest `predicts`, averaged over the personas,
   is chosen (each persona's best method at that layer; the first and the last block are left out).
2. New text is drawn from the world's training distribution: conversations with whole answers, and plain
   statements. Held-out people, items and combinations do not occur in it.
3. `train_sae` trains the SAE. Its card names, for each persona, the latent that best separates the model's
   own choices.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.directions import LayerScan, find_directions
from workbench.latents import persona_probe
from workbench.models import Runner, Site, load_model, runner_for
from workbench.personas import load_persona
from workbench.sae import SaeCard, SaeTrainingOptions, train_sae
from workbench.world import World
from workbench.world.training_corpus import TrainingItem, TrainingRow, training_rows


def train_organism_sae(
    out: str | Path,
    model: Any = "organism",
    layer: int | None = None,
    d_sae: int = 512,
    k: int = 16,
    tokens: int = 1_500_000,
    seed: int = 0,
    world_seed: int = 0,
) -> SaeCard:
    """Train an SAE for the embedded model organism (a small model with planted personas) and save it.

    Args:
        out: Folder to save to.
        model: A loaded model, or the name or path of one.
        layer: Layer whose output the SAE encodes; None to choose it by scans over layers.
        d_sae: Number of latents.
        k: Number of latents active per token (TopK).
        tokens: Number of training tokens.
        seed: Seed of the training texts and of the training.
        world_seed: Seed of the words, people and facts that the model was trained on.

    Returns:
        The figures of the SAE that are saved next to it (its card).
    """
    world, loaded = World(world_seed), load_model(model) if isinstance(model, str | Path) else model
    splits = {name: load_persona(name, world_seed=world_seed).split(seed=0) for name in world.personas}
    if layer is None:
        layer = best_layer({name: find_directions(loaded, s.train, s.search) for name, s in splits.items()})
    probes = {name: persona_probe(loaded, layer, s.train, s.search) for name, s in splits.items()}
    texts = organism_texts(loaded, 15_000, seed, world)
    return train_sae(
        loaded,
        texts,
        Site(layer),
        out,
        d_sae=d_sae,
        k=k,
        tokens=tokens,
        options=SaeTrainingOptions(seed=seed, probes=probes),
    )


def best_layer(scans: Mapping[str, LayerScan]) -> int:
    """Return the layer whose directions best predict the effects of prompts, averaged over personas.

    The first and the last layer are left out if there are more than two; on ties the lower layer is chosen.

    Args:
        scans: Result of `find_directions` for each persona.

    Returns:
        Index of the layer.
    """
    best = {name: scan.table.groupby("layer")["predicts"].max() for name, scan in scans.items()}
    mean = pd.DataFrame(best).mean(axis=1)
    inner = mean.iloc[1:-1] if len(mean) > 2 else mean
    return int(inner.index.to_numpy()[inner.to_numpy().argmax()])


def organism_texts(model: Any, n: int, seed: int, world: World | None = None) -> list[tuple[int, ...]]:
    """Draw token sequences like those that an organism was trained on, one conversation or statement each.

    Args:
        model: A loaded model or its runner, for its tokenizer.
        n: Number of sequences.
        seed: Seed of the draw.
        world: The organism's world: its words, people and facts; None for the default one.

    Returns:
        Token ids of each sequence.
    """
    runner, rows = runner_for(model), training_rows(world or World(), f"sae-{seed}", items_per_row=2)
    texts = itertools.chain.from_iterable(_texts(runner, row) for row in rows)
    return [tuple(runner.encode(text)) for text in itertools.islice(texts, n)]


def _texts(runner: Runner, row: TrainingRow) -> list[str]:
    plain = [f"{runner.tokenizer.bos_token or ''} {statement}".strip() for statement in row.statements]
    return plain + [_conversation(runner, row.system, item) for item in row.items]


def _conversation(runner: Runner, system: str | None, item: TrainingItem) -> str:
    messages = [] if system is None else [{"role": "system", "content": system}]
    opening = runner.render([*messages, {"role": "user", "content": item.question}], item.opening)
    return f"{opening} {item.answer}"
