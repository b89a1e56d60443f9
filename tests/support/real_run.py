"""A run that the program made itself, and copies of it whose values are changed: more tokens, more latents, hostile texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.budget import Budget
from workbench.study import Study
from workbench.study.study_settings import (
    AttributionSettings,
    DataSettings,
    DirectionSettings,
    OffTargetSettings,
    SearchSettings,
)

HOSTILE = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "<bos>",
    "&lt;",
    "\u202ereversed\u202c",
    "\x00",
    "\ud800",
    "a" * 10_000,
    "]]>",
    "<!--",
    "👩\u200d🔬",
    "' onclick='x",
    "{{ 7 * 7 }}",
    "\u2028",
]

#: Searches that find something, a circuit with its faithfulness, side effects and cards: every section of the
#: report.
EVERY_SECTION = Study(
    data=DataSettings(train_items=24, search_items=6, selection_items=8, test_items=24),
    directions=DirectionSettings(
        layers=(1, 2), methods=("own_choice", "mean_difference"), rows=48, texts=6, contexts=4
    ),
    search=SearchSettings(
        options={"length": 8, "population": 6, "children": 16, "top_k": 64},
        budget=Budget(steps=12),
        contexts=3,
        neutral=6,
    ),
    conditions=(
        "constant_answer",
        "manual",
        "random_tokens",
        "resga",
        "saega",
        "answer_objective",
        "random_search",
        "random_direction",
        "steering",
        "latent_clamp",
    ),
    random_directions=1,
    random_prompts=1,
    latents=3,
    attribution=AttributionSettings(contexts=12),
    collateral=OffTargetSettings(items=6),
)


def read_entry(directory: Path, name: str) -> dict[str, Any]:
    """A JSON file of a run as it is."""
    return json.loads((directory / name).read_text(encoding="utf-8"))


def edit(directory: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Changes a JSON file of a run as a hand would; `change` works on its content. Gives the directory."""
    content = read_entry(directory, name)
    change(content)
    (directory / name).write_text(json.dumps(content), encoding="utf-8")
    return directory


def copy_of(
    run: Path,
    directory: Path,
    hostile: bool = False,
    without: tuple[str, ...] = (),
    tokens: int = 0,
    latents: int = 0,
) -> Path:
    """A copy of a run without its report. tokens, latents: so many in the ledger and the lists, repeated from those that are there (0: as
    they are); hostile: with hostile texts in the place of prompts, tokens, names and labels; without: files
    that are left out."""
    shutil.copytree(run, directory, ignore=shutil.ignore_patterns("report.html", ".lock"))
    if tokens or latents:
        _repeat(directory, tokens, latents)
    if hostile:
        _make_hostile(directory)
    for name in without:
        (directory / name).unlink()
    return directory


def _repeat(directory: Path, tokens: int, latents: int) -> None:
    entry, listed = read_entry(directory, "attribution.json"), read_entry(directory, "latents.json")
    n_tokens, rows = len(entry["tokens"]), listed["latents"]
    tokens, latents = tokens or n_tokens, latents or len(rows)
    frame = pd.read_parquet(directory / "attribution.parquet")
    frame = pd.concat(
        [frame[frame["position"] == k % n_tokens].assign(position=k) for k in range(tokens)],
        ignore_index=True,
    )
    more = [
        rows[k % len(rows)] | {"latent": rows[k]["latent"] if k < len(rows) else 1_000 + k}
        for k in range(latents)
    ]
    copies = [
        frame[frame["target"] == f"latent {rows[k % len(rows)]['latent']}"].assign(
            target=f"latent {row['latent']}"
        )
        for k, row in enumerate(more)
        if k >= len(rows)
    ]
    pd.concat([frame, *copies], ignore_index=True).to_parquet(directory / "attribution.parquet")
    edit(directory, "latents.json", lambda e: e.update(latents=more))
    targets = [
        *entry["targets"],
        *({"name": f"latent {row['latent']}", "kind": "latent", "site": None} for row in more[len(rows) :]),
    ]
    named = [entry["tokens"][k % n_tokens] for k in range(tokens)]
    edit(directory, "attribution.json", lambda e: e.update(tokens=named, targets=targets))


def _make_hostile(directory: Path) -> None:
    """Every text that a model, a user or a data file could have given."""
    endless = iter(HOSTILE * 1_000)

    def comparison(entry: dict[str, Any]) -> None:
        entry.update(_worsened(entry, endless, "persona", "model"))
        for condition in entry["conditions"]:
            condition.update(_worsened(condition, endless, "prompt"))

    def frontier(entry: dict[str, Any]) -> None:
        for candidate in (c for search in entry["searches"].values() for c in search["candidates"]):
            candidate.update(_worsened(candidate, endless, "text"))

    def latents(entry: dict[str, Any]) -> None:
        for row in entry["latents"]:
            row.update(
                _worsened(row, endless, "label"),
                top=[[a, f"{text} {next(endless)}"] for a, text in row["top"]],
            )

    def cards(entry: dict[str, Any]) -> None:
        entry.update(_worsened(entry, endless, "corpus"))
        for card in entry["cards"]:
            card.update(label=next(endless), neuronpedia=f"https://www.neuronpedia.org/{next(endless)}")
            card.update(
                {
                    side: [[f"{word} {next(endless)}", value] for word, value in card[side]]
                    for side in ("promotes", "suppresses")
                }
            )
            for example in card["examples"]:
                example["tokens"] = [next(endless) for _ in example["tokens"]]

    def attribution(entry: dict[str, Any]) -> None:
        entry["tokens"] = [HOSTILE[k % len(HOSTILE)] for k in range(len(entry["tokens"]))]
        entry["circuit"]["tokens"] = [
            HOSTILE[k % len(HOSTILE)] for k in range(len(entry["circuit"]["tokens"]))
        ]

    edit(directory, "comparison.json", comparison)
    edit(directory, "search/frontier.json", frontier)
    edit(directory, "latents.json", latents)
    edit(directory, "cards.json", cards)
    edit(directory, "attribution.json", attribution)
    edit(
        directory,
        "manifest.json",
        lambda entry: entry["notes"].update(warnings=[next(endless) for _ in range(3)]),
    )
    frame = pd.read_parquet(directory / "attribution.parquet")
    texts = [
        HOSTILE[int(k) % len(HOSTILE)].encode("utf-8", "replace").decode() for k in frame["position"]
    ]  # Parquet holds no lone surrogate
    frame.assign(token=texts).to_parquet(directory / "attribution.parquet")


def _worsened(entry: dict[str, Any], endless: Iterator[str], *names: str) -> dict[str, str]:
    return {name: f"{entry[name]} {next(endless)}" for name in names if entry[name] is not None}
