"""Robustness of karyotypes to cameras, slides and exports.

Validation metaphases are changed as they differ between laboratories. The karyotypes are compared
with the truth and with those of the unchanged images:

    python benchmarks/robustness.py bioimlab-segmentation --cells 4
    python benchmarks/robustness.py cil54816 --cells 4 --only "dead column" "vignette"

Apart from the full-karyotyping accuracy (FKA), the table shows three shares of the cells. A cell is
``kept`` if its karyotype has as many chromosomes as that of the unchanged image, or one more or
less, and at most two more chromosomes for review. Other cells are ``alarmed`` if they have an alarm
and a flag, so that no bare karyotype is given, or else ``silent``.
"""

import argparse
import dataclasses
from collections.abc import Callable
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from chromozoo.benchmark.measure_karyotyping import found_cell
from chromozoo.data.karyotyping_truth import true_cells
from chromozoo.karyotype.karyotyper import Karyotyper
from chromozoo.metrics.karyotyping import evaluate_karyotyping
from chromozoo.models.karyotyper import get_karyotyper
from chromozoo.structures.karyotyped_cell import Boxes, PredictedCell, TrueCell

StoredMetaphase = NDArray[np.float32]
Change = Callable[[StoredMetaphase], NDArray[np.generic]]
SHOWN = {
    "fka": "fka",
    "unassigned_fka": "alone",
    "segmentation_recall": "recall",
    "segmentation_precision": "precision",
    "edits": "edits",
}
SHARES = ("kept", "alarmed", "silent")
WIDTH = 13
FRAMED, FRAME = "framed, with caption", 40  # pixels
# Largest differences from the unchanged image with which a karyotype counts as kept.
MAX_COUNT_DIFFERENCE, MAX_ADDED_REVIEWS = 1, 2
# Contrast of a faint 16-bit image, in which objects six times as bright as the chromosomes fit.
FAINT, WHITE_16 = 8000.0, 65535


def scaled(factor: float) -> Change:
    """Change the pixel size."""
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return lambda image: cv2.resize(image, None, fx=factor, fy=factor, interpolation=how)


def compressed(image: StoredMetaphase) -> NDArray[np.generic]:
    """Compress as a JPEG of quality 30."""
    _, data = cv2.imencode(".jpg", _eight_bit(image), [cv2.IMWRITE_JPEG_QUALITY, 30])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


def blurred(image: StoredMetaphase) -> NDArray[np.generic]:
    """Blur as out of focus."""
    return cv2.GaussianBlur(image, (0, 0), 1.5)


def noisy(image: StoredMetaphase) -> NDArray[np.generic]:
    """Add the noise of a camera with too little light."""
    noise = np.random.default_rng(0).normal(0, 0.05 * np.ptp(image), image.shape)
    return np.clip(image + noise, image.min(), image.max())


def lit_unevenly(image: StoredMetaphase) -> NDArray[np.generic]:
    """Light one corner of the field with 60 % of the light of the other."""
    rows, columns = np.indices(image.shape)
    light = 1 - 0.4 * (rows / image.shape[0] + columns / image.shape[1]) / 2
    return np.asarray(image * light)


def faint(image: StoredMetaphase) -> NDArray[np.generic]:
    """Reduce the contrast to a quarter, on grey."""
    return (0.4 + 0.25 * _unit(image)).astype(np.float32)


def brightened(image: StoredMetaphase) -> NDArray[np.generic]:
    """Apply a display's gamma."""
    return _unit(image) ** 0.6


def darkened(image: StoredMetaphase) -> NDArray[np.generic]:
    """Apply the opposite gamma."""
    return _unit(image) ** 1.6


def sixteen_bit(image: StoredMetaphase) -> NDArray[np.generic]:
    """Store as the TIFF of a 12-bit camera."""
    return (400 + 3000 * _unit(image)).astype(np.uint16)


def tinted(image: StoredMetaphase) -> NDArray[np.generic]:
    """Colour as Giemsa under a colour camera."""
    unit = _unit(image)[..., None]
    violet = np.array([0.35, 0.15, 0.55]) + unit * np.array([0.6, 0.75, 0.4])
    return np.asarray(255 * np.clip(violet, 0, 1), np.uint8)


