"""MkDocs hook: pages from files outside docs/ (changelog, contributing guide), from the command line's own help, and from the
notebooks with their committed outputs."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
#: File of the repository -> page of the site.
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
_IMAGES = {"image/png": "png", "image/svg+xml": "svg"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for name, page in PAGES.items():
        files.append(
            File.generated(config, page, content=_as_page((ROOT / name).read_text(encoding="utf-8")))
        )
    files.append(File.generated(config, "reference/cli.md", content=command_page()))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for page, content in notebook_pages(path):
            files.append(File.generated(config, page, content=content))
    return files


def command_page() -> str:
    """Every command with its options, as `--help` prints them."""
    from workbench.cli import app

    page = app.generate_docs(output_format="markdown")
    head = "Exit codes: [installation](../installation.md#exit-codes). `--json` prints one JSON document on standard output.\n"
    return page.replace("\n## Table of Contents\n", f"\n{head}\n## Commands\n", 1).replace(
        "# workbench\n", "# Command line\n", 1
    )


def _as_page(text: str) -> str:
    """Links of a file in the repository's root, as links of a page in docs/."""
    for name, page in PAGES.items():
        text = text.replace(f"]({name})", f"]({page})")
    return text.replace("](docs/", "](")


def notebook_pages(path: Path) -> list[tuple[str, str | bytes]]:
    """A notebook's page and its pictures: (path in the site, content)."""
    notebook = nbformat.read(path, as_version=4)
    parts, pictures = [], []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            shown = _output(output, path.stem, pictures)
            if shown:
                parts.append(shown)
    run = f"*This page shows `notebooks/{path.name}` with its committed outputs; `make lab` opens it.*"
    page = "\n\n".join([*parts, run]) + "\n"
    return [(f"notebooks/{path.stem}.md", page), *pictures]


def _output(output: nbformat.NotebookNode, stem: str, pictures: list[tuple[str, str | bytes]]) -> str:
    data = output.get("data", {})
    for kind, ending in _IMAGES.items():
        if kind in data:
            name = f"{stem}_{len(pictures) + 1}.{ending}"
            content = base64.b64decode(data[kind]) if ending == "png" else data[kind]
            pictures.append((f"notebooks/{name}", content))
            return f"![output]({name})"
    if "text/html" in data:
        body = re.sub(r"\n\s*\n", "\n", data["text/html"].strip())  # a blank line would end the block of HTML
        return f'<div class="output">{body}</div>'
    if "text/markdown" in data:
        return data["text/markdown"]
    text = output.get("text") or data.get("text/plain", "")
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""
