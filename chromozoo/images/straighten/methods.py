"""The function that straightens a chromosome by either method."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import ImageError, UnknownNameError
from chromozoo.images.rotate_crop import RIM, RotateCrop
from chromozoo.images.signal import foreground
from chromozoo.images.straighten.axis import along_axis, smooth_axis
from chromozoo.images.straighten.curves import MARGIN
from chromozoo.images.straighten.xie import straighten_xie

StraightenMethod = Literal["axis", "xie"]

# Background pixels that are added around the image. A tight crop has too little background for
# Otsu's threshold, and the blurred ends of its chromosome would be lost.
FRAME = 8


def straighten(
    signal: NDArray[np.float32], method: StraightenMethod = "axis"
) -> NDArray[np.float32]:
    """Straighten the chromosome of a signal image.

    Args:
        signal: Signal image ``(H, W)`` float32 0..1, background 0; preferably an upright one (the
            output of :class:`chromozoo.images.rotate_crop.RotateCrop`), so that its upper end stays
            up.
        method: ``"axis"`` or ``"xie"``.

    Returns:
        ``(h, w)`` float32 0..1, long axis vertical, at the same scale, cut to the chromosome with a
        margin of one pixel. A chromosome without a bend is only turned upright.

    Raises:
        ImageError: The signal image is empty.
        UnknownNameError: The method is unknown.
    """
    if method not in ("axis", "xie"):
        raise UnknownNameError(f"unknown method {method!r}; use axis or xie")
    signal = np.pad(signal, FRAME)
    mask = foreground(signal)
    if not mask.any():
        raise ImageError(
            "the signal image shows no chromosome, only background; make it with "
            "signal_image, which checks this"
        )
    rim = cv2.dilate(mask.astype(np.uint8), np.ones((2 * RIM + 1,) * 2, np.uint8))
    isolated = np.asarray(signal * rim, np.float32)
    straight = None
    if method == "xie":
        straight = straighten_xie(isolated, mask)
    elif (axis := smooth_axis(mask)) is not None:
        straight = along_axis(isolated, mask, axis)
    return RotateCrop(margin=MARGIN)(signal) if straight is None else straight
