"""Segmenters: one file for each published system. The chromosomes of one metaphase as masks."""
