"""Commands for models and their SAEs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App

from workbench.cli.app import Json, app
from workbench.cli.output_tables import print_facts, print_frame, print_notes
from workbench.errors import UserError

#: Most token sequences that are made of a study's train questions.
_SEQUENCES = 4000

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
    model: str | None = None,
    corpus: Path | None = None,
    study: Path | None = None,
    layer: int,
    out: Path,
    d_sae: int = 512,
    k: int = 16,
    tokens: int = 200_000,
    device: str | None = None,
    dtype: str | None = None,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Train a TopK SAE on a model's residual stream.

    Args:
        model: Name, directory or GGUF file of the model. Default: the study's.
        corpus: Texts to run the model on: a text file with one text per line, or a contrast file (questions
            with two answers).
        study: Study file. The model also reads the persona's train questions as in the study: in the chat
            template, after system texts and before either answer.
        layer: Block whose output is read.
        out: Directory for the SAE, in sae-lens's format with a card of its quality.
        d_sae: Number of latents.
        k: Number of latents that are active per token.
        tokens: Number of training tokens.
        device: cpu, cuda, cuda:1, mps, or balanced (over several GPUs). Default: the study's, or cpu.
        dtype: Type of the weights (float32, bfloat16 or float16). Default: the study's, or float32.
        seed: Seed of the training.
    """
    from workbench.models import Site, load_model
    from workbench.sae import SaeTrainingOptions, read_corpus, train_sae

    if study is None and (model is None or corpus is None):
        raise UserError("expected --study STUDY.yaml, or --model and --corpus")
    texts: list[Any] = [] if corpus is None else [*read_corpus(corpus)]
    if study is None:
        loaded = load_model(str(model), device or "cpu", dtype or "float32")
    else:
        loaded, questions = _train_questions(study, model, device, dtype, seed)
        texts += questions
    card = train_sae(loaded, texts, Site(layer), out, d_sae, k, tokens, SaeTrainingOptions(seed=seed))
    print_facts(card.to_json(), as_json)
    print_notes(card.warnings, as_json)


def _train_questions(
    study: Path, model: str | None, device: str | None, dtype: str | None, seed: int
) -> tuple[Any, list[tuple[int, ...]]]:
    """Return the model of a study, and token sequences of all its train questions."""
    from workbench.cli.study_commands import with_changes
    from workbench.sae import context_texts
    from workbench.study import Study
    from workbench.study.material import Material

    settings = with_changes(Study.load(study), model=model, device=device, dtype=dtype)
    every = settings.data.model_copy(update={"train_items": None})
    material = Material.load(settings.model_copy(update={"data": every}))
    made = context_texts(material.model, material.splits.train, _SEQUENCES, settings.slot, seed)
    return material.model, made
