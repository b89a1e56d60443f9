"""Commands for personas: list the built-in ones, check a persona file, or let a model draft one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import App

from workbench.cli.app import Json, app
from workbench.cli.output_tables import print_frame, print_notes
from workbench.errors import UserError

if TYPE_CHECKING:
    from workbench.evaluation.chat_models import Ask

persona_app = App(name="persona", help="Personas and their questions: list, check and draft them.")
app.command(persona_app)


@persona_app.command(name="list")
def persona_list(*, as_json: Json = False) -> None:
    """List the built-in personas with their questions, and the models that each is meant for."""
    from workbench.personas import persona_inventory

    print_frame(persona_inventory(), as_json)


@persona_app.command(name="check")
def persona_check(
    file: str,
    *,
    data: Path | None = None,
    model: str | None = None,
    layer: int | None = None,
    slot: Literal["system", "before_question", "after_question", "answer_opening"] = "system",
    difference: float = 0.1,
    directions: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    as_json: Json = False,
) -> None:
    """Check whether a persona's questions (contrast data) are good enough to find its direction.

    Each question has an answer that shows the persona and one that does not. Without a model, the command
    reports the balance of the options, the number of question groups and how many are needed to show a
    difference, and how well a rule that sees only the answer's length or letter guesses the persona's answer.

    With a model it also reports the bias to a letter or position, the agreement of answers in both option
    orders, the effects of written prompts and the minimum detectable effect. It then compares the held-out
    AUC of the persona's direction with the AUCs after the answers of whole question groups were exchanged. A
    persona that `workbench run` would refuse is an error.

    Args:
        file: Persona file (YAML), or a name to use with --data.
        data: Contrast file with the persona's questions.
        model: Name or directory of the model.
        layer: Layer that is read for the permutation test. Default: the middle one.
        slot: Place in the chat where prompts go: system, before_question, after_question or answer_opening.
        difference: Difference of two rates (0 to 1) that the study should be able to show.
        directions: Also scan all layers and methods for the persona's direction, as a study with default
            settings does, which stops if none is shown. Takes minutes for a large model on a CPU.
        device: cpu, cuda, cuda:1, mps, or balanced (over several GPUs).
        dtype: Type of the model's weights: float32, bfloat16 or float16.
    """
    from workbench.personas import check_persona, load_persona

    if directions and model is None:
        raise UserError("--directions needs --model: directions are read in a model")
    persona = load_persona(file, data)
    checked = check_persona(persona, difference)
    table, notes, refusals = checked.table, list(checked.notes), checked.refusals
    if model is not None:
        import pandas as pd

        from workbench.directions import direction_permutation_test
        from workbench.models import load_model
        from workbench.study.direction_check import add_directions
        from workbench.study.persona_model_check import check_on_model

        loaded = load_model(model, device, dtype)
        found = check_on_model(loaded, persona, slot)
        test = None if found.refusals else direction_permutation_test(loaded, persona, layer)
        found = add_directions(found, loaded, persona, slot) if directions else found
        table, notes = pd.concat([table, found.table], ignore_index=True), [*notes, *found.notes]
        refusals = (*refusals, *found.refusals)
        if test is not None:
            table, notes = test.added_to(table), [*notes, test.verdict]
    print_frame(table, as_json)
    print_notes(list(dict.fromkeys(notes)), as_json)
    if refusals:
        where = "" if model is None else f" on {model}"
        raise UserError(f"{file}: run would refuse this persona{where}: {refusals[0]}")


@persona_app.command(name="draft")
def persona_draft(
    description: str,
    *,
    out: Path,
    model: str | None = None,
    endpoint: str | None = None,
    key_variable: str | None = None,
    opposite: str | None = None,
    pairs: int = 24,
    name: str | None = None,
    temperature: float = 0.8,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    as_json: Json = False,
) -> None:
    """Let a model draft a persona file from a description.

    The draft has pairs (a question with an answer that shows the behaviour and one that does not), sentences
    that a system message can contain, prompts that request the behaviour or its opposite, and true
    statements. It is checked, and written only if enough pairs are usable. Read the pairs before you use them
    in a study.

    Args:
        description: The behaviour in plain words, such as "overconfident medical advice".
        out: Persona file (YAML) to write; it must not exist.
        model: Model that writes the draft: a name or directory; with --endpoint the endpoint's name of the
            model.
        endpoint: Address of an OpenAI-compatible endpoint (.../v1) to use instead of a local model.
        key_variable: Environment variable with the endpoint's key.
        opposite: What the assistant does instead, in plain words. Default: the model proposes it.
        pairs: Number of pairs.
        name: Name of the persona. Default: the first words of the description.
        temperature: Sampling temperature of the replies; 0 gives the likeliest words.
        seed: Seed of a local model's replies.
        device: Device of a local model: cpu, cuda, cuda:1, mps, or balanced (over several GPUs).
        dtype: Type of a local model's weights: float32, bfloat16 or float16.
    """
    from workbench.runs import write_text
    from workbench.study.persona_draft import check_draft, draft_persona

    if out.suffix.lower() not in (".yaml", ".yml"):
        raise UserError(f"{out}: a persona file ends in .yaml")
    if out.exists() or not out.parent.is_dir():
        raise UserError(f"{out}: {'exists already' if out.exists() else 'its directory does not exist'}")
    ask = _writer(model, endpoint, key_variable, temperature, seed, (device, dtype))
    draft = draft_persona(description, ask, opposite, pairs, name)
    checked = check_draft(
        draft, out, Path(model or "a model").name, None if endpoint else getattr(ask, "model", None)
    )
    if checked.refusals:
        raise UserError(f"no draft was written: run would refuse it: {checked.refusals[0]}")
    write_text(out, checked.text)
    print_frame(checked.table, as_json)
    print_notes(
        [
            *checked.notes,
            *draft.notes,
            *(f"dropped: {count} {reason}" for reason, count in draft.dropped),
            f"{len(draft.pairs)} pairs in {out}",
        ],
        as_json,
    )


def _writer(
    model: str | None,
    endpoint: str | None,
    key_variable: str | None,
    temperature: float,
    seed: int,
    place: tuple[str, str],
) -> Ask:
    """Return the model that writes the draft: a local one, or one at an endpoint."""
    from workbench.evaluation.chat_models import Endpoint, LocalModel

    if model is None:
        raise UserError("a draft needs a model: --model NAME, or --endpoint URL with --model NAME")
    if endpoint is not None:
        return Endpoint(endpoint, model, key_variable, temperature)
    if key_variable is not None:
        raise UserError("--key-variable belongs to --endpoint: a local model has no key")
    from workbench.models import load_model

    return LocalModel(load_model(model, *place), temperature=temperature, seed=seed)
