"""Where the repository and the published files lent to it are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Published files next to the repository; never copied into it.
SHARED = ROOT.parent / "shared"
