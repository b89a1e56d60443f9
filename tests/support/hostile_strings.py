"""Every string of a run, or of any plain value, with markup after it that would run as a script or a handler if a page did not escape it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

PAYLOAD = "\"><img src=x onerror=\"window.ran=1\"><script>window.ran=1</script><svg onload='window.ran=1'>' onclick='window.ran=1"
#: Fields whose keys are names that somebody chose, not fields of a file.
MAPS = frozenset(
    {
        "searches",
        "cells",
        "collateral",
        "rank_correlation",
        "top_agreement",
        "missing",
        "attention",
        "active",
        "notes",
        "hashes",
        "versions",
        "seeds",
        "stages",
        "splits",
    }
)
#: What is in a page of which every text was made hostile, and must not be there.
FOUND = """() => {
  const roots = [document];
  for (const root of roots) for (const e of root.querySelectorAll("*")) if (e.shadowRoot) roots.push(e.shadowRoot);
  const all = roots.flatMap((root) => [...root.querySelectorAll("*")]);
  return {
    ran: window.ran ?? 0,
    scripts: all.filter((e) => e.localName === "script" && e.textContent.trim() === "window.ran=1").length,
    images: all.filter((e) => e.localName === "img").length,
    handlers: all.filter((e) => [...e.attributes].some((a) => a.name.startsWith("on"))).length,
    texts: roots.map((root) => (root.body ?? root).textContent).join(" ").split("<img src=x").length - 1,
  };
}"""


def hostile(value: Any, names: bool = False) -> Any:
    """The value with PAYLOAD after every string. names: its keys are chosen names, too."""
    if isinstance(value, str):
        return value + PAYLOAD
    if isinstance(value, dict):
        return {
            (key + PAYLOAD if names else key): hostile(entry, key in MAPS) for key, entry in value.items()
        }
    return [hostile(entry) for entry in value] if isinstance(value, list) else value


def make_every_string_hostile(directory: Path) -> Path:
    """All JSON files and tables of a run, study.yaml as a text; gives the directory."""
    for path in sorted(directory.rglob("*.json")):
        path.write_text(json.dumps(hostile(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    for path in sorted(directory.rglob("*.parquet")):
        frame = pd.read_parquet(path)
        worse = {
            name: [hostile(value) for value in frame[name]]
            for name in frame
            if any(isinstance(value, str) for value in frame[name])
        }
        frame.assign(**worse).to_parquet(path)
    study = directory / "study.yaml"
    study.write_text(f"{study.read_text(encoding='utf-8')}# {PAYLOAD}\n", encoding="utf-8")
    return directory
