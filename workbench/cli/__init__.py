"""The command line: parse arguments, call the library, print results.

There is one module per group of commands; importing it registers the commands in `app`.
"""

from workbench.cli import audit_command as audit
from workbench.cli import file_commands as files
from workbench.cli import model_commands as models
from workbench.cli import organism_commands as organism
from workbench.cli import persona_commands as personas
from workbench.cli import result_commands as results
from workbench.cli import run_commands as runs
from workbench.cli import study_commands as studies
from workbench.cli import sweep_commands as sweeps
from workbench.cli.app import app, main, program

__all__ = [
    "app",
    "audit",
    "files",
    "main",
    "models",
    "organism",
    "personas",
    "program",
    "results",
    "runs",
    "studies",
    "sweeps",
]
