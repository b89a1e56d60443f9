"""Entry point of the command line: prints the overview of commands without importing them, else starts `cli`.

The parser of the commands and its tables take 0.4 s to import. `workbench --help` needs neither: names,
groups and first docstring lines are read from the source of `cli/`, so that no second list must be kept up to
date.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from workbench.standard_streams import replace_closed_streams

#: Modules of `cli/` in the order of the overview.
MODULES = (
    "app",
    "file_commands",
    "study_commands",
    "result_commands",
    "run_commands",
    "audit_command",
    "sweep_commands",
    "model_commands",
    "persona_commands",
    "organism_commands",
)


def main() -> None:
    """Run the `workbench` command with the arguments of the process."""
    replace_closed_streams()
    if sys.argv[1:] in ([], ["-h"], ["--help"]):
        print(overview())
        return
    try:
        from workbench.cli import program
    except KeyboardInterrupt:
        print("workbench: interrupted before it began", file=sys.stderr)
        raise SystemExit(130) from None
    program()


def overview() -> str:
    """Return the text of `workbench --help`: every command with the first line of its docstring."""
    body = [
        node
        for name in MODULES
        for node in ast.parse(
            (Path(__file__).with_name("cli") / f"{name}.py").read_text(encoding="utf-8")
        ).body
    ]
    groups = dict(_groups(body))
    about = groups["app"][1]
    commands = dict(_commands(body, {variable: name for variable, (name, _) in groups.items()}))
    width = max(map(len, commands))
    lines = [f"  {name:<{width}}  {text}" for name, text in commands.items()]
    foot = "`workbench COMMAND --help` tells its arguments; `--version` the version; `--install-completion` completes commands in your shell."
    return "\n".join(["Usage: workbench COMMAND", "", about, "", *lines, "", foot])


def _groups(body: list[ast.stmt]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield (variable, (name, help)) for each assignment `variable = App(name=..., help=...)`."""
    for node in body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and getattr(node.value.func, "id", "") == "App"
        ):
            given = {
                k.arg: ast.literal_eval(k.value) for k in node.value.keywords if k.arg in ("name", "help")
            }
            yield ast.unparse(node.targets[0]), (given["name"], given["help"])


def _commands(body: list[ast.stmt], groups: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (command as typed, first docstring line) for each function decorated with `@group.command`."""
    for node in body:
        for decorator in getattr(node, "decorator_list", ()):
            call = decorator if isinstance(decorator, ast.Call) else None
            target = call.func if call else decorator
            if (
                isinstance(node, ast.FunctionDef)
                and isinstance(target, ast.Attribute)
                and target.attr == "command"
            ):
                named = {k.arg: ast.literal_eval(k.value) for k in call.keywords} if call else {}
                group, name = ast.unparse(target.value), named.get("name", node.name.replace("_", "-"))
                yield (
                    (name if group == "app" else f"{groups[group]} {name}"),
                    (ast.get_docstring(node) or "").partition("\n")[0],
                )
