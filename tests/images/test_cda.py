"""CDA, the augmentation of Lin et al. 2020: rotations by multiples of 15 degrees, and shifts."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from chromozoo.images import augment
from chromozoo.images.preset import ChromosomePreset
from chromozoo.synthetic import Appearance, draw_chromosome

# Arguments that disable all other augmentation.
CDA_ONLY = {
    "rotate": 0.0,
    "scale": (1.0, 1.0),
    "shear": 0.0,
    "brightness": 0.0,
    "noise": 0.0,
    "bend": 0.0,
    "flips": False,
    "rotate_step": 15.0,
}
CROP = ChromosomePreset(height=112, width=112, rotate_crop="none").prepare(
    draw_chromosome("4", Appearance(), np.random.default_rng(0)).image
)


def pointer() -> NDArray[np.uint8]:
    """A bar from the middle to the right, whose direction shows the rotation."""
    image = np.zeros((112, 112), np.uint8)
    image[53:59, 56:90] = 200
    return image


def copies(image: NDArray[np.uint8], count: int, seed: int = 0, **arguments: object):
    pipeline = augment.training_augmentation(**(CDA_ONLY | arguments))  # type: ignore[arg-type]
    pipeline.set_random_seed(seed)
    return [augment.apply(pipeline, image) for _ in range(count)]


def direction(image: NDArray[np.uint8]) -> float:
    """Direction of the pointer in degrees, 0..360, counter-clockwise from the right."""
    rows, columns = np.nonzero(image > 20)
    middle = (image.shape[0] - 1) / 2
    return float(np.degrees(np.arctan2(middle - rows.mean(), columns.mean() - middle)) % 360)


def test_all_24_rotations_are_equally_frequent() -> None:
    angles = np.array([direction(copy) for copy in copies(pointer(), 1200, shift=0.0)])
    turns = np.round(angles / 15).astype(int)
    assert np.abs(angles - 15 * turns).max() < 1.5
    counts = np.bincount(turns % 24, minlength=24)
    assert len(counts) == 24
    assert counts.min() > 25 and counts.max() < 85  # 50 expected, standard deviation 7


def test_rotations_by_another_step() -> None:
    angles = [direction(copy) for copy in copies(pointer(), 60, shift=0.0, rotate_step=90)]
    assert {round(angle / 90) % 4 for angle in angles} == {0, 1, 2, 3}
    assert max(abs(angle - 90 * round(angle / 90)) for angle in angles) < 1.5


def test_new_pixels_are_background() -> None:
    disc = np.zeros((112, 112), np.uint8)
    cv2.circle(disc, (56, 56), 40, 255, -1)
    for copy in copies(disc, 100):
        corners = (copy[:15, :15], copy[:15, -15:], copy[-15:, :15], copy[-15:, -15:])
        assert max(int(corner.max()) for corner in corners) == 0


def test_the_chromosome_stays_on_a_large_canvas() -> None:
    mass = float(CROP.sum())
    assert mass > 0
    for copy in copies(CROP, 100):
        assert float(copy.sum()) == pytest.approx(mass, rel=0.01)


def test_shifts_are_random_and_limited() -> None:
    square = np.zeros((100, 100), np.uint8)
    square[45:55, 45:55] = 255
    centres = np.array(
        [np.argwhere(copy > 127).mean(axis=0) - 49.5 for copy in copies(square, 300, shift=0.1)]
    )
    assert np.abs(centres).max() <= 10.6
    for axis in (0, 1):
        assert centres[:, axis].min() < -8 and centres[:, axis].max() > 8
    # Rows and columns are independent.
    assert abs(np.corrcoef(centres.T)[0, 1]) < 0.2


def test_cda_is_reproducible() -> None:
    first, again, other = (np.stack(copies(CROP, 20, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_cda_with_all_other_augmentation() -> None:
    pipeline = augment.training_augmentation(rotate=0.0, shear=0.0, bend=0.0, rotate_step=15)
    pipeline.set_random_seed(0)
    copies = [augment.apply(pipeline, CROP) for _ in range(50)]
    assert all(copy.shape == CROP.shape and copy.dtype == np.uint8 for copy in copies)
    tilts = []
    for copy in copies:
        rows, columns = np.nonzero(copy > 60)
        _, axes = np.linalg.eigh(np.cov(columns, rows))
        tilts.append(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])) % 180)
    # The long axis takes all 12 directions of the half circle.
    assert len({int(tilt // 15) for tilt in tilts}) == 12


def test_cda_is_off_by_default() -> None:
    def turns(**arguments: float) -> list[augment.Turn]:
        pipeline = augment.training_augmentation(**arguments)  # type: ignore[arg-type]
        return [step for step in pipeline.transforms if isinstance(step, augment.Turn)]

    assert not turns()
    assert [step.step for step in turns(rotate_step=15)] == [15]


@pytest.mark.parametrize("step", [7.0, -15.0, 400.0])
def test_step_must_divide_the_circle(step: float) -> None:
    with pytest.raises(ValueError, match=rf"rotate_step {step:g} does not divide 360"):
        augment.training_augmentation(rotate_step=step)
