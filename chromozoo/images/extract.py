"""Extraction of single-chromosome images from a metaphase and its masks.

Crops must look the same in training and in use (Wang et al. 2024, table I: accuracy 67.8 % against
95.2 %), so the karyotyper and the training data of classifiers share this extraction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Extraction:
    """Cuts the chromosomes out of the signal image of a metaphase.

    Args:
        rim: Pixels by which a mask is dilated, because annotated outlines run through the blurred
            edge. Pixels of other masks are excluded. 1 was the best of 0 to 3 on the validation
            images of BioImLab (ChrNet4: 97.4 % alone, 99.1 % with assignment; without rim 96.0 %
            and 98.6 %).
        margin: Background pixels around the dilated mask.
    """

    rim: int = 1
    margin: int = 3

    def __call__(
        self,
        signal: NDArray[np.float32],
        crops: Sequence[NDArray[np.bool_]],
        corners: NDArray[np.integer],
        certain: NDArray[np.bool_] | None = None,
    ) -> list[NDArray[np.float32]]:
        """Cut out one image for each mask.

        Args:
            signal: ``(H, W)`` signal image, see :func:`chromozoo.images.levels.measure_levels`.
            crops: Amodal masks of a :class:`chromozoo.structures.segmentation.Segmentation`.
            corners: ``(N, 2)`` row and column of each mask's upper left pixel.
            certain: ``(N,)`` bool, masks whose pixels are excluded from the rims of others; all by
                default. An uncertain detection may be a part of its neighbour.

        Returns:
            ``(h, w)`` float32 for each mask, background 0, at the scale of the metaphase. The
            pixels of a crossing are in both images.
        """
        height, width = signal.shape
        # Number of certain masks that each pixel belongs to.
        owners = np.zeros((height, width), np.uint16)
        excludes = np.ones(len(crops), bool) if certain is None else certain
        for crop, (row, column), is_certain in zip(crops, corners, excludes, strict=True):
            if is_certain:
                owners[row : row + crop.shape[0], column : column + crop.shape[1]] += crop
        reach = self.rim + self.margin
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * self.rim + 1,) * 2)
        images = []
        for crop, (row, column), is_certain in zip(crops, corners, excludes, strict=True):
            padded = np.pad(crop, reach)
            top, left = int(row) - reach, int(column) - reach
            bottom, right = top + padded.shape[0], left + padded.shape[1]
            inside = (
                slice(max(-top, 0), padded.shape[0] - max(bottom - height, 0)),
                slice(max(-left, 0), padded.shape[1] - max(right - width, 0)),
            )
            place = (slice(max(top, 0), bottom), slice(max(left, 0), right))
            dilated = cv2.dilate(padded.astype(np.uint8), kernel) > 0
            image = np.zeros(padded.shape, np.float32)
            foreign = owners[place] > (padded[inside] if is_certain else 0)
            visible = dilated[inside] & (padded[inside] | ~foreign)
            image[inside] = np.where(visible, signal[place], 0)
            images.append(image)
        return images
