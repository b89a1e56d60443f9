"""README and documentation: every link leads somewhere, every command and option exists, every snippet is Python."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.paths import ROOT

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "data").glob("*/README.md"),
        *(ROOT / ".github").rglob("*.md"),
    ]
)
#: Hosts that pages may name: other projects, papers, standards.
HOSTS = {
    "arxiv.org",
    "docs.ray.io",
    "github.com",
    "huggingface.co",
    "json-schema.org",
    "keepachangelog.com",
    "www.neuronpedia.org",
}
#: Pages of the site that docs/site_hook.py makes; tests/docs/test_site.py checks links to them in the built
#: site.
GENERATED = {"changelog.md", "contributing.md", "reference/cli.md"} | {
    f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")
}
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
_FENCE = re.compile(r"^\s*```(\w*)[^\n]*\n(.*?)^\s*```\s*$", re.MULTILINE | re.DOTALL)


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))


def anchors(page: Path) -> set[str]:
    """The ids that mkdocs (and GitHub) give to the headings of a page, and those written as HTML."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+\s+(.*?)\s*$", text, re.MULTILINE)
    found: set[str] = set(re.findall(r'id="([^"]+)"', text))
    for heading in headings:
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip()))
    return found


def broken(page: Path) -> Iterator[str]:
    for target in _LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        parts = urlsplit(target)
        if parts.scheme:
            if parts.scheme != "https" or parts.hostname not in HOSTS:
                yield target
            continue
        file = (page.parent / parts.path).resolve() if parts.path else page
        if file.is_relative_to(ROOT / "docs") and str(file.relative_to(ROOT / "docs")) in GENERATED:
            continue
        if not file.exists() or (
            parts.fragment and file.suffix == ".md" and parts.fragment not in anchors(file)
        ):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path):
    assert list(broken(page)) == []


def commands(text: str) -> Iterator[str]:
    """What a page tells its reader to type: lines of code blocks and spans that begin with `workbench`."""
    blocks = [
        body.replace("\\\n", " ")
        for language, body in _FENCE.findall(text)
        if language in ("", "bash", "console", "sh", "shell")
    ]
    lines = [line for body in blocks for line in body.splitlines()]
    yield from (line.strip().removeprefix("$ ") for line in lines if re.match(r"\s*(\$ )?workbench ", line))
    yield from re.findall(r"`(workbench [^`\n]+)`", _FENCE.sub("", text))


def refused(typed: str, known: dict[str, set[str]]) -> str | None:
    """What is wrong with a typed command line, if anything."""
    words = shlex.split(typed.split(" && ")[0].split(" | ")[0].split(" > ")[0], comments=True)[1:]
    if not words or words[0].startswith("-"):
        return None if set(words) <= {"--help", "--version"} else f"no such option: {words}"
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in known), None)
    if name is None:
        if words[0] in {full.partition(" ")[0] for full in known} or not re.fullmatch(r"[a-z]+", words[0]):
            return None  # a group by itself, or a placeholder such as COMMAND
        return f"no command {words[0]!r}"
    unknown = [
        word
        for word in words
        if word.startswith("--") and word.partition("=")[0] not in known[name] | {"--help"}
    ]
    return f"{name}: no option {unknown}" if unknown else None


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Command as typed -> its options."""
    from workbench.cli import app

    def options(command) -> set[str]:
        return {
            name
            for argument in command.assemble_argument_collection(parse_docstring=True)
            for name in argument.names
        }

    found = {}
    for name in (name for name in app if not name.startswith("-")):
        below = [sub for sub in app[name] if not sub.startswith("-")]
        found |= (
            {f"{name} {sub}": options(app[name][sub]) for sub in below}
            if below
            else {name: options(app[name])}
        )
    return found


def test_every_command_of_a_page_exists_with_its_options(known: dict[str, set[str]]):
    assert refused("workbench rum FILE", known) and refused("workbench run FILE --uot x", known)
    typed = [
        (str(page.relative_to(ROOT)), line)
        for page in PAGES
        for line in commands(page.read_text(encoding="utf-8"))
    ]
    assert len(typed) > 40
    wrong = {
        (page, line): reason
        for page, line in typed
        if not page.startswith("CHANGELOG") and (reason := refused(line, known))
    }
    assert wrong == {}


def make_targets(text: str) -> Iterator[str]:
    blocks = "\n".join(body for _, body in _FENCE.findall(text))
    yield from re.findall(r"^\s*make ([a-z][\w-]*)", blocks, re.MULTILINE)
    yield from re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z][\w-]*)[^`\n]*`", _FENCE.sub("", text))


def test_every_make_target_of_a_page_exists():
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in make_targets(page.read_text(encoding="utf-8"))}
    assert named >= {"demo", "test"} and named <= targets


def test_every_python_snippet_parses_and_names_what_exists():
    import workbench as wb

    seen = 0
    for page in PAGES:
        for language, body in _FENCE.findall(page.read_text(encoding="utf-8")):
            if language != "python" or page.name in ("CHANGELOG.md", "renames.md") or "->" in body:
                continue  # interfaces of architecture.md are written as signatures
            tree = ast.parse(body)
            names = {
                n.attr
                for n in ast.walk(tree)
                if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "wb"
            }
            assert names <= set(wb.__all__), page
            seen += 1
    assert seen > 5


def module_commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """(module, its options) of each `python -m MODULE ...` of this repository that a page tells its reader to type."""
    joined = re.sub(r"(`[^`]*)\n\s*([^`]*`)", r"\1 \2", text.replace("\\\n", " "))
    for module, arguments in re.findall(r"python -m ((?:benchmarks|tests)[\w.]*)([^`\n|&]*)", joined):
        yield module, re.findall(r"--([a-z][\w-]*)", arguments)


def unknown_options(module: str, options: list[str]) -> list[str]:
    """Options that the module's source does not mention, as written or as a parameter; [module] where there is no such file."""
    file = ROOT / (module.replace(".", "/") + ".py")
    if not file.is_file():
        return [module]
    words = set(re.findall(r"[\w-]+", file.read_text(encoding="utf-8")))
    forms = {
        option: {
            option,
            f"--{option}",
            option.replace("-", "_"),
            option.replace("-", "_").removeprefix("no_"),
        }
        for option in options
    }
    return [option for option, names in forms.items() if not names & words]


def test_every_benchmark_command_of_a_page_exists_with_its_options():
    assert unknown_options("benchmarks.nowhere", []) and unknown_options(
        "benchmarks.halving", ["sheeds"]
    ) == ["sheeds"]
    pages = [page for page in PAGES if page.name not in ("CHANGELOG.md", "renames.md")]
    typed = [
        (page.name, *command)
        for page in pages
        for command in module_commands(page.read_text(encoding="utf-8"))
    ]
    assert len(typed) > 30
    assert [
        (page, module, wrong)
        for page, module, options in typed
        if (wrong := unknown_options(module, options))
    ] == []


def test_every_extra_of_a_page_is_declared():
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    named = {
        extra
        for page in PAGES
        for given in re.findall(
            r"(?:\.|persona-workbench|\.whl)\[([\w,-]+)\]'", page.read_text(encoding="utf-8")
        )
        for extra in given.split(",")
    }
    assert len(named) >= 2 and named - {"EXTRA"} <= declared