def framed(image: StoredMetaphase) -> NDArray[np.generic]:
    """Frame as a screenshot: a black frame, a bar with a caption."""
    shown = np.pad(_eight_bit(image), FRAME)
    cv2.putText(shown, "cell 12  10 um", (50, shown.shape[0] - 8), 0, 1.0, 255, 2)
    cv2.line(shown, (360, shown.shape[0] - 16), (460, shown.shape[0] - 16), 255, 4)
    return shown


def is_dark_ground(image: StoredMetaphase) -> bool:
    """Whether chromosomes are brighter than the background."""
    return bool(np.median(image) - image.min() < image.max() - np.median(image))


def with_headroom(image: StoredMetaphase) -> tuple[StoredMetaphase, float, float]:
    """Return the image in a sixth of 16 bits, its background and the contrast of chromosomes."""
    dark = is_dark_ground(image)
    background = 1000.0 if dark else WHITE_16 - 1000.0
    departure = (image - np.median(image)) * (1 if dark else -1)
    departure = departure / np.percentile(departure, 99.5)
    sign = 1.0 if dark else -1.0
    faint = background + sign * FAINT * np.clip(departure, -0.1, 1.3)
    return np.asarray(faint, np.float32), background, sign * FAINT


def saved(image: StoredMetaphase) -> NDArray[np.uint16]:
    """Round to 16 bits."""
    return np.clip(np.rint(image), 0, WHITE_16).astype(np.uint16)


def dead_column(image: StoredMetaphase) -> NDArray[np.generic]:
    """Make one column white, as of a defective camera."""
    changed, _, _ = with_headroom(image)
    changed[:, int(0.52 * image.shape[1])] = WHITE_16
    return saved(changed)


def dark_column(image: StoredMetaphase) -> NDArray[np.generic]:
    """Make two columns black, as of a defective camera."""
    changed = _eight_bit(image)
    changed[:, int(0.52 * image.shape[1]) :][:, :2] = 0
    return changed


def dead_rows(image: StoredMetaphase) -> NDArray[np.generic]:
    """Make single rows, and three together, white or black."""
    changed, _, _ = with_headroom(image)
    height = image.shape[0]
    for share, level in ((0.3, WHITE_16), (0.45, 0), (0.6, WHITE_16), (0.7, WHITE_16)):
        changed[int(share * height)] = level
    changed[int(0.5 * height) : int(0.5 * height) + 3] = WHITE_16
    return saved(changed)


def saturated_row(image: StoredMetaphase) -> NDArray[np.generic]:
    """Make the first row white."""
    changed, _, _ = with_headroom(image)
    changed[0] = WHITE_16
    return saved(changed)


def hot_pixels(image: StoredMetaphase) -> NDArray[np.generic]:
    """Make three pixels of a thousand white."""
    changed, _, _ = with_headroom(image)
    changed[np.random.default_rng(0).random(image.shape) < 0.003] = WHITE_16
    return saved(changed)


