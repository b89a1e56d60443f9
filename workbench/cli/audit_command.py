"""The command that audits one's own prompt."""

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
    """Which words of your own prompt cause the persona, and the smallest fluent edit that removes the effect.

    Args:
        prompt: the text to audit (it is put in the system slot).
        persona: name or file.
        model: name, directory or GGUF file.
        device: cpu, cuda, cuda:1, mps, or balanced (over several GPUs).
        dtype: float32, bfloat16 or float16.
        max_edits: words that may be deleted or exchanged.
        sentence: where no such edit suffices, search for a sentence to add after the prompt (needs a model
            with real vocabulary).
        sentence_calls: its budget in model calls; 500 take one to two minutes of one core with a model of 135
            million parameters.
        sign: what is wanted of the persona: less (suppress) or more (induce).
        inside: also fit a direction and show what each word does to it (takes longer).
        sae: SAE, name or directory, for latents; means --inside.
        data: contrast file.
        out: write an HTML page here.
        seed: of the splits, the questions and the sampled orders.
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
