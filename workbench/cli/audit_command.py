"""The command `workbench audit`, which analyses a prompt that the user wrote."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from workbench.cli.app import Json, Sign, app
from workbench.cli.output_tables import say


@app.command
def audit(
    prompt: str,
    *,
    persona: str,
    model: str = "organism",
    device: str = "cpu",
    dtype: str = "float32",
    max_edits: int = 2,
    sentence: bool = False,
    sentence_calls: float = 500,
    sign: Sign = "suppress",
    inside: bool = False,
    sae: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Find which words of your own prompt make the model show a persona, such as sycophancy.

    It also finds the smallest fluent edit of the prompt that removes the effect.

    Args:
        prompt: Text of the prompt; it is put into the system message.
        persona: Name of the persona, or its file.
        model: Name, directory or GGUF file of the model.
        device: cpu, cuda, cuda:1, mps, or balanced (over several GPUs).
        dtype: Type of the weights: float32, bfloat16 or float16.
        max_edits: Most words that may be deleted or exchanged.
        sentence: If no such edit is enough, search for a sentence to add after the prompt (needs a model with
            a real vocabulary).
        sentence_calls: Budget of the search for a sentence, in model calls; 500 take one to two minutes on
            one core with a model of 135 million parameters.
        sign: Aim: less of the persona (suppress) or more (induce).
        inside: Also fit a direction and show how each word changes it (takes longer).
        sae: Name or directory of an SAE, to show its latents too; implies --inside.
        data: Contrast file of the persona: questions with two answers, of which one shows the persona.
        out: HTML page to write.
        seed: Seed of the splits, the questions and the sampled orders of words.
    """
    from workbench.audit import audit as audit_prompt
    from workbench.audit import inside as find_targets
    from workbench.audit import offer_sentence
    from workbench.audit.audit_terminal import render
    from workbench.models import load_model
    from workbench.personas import load_persona
    from workbench.sae import load_sae

    loaded, asked = load_model(model, device, dtype), load_persona(persona, data)
    wanted = (
        find_targets(loaded, asked.split(seed), load_sae(sae, loaded) if sae else None, seed=seed)
        if inside or sae
        else ()
    )
    found = audit_prompt(loaded, prompt, asked, max_edits, sign, wanted, seed=seed)
    if sentence:
        found = offer_sentence(loaded, found, asked, sentence_calls)
    if out is not None:
        found.save_html(out)
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
        return
    Console().print(render(found))
    if out is not None:
        say(f"audit: {out}")
