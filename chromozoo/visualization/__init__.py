"""Figures and reports: overlays, karyograms, classification figures, and the page of a folder.

:mod:`~chromozoo.visualization.report` writes the result files of a karyotype.
"""
