"""Segmenters of metaphases: one file a model, each with its builder."""
