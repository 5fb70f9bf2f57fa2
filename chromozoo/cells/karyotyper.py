"""From the picture of a metaphase to a karyotype: segment, extract, classify, name, arrange.

The Render-Attention-Architecture of Wang et al. 2024 (IEEE Access 12:46081) made complete: the
names are given to the whole cell at once (:mod:`chromozoo.cells.assignment`), every doubt is
marked, and whatever is odd about the cell is flagged.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import cv2
import numpy as np
from lightning import LightningModule
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.special import expit
from torch import nn

from chromozoo.cells.alarm import cell_alarms, marked
from chromozoo.cells.assignment import (
    CellAssignment,
    assign_cell,
    iscn_string,
    naming_margins,
    present_rows,
)
from chromozoo.cells.polarity import polarity
from chromozoo.classes import CLASS_INDEX, CLASSES, DIPLOID_NUMBER, Stain
from chromozoo.errors import ChromozooError, ImageError, UnknownNameError
from chromozoo.images.extract import Extraction
from chromozoo.images.levels import Levels, measure_levels
from chromozoo.images.reading import ImageSource, read_grey
from chromozoo.images.rotate_crop import RotateCrop
from chromozoo.images.signal import foreground
from chromozoo.images.sources import name_of
from chromozoo.registry import get_model
from chromozoo.tasks.classification import ChromosomeClassifier, Prediction
from chromozoo.tasks.segmentation import ChromosomeSegmenter, Segmentation

Assignment = Literal["cell", "none"]

# Chosen on the validation images of BioImLab, M-FISH and CIL:54816, with the weights `metaphase` of
# ChrFast and ChrNet4. A detection between DOUBTFUL and the first score is a chromosome with a
# probability that is even at EVEN; the cell decides.
SCORES: dict[Assignment, float] = {"cell": 0.55, "none": 0.45}
DOUBTFUL, EVEN, STEEPNESS = 0.3, 0.55, 0.03
# The weights that do better on one stain than those of DEFAULT (benchmarks/README.md).
STAIN_WEIGHTS: dict[Stain, dict[str, str]] = {"g": {"chr_fast": "cil"}}
# Where the segmenter names what it finds, its probabilities and the classifier's are multiplied.
# Both looked at the same chromosome, so the product claims too much: it is taken to this power.
TWO_OPINIONS = 0.75
LEAST_NAME = 1e-4
# Fewer than this are no cell that could be named as a whole (see `iscn_string` on incomplete ones).
FEWEST_OF_A_CELL = 35
# More than this are two cells in one field, or a polyploid one: groups are looked for.
MOST_OF_A_CELL = 60
# Two cells are this much further apart than they are wide (distance of the middles of the groups by
# the mean distance of a chromosome from its own middle).
APART = 2.4
# In a karyogram all stand upright; at random 2 of 9 lean less than this from the vertical.
UPRIGHT_DEGREES, UPRIGHT_SHARE, FEWEST_UPRIGHT = 20.0, 0.8, 20
# Chromosomes narrower than this show no bands.
NARROWEST = 6.0
# Fewer unsaturated pixels than this share, and the bands of the brightest are lost.
SATURATED_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class KaryotypedChromosome:
    """One chromosome of a karyotyped cell.

    Attributes:
        number: From 1, as written on the overlay; the segmentation's index is one less.
        label: Its class, one of ``CLASSES``.
        probability: What the classifier gives this class, calibrated, 0..1.
        probabilities: ``(24,)`` in the order of ``CLASSES``.
        margin: Nats by which the cell's naming is better than the best one that names this
            chromosome otherwise (:func:`chromozoo.cells.assignment.naming_margins`); without
            assignment, its own class against the runner-up.
        score: Of the segmentation, 0..1.
        extra: Whether it is beyond the normal set.
        doubts: Why a human should look at it; empty where nobody needs to.
        picture: ``(h, w)`` float32 signal image, upright with the p arm up, at the scale of the
            metaphase.
        centromere: Its row in ``picture``, from the table of bands.
        p_arm: Where the p arm points in the metaphase: degrees clockwise from up, 0..360.
        polarity_certainty: Of a classifier that tells polarity, 0 (says nothing) to 1; else that of
            :class:`chromozoo.cells.polarity.Polarity`.
    """

    number: int
    label: str
    probability: float
    probabilities: NDArray[np.float64]
    margin: float
    score: float
    extra: bool
    doubts: tuple[str, ...]
    picture: NDArray[np.float32]
    centromere: float
    p_arm: float
    polarity_certainty: float

    @property
    def review(self) -> bool:
        """Whether a human should look at it."""
        return bool(self.doubts)


@dataclass(frozen=True, eq=False)
class Karyotype:
    """What :class:`Karyotyper` makes of one metaphase.

    Attributes:
        name: Of the picture.
        segmentation: Its chromosomes, in pixels of the picture.
        chromosomes: In the order of the segmentation.
        cell: The naming of the whole cell; None where each was named alone, or there is none. Its
            ``iscn`` is marked as that of the karyotype is.
        flags: What is odd about the cell or the picture, in words; empty for a normal cell.
        stain: ``"g"`` (G-band) or ``"q"`` (Q-band, DAPI): chose the weights.
        alarms: Why the names cannot be trusted, in words; empty where they can
            (:mod:`chromozoo.cells.alarm`).
        image: ``(H, W)`` float32, the grey image that was karyotyped, in the units of its file.
        levels: Its grey levels, and what was left out of them.
    """

    name: str
    segmentation: Segmentation
    chromosomes: tuple[KaryotypedChromosome, ...]
    cell: CellAssignment | None
    flags: tuple[str, ...]
    stain: Stain = "q"
    alarms: tuple[str, ...] = ()
    image: NDArray[np.float32] | None = field(default=None, repr=False)
    levels: Levels | None = field(default=None, repr=False)

    @property
    def count(self) -> int:
        """Number of chromosomes."""
        return len(self.chromosomes)

    @property
    def mean_probability(self) -> float:
        """Mean probability of the names, 0..1; what the alarm goes by. NaN without chromosomes."""
        return float(np.mean([item.probability for item in self.chromosomes] or [np.nan]))

    @property
    def iscn(self) -> str:
        """The karyotype as counted, such as ``47,XX,+21``; empty without chromosomes.

        Where there are alarms it ends in ``?``, such as ``46,XY?``: no valid ISCN string.
        """
        labels = Counter(item.label for item in self.chromosomes)
        return marked(iscn_string(labels), self.alarms) if labels else ""


class Karyotyper(LightningModule):
    """Any segmenter and any classifier of the zoo, together.

    ``karyotype`` takes one picture; ``Trainer.predict`` with a ``DataLoader`` whose batches are
    lists of paths works through many, on one device or on many.

    Args:
        segmenter: Name of a segmenter, or one that is built already.
        classifier: Name of a classifier, or one that is built already.
        assignment: ``"cell"`` names all chromosomes of a cell together, ``"none"`` each alone.
        segmenter_weights: Tag or path, where ``segmenter`` is a name; ``"DEFAULT"`` is the best for
            the stain of each picture (:data:`STAIN_WEIGHTS`).
        classifier_weights: The same of ``classifier``.
        stain: ``"g"`` (G-band), ``"q"`` (Q-band, DAPI), or ``"auto"``: G-band is dark on a light
            ground, what fluoresces is bright on dark. A G-band picture that was inverted needs
            ``"g"``; it stays as it is.
        score: Detections from it on are chromosomes, 0..1. With ``"cell"`` those somewhat below
            are chromosomes where the cell has a place for them, see :data:`DOUBTFUL`; with
            ``"none"`` they are left out. None takes :data:`SCORES`.
        least_margin: A name that is less certain than this many nats should be looked at.
        least_probability: So should a chromosome that the classifier alone would name so with less
            than this: the cell left no better name, for it may be no whole chromosome.
        least_certain: So should a chromosome whose segmentation scores less than this.

    Raises:
        UnknownNameError: A model is unknown or of the other task.
    """

    def __init__(
        self,
        segmenter: str | ChromosomeSegmenter = "chr_fast",
        classifier: str | ChromosomeClassifier = "chrnet4",
        assignment: Assignment = "cell",
        *,
        segmenter_weights: str = "DEFAULT",
        classifier_weights: str = "DEFAULT",
        stain: Stain | Literal["auto"] = "auto",
        score: float | None = None,
        least_margin: float = 3.0,
        least_probability: float = 0.4,
        least_certain: float = 0.5,
    ) -> None:
        super().__init__()
        if assignment not in ("cell", "none"):
            raise UnknownNameError(f"assignment is {assignment!r}; give 'cell' or 'none'")
        if stain not in ("auto", "q", "g"):
            raise UnknownNameError(f"stain is {stain!r}; give 'auto', 'q' or 'g'")
        found: list[Any] = [
            get_model(model, weights=weights) if isinstance(model, str) else model
            for model, weights in ((segmenter, segmenter_weights), (classifier, classifier_weights))
        ]
        for model, given, kind in zip(
            found,
            (segmenter, classifier),
            (ChromosomeSegmenter, ChromosomeClassifier),
            strict=True,
        ):
            if not isinstance(model, kind):
                raise UnknownNameError(
                    f"{given} is no {kind.__name__}; `chromozoo models` lists both kinds"
                )
        self.segmenter: ChromosomeSegmenter = found[0]
        self.classifier: ChromosomeClassifier = found[1]
        self.by_stain = nn.ModuleDict({"q": self.segmenter, "g": self.segmenter})
        if isinstance(segmenter, str) and segmenter_weights == "DEFAULT":
            for own, tags in STAIN_WEIGHTS.items():
                if segmenter in tags and stain in ("auto", own):
                    self.by_stain[own] = get_model(segmenter, weights=tags[segmenter])
        self.stain: Stain | Literal["auto"] = stain
        self.assignment: Assignment = assignment
        self.score = SCORES[assignment] if score is None else score
        self.least_margin = least_margin
        self.least_probability = least_probability
        self.least_certain = least_certain
        self.extraction = Extraction()

    def segmenter_for(self, stain: Stain) -> ChromosomeSegmenter:
        """The segmenter that finds the chromosomes of a stain."""
        return cast("ChromosomeSegmenter", self.by_stain[stain])

    def karyotype(self, image: ImageSource, name: str | None = None) -> Karyotype:
        """Karyotypes one metaphase.

        Args:
            image: Path, PIL image or array of any size, grey or RGB, dark or light background, 8
                or 16 bit.
            name: What results and errors call it; the path when None.

        Raises:
            ImageError: The image cannot be read. One without chromosomes is no error: the result
                is empty and flagged.
        """
        name = name or name_of(image, "image")
        grey = read_grey(image, name)
        room = (self.segmenter.transforms.largest_pixels / grey.size) ** 0.5
        if room < 1:
            # A slide scan: bands are lost, but neither memory nor time runs away.
            size = (max(round(grey.shape[1] * room), 1), max(round(grey.shape[0] * room), 1))
            small = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)
            cut = f"{grey.shape[1]}x{grey.shape[0]} pixels reduced to {size[0]}x{size[1]}"
            warning = f"{cut}, and so are all coordinates: cut the cell out and give that"
            return self._karyotype(small, name, (warning,))
        return self._karyotype(grey, name, ())

    def _karyotype(
        self, grey: NDArray[np.float32], name: str, warnings: tuple[str, ...]
    ) -> Karyotype:
        doubtful = DOUBTFUL if self.assignment == "cell" else 1.0
        levels = measure_levels(grey)
        warnings += levels.flags
        stain = levels.stain if self.stain == "auto" else self.stain
        segmenter = self.segmenter_for(stain)
        found = segmenter.segment(grey, name, levels=levels).above(min(doubtful, self.score))
        if not len(found):
            return Karyotype(
                name,
                found,
                (),
                None,
                (*warnings, *found.warnings, "no chromosomes found"),
                stain,
                levels.alarms,
                image=grey,
                levels=levels,
            )
        certain = found.scores >= SCORES["none"]
        pictures = self.extraction(levels.signal, found.crops, found.corners, certain)
        # Named as a cell only to find its scale: what belongs to it is not known yet.
        named = self.classifier.classify(pictures, on_error="report", as_cell=True)
        kept = [index for index, item in enumerate(named) if not item.error]
        if len(kept) < len(found):
            warnings += (f"{len(found) - len(kept)} specks left out",)
        probabilities = _opinion(named, found, kept) if kept else np.zeros((0, len(CLASSES)))
        if kept and self.assignment == "cell":
            with np.errstate(divide="ignore"):
                present = present_rows(np.log(probabilities), self._presence(found.scores[kept]))
            kept = [index for index, there in zip(kept, present, strict=True) if there]
            probabilities = probabilities[present]
        found = found.select(kept)
        if not kept:
            return Karyotype(
                name,
                found,
                (),
                None,
                (*warnings, *found.warnings, "no chromosomes found"),
                stain,
                levels.alarms,
                image=grey,
                levels=levels,
            )
        pictures = [pictures[index] for index in kept]
        with np.errstate(divide="ignore"):
            log_p = np.log(probabilities)
        # The alarm asks whether the names fit into a cell, also where each is named alone.
        whole = assign_cell(log_p)
        cell = whole if self.assignment == "cell" else None
        if cell is None:
            classes = probabilities.argmax(axis=1)
            ranked = np.sort(np.maximum(log_p, -50.0), axis=1)
            margins = ranked[:, -1] - ranked[:, -2]
        else:
            classes = cell.classes
            margins = naming_margins(log_p, cell)
        turn = RotateCrop()
        chromosomes = []
        contrasts, lengths = [], []
        for index, picture in enumerate(pictures):
            label, extra = CLASSES[classes[index]], cell is not None and index in cell.extra
            upright, lean = turn(picture), turn.tilt(picture, foreground(picture))
            ends = polarity(upright, label)
            if (arms := named[kept[index]].p_arm_up) is not None:
                up = float(arms[classes[index]])
                ends = replace(ends, p_arm_up=up >= 0.5, certainty=abs(2 * up - 1))
            if not ends.p_arm_up:
                upright, lean = np.ascontiguousarray(upright[::-1, ::-1]), lean + 180
            rows = np.flatnonzero((upright > 0).any(axis=1))
            contrasts.append(ends.band_contrast)
            lengths.append(rows[-1] + 1 - rows[0])
            chromosomes.append(
                KaryotypedChromosome(
                    number=index + 1,
                    label=label,
                    probability=float(probabilities[index, classes[index]]),
                    probabilities=probabilities[index],
                    margin=float(margins[index]),
                    score=float(found.scores[index]),
                    extra=extra,
                    doubts=self._doubts(
                        label, extra, probabilities[index], margins[index], found.scores[index]
                    ),
                    picture=upright,
                    centromere=float(rows[0] + ends.centromere * (rows[-1] + 1 - rows[0])),
                    p_arm=lean % 360,
                    polarity_certainty=ends.certainty,
                )
            )
        flags = (*warnings, *found.warnings, *_flags(found, cell, levels, grey))
        typical = self.classifier.transforms.typical_length
        zoom = typical / float(np.median(lengths)) if typical else 1.0
        alarms = (
            *levels.alarms,
            *cell_alarms(probabilities, whole, band_contrasts=contrasts, zoom=zoom),
        )
        if cell is not None:
            cell = replace(cell, iscn=marked(cell.iscn, alarms))
        return Karyotype(name, found, tuple(chromosomes), cell, flags, stain, alarms, grey, levels)

    def _presence(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability that a detection is a chromosome at all, by its score."""
        presence: NDArray[np.float64] = expit((scores.astype(np.float64) - EVEN) / STEEPNESS)
        return np.where(scores >= self.score, 1.0, presence)

    def _doubts(
        self,
        label: str,
        extra: bool,
        probabilities: NDArray[np.float64],
        margin: float,
        score: float,
    ) -> tuple[str, ...]:
        doubts = []
        if extra:
            doubts.append("more than a normal cell has")
        if margin < self.least_margin:
            other = next(k for k in probabilities.argsort()[::-1] if CLASSES[k] != label)
            doubts.append(f"or {CLASSES[other]}")
        elif probabilities[CLASS_INDEX[label]] < self.least_probability:
            doubts.append(f"unlike a {label}")
        if score < self.least_certain:
            doubts.append("outline uncertain")
        return tuple(doubts)

    # Many pictures

    def predict_step(self, batch: Sequence[Any], batch_idx: int) -> "list[Karyotype | ImageError]":
        """Karyotypes the paths of a batch; a picture that fails gives its error, with its path."""
        results: list[Karyotype | ImageError] = []
        for path in batch:
            try:
                results.append(self.karyotype(path, str(path)))
            except ChromozooError as error:
                results.append(
                    error if isinstance(error, ImageError) else ImageError(f"{path}: {error}")
                )
        return results


