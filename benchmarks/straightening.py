"""Speed of the medial axis of ``straighten``, and the effect of straightening on the bands.

Run: ``python benchmarks/straightening.py [--count 96] [--bend 0.8]``. It needs scikit-image (the
extra ``benchmark``). Everything is measured in one process on simulated chromosomes. Each is drawn
twice from the same random numbers, bent and without the bend; the second image is the truth.
Absolute times depend on the machine, so the ratio counts. scikit-image's ``medial_axis`` spends
nearly all of its time on a table that it rebuilds at every call.
"""

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from skimage.morphology import medial_axis, skeletonize

from chromozoo.classes import CLASSES
from chromozoo.images.rotate_crop import RotateCrop
from chromozoo.images.signal import foreground, signal_image
from chromozoo.images.straighten import FRAME, along_axis, longest_path, straighten
from chromozoo.synthetic import Appearance, draw_chromosome

# Signal below this level is noise of the background.
VISIBLE = 0.1


def draw(count: int, bend: float) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Draw upright signal images: bent, and the same chromosome without its bend."""
    pairs = []
    for seed in range(count):
        both = []
        for strength in (bend, 0.0):
            look = Appearance(bend=strength, overlap=0.0)
            rng = np.random.default_rng(seed)
            name = CLASSES[seed % len(CLASSES)]
            image = draw_chromosome(name, look, rng, angle=0.0).image.astype(np.float32)
            both.append(RotateCrop("pca" if strength else "none")(signal_image(image)))
        pairs.append((both[0], both[1]))
    return pairs


def profile(signal: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean of the visible pixels of each row, from the first to the last visible row."""
    visible = signal > VISIBLE
    rows = np.flatnonzero(visible.any(axis=1))
    inside = slice(rows[0], rows[-1] + 1)
    sums, counts = (signal * visible).sum(axis=1)[inside], visible.sum(axis=1)[inside]
    means: NDArray[np.float64] = sums / np.maximum(counts, 1)
    return means


def agreement(found: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Return the correlation of two profiles at the same length; either end may be up."""
    places = np.linspace(0, 1, 200)
    one, other = (np.interp(places, np.linspace(0, 1, len(p)), p) for p in (found, truth))
    return float(max(np.corrcoef(one, other)[0, 1], np.corrcoef(one[::-1], other)[0, 1]))


def straighten_by_skeleton(
    signal: NDArray[np.float32], skeleton: Callable[[NDArray[np.bool_]], NDArray[np.bool_]]
) -> tuple[NDArray[np.float32], float]:
    """Straighten along a skeleton of scikit-image, and return the image and the time in seconds.

    The time covers the skeleton and the resampling. It excludes the search for the longest path
    through the skeleton and its smoothing, which a faster program could do in negligible time.
    """
    start = time.perf_counter()
    signal = np.pad(signal, FRAME)
    mask = foreground(signal)
    pixels = np.argwhere(skeleton(mask))
    counted = time.perf_counter() - start
    apart = np.abs(pixels[:, None] - pixels[None]).max(axis=-1)
    joined = np.argwhere(apart == 1)
    path = longest_path(pixels[:, ::-1].astype(np.float64), joined) if len(joined) else pixels
    if len(path) < 3:
        return signal, counted
    smooth = gaussian_filter1d(path if path[0, 1] <= path[-1, 1] else path[::-1], 4.0, axis=0)
    # A skeleton may end half a width before the tips; the resampling cuts off any excess.
    ends = smooth[[0, -1]] - smooth[[1, -2]]
    ends *= mask.sum() / len(path) / np.linalg.norm(ends, axis=1, keepdims=True)
    smooth = np.vstack([smooth[0] + ends[0], smooth, smooth[-1] + ends[1]])
    start = time.perf_counter()
    straight = along_axis(signal, mask, np.asarray(smooth, np.float64))
    return straight, counted + time.perf_counter() - start


def straighten_by_axis(
    signal: NDArray[np.float32], method: str
) -> tuple[NDArray[np.float32], float]:
    """Straighten by one of our methods, and return the image and the time in seconds."""
    start = time.perf_counter()
    straight = straighten(signal, method)  # type: ignore[arg-type]
    return straight, time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--bend", type=float, default=0.8, help="see Appearance.bend")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    pairs = draw(arguments.count, arguments.bend)
    methods: dict[str, Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], float]]] = {
        "not straightened": lambda signal: (signal, 0.0),
        "axis": lambda signal: straighten_by_axis(signal, "axis"),
        "xie": lambda signal: straighten_by_axis(signal, "xie"),
        "medial_axis": lambda signal: straighten_by_skeleton(signal, medial_axis),
        "skeletonize": lambda signal: straighten_by_skeleton(signal, skeletonize),
    }
    print(f"{arguments.count} simulated chromosomes, bend {arguments.bend}, seeds 0, 1, ...")
    print(f"{'':18}correlation of the band profile   error of the length    time")
    print(f"{'':18}mean    worst tenth              mean    worst tenth")
    times = {}
    for name, method in methods.items():
        results = []
        for bent, truth in pairs:
            runs = [method(bent) for _ in range(arguments.repeats)]
            found, wanted = profile(runs[0][0]), profile(truth)
            # The shortest of several runs is the one least disturbed by other work.
            results.append(
                (
                    agreement(found, wanted),
                    abs(len(found) / len(wanted) - 1),
                    min(seconds for _, seconds in runs),
                )
            )
        correlation, length, seconds = np.array(results).T
        times[name] = float(seconds.mean())
        print(
            f"{name:18}{correlation.mean():.3f}   {np.quantile(correlation, 0.1):.3f}"
            f"{'':20}{length.mean():6.1%}  {np.quantile(length, 0.9):6.1%}"
            f"        {1000 * times[name]:7.2f} ms"
        )
    print(
        f"axis is {times['medial_axis'] / times['axis']:.1f} times as fast as medial_axis, ", end=""
    )
    print(f"{times['skeletonize'] / times['axis']:.1f} times as fast as skeletonize")


if __name__ == "__main__":
    main()
