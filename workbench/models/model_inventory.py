"""What can be loaded, and where it lies: named models, repositories in the hub's cache, the families that are understood."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from huggingface_hub import scan_cache_dir, try_to_load_from_cache
from huggingface_hub.errors import CacheNotFound

from workbench.errors import UserError
from workbench.models.hooked_conversion import families
from workbench.models.model_directory import read_json
from workbench.models.model_sources import REPOSITORIES, find_source, model_names


def inventory() -> pd.DataFrame:
    """One row a model: name (for `load_model`), here (yes or no), architecture, revision (the hub's commit), where. Looks at this machine
    only; the last row lists the families that HookedTransformer runs exactly (others go through the bridge)."""
    rows = [_named(name) for name in model_names()]
    known = set(REPOSITORIES.values())
    rows += [_cached(name, path) for name, path in _cache() if name not in known]
    rows.append({"name": "a directory or owner/repository", "here": "", "architecture": ", ".join(families()), "revision": "", "where": ""})
    return pd.DataFrame(rows)


def _named(name: str) -> dict[str, str]:
    if name in REPOSITORIES:
        config = try_to_load_from_cache(REPOSITORIES[name], "config.json")
        found = _cached(name, Path(config).parent) if isinstance(config, str) else None
        return found or {"name": name, "here": "no", "architecture": "", "revision": "", "where": f"hub: {REPOSITORIES[name]}"}
    try:
        directory = find_source(name).directory
    except UserError as problem:
        return {"name": name, "here": "no", "architecture": "", "revision": "", "where": str(problem)}
    return {"name": name, "here": "yes", "architecture": _architecture(directory), "revision": "", "where": str(directory)}


def _cache() -> list[tuple[str, Path]]:
    """Repositories of models in the hub's cache, each with its newest snapshot."""
    try:
        repositories = [r for r in scan_cache_dir().repos if r.repo_type == "model"]
    except CacheNotFound:
        return []
    newest = [(r.repo_id, max(r.revisions, key=lambda v: v.last_modified).snapshot_path) for r in repositories if r.revisions]
    return sorted((name, Path(path)) for name, path in newest if (Path(path) / "config.json").is_file())


def _cached(name: str, snapshot: Path) -> dict[str, str]:
    return {"name": name, "here": "yes", "architecture": _architecture(snapshot), "revision": snapshot.name, "where": str(snapshot)}


def _architecture(directory: Path) -> str:
    """As its config says; what cannot be read is said in words."""
    try:
        return ", ".join(map(str, read_json(directory / "config.json").get("architectures") or ["not named"]))
    except UserError as problem:
        return str(problem)
