"""List the models that can be loaded on this machine, and how to get the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import scan_cache_dir, try_to_load_from_cache
from huggingface_hub.errors import CacheNotFound

from workbench.errors import UserError
from workbench.models.gguf_config import FAMILIES
from workbench.models.gguf_files import cache_directory, gguf_record
from workbench.models.hooked_conversion import families
from workbench.models.model_directory import read_json
from workbench.models.model_sources import REPOSITORIES, find_source, model_names

#: Advice for a hub model that is not on this machine.
_HOW = "hub: {0}, fetched at first use; or name its directory or a .gguf file of it"


def inventory() -> pd.DataFrame:
    """List named models, models in the hub's cache and converted GGUF files on this machine.

    Three more rows explain the other ways to name a model (a directory, a GGUF file, a repository). They list
    the families that HookedTransformer runs exactly (others use the bridge) and those that can be read from
    GGUF. No network is used.

    Returns:
        One row per model: name (for `load_model`), here (yes or no), architecture, revision (the hub's
        commit), where (its path, or how to get it).
    """
    rows = [_named(name) for name in model_names()]
    known = set(REPOSITORIES.values())
    rows += [_cached(name, path) for name, path in _cache() if name not in known]
    rows += [_converted(directory, record) for directory, record in _conversions()]
    rows += [
        _way(
            "a directory",
            ", ".join(families()),
            "config.json, tokenizer and safetensors, as the hub has them",
        ),
        _way(
            "FILE.gguf",
            ", ".join(FAMILIES),
            f"converted once into {cache_directory()}; a directory with one such file works, too",
        ),
        _way(
            "owner/repository",
            "",
            "of the hub: taken from its cache, fetched where that lacks it and HF_HUB_OFFLINE is not set",
        ),
    ]
    return pd.DataFrame(rows)


def _way(name: str, architecture: str, where: str) -> dict[str, str]:
    return {"name": name, "here": "", "architecture": architecture, "revision": "", "where": where}


def _conversions() -> list[tuple[Path, dict[str, Any]]]:
    """Directories converted from GGUF files, each with the record of its file."""
    directories = sorted(
        path for path in cache_directory().glob("*") if path.is_dir() and not path.name.startswith(".")
    )
    return [(path, record) for path in directories if (record := gguf_record(path))]


def _converted(directory: Path, record: dict[str, Any]) -> dict[str, str]:
    made = {"name": str(directory), "here": "yes", "architecture": _architecture(directory), "revision": ""}
    return {**made, "where": f"from {record.get('file')} (GGUF, sha256 {str(record.get('sha256'))[:12]})"}


def _named(name: str) -> dict[str, str]:
    if name in REPOSITORIES:
        config = try_to_load_from_cache(REPOSITORIES[name], "config.json")
        found = _cached(name, Path(config).parent) if isinstance(config, str) else None
        return found or {
            "name": name,
            "here": "no",
            "architecture": "",
            "revision": "",
            "where": _HOW.format(REPOSITORIES[name]),
        }
    try:
        directory = find_source(name).directory
    except UserError as problem:
        return {"name": name, "here": "no", "architecture": "", "revision": "", "where": str(problem)}
    return {
        "name": name,
        "here": "yes",
        "architecture": _architecture(directory),
        "revision": "",
        "where": str(directory),
    }


def _cache() -> list[tuple[str, Path]]:
    """Repositories of models in the hub's cache, each with its newest snapshot."""
    try:
        repositories = [r for r in scan_cache_dir().repos if r.repo_type == "model"]
    except CacheNotFound:
        return []
    newest = [
        (r.repo_id, max(r.revisions, key=lambda v: v.last_modified).snapshot_path)
        for r in repositories
        if r.revisions
    ]
    return sorted((name, Path(path)) for name, path in newest if (Path(path) / "config.json").is_file())


def _cached(name: str, snapshot: Path) -> dict[str, str]:
    return {
        "name": name,
        "here": "yes",
        "architecture": _architecture(snapshot),
        "revision": snapshot.name,
        "where": str(snapshot),
    }


def _architecture(directory: Path) -> str:
    """Architecture named in the config, or the error message if the config cannot be read."""
    try:
        return ", ".join(map(str, read_json(directory / "config.json").get("architectures") or ["not named"]))
    except UserError as problem:
        return str(problem)
