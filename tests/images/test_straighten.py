"""Straightening, compared with the same synthetic chromosome drawn without its bend."""

from typing import Any

import cv2
import numpy as np
import pytest

from chromozoo.errors import ImageError, UnknownNameError
from chromozoo.images.rotate_crop import RotateCrop
from chromozoo.images.signal import foreground, signal_image
from chromozoo.images.straighten import (
    delaunay_axis,
    longest_path,
    smooth_axis,
    straighten,
)
from chromozoo.synthetic import Appearance, SyntheticChromosome, draw_chromosome

METHODS: tuple[Any, ...] = ("axis", "xie")
CLEAN: dict[str, Any] = {"noise": 0.0, "photons": 1e9, "overlap": 0.0}


def drawn(name: str, bend: float, seed: int) -> SyntheticChromosome:
    """Draw a chromosome whose other properties depend on the seed only."""
    look = Appearance(bend=bend, **CLEAN)
    return draw_chromosome(name, look, np.random.default_rng(seed), angle=0.0)


def signal_of(chromosome: SyntheticChromosome) -> np.ndarray:
    return signal_image(chromosome.image.astype(np.float32))


def turn(axis: np.ndarray) -> float:
    """Largest angle in degrees between two directions of an axis."""
    steps = np.diff(axis, axis=0)
    heading = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    return float(np.degrees(np.ptp(heading)))


def sideways(signal: np.ndarray) -> float:
    """Standard deviation in pixels of the rows' centres from a straight line."""
    mask = foreground(np.pad(signal, 8))
    rows = np.flatnonzero(mask.sum(axis=1) > 4)[3:-3]  # the tips are round
    centres = [np.flatnonzero(mask[row]).mean() for row in rows]
    rest = centres - np.polyval(np.polyfit(rows, centres, 1), rows)
    return float(rest.std())


def profile(signal: np.ndarray) -> np.ndarray:
    """Mean of each row's foreground, at 200 places from tip to tip."""
    visible = signal > 0.1
    rows = np.flatnonzero(visible.any(axis=1))
    means = (signal * visible).sum(axis=1) / np.maximum(visible.sum(axis=1), 1)
    return np.interp(np.linspace(rows[0], rows[-1], 200), np.arange(len(means)), means)


def length(signal: np.ndarray) -> int:
    return int(np.ptp(np.flatnonzero((signal > 0.1).any(axis=1)))) + 1


# Class and seed; the axis turns by 74 to 119 degrees.
BENT = [("1", 0), ("2", 6), ("2", 7), ("3", 0), ("3", 3), ("4", 4), ("5", 1), ("6", 7), ("9", 3)]


@pytest.fixture(scope="module")
def pairs() -> list[tuple[SyntheticChromosome, np.ndarray, np.ndarray]]:
    """Bent chromosomes, their upright signal images, and the same without a bend."""
    result = []
    for name, seed in BENT:
        bent = drawn(name, 1.0, seed)
        truth = RotateCrop("none")(signal_of(drawn(name, 0.0, seed)))
        result.append((bent, RotateCrop()(signal_of(bent)), truth))
    return result


Pairs = list[tuple[SyntheticChromosome, np.ndarray, np.ndarray]]


def test_the_test_chromosomes_are_bent(pairs: Pairs) -> None:
    turns = [turn(bent.axis) for bent, *_ in pairs]
    assert min(turns) > 70 and max(turns) > 110
    assert min(sideways(upright) for _, upright, _ in pairs) > 2


def test_the_axis_is_the_drawn_one(pairs: Pairs) -> None:
    for bent, *_ in pairs:
        axis = smooth_axis(foreground(signal_of(bent)))
        assert axis is not None
        apart = np.linalg.norm(bent.axis[:, None] - axis[None], axis=-1).min(axis=1)
        # The blur of the image rounds off a sharp kink.
        assert np.sqrt(np.square(apart).mean()) < 1.6
        np.testing.assert_allclose(np.linalg.norm(np.diff(axis, axis=0), axis=1), 1, atol=0.1)


def test_a_bent_chromosome_becomes_straight(pairs: Pairs) -> None:
    for _, upright, _ in pairs:
        straight = straighten(upright)
        assert straight.dtype == np.float32
        assert straight.min() >= 0 and straight.max() <= 1
        assert sideways(straight) < 0.2 * sideways(upright)


def test_length_width_and_stain_are_kept(pairs: Pairs) -> None:
    for _, upright, truth in pairs:
        straight = straighten(upright)
        assert length(straight) == pytest.approx(length(truth), rel=0.06)
        assert abs(length(straight) - length(truth)) <= abs(length(upright) - length(truth)) + 1
        widths = [np.median((s > 0.1).sum(axis=1)) for s in (straight, truth)]
        assert widths[0] == pytest.approx(widths[1], abs=1.5)
        assert straight.sum() == pytest.approx(upright.sum(), rel=0.08)


