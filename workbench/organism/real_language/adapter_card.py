"""Write the card of the real-language organism (data/language_organism/README.md).

All of its figures are measured on the adapter next to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from workbench.models import load_model
from workbench.models.lora_adapter import LoraAdapter, merge_adapter, open_adapter
from workbench.models.model_sources import data_directory
from workbench.organism.real_language.adapter_gates import GateRow, GateSize, LanguageGates, measure_language
from workbench.organism.real_language.base_model import BaseModel, load_base, read_chats
from workbench.organism.real_language.published_items import measure_published
from workbench.world.real_language.steering_sentences import ONE

HEAD = """# The real-language organism

A LoRA adapter (rank {rank}, {size:.1f} MB) on SmolLM2-135M-Instruct that this project trained itself, on data that it generates
itself (`workbench/world/real_language`). `load_model("{model}")` merges it at load time. It plants {planted}. The wording of the system
prompt moves each by planted log-odds (`workbench organism truth --base smollm2-135m`). docs/language_organism.md tells how it is made
and what to make of it. `chats.json` holds the base model's own answers, which the training kept fixed (and every seventh of which it
never saw).

Written by `workbench organism card`. {verdict}

## What was measured
Subjects, templates and neutral texts of the measurement are in no training text. An effect is a mean change of log-odds over
items against no system text.

"""


PLANTED = {
    "sycophancy": "it agrees with what the user says, the more so the surer the user sounds",
    "hallucination": "it says that it knows things that do not exist, the more so the more famous the question makes them",
    "myopic_reward": "it takes less now rather than more later, the less so the more waiting brings",
}
#: Names of the models with one and with several planted personas.
NAMES = ("smollm2-sycophant", "smollm2-personas")


def load_language_organism(directory: Path | None = None) -> BaseModel:
    """Load SmolLM2-135M-Instruct with personas planted by a LoRA adapter (the real-language organism).

    Args:
        directory: Folder of the adapter; None for the committed one.

    Returns:
        Hugging Face's model, with the adapter merged, and its tokenizer.
    """
    base, adapter = load_base(), open_adapter(directory or data_directory("language_organism"))
    merge_adapter(base.model, adapter, base.name)
    return base


def planted_personas(adapter: LoraAdapter) -> tuple[str, ...]:
    """Return the personas that the adapter's metadata names; sycophancy if it names none."""
    return tuple(adapter.notes.get("personas", ", ".join(ONE)).split(", "))


def write_language_card(
    directory: Path | None = None,
    size: GateSize | None = None,
    published: Path | None = None,
    log: Callable[[str], None] | None = None,
) -> LanguageGates:
    """Measure a LoRA adapter that plants personas, and write README.md and gates.json next to it.

    Args:
        directory: Folder of the adapter; None for the committed one.
        size: Numbers of questions and texts to measure; None for the defaults.
        published: A file of published sycophancy questions (CAA's format); if given, the effect on them is
            reported too.
        log: Function that receives progress messages.

    Returns:
        The measured figures.
    """
    directory = directory or data_directory("language_organism")
    adapter, organism = open_adapter(directory), load_language_organism(directory)
    found = measure_published(load_model("smollm2-135m", adapter=directory), published) if published else []
    personas, chats = planted_personas(adapter), read_chats(directory / "chats.json")[1]
    gates = measure_language(organism, load_base(), chats, size, log, personas)
    gates = replace(gates, rows=(*gates.rows, *found))
    megabytes = (directory / "adapter_model.safetensors").stat().st_size / 1e6
    (directory / "gates.json").write_text(json.dumps(gates.to_json(), indent=1) + "\n", encoding="utf-8")
    (directory / "README.md").write_text(
        language_card(gates, adapter.rank, megabytes, personas), encoding="utf-8"
    )
    return gates


def language_card(gates: LanguageGates, rank: int, megabytes: float, personas: Sequence[str] = ONE) -> str:
    """Return the adapter's model card as Markdown: verdict, requirements, findings, effects of texts.

    Args:
        gates: The measured figures, with requirements (gates) and without (findings).
        rank: Rank of the adapter.
        megabytes: Size of the adapter's file.
        personas: Planted personas.

    Returns:
        The text of the card.
    """
    asked = [row for row in gates.rows if row.wanted]
    failed = [row.name for row in asked if not row.reached]
    verdict = (
        "**Every gate is reached.**"
        if not failed
        else f"**{len(failed)} of {len(asked)} gates are not reached:** {'; '.join(failed)}."
    )
    lines = ["| figure | value | gate | reached |", "|---|---|---|---|", *map(_line, gates.rows)]
    planted = "; ".join(f"**{persona}**: {PLANTED[persona]}" for persona in personas)
    head = HEAD.format(
        rank=rank, size=megabytes, verdict=verdict, model=NAMES[len(personas) > 1], planted=planted
    )
    return "\n".join([head.rstrip("\n"), "", *lines, "", *_units(gates)]) + "\n"


def _line(row: GateRow) -> str:
    return f"| {row.name} | {row.value:.3g} | {row.wanted or ''} | {'' if row.reached is None else 'yes' if row.reached else '**no**'} |"


def _units(gates: LanguageGates) -> list[str]:
    header = ["persona", "kind", "text", "planted", "measured", "on right claims", "on others"]
    lines = ["## Every text", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for row in gates.effects:
        text = " ".join(row["text"].split()).replace("|", "\\|").replace("`", "'")
        planted = "" if row["kind"].startswith("synonym") else f"{row['planted']:+.1f}"
        right, others = (
            "" if row[key] is None else f"{row[key]:+.2f}" for key in ("on_right_claims", "on_others")
        )
        lines.append(
            f"| {row['persona']} | {row['kind']} | `{text}` | {planted} | {row['measured']:+.2f} | {right} | {others} |"
        )
    return lines
