"""Classifiers of single chromosomes: one file a model, each with its builder."""
