"""Write one self-contained HTML page from a run directory: no network, no server, at most 5 MB.

1. Read the run's files (load_run.py) and describe the result in sentences (verdict.py).
2. Fill the jinja2 template with autoescape on. The data of the pictures go into one JSON block, encoded so
   that they cannot close their element.
3. Inline the style sheets and the ES modules (page_assets.py). A content security policy forbids everything
   else: `default-src 'none'`, and only the hashes of these two inline elements.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from workbench.comparison import chosen_condition
from workbench.comparison.claim_sentences import change_text
from workbench.conditions import CLAIMS, claim_label, stage_label
from workbench.errors import UserError
from workbench.html_text import escape, minus, number, shorten, spoken
from workbench.objective_words import objective_words
from workbench.report import verdict as story
from workbench.report.attribution_section import FILTERS
from workbench.report.load_run import RunContents, clean, load_run, readable_run
from workbench.report.page_assets import SHARED_MODULES, bundle, styles
from workbench.report.question_list import example_question, question_list
from workbench.runs import write_text
from workbench.runs.run_files import read_entry
from workbench.schema import ComparisonFile, RunManifest, SearchFile
from workbench.schema.schema_version import OtherSchemaError

#: The page's own ES modules, each after those that it imports.
MODULES = ("charts.mjs", "questions.mjs", "circuit.mjs", "export.mjs", "report.mjs")
MAX_PAGE_BYTES = 5_000_000


def write_report(
    source: str | os.PathLike[str] | Sequence[Any] | Any, path: str | os.PathLike[str] | None = None
) -> Path:
    """Write the report of a run, or of results in a notebook, as one self-contained HTML file.

    A missing or broken file of the run does not stop the report: the page lists what it lacks. The page is
    written to a temporary name and then renamed.

    Args:
        source: A run directory, or one result from a notebook or a list of them: comparison, ledger (effects
            of prompt tokens), frontiers (prompts of searches), latents, latent cards, layer scan.
        path: The HTML file to write; None for report.html in the run directory.

    Returns:
        The path of the page.

    Raises:
        UserError: The directory does not exist, contains no readable file of a run, or the page cannot be
            written.

    Example:
        >>> wb.write_report([scan, latents], tmp_path / "report.html").name
        'report.html'
    """
    if not isinstance(source, (str, os.PathLike)):
        return _write_results(source, path)
    directory = Path(source)
    if not directory.is_dir():
        raise UserError(f"expected a run directory, found no directory at {directory}")
    _check_schema(directory)
    contents = readable_run(directory)
    target = Path(path) if path is not None else directory / "report.html"
    _write(target, render(contents))
    return target


def _check_schema(directory: Path) -> None:
    """Raise OtherSchemaError if the run has a schema version that this version cannot read."""
    try:
        if (directory / "manifest.json").is_file():
            read_entry(directory / "manifest.json")
    except OtherSchemaError:
        raise
    except UserError:
        return  # the page reports a broken manifest


def _write_results(results: Any, path: str | os.PathLike[str] | None) -> Path:
    from workbench.report.save_results import save_results  # needs torch, which a report of files does not

    given = list(results) if isinstance(results, (list, tuple)) else [results]
    if path is None or not given:
        raise UserError("a report of results needs at least one result, and a path to be written to")
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "search").mkdir()
        save_results(given, Path(place))
        contents = load_run(Path(place))
    contents.missing[:] = [line for line in contents.missing if "is not there" not in line]
    _write(Path(path), render(contents))
    return Path(path)


def render(contents: RunContents) -> str:
    """Render the report of a run as an HTML page.

    Tables are HTML; pictures are drawn by a script from JSON data in the page. If the page is too large, the
    data of the largest picture are left out, until the page fits.

    Args:
        contents: Contents of the run's files.
    """
    told = story.tell(contents)
    data = picture_data(contents)
    page = _page(contents, told, data)
    while len(page.encode()) > MAX_PAGE_BYTES and _drop_largest(data, contents):
        page = _page(contents, told, data)
    return page


def picture_data(contents: RunContents) -> dict[str, Any]:
    """Collect the data of the report's pictures as plain JSON values; a missing picture is null.

    Args:
        contents: Contents of the run's files.
    """
    comparison = contents.comparison
    frontier = contents.frontier
    return clean_keys(
        {
            "comparison": None if comparison is None else _comparison(contents),
            "frontier": None
            if frontier is None
            else {story.label(n): _search(s) for n, s in frontier.searches.items() if s.candidates},
            "history": _named(contents.history),
            "ledger": None if contents.ledger is None else contents.ledger | {"targets": _labelled(contents)},
            "layer": None if contents.direction is None else _layer(contents.direction.site),
            "layers": None
            if contents.direction is None
            else [row.model_dump() for row in contents.direction.table],
            "questions": question_list(contents),
        }
    )


def _search(search: SearchFile) -> dict[str, Any]:
    """Return a search with those fields of each prompt that its picture shows."""
    shown = {"text", "objective", "fluency", "selection_rate", "chosen"}
    return {
        "method": search.method,
        "slot": search.slot,
        "objective": objective_words(search.objective),
        "candidates": [candidate.model_dump(include=shown) for candidate in search.candidates],
    }


def _named(lines: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if lines is None else {story.label(name): values for name, values in lines.items()}


def clean_keys(data: dict[str, Any]) -> dict[str, Any]:
    """Convert the data of the report's pictures to values that are safe in JSON.

    Data that are empty become None, so that the page omits their section.

    Args:
        data: Data of each picture by the picture's name.
    """
    return {key: None if value in ({}, []) else clean(value) for key, value in data.items()}


def _comparison(contents: RunContents) -> dict[str, Any]:
    comparison = contents.comparison
    assert comparison is not None
    best = chosen_condition(comparison)
    rows = []
    for condition in comparison.conditions:
        difference = condition.difference(comparison.baseline)
        row = condition.model_dump(include={"kind", "prompt", "rate", "ci", "log_odds", "log_odds_ci"})
        row["name"] = story.label(condition.name)
        row["group"] = story.group_of(condition.kind)
        row["difference"] = (
            None if difference is None or condition.name == comparison.baseline else difference.model_dump()
        )
        row["best"] = best is not None and condition.name == best.name
        rows.append(row)
    groups = [
        {"key": key, "name": name}
        for key, name in story.groups_of(c.kind for c in comparison.conditions).items()
    ]
    return {
        "rows": rows,
        "groups": groups,
        "persona": spoken(comparison.persona),
        "wanted": comparison.wanted,
    }


def _groups(contents: RunContents) -> dict[str, str]:
    """Return the groups of the comparison's conditions with their titles."""
    return story.groups_of(c.kind for c in contents.comparison.conditions) if contents.comparison else {}


