"""Data containers that all packages share: instances, segmentations, metaphases, predictions."""
