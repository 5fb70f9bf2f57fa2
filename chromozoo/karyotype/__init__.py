"""From classified chromosomes to the karyotype of a cell.

Cell-level assignment, ISCN strings, prediction sets, polarity, quality flags and alarms, and the
:class:`~chromozoo.karyotype.karyotyper.Karyotyper` that combines a segmenter and a classifier.
"""
