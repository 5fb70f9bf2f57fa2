"""Polarity from the ISCN band tables."""

import numpy as np
import pytest

from chromozoo.classes import CLASSES
from chromozoo.errors import UnknownNameError
from chromozoo.images.rotate_crop import RotateCrop
from chromozoo.images.signal import signal_image
from chromozoo.karyotype.polarity import find_polarity
from chromozoo.synthetic import Appearance, draw_chromosome


def drawn(label: str, angle: float, seed: int = 0) -> np.ndarray:
    look = Appearance(bend=0.1, overlap=0.0, gain_spread=0.0)
    chromosome = draw_chromosome(label, look, np.random.default_rng(seed), angle=angle)
    return RotateCrop()(signal_image(chromosome.image.astype(np.float32)))


def test_the_p_arm_is_found_in_both_orientations() -> None:
    right = [
        find_polarity(drawn(label, angle), label).p_arm_up == up
        for label in CLASSES
        for angle, up in ((0.0, True), (180.0, False))
    ]
    assert np.mean(right) > 0.9


def test_polarity_turns_with_the_image() -> None:
    image = drawn("13", 0.0)
    up, down = find_polarity(image, "13"), find_polarity(image[::-1, ::-1].copy(), "13")
    assert up.p_arm_up and not down.p_arm_up
    assert up.certainty > 0.3
    assert np.isclose(up.certainty, down.certainty, atol=0.1)


def test_the_centromere_comes_from_the_table() -> None:
    assert 0.1 < find_polarity(drawn("13", 0.0), "13").centromere < 0.3  # acrocentric
    assert 0.42 < find_polarity(drawn("1", 0.0), "1").centromere < 0.55  # metacentric


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="23"):
        find_polarity(drawn("1", 0.0), "23")
