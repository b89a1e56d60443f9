"""Stages of a study, one module each, in the order of `run_study.STAGES`."""
