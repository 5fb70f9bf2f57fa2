"""Extraction of single chromosomes from a metaphase."""

import numpy as np

from chromozoo.images.extract import Extraction
from chromozoo.structures.segmentation import Segmentation


def cross() -> tuple[np.ndarray, Segmentation]:
    """A bright vertical bar that a fainter horizontal one crosses."""
    masks = np.zeros((2, 60, 80), bool)
    masks[0, 10:50, 30:38] = True
    masks[1, 26:34, 10:70] = True
    signal = masks[0] * 0.6 + masks[1] * 0.3
    return signal.astype(np.float32), Segmentation.from_masks(masks, scores=[0.9, 0.8])


def test_both_images_have_the_pixels_of_the_crossing() -> None:
    signal, found = cross()
    vertical, horizontal = Extraction(rim=0, margin=3)(signal, found.crops, found.corners)
    assert vertical.shape == (40 + 6, 8 + 6)
    assert horizontal.shape == (8 + 6, 60 + 6)
    assert np.count_nonzero(vertical) == 40 * 8
    assert np.isclose(vertical.max(), 0.9)  # the crossing
    assert np.isclose(horizontal[3 + 4, 3 + 2], 0.3)
    assert not vertical[:3].any() and not vertical[:, :3].any()


def test_the_rim_excludes_other_masks() -> None:
    signal, found = cross()
    signal += 0.05
    vertical, _ = Extraction(rim=2, margin=3)(signal, found.crops, found.corners)
    assert np.isclose(vertical[5 + 5, 5 - 2], 0.05)  # in the rim of the bar
    assert vertical[5 + 20, 5 - 2] == 0  # in the rim, on the other bar
    assert vertical[5 + 5, 5 - 3] == 0  # outside the rim


def test_only_certain_masks_are_excluded_from_rims() -> None:
    masks = np.zeros((2, 40, 40), bool)
    masks[0, 5:35, 10:18] = True
    masks[1, 5:15, 18:22] = True  # a false detection next to it
    found = Segmentation.from_masks(masks, scores=[0.9, 0.4])
    signal = np.full((40, 40), 0.2, np.float32)
    cut = Extraction(rim=2, margin=1)
    both, _ = cut(signal, found.crops, found.corners)
    certain, uncertain = cut(signal, found.crops, found.corners, found.scores >= 0.5)
    assert both[3 + 4, 3 + 8] == 0  # the false detection excludes this part of the rim
    assert np.isclose(certain[3 + 4, 3 + 8], 0.2)
    assert uncertain[3 + 4, 3 - 1] == 0  # the rim excludes the certain mask


def test_masks_at_the_edge_are_padded() -> None:
    masks = np.zeros((1, 20, 20), bool)
    masks[0, :6, 12:] = True
    found = Segmentation.from_masks(masks)
    signal = np.ones((20, 20), np.float32)
    (image,) = Extraction(rim=1, margin=2)(signal, found.crops, found.corners)
    assert image.shape == (6 + 6, 8 + 6)
    # The rim does not leave the image.
    assert image[3:9, 3:11].all() and image[9, 3:11].all()
    assert not image[:3].any() and not image[:, 11:].any()
