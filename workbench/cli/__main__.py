"""`python -m workbench.cli`, the same as `workbench`."""

from workbench.cli import program
from workbench.standard_streams import replace_closed_streams

replace_closed_streams()
program()
