"""The tests mirror `workbench/`, one folder per package; what several of them need is in `tests.support`."""
