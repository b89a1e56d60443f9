"""`python -m workbench.cli`, the same as `workbench`."""

from workbench.cli_entry import main

main()
