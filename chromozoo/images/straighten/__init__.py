"""Straightening of bent chromosomes.

``"axis"``, the default and our own method, finds a smooth medial axis and resamples the image along
it, which keeps length, width and bands. ``"xie"`` follows N. Xie et al., "Statistical Karyotype
Analysis Using CNN and Geometric Optimization", IEEE Access 7, 2019, section IV-C.

Both methods keep the upper end of the chromosome up; polarity stays undetermined.
"""

from chromozoo.images.straighten.axis import along_axis, smooth_axis
from chromozoo.images.straighten.methods import FRAME, StraightenMethod, straighten
from chromozoo.images.straighten.xie import delaunay_axis, longest_path

__all__ = [
    "FRAME",
    "StraightenMethod",
    "along_axis",
    "delaunay_axis",
    "longest_path",
    "smooth_axis",
    "straighten",
]
