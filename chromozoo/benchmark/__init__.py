"""Evaluation and publishing of weights, for maintainers."""
