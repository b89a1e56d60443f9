"""Model of timings.json: the wall-clock times of a run.

Times have their own file, so that every other figure of a run is equal byte for byte between two processes of
one seed.
"""

from __future__ import annotations

from pydantic import Field

from workbench.schema.run_file import Entry, Number, RunFile


class SearchTimes(Entry):
    """Times of one search.

    Attributes:
        seconds: Seconds of the whole search, resumed parts included.
        steps: Seconds from the start to the end of each step.
    """

    seconds: Number = None
    steps: list[Number] = Field(default_factory=list)


class TimingsFile(RunFile):
    """The file timings.json: wall-clock seconds by name.

    Attributes:
        searches: Times of each search.
        conditions: Seconds of each condition (a prompt or a control) of comparison.json.
        estimators: Seconds of each estimator of the attribution.
    """

    searches: dict[str, SearchTimes] = Field(default_factory=dict)
    conditions: dict[str, Number] = Field(default_factory=dict)
    estimators: dict[str, Number] = Field(default_factory=dict)
