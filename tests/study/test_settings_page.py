"""docs/study.md lists every setting as the settings describe themselves."""

from __future__ import annotations

from tests.support.paths import ROOT
from workbench.study import Study
from workbench.study.study_template import settings_table

_NEW = (
    "docs/study.md is behind the settings: put the output of `python -c 'from workbench.study.study_template import settings_table; "
    "print(settings_table())'` between its marks"
)


def _names(values: dict, prefix: str = "") -> set[str]:
    """Dotted names of all settings, from a whole study's JSON."""
    found: set[str] = set()
    for key, value in values.items():
        part = isinstance(values[key], dict) and key not in ("beside", "options")
        found |= _names(value, f"{prefix}{key}.") if part else {prefix + key}
    return found


def test_the_page_is_the_table() -> None:
    page = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    assert (
        page.partition("<!-- settings -->\n")[2].partition("\n<!-- end of settings -->")[0]
        == settings_table()
    ), _NEW


def test_the_table_has_every_setting_of_the_schema() -> None:
    listed = {line.split("`")[1] for line in settings_table().splitlines()[2:]}
    assert listed == _names(Study().model_dump(mode="json", by_alias=True)) and len(listed) > 60
    assert all(
        len(line.split(" | ")) >= 3 and line.rstrip(" |").split(" | ")[-1]
        for line in settings_table().splitlines()[2:]
    )
