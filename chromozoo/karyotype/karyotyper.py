"""From the image of a metaphase to a karyotype: segment, extract, classify, name, arrange.

The Render-Attention-Architecture of Wang et al. 2024 (IEEE Access 12:46081) made complete: the
names are given to the whole cell at once (:mod:`chromozoo.karyotype.assignment`), every doubt is
marked, and whatever is odd about the cell is flagged.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, cast

import cv2
import numpy as np
from lightning import LightningModule
from numpy.typing import NDArray
from scipy.special import expit
from torch import nn

from chromozoo.classes import CLASS_INDEX, CLASSES, Stain
from chromozoo.errors import ChromozooError, ImageError, UnknownNameError
from chromozoo.images.extract import Extraction
from chromozoo.images.levels import Levels, measure_levels
from chromozoo.images.metaphase import MetaphasePreset
from chromozoo.images.preset import ChromosomePreset
from chromozoo.images.reading import ImageSource, read_grey
from chromozoo.images.rotate_crop import RotateCrop
from chromozoo.images.signal import foreground
from chromozoo.images.sources import image_name
from chromozoo.karyotype.alarm import cell_alarms, marked
from chromozoo.karyotype.assignment import assign_cell, assignment_margins, present_rows
from chromozoo.karyotype.karyotype import Karyotype, KaryotypedChromosome
from chromozoo.karyotype.naming import Predictions
from chromozoo.karyotype.polarity import polarity
from chromozoo.karyotype.quality import _flags
from chromozoo.structures.prediction import Prediction
from chromozoo.structures.segmentation import Segmentation
from chromozoo.structures.weights_entry import WeightsEntry

Assignment = Literal["cell", "none"]

# Chosen on the validation images of BioImLab, M-FISH and CIL:54816, with the weights `metaphase` of
# ChrFast and ChrNet4. A detection between MIN_CANDIDATE_SCORE and the first score is a chromosome with a
# probability that is even at EVEN; the cell decides.
SCORES: dict[Assignment, float] = {"cell": 0.55, "none": 0.45}
MIN_CANDIDATE_SCORE, EVEN, STEEPNESS = 0.3, 0.55, 0.03
# Where the segmenter names what it finds, its probabilities and the classifier's are multiplied.
# Both looked at the same chromosome, so the product claims too much: it is taken to this power.
PRODUCT_EXPONENT = 0.75
MIN_CLASS_PROBABILITY = 1e-4


class Segmenter(Protocol):
    """A segmenter as :class:`Karyotyper` uses it, such as a ``ChromosomeSegmenter``."""

    @property
    def transforms(self) -> MetaphasePreset:
        """How it prepares an image."""
        ...

    @property
    def categories(self) -> Sequence[str]:
        """What it tells apart."""
        ...

    @property
    def weights_entry(self) -> WeightsEntry | None:
        """Entry of its weights; None where there is none."""
        ...

    def segment(
        self, image: ImageSource, name: str | None = None, *, levels: Levels | None = None
    ) -> Segmentation:
        """Finds the chromosomes of a metaphase."""
        ...


class Classifier(Protocol):
    """A classifier as :class:`Karyotyper` uses it, such as a ``ChromosomeClassifier``."""

    @property
    def transforms(self) -> ChromosomePreset:
        """How it prepares an image of one chromosome."""
        ...

    @property
    def weights_entry(self) -> WeightsEntry | None:
        """Entry of its weights; None where there is none."""
        ...

    def classify(
        self,
        images: Iterable[ImageSource],
        as_cell: bool = False,
        *,
        on_error: Literal["raise", "report"] = "raise",
    ) -> Predictions:
        """Classifies images of one chromosome each."""
        ...


class Karyotyper(LightningModule):
    """Karyotypes metaphases with any segmenter and any classifier.

    :func:`chromozoo.models.karyotyper.get_karyotyper` builds one from names of the zoo.
    ``karyotype`` takes one image; ``Trainer.predict`` with a ``DataLoader`` whose batches are
    lists of paths works through many, on one device or on many.

    Args:
        segmenter: Finds the chromosomes.
        classifier: Classifies them.
        assignment: ``"cell"`` names all chromosomes of a cell together, ``"none"`` each alone.
        stain: ``"g"`` (G-band), ``"q"`` (Q-band, DAPI), or ``"auto"``: G-band is dark on a light
            ground, what fluoresces is bright on dark. A G-band image that was inverted needs
            ``"g"``; it stays as it is.
        stain_segmenters: Segmenters that are used in place of ``segmenter``, by stain.
        score: Detections from it on are chromosomes, 0..1. With ``"cell"`` those somewhat below
            are chromosomes where the cell has a place for them, see :data:`MIN_CANDIDATE_SCORE`; with
            ``"none"`` they are left out. None takes :data:`SCORES`.
        min_margin: A name that is less certain than this many nats should be looked at.
        min_probability: So should a chromosome that the classifier alone would name so with less
            than this: the cell left no better name, for it may be no whole chromosome.
        min_certain_score: So should a chromosome whose segmentation scores less than this.

    Raises:
        UnknownNameError: ``assignment`` or ``stain`` is unknown, or a model is of the other task.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        classifier: Classifier,
        assignment: Assignment = "cell",
        *,
        stain: Stain | Literal["auto"] = "auto",
        stain_segmenters: Mapping[Stain, Segmenter] | None = None,
        score: float | None = None,
        min_margin: float = 3.0,
        min_probability: float = 0.4,
        min_certain_score: float = 0.5,
    ) -> None:
        super().__init__()
        if assignment not in ("cell", "none"):
            raise UnknownNameError(f"assignment is {assignment!r}; give 'cell' or 'none'")
        if stain not in ("auto", "q", "g"):
            raise UnknownNameError(f"stain is {stain!r}; give 'auto', 'q' or 'g'")
        for model, method in ((segmenter, "segment"), (classifier, "classify")):
            if not callable(getattr(model, method, None)):
                raise UnknownNameError(
                    f"{type(model).__name__} has no method {method!r}; give a segmenter and a "
                    "classifier, which `chromozoo models` lists"
                )
        self.segmenter = segmenter
        self.classifier = classifier
        by_stain: dict[str, Any] = {"q": segmenter, "g": segmenter}
        by_stain.update({str(key): model for key, model in (stain_segmenters or {}).items()})
        self.by_stain = nn.ModuleDict(by_stain)
        self.stain: Stain | Literal["auto"] = stain
        self.assignment: Assignment = assignment
        self.score = SCORES[assignment] if score is None else score
        self.min_margin = min_margin
        self.min_probability = min_probability
        self.min_certain_score = min_certain_score
        self.extraction = Extraction()

    def segmenter_for(self, stain: Stain) -> Segmenter:
        """The segmenter that finds the chromosomes of a stain."""
        return cast("Segmenter", self.by_stain[stain])

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
        name = name or image_name(image, "image")
        grey = read_grey(image, name)
        room = (self.segmenter.transforms.max_pixels / grey.size) ** 0.5
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
        doubtful = MIN_CANDIDATE_SCORE if self.assignment == "cell" else 1.0
        levels = measure_levels(grey)
        warnings += levels.flags
        stain = levels.stain if self.stain == "auto" else self.stain

        def nothing(found: Segmentation, warnings: tuple[str, ...]) -> Karyotype:
            flags = (*warnings, *found.warnings, "no chromosomes found")
            return Karyotype(name, found, (), None, flags, stain, levels.alarms, grey, levels)

        segmenter = self.segmenter_for(stain)
        found = segmenter.segment(grey, name, levels=levels).filter_by_score(
            min(doubtful, self.score)
        )
        if not len(found):
            return nothing(found, warnings)
        certain = found.scores >= SCORES["none"]
        images = self.extraction(levels.signal, found.crops, found.corners, certain)
        # Named as a cell only to find its scale: what belongs to it is not known yet.
        named = self.classifier.classify(images, on_error="report", as_cell=True)
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
            return nothing(found, warnings)
        images = [images[index] for index in kept]
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
            margins = assignment_margins(log_p, cell)
        turn = RotateCrop()
        chromosomes = []
        contrasts, lengths = [], []
        for index, image in enumerate(images):
            label, extra = CLASSES[classes[index]], cell is not None and index in cell.supernumerary
            upright, lean = turn(image), turn.tilt(image, foreground(image))
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
                    supernumerary=extra,
                    review_reasons=self._review_reasons(
                        label, extra, probabilities[index], margins[index], found.scores[index]
                    ),
                    image=upright,
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

    def _review_reasons(
        self,
        label: str,
        supernumerary: bool,
        probabilities: NDArray[np.float64],
        margin: float,
        score: float,
    ) -> tuple[str, ...]:
        doubts = []
        if supernumerary:
            doubts.append("more than a normal cell has")
        if margin < self.min_margin:
            other = next(k for k in probabilities.argsort()[::-1] if CLASSES[k] != label)
            doubts.append(f"or {CLASSES[other]}")
        elif probabilities[CLASS_INDEX[label]] < self.min_probability:
            doubts.append(f"unlike a {label}")
        if score < self.min_certain_score:
            doubts.append("outline uncertain")
        return tuple(doubts)

    # Many images

    def predict_step(self, batch: Sequence[Any], batch_idx: int) -> "list[Karyotype | ImageError]":
        """Karyotypes the paths of a batch; an image that fails gives its error, with its path."""
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
    if found.class_probabilities is None:
        return probabilities
    both = (
        probabilities * np.maximum(found.class_probabilities[list(kept)], MIN_CLASS_PROBABILITY)
    ) ** PRODUCT_EXPONENT
    mixed: NDArray[np.float64] = both / both.sum(axis=1, keepdims=True)
    return mixed