def _labelled(contents: RunContents) -> list[dict[str, Any]]:
    """Return the ledger's targets with labels: a latent's user label, or else the tokens that it promotes."""
    labels = {
        f"latent {row.latent}": row.label
        for row in (contents.latents.latents if contents.latents else [])
        if row.label
    }
    labels |= {f"latent {latent}": entry.label for latent, entry in contents.labels.items()}
    assert contents.ledger is not None
    return [target | {"label": labels.get(target["name"])} for target in contents.ledger["targets"]]


def _layer(site: str) -> int | None:
    """Return the layer of a hook name such as blocks.3.hook_resid_post; None for another name."""
    digits = site.removeprefix("blocks.").split(".")[0]
    return int(digits) if site.startswith("blocks.") and digits.isdigit() else None


def _page(contents: RunContents, told: story.Verdict, data: dict[str, Any]) -> str:
    style, script = styles("shared.css", "report.css"), bundle(*SHARED_MODULES, *MODULES)
    sources = f"script-src '{inline_hash(script)}'; style-src '{inline_hash(style)}'; img-src data: blob:"
    policy = f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            policy=policy,
            style=Markup(style),
            script=Markup(script),
            data=data,
            story=told,
            contents=contents,
            comparison=contents.comparison,
            groups=_groups(contents),
            manifest=_manifest(contents.manifest),
            latents=contents.latents,
            direction=contents.direction,
            ledger=data["ledger"],
            frontier=contents.frontier if data["frontier"] else None,
            inside=contents.attribution,
            cards=contents.cards,
            meanings=CLAIMS,
            own_labels=contents.labels,
            carded={card.latent for card in contents.cards.cards} if contents.cards else set(),
            whole_effect=_whole_effect(contents, told),
            example=example_question(contents, told.best.name) if told.best else None,
        )
    )


