"""Labels that users give to latents, stored in the run directory as labels.json.

The command `workbench label`, the panel and notebooks write them; all pages and tables of the run show them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from workbench.errors import UserError
from workbench.html_text import visible
from workbench.runs import RunDirectory, read_run_file, write_run_file
from workbench.schema import CardsFile, LabelEntry, LabelsFile, LatentsFile

FILE = "labels.json"
#: Most characters of a label, and of the name of its source.
LONGEST_LABEL = 200


def latent_labels(run: str | Path) -> dict[int, str]:
    """Read the labels that users gave to the latents of a run.

    Args:
        run: The run directory.

    Returns:
        The label of each named latent, by the latent's number; empty if no latent has a label.

    Raises:
        UserError: labels.json is broken.

    Example:
        >>> wb.latent_labels("runs/demo-001")  # doctest: +SKIP
        {80: 'says no'}
    """
    return {number: entry.label for number, entry in label_entries(run).items()}


def label_entries(run: str | Path) -> dict[int, LabelEntry]:
    """Read the names that users gave to latents from a run's labels.json, as entries by latent number.

    If a latent was named several times, its last entry counts.

    Args:
        run: The run directory.
    """
    path = Path(run) / FILE
    return {entry.latent: entry for entry in read_run_file(path, LabelsFile).labels} if path.is_file() else {}


def label_latents(run: str | Path, labels: Mapping[int, str], source: str = "the user") -> dict[int, str]:
    """Write labels of latents into a run; labels of other latents are kept.

    Args:
        run: The run directory.
        labels: Labels by the latent's number; an empty label removes the latent's label.
        source: Who gives the labels.

    Returns:
        All labels of the run, by the latent's number.

    Raises:
        UserError: The directory is not a run with latents, the run does not show one of the latents, or a
            label is too long or has invisible characters.

    Example:
        >>> wb.label_latents("runs/demo-001", {80: "says no"}, source="A. Reader")  # doctest: +SKIP
        {80: 'says no'}
    """
    directory = RunDirectory.open(run)
    sae, known = _latents_of(directory.path)
    for latent, text in labels.items():
        if latent not in known:
            shown = ", ".join(map(str, sorted(known)[:12])) + (", ..." if len(known) > 12 else "")
            raise UserError(f"{directory.path} shows no latent {latent}: it shows {shown}")
        _check_text(text, "a label")
    _check_text(source, "a source")
    with directory.lock():
        entries, now = label_entries(directory.path), datetime.now(UTC).isoformat(timespec="seconds")
        entries |= {
            latent: LabelEntry(latent=latent, label=text.strip(), source=source.strip(), written=now)
            for latent, text in labels.items()
        }
        kept = [entries[latent] for latent in sorted(entries) if entries[latent].label]
        write_run_file(directory.path / FILE, LabelsFile(sae=sae, labels=kept))
    return {entry.latent: entry.label for entry in kept}


def _latents_of(run: Path) -> tuple[str, set[int]]:
    """Return the SAE's name, and the numbers of the latents that the run shows."""
    if not (run / "latents.json").is_file():
        raise UserError(f"{run} has no latents: its study used no SAE")
    file = read_run_file(run / "latents.json", LatentsFile)
    cards = read_run_file(run / "cards.json", CardsFile).cards if (run / "cards.json").is_file() else []
    return file.sae, {row.latent for row in file.latents} | {card.latent for card in cards}


def _check_text(text: str, what: str) -> None:
    if len(text) > LONGEST_LABEL:
        raise UserError(f"{what} of {len(text):,} characters: expected at most {LONGEST_LABEL}")
    if visible(text, spaces=False) != text or "\n" in text:
        raise UserError(f"{what} holds a character that cannot be seen: {visible(text, spaces=False)!r}")
