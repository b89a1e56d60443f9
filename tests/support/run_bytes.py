"""The bytes of a run directory without what shows times."""

from __future__ import annotations

import re
from pathlib import Path

#: What may differ: times and memory, and the hash of the page that shows times.
TIMES = re.compile(
    rb'"(?:time|created|finished|report.html)": "[^"]*"|"(?:seconds|peak_memory_mb)": [0-9.e-]+'
)
#: In the page: when the run began, and the seconds of its stages.
PAGE_TIMES = re.compile(
    rb'(?<=<td class="text">)\d{4}-\d\d-\d\dT[^<]*|(?<=<td class="n">)\d+\.\d(?=</td></tr>)'
)


def bytes_without_times(directory: Path) -> dict[str, bytes]:
    """Every file of a run by its name; of those that hold times, without them."""
    found = {}
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        name, data = str(file.relative_to(directory)), file.read_bytes()
        if name in ("manifest.json", "log.jsonl"):
            data = TIMES.sub(b"", data)
        if name == "report.html":
            making, end = (
                data.index(b'<section id="making"'),
                data.index(b"</section>", data.index(b'<section id="making"')),
            )
            data = data[:making] + PAGE_TIMES.sub(b"", data[making:end]) + data[end:]
        found[name] = data
    return found
