"""Extraction of single chromosomes from a metaphase."""

import numpy as np

from chromozoo.images.extract import Extraction
from chromozoo.structures.segmentation import Segmentation


def cross() -> tuple[np.ndarray, Segmentation]:
    """A bright upright bar that a fainter lying one crosses."""
    masks = np.zeros((2, 60, 80), bool)
    masks[0, 10:50, 30:38] = True
    masks[1, 26:34, 10:70] = True
    signal = masks[0] * 0.6 + masks[1] * 0.3
    return signal.astype(np.float32), Segmentation.from_masks(masks, scores=[0.9, 0.8])


def test_each_keeps_its_own_light_and_the_shared() -> None:
    signal, found = cross()
    upright, lying = Extraction(rim=0, margin=3)(signal, found.crops, found.corners)
    assert upright.shape == (40 + 6, 8 + 6)
    assert lying.shape == (8 + 6, 60 + 6)
    assert np.count_nonzero(upright) == 40 * 8
    assert np.isclose(upright.max(), 0.9)  # the crossing
    assert np.isclose(lying[3 + 4, 3 + 2], 0.3)
    assert not upright[:3].any() and not upright[:, :3].any()


def test_the_rim_takes_background_and_no_neighbour() -> None:
    signal, found = cross()
    signal += 0.05
    upright, _ = Extraction(rim=2, margin=3)(signal, found.crops, found.corners)
    assert np.isclose(upright[5 + 5, 5 - 2], 0.05)  # beside the bar, in its rim
    assert upright[5 + 20, 5 - 2] == 0  # beside the bar, where the other one goes on
    assert upright[5 + 5, 5 - 3] == 0  # beyond the rim


def test_a_doubtful_mask_takes_nothing_from_a_certain_one() -> None:
    masks = np.zeros((2, 40, 40), bool)
    masks[0, 5:35, 10:18] = True
    masks[1, 5:15, 18:22] = True  # a piece of background beside it, taken for a chromosome
    found = Segmentation.from_masks(masks, scores=[0.9, 0.4])
    signal = np.full((40, 40), 0.2, np.float32)
    cut = Extraction(rim=2, margin=1)
    both, _ = cut(signal, found.crops, found.corners)
    certain, doubtful = cut(signal, found.crops, found.corners, found.scores >= 0.5)
    assert both[3 + 4, 3 + 8] == 0  # its rim on that side belongs to the other
    assert np.isclose(certain[3 + 4, 3 + 8], 0.2)
    assert doubtful[3 + 4, 3 - 1] == 0  # what is certain keeps its own from the doubtful one


def test_masks_at_the_edge_are_padded() -> None:
    masks = np.zeros((1, 20, 20), bool)
    masks[0, :6, 12:] = True
    found = Segmentation.from_masks(masks)
    signal = np.ones((20, 20), np.float32)
    (image,) = Extraction(rim=1, margin=2)(signal, found.crops, found.corners)
    assert image.shape == (6 + 6, 8 + 6)
    # The rim reaches into the image only.
    assert image[3:9, 3:11].all() and image[9, 3:11].all()
    assert not image[:3].any() and not image[:, 11:].any()
