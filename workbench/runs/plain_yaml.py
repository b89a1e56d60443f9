"""Read YAML of plain values only, as users write it in study and persona files.

Refused are tags (so that only numbers, text, lists and tables are made), aliases (a few lines of them expand
to gigabytes), repeated keys (all but the last would be lost silently), and halves of surrogate pairs. Errors
name the file and the line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from workbench.errors import UserError
from workbench.runs.safe_reading import MEBIBYTE, read_text
from workbench.text_forms import join_surrogates, lone_surrogate

LONGEST_NUMBER = 4096
#: Largest number of characters of a YAML text, which takes a second or two to parse. JSON Lines and CSV are
#: read a hundred times faster.
LONGEST_TEXT = 256 * 1024


def read_yaml(path: str | Path, limit: int = 64 * MEBIBYTE) -> Any:
    """Read the value of a YAML file of plain values; None for an empty file.

    Args:
        path: The file.
        limit: Largest size in bytes.

    Raises:
        UserError: The file cannot be read, or is not YAML of plain values.
    """
    return parse_yaml(read_text(path, limit), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML text of plain values.

    Args:
        text: The text.
        where: Its file or place, for errors.

    Raises:
        UserError: The text is too long or is not YAML of plain values; the message names the line.
    """
    if len(text) > LONGEST_TEXT:
        raise UserError(
            f"{where}: expected at most {LONGEST_TEXT:,} characters of YAML, found {len(text):,}: give rows as JSON Lines or CSV"
        )
    try:
        return yaml.load(text, Loader=_PlainLoader)  # stricter than SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{where}{line}: expected YAML: {problem}") from error
    except RecursionError as error:
        raise UserError(f"{where}: YAML nested too deeply") from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # PyYAML's constructors raise these for `!!timestamp abc`, `!!bool abc` and numbers of 5,000 digits
        raise UserError(
            f"{where}: expected YAML of plain values: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


class _PlainLoader(yaml.SafeLoader):
    def construct_scalar(self, node: yaml.Node) -> Any:
        value = super().construct_scalar(node)  # type: ignore[arg-type]
        half = lone_surrogate(value) if isinstance(value, str) else None
        if half:
            raise yaml.MarkedYAMLError(
                problem=f"holds {half}, half of a character", problem_mark=node.start_mark
            )
        return join_surrogates(value) if isinstance(value, str) else value

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if (
            value.bit_length() > LONGEST_NUMBER
        ):  # Python refuses to print a longer one, even in an error message
            raise yaml.MarkedYAMLError(
                problem=f"a number of more than {LONGEST_NUMBER} bits", problem_mark=node.start_mark
            )
        return value

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases are not allowed", problem_mark=self.peek_event().start_mark
            )
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=f"the tag {event.tag} is not allowed", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_yaml_int)
