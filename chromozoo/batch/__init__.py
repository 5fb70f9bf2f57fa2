"""Runs over many image files: workers, result folders, resuming."""
