"""The command line: parse, call, print. One module a group of commands; importing it puts them into `app`."""

from workbench.cli import audit, models, organism, personas, results, studies, sweeps
from workbench.cli.app import app, main

__all__ = ["app", "audit", "main", "models", "organism", "personas", "results", "studies", "sweeps"]
