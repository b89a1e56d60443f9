"""`python -m workbench`, the same as `workbench`."""

from workbench.cli_entry import main

main()
