"""Commands for models and their SAEs."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from workbench.cli.app import Json, app
from workbench.cli.output_tables import print_facts, print_frame

sae_app = App(name="sae", help="SAEs: train one on any model.")
app.command(sae_app)


@app.command
def models(*, as_json: Json = False) -> None:
    """List the models that can be loaded, and named SAEs for them."""
    from workbench.models.model_inventory import inventory
    from workbench.sae import saes_for

    table = inventory()
    print_frame(table.assign(saes=[", ".join(saes_for(name)[0]) for name in table["name"]]), as_json)


@app.command
def doctor(
    model: str = "organism", *, device: str = "cpu", dtype: str = "float32", as_json: Json = False
) -> None:
    """Check that a model is loaded correctly.

    It compares logits with Hugging Face, checks template, BOS and tokens that do not round-trip, and lists
    memory and the SAEs made for the model. The exit code is 2 if a check says NO.

    Args:
        model: Name, directory or GGUF file of the model.
        device: cpu, cuda, cuda:1, mps, or balanced (over several GPUs).
        dtype: Type of the weights: float32, bfloat16 or float16.
    """
    from workbench.models.doctor import diagnose
    from workbench.sae import saes_for

    named, releases = saes_for(model)
    words = "; ".join(
        filter(None, [", ".join(named), "sae-lens releases: " + ", ".join(releases) if releases else ""])
    )
    fitting = {
        "check": "SAEs of this model",
        "ok": "",
        "detail": words or "none known: RESGA needs none, `workbench sae train` makes one",
    }
    found = diagnose(model, device, dtype)
    table = found.frame()
    table.loc[len(table)] = fitting
    print_frame(table, as_json)
    if not found.ok:
        raise SystemExit(2)


@sae_app.command(name="train")
def sae_train(
    *,
    model: str,
    corpus: Path,
    layer: int,
    out: Path,
    d_sae: int = 512,
    k: int = 16,
    tokens: int = 200_000,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Train a TopK SAE on a model's residual stream.

    Args:
        model: Name or directory of the model.
        corpus: Texts to run the model on: a text file with one text per line, or a contrast file (questions
            with two answers).
        layer: Block whose output is read.
        out: Directory for the SAE, in sae-lens's format with a card of its quality.
        d_sae: Number of latents.
        k: Number of latents that are active per token.
        tokens: Number of training tokens.
        seed: Seed of the training.
    """
    from workbench.models import Site, load_model
    from workbench.sae import SaeTrainingOptions, read_corpus, train_sae

    card = train_sae(
        load_model(model),
        read_corpus(corpus),
        Site(layer),
        out,
        d_sae,
        k,
        tokens,
        SaeTrainingOptions(seed=seed),
    )
    print_facts(card.to_json(), as_json)
