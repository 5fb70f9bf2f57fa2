"""Runs over many image files: worker processes, result folders, resuming."""