def _manifest(manifest: RunManifest | None) -> dict[str, Any]:
    """Convert the manifest to the page's lists: facts (name, text), stages (name, seconds), warnings."""
    if manifest is None:
        return {"facts": [], "stages": [], "warnings": []}
    warnings = manifest.notes.get("warnings", [])
    facts = [
        (key, value)
        for key, value in _flat(manifest.to_json())
        if not key.startswith(("schema", "stages", "notes · warnings"))
    ]
    texts = [str(line) for line in warnings] if isinstance(warnings, list) else [str(warnings)]
    stages = [(stage_label(name), stage.seconds) for name, stage in manifest.stages.items()]
    return {"facts": facts[:80], "stages": stages, "warnings": texts[:40]}


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [
            pair
            for key, entry in value.items()
            for pair in _flat(entry, f"{prefix}{key} · " if prefix or isinstance(entry, dict) else str(key))
        ]
    if isinstance(value, list) and any(isinstance(entry, (dict, list)) for entry in value):
        return [
            pair for index, entry in enumerate(value[:20]) for pair in _flat(entry, f"{prefix}{index + 1} · ")
        ]
    return [
        (
            prefix.removesuffix(" · "),
            ", ".join(map(number, value)) if isinstance(value, list) else number(value),
        )
    ]


def _drop_largest(data: dict[str, Any], contents: RunContents) -> bool:
    """Remove the largest picture's data from a page that is too large; False if there are none left."""
    present = {key: len(str(value)) for key, value in data.items() if value is not None}
    if not present:
        return False
    largest = max(present, key=lambda key: present[key])
    data[largest] = None
    contents.missing.append(
        f"The picture data of {largest} were left out: the page would have been larger than {MAX_PAGE_BYTES // 1_000_000} MB."
    )
    return True


def inline_hash(text: str) -> str:
    """Return the hash by which a content security policy allows an inline script or style.

    Args:
        text: Content of the HTML element.
    """
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _filters() -> dict[str, Any]:
    """Return the template's filters, which format figures and names for display."""
    return {
        "number": number,
        "short": _short,
        "brief": lambda text: shorten(text, 110),
        "minus": minus,
        "label": story.label,
        "group": story.group_of,
        "capitalised": story.capitalised,
        "describe": story.describe,
        "claim": claim_label,
        "change": lambda interval: minus(change_text(interval)),
        "chance": _chance,
        "percent": story.percent,
        "share": _share,
        "points": story.points,
        "signed": story.signed,
        "pvalue": story.p_value,
        "spoken": spoken,
        "side_measures": _side_measures,
        "whole": lambda text: Markup(escape(text)),
        "span": lambda interval, form: story.span(interval, getattr(story, form)),
        **FILTERS,
    }


def _side_measures(comparison: ComparisonFile) -> list[str]:
    """Return the names of all off-target measures of the comparison, without duplicates."""
    return list(
        dict.fromkeys(name for condition in comparison.conditions for name in condition.collateral or {})
    )


def _chance(log_odds: float) -> str:
    """Format log-odds as a probability."""
    return story.percent(1 / (1 + math.exp(-max(-700.0, min(700.0, log_odds)))))


def _whole_effect(contents: RunContents, told: story.Verdict) -> str:
    """Explain why the ledger's whole effect differs from the effect at the top of the page."""
    inside, difference = contents.attribution, told.difference
    total = next((t for t in inside.totals if t.target.startswith("answer")), None)
    if (
        total is None
        or total.mean is None
        or difference is None
        or difference.log_odds is None
        or told.best is None
    ):
        return ""
    here = f"On these {inside.n_contexts or 'selection'} questions the whole prompt changes the log-odds by {story.signed(total.mean)}"
    if total.low is not None and total.high is not None:
        here += f" ({story.span((total.low, total.high), story.signed)})"
    if inside.search and inside.search != told.best.name:
        return (
            f"{here}; it is the prompt of {story.label(inside.search)}, not the one at the top of the page."
        )
    return f"{here}; the {story.signed(difference.log_odds)} at the top of the page is on {told.best.n or 'the'} test questions."


def _share(value: Any) -> str:
    """Format a fraction as a percentage, or a dash if it is missing."""
    return story.percent(value) if isinstance(value, (int, float)) else number(None)


def _short(value: Any) -> str:
    """Format a number with three significant digits; other values are returned as they are."""
    return number(
        float(f"{value:.3g}") if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    )


def _shown(value: Any) -> Any:
    """Make a text of the template visible and shorten it; jinja2 escapes it afterwards."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else clean(value)


@cache
def environment() -> Environment:
    """Return the jinja2 environment of this package: everything escaped, and unknown names are errors."""
    environment = Environment(
        loader=PackageLoader("workbench.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= _filters()
    return environment


def _write(path: Path, text: str) -> None:
    """Write the page completely or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the report cannot be written to {path}: {error.strerror}") from error
    write_text(path, text)
