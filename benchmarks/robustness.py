"""How much of a karyotype is left when the picture comes from another camera, slide or export.

Validation metaphases are changed as laboratories differ, and the full-karyotyping accuracy (FKA) of
the karyotyper is set beside that of the same pictures unchanged:

    python benchmarks/robustness.py bioimlab-segmentation --cells 4
    python benchmarks/robustness.py cil54816 --cells 4
"""

import argparse
import dataclasses
from collections.abc import Callable
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.cells.karyotyper import Karyotyper
from chromozoo.cli.benchmark_karyotyping import karyotyped
from chromozoo.data.karyotyped import true_cells
from chromozoo.karyotyping_metrics import Boxes, FoundCell, TrueCell, evaluate_karyotyping

Picture = NDArray[np.float32]
Change = Callable[[Picture], NDArray[np.generic]]
SHOWN = ("fka", "alone_fka", "segmentation_recall", "segmentation_precision", "edits")
WIDTH = 24
FRAMED, FRAME = "framed, with caption", 40  # pixels


def scaled(factor: float) -> Change:
    """Another pixel size."""
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return lambda image: cv2.resize(image, None, fx=factor, fy=factor, interpolation=how)


def compressed(image: Picture) -> NDArray[np.generic]:
    """JPEG of quality 30."""
    _, data = cv2.imencode(".jpg", _eight_bit(image), [cv2.IMWRITE_JPEG_QUALITY, 30])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


def blurred(image: Picture) -> NDArray[np.generic]:
    """Out of focus."""
    return cv2.GaussianBlur(image, (0, 0), 1.5)


def noisy(image: Picture) -> NDArray[np.generic]:
    """A camera with too little light."""
    noise = np.random.default_rng(0).normal(0, 0.05 * np.ptp(image), image.shape)
    return np.clip(image + noise, image.min(), image.max())


def lit_unevenly(image: Picture) -> NDArray[np.generic]:
    """One corner of the field has 60 % of the light of the other."""
    rows, columns = np.indices(image.shape)
    light = 1 - 0.4 * (rows / image.shape[0] + columns / image.shape[1]) / 2
    return np.asarray(image * light)


def faint(image: Picture) -> NDArray[np.generic]:
    """A quarter of the contrast, on grey."""
    return (0.4 + 0.25 * _unit(image)).astype(np.float32)


def brightened(image: Picture) -> NDArray[np.generic]:
    """A display's gamma."""
    return _unit(image) ** 0.6


def darkened(image: Picture) -> NDArray[np.generic]:
    """The opposite gamma."""
    return _unit(image) ** 1.6


def sixteen_bit(image: Picture) -> NDArray[np.generic]:
    """A 12-bit camera's TIFF."""
    return (400 + 3000 * _unit(image)).astype(np.uint16)


def tinted(image: Picture) -> NDArray[np.generic]:
    """Colour, as of Giemsa under a colour camera."""
    unit = _unit(image)[..., None]
    violet = np.array([0.35, 0.15, 0.55]) + unit * np.array([0.6, 0.75, 0.4])
    return np.asarray(255 * np.clip(violet, 0, 1), np.uint8)


def framed(image: Picture) -> NDArray[np.generic]:
    """A screen shot: a black frame, a bar with a caption."""
    shown = np.pad(_eight_bit(image), FRAME)
    cv2.putText(shown, "cell 12  10 um", (50, shown.shape[0] - 8), 0, 1.0, 255, 2)
    cv2.line(shown, (360, shown.shape[0] - 16), (460, shown.shape[0] - 16), 255, 4)
    return shown


CHANGES: dict[str, Change] = {
    "none": lambda image: image,
    "half the pixels": scaled(0.5),
    "0.7 of the pixels": scaled(0.7),
    "1.5 times the pixels": scaled(1.5),
    "twice the pixels": scaled(2.0),
    "JPEG 30": compressed,
    "out of focus": blurred,
    "noise 5 %": noisy,
    "uneven light": lit_unevenly,
    "a quarter of the contrast": faint,
    "gamma 0.6": brightened,
    "gamma 1.6": darkened,
    "12 bits in 16": sixteen_bit,
    "colour": tinted,
    FRAMED: framed,
}


def _unit(image: Picture) -> Picture:
    low, high = image.min(), image.max()
    return np.asarray((image - low) / max(high - low, 1e-6), np.float32)


def _eight_bit(image: Picture) -> NDArray[np.uint8]:
    return np.rint(255 * _unit(image)).astype(np.uint8)


def found_in(karyotyper: Karyotyper, image: Picture, true: TrueCell, name: str) -> FoundCell:
    """The karyotype of the changed picture, its boxes in pixels of the unchanged one."""
    picture = np.ascontiguousarray(CHANGES[name](image))
    (found,) = karyotyped(karyotyper, [(picture, true)], [])
    # Large pictures are reduced first, and the result is in pixels of the reduced one.
    boxes = found.outlines.boxes * picture.shape[1] / found.outlines.shape[1]
    boxes = boxes - FRAME if name == FRAMED else boxes * image.shape[1] / picture.shape[1]
    return dataclasses.replace(found, outlines=Boxes(image.shape, boxes))


def main() -> None:
    """Prints a line for each change."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=("bioimlab-segmentation", "cil54816", "mfish"))
    parser.add_argument("--cells", type=int, default=4, help="validation images (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=tuple(CHANGES), default=list(CHANGES))
    arguments = parser.parse_args()

    karyotyper = Karyotyper()
    cells = [
        (image, dataclasses.replace(true, outlines=Boxes(image.shape, true.outlines.boxes)))
        for image, true in islice(true_cells(arguments.dataset, "val"), arguments.cells)
    ]
    print(f"{'change':<28}" + "".join(f"{figure:>{WIDTH}}" for figure in SHOWN))
    for name in arguments.only:
        found = [found_in(karyotyper, image, true, name) for image, true in cells]
        row = evaluate_karyotyping(found, [true for _, true in cells]).to_row()
        print(f"{name:<28}" + "".join(f"{row[figure]:>{WIDTH}.3f}" for figure in SHOWN), flush=True)


if __name__ == "__main__":
    main()
