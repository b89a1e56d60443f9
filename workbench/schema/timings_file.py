"""timings.json: what took how long. Every other figure of a run is equal byte for byte between two processes of one seed."""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile


class SearchTimes(Entry):
    """A search. seconds: of the whole, resumed parts included; steps: seconds until the end of each step."""

    seconds: Number = None
    steps: list[Number] = Field(default_factory=list)


class TimingsFile(RunFile):
    """Wall-clock seconds by name. conditions: as in comparison.json, whose `cost.seconds` is null since; estimators: of the attribution."""

    searches: dict[str, SearchTimes] = Field(default_factory=dict)
    conditions: dict[str, Number] = Field(default_factory=dict)
    estimators: dict[str, Number] = Field(default_factory=dict)
