"""Data sets in their published layouts, their committed splits, and the Lightning DataModules."""
