"""Weights files: storage, index of the published ones, download, and Lightning checkpoints."""
