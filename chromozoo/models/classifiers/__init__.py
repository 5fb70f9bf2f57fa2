"""Classifiers: one file for each published system. The class of one chromosome from its image."""