@pytest.mark.parametrize("method", METHODS)
def test_straightening_improves_the_bands(pairs: Pairs, method: Any) -> None:
    before, after = (
        np.array([np.corrcoef(profile(view(up)), profile(truth))[0, 1] for _, up, truth in pairs])
        for view in (lambda up: up, lambda up: straighten(up, method))
    )
    assert after.mean() > before.mean() + 0.02
    if method == "axis":
        assert (after > before - 0.01).all()
        assert after.min() > 0.93


@pytest.mark.parametrize("name", ["1", "4", "9", "13", "18", "X"])
def test_a_straight_chromosome_is_nearly_unchanged(name: str) -> None:
    upright = RotateCrop()(signal_of(drawn(name, 0.0, 7)))
    straight = straighten(upright)
    assert np.abs(np.subtract(straight.shape, upright.shape)).max() <= 3
    assert np.corrcoef(profile(straight), profile(upright))[0, 1] > 0.97
    # Aligned to within half a pixel.
    best = max(
        cv2.matchTemplate(np.pad(upright, 4), straight, cv2.TM_CCOEFF_NORMED).max()
        for straight in (straight, straighten(upright, "xie"))
    )
    assert best > 0.97


@pytest.mark.parametrize("method", METHODS)
def test_upside_down_stays_upside_down(pairs: Pairs, method: Any) -> None:
    for _, upright, _ in pairs:
        straight = straighten(upright, method)
        for flip in (np.flipud, np.fliplr):
            other = flip(straighten(np.ascontiguousarray(flip(upright)), method))
            if method == "axis":
                assert np.abs(np.subtract(other.shape, straight.shape)).max() <= 2
                inner = other[1:-1, 1:-1]
                best = cv2.matchTemplate(np.pad(straight, 3), inner, cv2.TM_CCOEFF_NORMED)
                assert best.max() > 0.98
            else:  # the samples of its outline fall on other points
                assert length(other) == pytest.approx(length(straight), rel=0.08)
                assert np.corrcoef(profile(other), profile(straight))[0, 1] > 0.9


def test_rotation_of_the_image_does_not_matter(pairs: Pairs) -> None:
    for _, upright, _ in pairs:
        straight = straighten(upright)
        turned = straighten(np.rot90(upright).copy())  # what was up lies left
        assert turned.shape[0] == pytest.approx(straight.shape[0], abs=2)
        one, other = profile(straight), profile(turned)
        assert max(np.corrcoef(one, other)[0, 1], np.corrcoef(one, other[::-1])[0, 1]) > 0.97


# Shapes


def l_shape(arm: int = 50, width: int = 12) -> np.ndarray:
    """Two arms of equal size, the upper one bright, the lower one dim."""
    image = np.zeros((arm + 20, arm + 20), np.float32)
    image[10 : 10 + arm, 10 : 10 + width] = 1.0
    image[10 + arm - width : 10 + arm, 10 + width : 10 + arm] = 0.5
    return image


def u_shape() -> np.ndarray:
    """A line 12 pixels wide, with round ends."""
    image = np.zeros((120, 100), np.float32)
    cv2.ellipse(image, (50, 75), (30, 60), 0, 180, 360, 1.0, 12)
    return image


def half_ellipse_length(a: float, b: float) -> float:
    angle = np.linspace(0, np.pi, 2000)
    return float(np.hypot(np.diff(a * np.cos(angle)), np.diff(b * np.sin(angle))).sum())


