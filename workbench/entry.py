"""The door of the command line: the overview loads no command; everything else goes on to `cli`.

The commands' parser and its tables take 0.4 s to import. `workbench --help` needs neither: names, groups and first lines of the
docstrings are read from the source of `cli.py`, so that there is no second list to keep.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path


def main() -> None:
    """Entry point of `workbench`."""
    if sys.argv[1:] in ([], ["-h"], ["--help"]):
        print(overview())
        return
    from workbench.cli import main as run_command

    run_command()


def overview() -> str:
    """Every command with the first line of its docstring."""
    tree = ast.parse(Path(__file__).with_name("cli.py").read_text(encoding="utf-8"))
    groups = dict(_groups(tree))
    about = groups["app"][1]
    commands = dict(_commands(tree, {variable: name for variable, (name, _) in groups.items()}))
    width = max(map(len, commands))
    lines = [f"  {name:<{width}}  {text}" for name, text in commands.items()]
    foot = "`workbench COMMAND --help` tells its arguments; `--version` the version."
    return "\n".join(["Usage: workbench COMMAND", "", about, "", *lines, "", foot])


def _groups(tree: ast.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    """Variable -> (name, help) of each `variable = App(name=..., help=...)`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "App":
            given = {k.arg: ast.literal_eval(k.value) for k in node.value.keywords if k.arg in ("name", "help")}
            yield node.targets[0].id, (given["name"], given["help"])


def _commands(tree: ast.Module, groups: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(command as typed, first line of its docstring) of each function under `@group.command`."""
    for node in tree.body:
        for decorator in getattr(node, "decorator_list", ()):
            call = decorator if isinstance(decorator, ast.Call) else None
            target = call.func if call else decorator
            if isinstance(node, ast.FunctionDef) and isinstance(target, ast.Attribute) and target.attr == "command":
                named = {k.arg: ast.literal_eval(k.value) for k in call.keywords} if call else {}
                group, name = target.value.id, named.get("name", node.name.replace("_", "-"))
                yield (name if group == "app" else f"{groups[group]} {name}"), (ast.get_docstring(node) or "").partition("\n")[0]