def _opinion(
    named: Sequence[Prediction], found: Segmentation, kept: Sequence[int]
) -> NDArray[np.float64]:
    """Probabilities ``(K, 24)`` of the chromosomes ``kept``: the classifier's, and the segmenter's.

    Where the segmenter names what it finds, it saw the same chromosome another way: the product of
    both, somewhat flattened.
    """
    probabilities = np.stack([named[index].probabilities for index in kept])
    if found.names is None:
        return probabilities
    both = (probabilities * np.maximum(found.names[list(kept)], LEAST_NAME)) ** TWO_OPINIONS
    mixed: NDArray[np.float64] = both / both.sum(axis=1, keepdims=True)
    return mixed


def _flags(
    found: Segmentation,
    cell: CellAssignment | None,
    levels: Levels,
    grey: NDArray[np.float32],
) -> list[str]:
    """What is odd about the cell, and about the picture."""
    flags = []
    count = len(found)
    if _is_karyogram(found):
        flags.append("all stand upright in rows: a karyogram, not a metaphase?")
    if count != DIPLOID_NUMBER:
        flags.append(f"{count} chromosomes, not {DIPLOID_NUMBER}")
    if count < FEWEST_OF_A_CELL:
        flags.append("incomplete cell: names rest on single chromosomes, losses mean nothing")
    elif cell is not None and (cell.gains or cell.losses):
        words = [f"+{name}" for name in cell.gains] + [f"-{name}" for name in cell.losses]
        flags.append(f"not a normal set: {', '.join(words)}")
    if count > MOST_OF_A_CELL:
        sizes = _groups(found)
        flags.append(
            f"several cells? The chromosomes lie in groups of {sizes[0]} and {sizes[1]}"
            if sizes
            else "several cells in one place, or a polyploid one"
        )
    if 0 < levels.width < NARROWEST:
        flags.append(f"chromosomes are {levels.width:.0f} pixels wide: too few to show bands")
    inside = np.zeros(found.shape, bool)
    for crop, (row, column) in zip(found.crops, found.corners, strict=True):
        inside[row : row + crop.shape[0], column : column + crop.shape[1]] |= crop
    values = grey[inside]
    ends = (values == grey.max()) | (values == grey.min())
    if ends.mean() > SATURATED_SHARE:
        flags.append(f"{ends.mean():.0%} of the chromosomes' pixels are saturated")
    return flags


def _is_karyogram(found: Segmentation) -> bool:
    leans = []
    for crop in found.crops:
        points = np.argwhere(crop).astype(np.float64)
        offsets = points - points.mean(axis=0)
        spread, axes = np.linalg.eigh(offsets.T @ offsets)
        if spread[1] > 2.25 * spread[0]:  # half as long again as wide
            leans.append(np.degrees(np.arccos(min(abs(axes[0, 1]), 1.0))))
    if len(leans) < FEWEST_UPRIGHT:
        return False
    return bool(np.mean(np.array(leans) < UPRIGHT_DEGREES) > UPRIGHT_SHARE)


def _groups(found: Segmentation) -> tuple[int, int] | None:
    """Sizes of two groups of chromosomes that lie apart; None where there is but one."""
    middles = (found.boxes[:, :2] + found.boxes[:, 2:]).astype(np.float64) / 2
    centres, owner = kmeans2(middles, 2, minit="++", seed=0)
    within = np.linalg.norm(middles - centres[owner], axis=1).mean()
    if np.linalg.norm(centres[0] - centres[1]) < APART * within:
        return None
    sizes = np.bincount(owner, minlength=2)
    return int(sizes.max()), int(sizes.min())
