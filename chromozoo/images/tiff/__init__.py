"""TIFF files of microscopes and cameras, read at their full bit depth.

Pillow reduces 16-bit colours to 8 bits, does not invert MinIsWhite at 16 bits and reads the first
page only; therefore tifffile and imagecodecs decode. Claims of a header are checked before memory
is allocated, and kinds of files that cannot be read as intended are refused with their name.
"""

from chromozoo.images.tiff.stacks import tiff_stacks

__all__ = ["tiff_stacks"]