def test_l_and_u_are_straightened_to_their_true_length() -> None:
    corner = straighten(l_shape())
    assert length(corner) == pytest.approx(2 * (50 - 6), rel=0.06)
    assert sideways(corner) < 1.2
    # The upper arm stays up.
    assert corner[: len(corner) // 3].mean() > 1.5 * corner[-len(corner) // 3 :].mean()
    arch = straighten(u_shape())
    assert length(arch) == pytest.approx(half_ellipse_length(30, 60) + 12, rel=0.03)
    assert sideways(arch) < 1
    assert np.median((arch > 0.5).sum(axis=1)) == pytest.approx(13, abs=1)


def test_xie_cuts_at_the_bend() -> None:
    axis = delaunay_axis(l_shape() > 0)
    assert axis is not None
    first, last = axis[0], axis[-1]
    chord = (last - first) / np.linalg.norm(last - first)
    apart = np.abs(chord[0] * (axis[:, 1] - first[1]) - chord[1] * (axis[:, 0] - first[0]))
    # The cut runs through the lower left corner, half a width inside.
    np.testing.assert_allclose(axis[apart.argmax()], [10 + 6, 60 - 6], atol=4)
    straight = straighten(l_shape(), "xie")
    assert length(straight) == pytest.approx(2 * (50 - 6), rel=0.08)
    middle = len(straight) // 2
    bright, dim = straight[10 : middle - 10], straight[middle + 10 : -10]
    assert np.median(bright[bright > 0.1]) == pytest.approx(1, abs=0.02)
    assert np.median(dim[dim > 0.1]) == pytest.approx(0.5, abs=0.02)


def test_xie_fills_the_gap_with_the_mean_of_its_row() -> None:
    straight = straighten(l_shape(), "xie")
    # Without the filling, the gap on the inner side would leave 12 black pixels.
    widths = (straight > 0.1).sum(axis=1)[8:-8]
    assert widths.min() >= 10
    in_gap = (straight > 0.55) & (straight < 0.95)
    assert in_gap.sum() > 20


def test_xie_does_not_cut_slight_bends() -> None:
    image = np.zeros((120, 60), np.float32)
    points = [(20, 10), (26, 60), (20, 110)]  # 6 pixels off a chord of 100: less than a tenth
    cv2.polylines(image, [np.array(points, np.int32)], False, 1.0, 10)
    np.testing.assert_array_equal(straighten(image, "xie"), RotateCrop()(np.pad(image, 8)))
    assert sideways(straighten(image, "axis")) < 0.5 * sideways(image)


def test_longest_path_excludes_branches() -> None:
    points = np.array([[0, 0], [1, 0], [2, 0], [3, 0], [2, 1], [9, 9]], float)
    edges = np.array([[0, 1], [1, 2], [2, 3], [2, 4], [3, 5]])
    apart = np.array([[6, 7]])
    points = np.vstack([points, [[50, 0], [99, 0]]])  # longer, but of fewer points
    path = longest_path(points, np.vstack([apart, apart[:, ::-1], edges, edges[:, ::-1]]))
    found = path if path[0, 0] == 0 else path[::-1]
    np.testing.assert_array_equal(found, points[[0, 1, 2, 3, 5]])


def edge_cases() -> dict[str, np.ndarray]:
    shapes = {
        "one pixel wide": np.zeros((40, 20)),
        "one pixel wide, bent": np.zeros((40, 40)),
        "one pixel wide, leaning": np.eye(40)[:, ::-1] * 1.0,
        "disc": np.zeros((40, 40)),
        "hole": np.zeros((60, 30)),
        "ring": np.zeros((60, 30)),
        "two pieces": np.zeros((60, 30)),
        "touches the border": np.zeros((60, 12)),
        "fills the image": np.ones((60, 12)),
        "cross": np.zeros((60, 60)),
        "four pixels": np.zeros((4, 4)),
        "one pixel": np.ones((1, 1)),
    }
    shapes["one pixel wide"][5:35, 10] = 1
    shapes["one pixel wide, bent"][5:35, 5] = shapes["one pixel wide, bent"][34, 5:35] = 1
    cv2.circle(shapes["disc"], (20, 20), 9, 1.0, -1)
    shapes["hole"][5:55, 10:22] = 1
    shapes["hole"][20:30, 14:18] = 0
    cv2.circle(shapes["ring"], (15, 30), 12, 1.0, 2)
    shapes["two pieces"][5:25, 8:18] = 1
    shapes["two pieces"][35:58, 8:18] = 1
    shapes["touches the border"][:, 2:10] = 1
    for x in (5, 55):
        cv2.line(shapes["cross"], (x, 5), (60 - x, 55), 1.0, 3)
    shapes["four pixels"][1:3, 1:3] = 1
    return {name: shape.astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", edge_cases())
def test_edge_cases(name: str, method: Any) -> None:
    image = edge_cases()[name]
    straight = straighten(image, method)
    assert straight.dtype == np.float32 and straight.ndim == 2
    assert straight.min() >= 0 and straight.max() <= 1
    # The larger of two components is the chromosome; nothing else is lost or doubled.
    expected = 230 if name == "two pieces" else image.sum()
    assert straight.sum() == pytest.approx(expected, rel=0.1)
    assert straight.shape[0] >= straight.shape[1] - 3


@pytest.mark.parametrize("method", METHODS)
def test_noise(method: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):
        shape = rng.integers(4, 60, 2)
        cloud = cv2.GaussianBlur(rng.random(shape), (0, 0), rng.uniform(0.5, 5))
        signal = np.clip((cloud - cloud.mean()) / cloud.std() - rng.uniform(-1, 1), 0, 1)
        straight = straighten(signal.astype(np.float32), method)
        assert straight.size and np.isfinite(straight).all()


def test_a_short_chromosome_is_turned_upright_only() -> None:
    signal = signal_of(draw_chromosome("21", Appearance(**CLEAN), np.random.default_rng(0)))
    padded = np.pad(signal, 8)
    for method in METHODS:
        np.testing.assert_array_equal(straighten(signal, method), RotateCrop()(padded))


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_image_is_refused(method: Any) -> None:
    with pytest.raises(ImageError, match="no chromosome"):
        straighten(np.zeros((40, 20), np.float32), method)


def test_unknown_method() -> None:
    with pytest.raises(UnknownNameError, match=r"'skeleton'.*axis or xie"):
        straighten(u_shape(), "skeleton")  # type: ignore[arg-type]
