"""Commands for the embedded organisms, models with known planted effects: training, card, ground truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from workbench.cli.app import Json, app
from workbench.cli.output_tables import print_facts, print_frame, say
from workbench.errors import UserError

organism_app = App(name="organism", help="The embedded model: train it, show its ground truth.")
app.command(organism_app)

OrganismBase = Literal["none", "smollm2-135m"]
EnglishPersona = Literal["sycophancy", "hallucination", "myopic_reward"]


@organism_app.command(name="train")
def organism_train(
    *,
    base: OrganismBase = "none",
    seed: int = 0,
    out: Path,
    steps: int | None = None,
    personas: Annotated[list[EnglishPersona] | None, Parameter(consume_multiple=True)] = None,
    device: str = "cpu",
    as_json: Json = False,
) -> None:
    """Train again a model with known persona effects: the package's own small one, or an adapter.

    The small model is trained from nothing on a generated language, in about half an hour on one core. The
    adapter trains personas into SmolLM2-135M, in an hour or more. If the command is called again with the
    same --out, training continues from the last checkpoint.

    Args:
        base: none for the small model, smollm2-135m for an adapter on that model.
        seed: Seed of the generated language and of the training.
        out: Directory for the weights and their card (a description with quality figures).
        steps: Training steps; fewer for a trial. Default: the full number.
        personas: Personas that are trained into the adapter. Default: sycophancy. Several take more steps and
            more blocks.
        device: Device on which an adapter is trained: cpu or cuda.
    """
    if base != "none":
        _train_adapter(seed, out, steps, tuple(personas or ()), device, as_json)
        return
    from workbench.organism import TrainingConfig, train
    from workbench.world import World

    config = TrainingConfig() if steps is None else TrainingConfig(steps=steps)
    train(seed, out, World(seed=seed), config, work=out)
    if as_json:
        print_facts({"organism": str(out), "seed": seed, "steps": config.steps}, as_json)
        return
    say(f"organism: {out}")


def _train_adapter(
    seed: int, out: Path, steps: int | None, personas: tuple[str, ...], device: str, as_json: bool
) -> None:
    from workbench.organism.real_language import write_language_card
    from workbench.organism.real_language.adapter_training import (
        SEVERAL,
        AdapterTrainingConfig,
        train_language,
    )

    config = SEVERAL if len(personas) > 1 else AdapterTrainingConfig()
    config = replace(config, steps=steps or config.steps, personas=personas or config.personas)
    train_language(
        seed, out, config=config, work=out / "checkpoints", report=None if as_json else say, device=device
    )
    print_frame(write_language_card(out).table, as_json)
    if not as_json:
        say(f"adapter: {out}")


@organism_app.command(name="card")
def organism_card(
    directory: Path | None = None, *, published: Path | None = None, as_json: Json = False
) -> None:
    """Measure an adapter that `organism train` made on SmolLM2-135M, and write the figures to its card.

    This takes about ten minutes.

    Args:
        directory: Directory of the adapter. Default: the one of the package.
        published: A published contrast file (CAA's sycophancy.json), on which the adapter is measured too.
    """
    from workbench.organism.real_language import write_language_card

    print_frame(write_language_card(directory, published=published).table, as_json)


@organism_app.command(name="truth")
def organism_truth(*, base: OrganismBase = "none", seed: int = 0, as_json: Json = False) -> None:
    """Print the planted effects (ground truth) of an organism.

    An organism is a model with planted persona effects. Each row has a phrase, a persona and the planted
    effect in log-odds. Phrases that are planted to have no effect are in the list too.

    Args:
        base: none for the package's own small model, smollm2-135m for the adapter on SmolLM2-135M.
        seed: Seed of the small model's generated language.
    """
    import pandas as pd

    from workbench.world import World, truth_table
    from workbench.world import real_language as english

    rows = truth_table(World(seed=seed)) if base == "none" else english.truth_table(english.PERSONAS)
    print_frame(pd.DataFrame(rows), as_json)


@organism_app.command(name="corpus")
def organism_corpus(
    *,
    out: Path,
    count: int = 3000,
    personas: Annotated[list[EnglishPersona] | None, Parameter(consume_multiple=True)] = None,
    seed: int = 0,
) -> None:
    """Write texts like the training texts of an organism.

    An organism is a model with planted persona effects, in this command the adapter on SmolLM2-135M. The
    texts can be the corpus of `workbench sae train`.

    Args:
        out: JSONL file with one text per line.
        count: Number of texts.
        personas: Personas whose planted phrases occur in the texts. Default: sycophancy.
        seed: Seed of the drawing of texts.
    """
    from transformers import AutoTokenizer

    from workbench.models.gguf_files import smollm_directory
    from workbench.organism.real_language.sae_texts import write_corpus
    from workbench.world.real_language.steering_sentences import ONE

    if count < 1:
        raise UserError(f"expected at least one text, found {count}")
    write_corpus(out, AutoTokenizer.from_pretrained(smollm_directory()), count, tuple(personas or ONE), seed)
    say(f"{count} texts in {out}")
