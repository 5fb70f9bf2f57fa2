"""Overlays: contours, colours and labels on dark and on bright metaphases."""

import cv2
import numpy as np
import pytest

from chromozoo.errors import ImageError
from chromozoo.structures.segmentation import Segmentation
from chromozoo.visualization import overlay
from chromozoo.visualization.overlay import draw_overlay


def metaphase(size: tuple[int, int] = (240, 320)) -> tuple[np.ndarray, Segmentation]:
    """Return a Q-band metaphase ``(H, W)`` uint8 with eight chromosomes, two of them crossed."""
    lines = [
        ((40, 40), (90, 60)),
        ((60, 30), (70, 80)),
        *(((40 + 45 * k, 120 + 10 * (k % 2)), (60 + 45 * k, 150)) for k in range(5)),
        ((220, 190), (300, 200)),
    ]
    masks = np.zeros((len(lines), *size), np.uint8)
    for mask, (start, end) in zip(masks, lines, strict=True):
        cv2.line(mask, start, end, 1, 12)
    image = np.clip(12 + 170 * masks.max(axis=0) + 30 * masks.sum(axis=0), 0, 255)
    return image.astype(np.uint8), Segmentation.from_masks(masks.astype(bool))


def colours_of(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean colour along the contour of a mask."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return image[mask & ~inner].mean(axis=0)


@pytest.mark.parametrize("stain", ["q", "g"])
def test_contours_are_coloured_and_neighbours_differ(stain: str) -> None:
    image, found = metaphase()
    if stain == "g":
        image = 255 - image
    before = image.copy()
    drawn = draw_overlay(image, found)
    np.testing.assert_array_equal(image, before)
    assert drawn.shape == (240, 320, 3) and drawn.dtype == np.uint8
    near = cv2.dilate(found.masks.any(axis=0).astype(np.uint8), np.ones((41, 41))) > 0
    background = drawn[~near]
    assert (background < 10).all() if stain == "q" else (background > 245).all()
    colours = np.array([colours_of(drawn, mask) for mask in found.masks])
    # No contour is grey or similar to the background.
    assert (np.ptp(colours, axis=1) > 30).all()
    assert (np.abs(colours.mean(axis=1) - background.mean()) > 60).all()
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    assert distances[np.triu_indices(len(found), 1)].min() > 25


def test_crossing_chromosomes_have_both_contours() -> None:
    image, found = metaphase()
    masks = found.masks
    crossed = [k for k in range(len(found)) if (masks[k] & np.delete(masks, k, 0).any(0)).any()]
    assert len(crossed) == 2
    flat = draw_overlay(np.zeros_like(image), found)
    for k in crossed:
        inner = cv2.erode(masks[k].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        other = masks[crossed[1 - crossed.index(k)]]
        rim = masks[k] & ~inner & cv2.erode(other.astype(np.uint8), np.ones((5, 5))).astype(bool)
        assert rim.any()
        assert (flat[rim].max(axis=1) > 100).mean() > 0.8


def test_numbers_are_next_to_the_chromosomes() -> None:
    image, found = metaphase()
    with_numbers, without = (draw_overlay(image, found, labels) for labels in (None, [""] * 8))
    written = (with_numbers != without).any(axis=2)
    inside = cv2.erode(found.masks.any(axis=0).astype(np.uint8), np.ones((3, 3))) > 0
    assert written.sum() > 8 * 20
    assert not (written & inside).any()
    for mask in found.masks:
        near = cv2.dilate(mask.astype(np.uint8), np.ones((31, 31))) > 0
        assert (written & near).any()
    own = draw_overlay(image, found, [f"chr {k}" for k in range(8)])
    assert (own != without).any(axis=2).sum() > 1.5 * written.sum()


def test_sizes_follow_the_image() -> None:
    image, found = metaphase()
    large = cv2.resize(image, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST)
    masks = np.array(
        [cv2.resize(m.astype(np.uint8), None, fx=8, fy=8, interpolation=0) for m in found.masks]
    )
    flat = np.zeros_like(large)
    lines = []
    for blank, these in (
        (np.zeros_like(image), found),
        (flat, Segmentation.from_masks(masks.astype(bool))),
    ):
        drawn = draw_overlay(blank, these, [""] * 8)
        lines.append((drawn.max(axis=2) > 128).sum() / these.masks.sum())
    # Lines of one pixel would cover an eighth of that share of the larger chromosomes.
    assert lines[1] > 0.3 * lines[0]


def test_missed_chromosomes_are_red() -> None:
    image, found = metaphase()
    masks = found.masks
    rest = Segmentation.from_masks(masks[1:])
    drawn = draw_overlay(image, rest, missed=Segmentation.from_masks(masks[:1]))
    red, green, blue = colours_of(drawn, masks[0])
    assert red > 200 and max(green, blue) < 120
    others = np.array([colours_of(drawn, mask) for mask in masks[1:]])
    assert not ((others[:, 0] > 180) & (others[:, 1:].max(axis=1) < 120)).any()


def test_any_units_any_size_and_no_chromosomes() -> None:
    image, found = metaphase()
    eight_bit = draw_overlay(image, found)
    np.testing.assert_array_equal(draw_overlay(image.astype(np.uint16) * 257, found), eight_bit)
    np.testing.assert_allclose(draw_overlay(image / 255.0, found), eight_bit, atol=1)
    np.testing.assert_array_equal(draw_overlay(np.stack([image] * 3, axis=2), found), eight_bit)
    plain = draw_overlay(image, Segmentation.empty(image.shape))
    assert (np.ptp(plain, axis=2) == 0).all()
    black = draw_overlay(np.zeros((20, 20), np.uint8), Segmentation.empty((20, 20)))
    assert (black == 0).all()
    # A chromosome that fills a tiny image, with a larger text.
    full = Segmentation.from_masks(np.ones((1, 6, 6), bool))
    assert draw_overlay(np.eye(6), full, ["a long text"]).shape == (6, 6, 3)


def test_more_chromosomes_than_colours() -> None:
    boxes = np.array([[9 * k, 0, 9 * k + 8, 8] for k in range(60)], np.float32)
    chosen = overlay.choose_colours(boxes, len(overlay.PALETTE), 4)
    assert set(chosen) == set(range(len(overlay.PALETTE)))
    assert np.diff(chosen).all()
    heap = np.tile(np.array([[0, 0, 9, 9]], np.float32), (25, 1))
    counts = np.bincount(overlay.choose_colours(heap, len(overlay.PALETTE), 4))
    assert counts.max() == 3


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((240, 320, 4), r"shape \(240, 320, 4\)"),
        ((120, 160), "160x120 pixels, its segmentation 320x240"),
    ],
)
def test_an_image_of_another_shape_is_refused(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ImageError, match=said):
        draw_overlay(np.zeros(shape), metaphase()[1])
