"""What several tests need: toy models, tiny checkpoints, example data, a browser. No test imports another test."""
