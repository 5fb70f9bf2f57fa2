"""Metrics of classification, segmentation and karyotyping, with bootstrap intervals over cells."""