def blobs(
    count: int, sizes: tuple[int, int], times: float, blur: float = 1.0, opposite: bool = False
) -> Change:
    """Add round objects of ``times`` the chromosomes' contrast in the emptiest places."""

    def change(image: StoredMetaphase) -> NDArray[np.generic]:
        changed, background, contrast = with_headroom(image)
        departure = np.abs(changed - background)
        rng = np.random.default_rng(0)
        layer = np.zeros(image.shape, np.float32)
        for size in np.linspace(*sizes, count):
            window = max(int(size) + 12, 3)
            crowd = cv2.boxFilter(departure + 1e6 * layer, -1, (window, window))
            inner = crowd[
                window // 2 : -(window // 2) or None, window // 2 : -(window // 2) or None
            ]
            places = np.argsort(inner, axis=None)[: max(inner.size // 200, 1)]
            row, column = np.unravel_index(rng.choice(places), inner.shape)
            middle = (int(column) + window // 2, int(row) + window // 2)
            long = size / 2 * rng.uniform(1.0, 1.2)
            axes = (int(long), int(size / 2))
            cv2.ellipse(layer, middle, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
        layer = np.asarray(cv2.GaussianBlur(layer, (0, 0), blur), np.float32)
        sign = -1 if opposite else 1
        return saved(changed * (1 - layer) + layer * (background + sign * times * contrast))

    return change


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame around the image, of 8 bits.

    Args:
        level: Its grey level, 0..255.
        sides: Width of the frame on the left, at the top, right and bottom, as shares of the width
            and height of the image.
        quality: Of a JPEG, where it is saved as one.
    """

    level: int
    sides: tuple[float, float, float, float]
    quality: int | None = None

    def margins(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return the widths on the left, at the top, right and bottom in pixels."""
        height, width = shape[:2]
        left, top, right, bottom = self.sides
        return int(left * width), int(top * height), int(right * width), int(bottom * height)

    def __call__(self, image: StoredMetaphase) -> NDArray[np.generic]:
        left, top, right, bottom = self.margins(image.shape)
        shown: NDArray[np.uint8] = np.pad(
            _eight_bit(image), ((top, bottom), (left, right)), constant_values=self.level
        )
        if self.quality is not None:
            _, data = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            shown = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)
        return shown


@dataclasses.dataclass(frozen=True)
class Screen:
    """The round field of a microscope and the screen around it.

    Args:
        level: Grey level of the screen, 0..255.
        radius: Of the field, as a share of half of the image's diagonal.
        blur: Of its edge, in pixels.
        room: Side of the image divided by the diameter of the field.
    """

    level: int
    radius: float = 1.0
    blur: float = 1.0
    room: float = 1.0

    def margins(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return the padding on the left, at the top, right and bottom in pixels."""
        height, width = shape[:2]
        side = int(self.room * self.radius * np.hypot(height, width)) + 20
        across, down = max(side - width, 0) // 2, max(side - height, 0) // 2
        return across, down, across, down

    def __call__(self, image: StoredMetaphase) -> NDArray[np.generic]:
        left, top, right, bottom = self.margins(image.shape)
        grey = _eight_bit(image)
        field = np.full((image.shape[0] + top + bottom, image.shape[1] + left + right), 0.0)
        field += np.median(grey) + np.random.default_rng(0).normal(0, 1.0, field.shape)
        field[top : top + grey.shape[0], left : left + grey.shape[1]] = grey
        inside = np.zeros(field.shape, np.float32)
        radius = int(self.radius * np.hypot(*image.shape) / 2)
        cv2.circle(inside, (field.shape[1] // 2, field.shape[0] // 2), radius, 1.0, -1)
        inside = np.asarray(cv2.GaussianBlur(inside, (0, 0), self.blur), np.float32)
        shown = np.clip(field * inside + self.level * (1 - inside), 0, 255)
        return np.asarray(shown, np.uint8)


def vignetted(image: StoredMetaphase) -> NDArray[np.generic]:
    """Light the corners with 30 % of the light of the middle."""
    rows, columns = (np.linspace(-1, 1, side) for side in image.shape)
    light = 1 - 0.7 * (rows[:, None] ** 2 + columns[None] ** 2) / 2
    return np.asarray(np.rint(image * light))


def lit_from_one_side(image: StoredMetaphase) -> NDArray[np.generic]:
    """Light the left with 35 % of the light of the right."""
    return np.asarray(np.rint(image * np.linspace(0.35, 1, image.shape[1])))


def captioned(level: int) -> Change:
    """Draw a caption, a scale bar and an arrow into the image."""

    def change(image: StoredMetaphase) -> NDArray[np.generic]:
        shown = _eight_bit(image)
        height, width = shown.shape
        size = height / 576
        stroke = max(round(2 * size), 1)
        place = (int(10 * size), height - int(12 * size))
        cv2.putText(shown, "Patient 12345 cell 7 100x", place, 0, 0.8 * size, level, stroke)
        bar = (width - int(130 * size), height - int(18 * size))
        cv2.rectangle(shown, bar, (bar[0] + int(100 * size), bar[1] + int(5 * size)), level, -1)
        cv2.putText(shown, "10 um", (bar[0], bar[1] - int(6 * size)), 0, 0.7 * size, level, stroke)
        tip = (int(0.12 * width), int(0.12 * height))
        cv2.arrowedLine(shown, (10, 10), tip, level, stroke, tipLength=0.3)
        return shown

    return change


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
    "dead column": dead_column,
    "two black columns": dark_column,
    "dead rows": dead_rows,
    "saturated first row": saturated_row,
    "hot pixels": hot_pixels,
    "specks, 6 times": blobs(8, (5, 28), 6.0),
    "specks, 6 times, other side": blobs(8, (5, 28), 6.0, opposite=True),
    "nuclei, twice": blobs(4, (60, 150), 2.0, 2.0),
    "nuclei, 4 times": blobs(4, (60, 150), 4.0, 2.0),
    "black frame, 52 %": Frame(0, (0.22, 0.22, 0.22, 0.22)),
    "white frame, 52 %": Frame(255, (0.22, 0.22, 0.22, 0.22)),
    "black below, 40 %": Frame(0, (0, 0, 0, 0.67)),
    "white left, 30 %": Frame(255, (0.43, 0, 0, 0)),
    "black frame, 70 %, JPEG": Frame(0, (0.2, 0.3, 0.7, 0.45), 75),
    "white frame, 70 %, JPEG": Frame(255, (0.2, 0.3, 0.7, 0.45), 75),
    "black screen": Screen(0),
    "white screen": Screen(255),
    "black screen, 60 %": Screen(0, room=1.4),
    "white screen, 60 %": Screen(255, room=1.4),
    "white screen, soft, corners": Screen(255, 0.9, 3.0),
    "black screen, soft, corners": Screen(0, 0.9, 3.0),
    "vignette": vignetted,
    "light from one side": lit_from_one_side,
    "white caption": captioned(255),
    "black caption": captioned(0),
}


def _unit(image: StoredMetaphase) -> StoredMetaphase:
    low, high = image.min(), image.max()
    return np.asarray((image - low) / max(high - low, 1e-6), np.float32)


def _eight_bit(image: StoredMetaphase) -> NDArray[np.uint8]:
    return np.rint(255 * _unit(image)).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result for one changed image: cell (in pixels of the unchanged one), flags and alarms."""

    found: PredictedCell
    flags: tuple[str, ...]
    alarms: tuple[str, ...]

    @property
    def n_reviews(self) -> int:
        """Number of chromosomes that need review."""
        return 0 if self.found.needs_review is None else int(self.found.needs_review.sum())

    def fate(self, twin: "Outcome") -> str:
        """Return one of ``SHARES``, compared with the outcome of the unchanged image."""
        counts = abs(len(self.found.classes) - len(twin.found.classes))
        if counts <= MAX_COUNT_DIFFERENCE and self.n_reviews - twin.n_reviews <= MAX_ADDED_REVIEWS:
            return "kept"
        return "alarmed" if self.alarms and self.flags else "silent"


def outcome(karyotyper: Karyotyper, image: StoredMetaphase, true: TrueCell, name: str) -> Outcome:
    """The karyotype of the changed image."""
    change = CHANGES[name]
    changed = np.ascontiguousarray(change(image))
    karyotype = karyotyper.karyotype(changed, true.name)
    found = found_cell(karyotype, karyotyper.assignment == "cell")
    # Large images are reduced first, and the result is in pixels of the reduced one.
    boxes = found.instances.boxes * changed.shape[1] / found.instances.shape[1]
    if isinstance(change, Frame | Screen):
        left, top, _, _ = change.margins(image.shape)
        boxes = boxes - (left, top, left, top)
    elif name == FRAMED:
        boxes = boxes - FRAME
    else:
        boxes = boxes * image.shape[1] / changed.shape[1]
    found = dataclasses.replace(found, instances=Boxes(image.shape, boxes))
    return Outcome(found, karyotype.flags, karyotype.alarms)


def main() -> None:
    """Print a line for each change."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=("bioimlab-segmentation", "cil54816", "mfish"))
    parser.add_argument("--cells", type=int, default=4, help="validation images (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=tuple(CHANGES), default=list(CHANGES))
    arguments = parser.parse_args()

    karyotyper = get_karyotyper()
    cells = [
        (image, dataclasses.replace(true, instances=Boxes(image.shape, true.instances.boxes)))
        for image, true in islice(true_cells(arguments.dataset, "val"), arguments.cells)
    ]
    truth = [true for _, true in cells]
    twins = [outcome(karyotyper, image, true, "none") for image, true in cells]
    heads = [*SHOWN.values(), *SHARES]
    print(f"{'change':<30}" + "".join(f"{head:>{WIDTH}}" for head in heads))
    for name in arguments.only:
        outcomes = [outcome(karyotyper, image, true, name) for image, true in cells]
        row = evaluate_karyotyping([one.found for one in outcomes], truth).to_row()
        fates = [one.fate(twin) for one, twin in zip(outcomes, twins, strict=True)]
        values = [row[figure] for figure in SHOWN]
        values += [fates.count(share) / len(fates) for share in SHARES]
        print(f"{name:<30}" + "".join(f"{value:>{WIDTH}.3f}" for value in values), flush=True)


if __name__ == "__main__":
    main()
