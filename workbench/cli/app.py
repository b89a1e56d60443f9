"""The command `workbench` itself, what its commands share, and the exit codes: 0 done, 2 the user's mistake, 1 ours.

Nothing heavy is imported before a command needs it: `workbench --help` does not load torch.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from workbench import __version__
from workbench.errors import UserError

app = App(
    name="workbench",
    help="Persona directions, SAE latents, fluent prompt search, honest comparison, attribution.",
    version=__version__,
    version_flags=["--version"],
)

Sign = Literal["suppress", "induce"]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of a table.")]


def main() -> None:
    """Entry point; sets the exit code."""
    # Threads that wait for each other sleep instead of spinning: on a busy machine spinning made a step ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    try:
        app(exit_on_error=False, print_error=False)
    except (UserError, CycloptsError) as error:
        print(f"workbench: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("workbench: interrupted; what was finished stays (continue with --resume)", file=sys.stderr)
        raise SystemExit(130) from None
