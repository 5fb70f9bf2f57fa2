"""Karyotyping of metaphase images: segment, extract, classify, assign.

Follows the Render-Attention-Architecture of Wang et al. 2024 (IEEE Access 12:46081). In addition,
all chromosomes of a cell are assigned together (:mod:`chromozoo.karyotype.assignment`), uncertain
ones are marked for review, and anomalies of the cell and the image are flagged.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, cast

import cv2
import numpy as np
from lightning import LightningModule
from numpy.typing import NDArray
from scipy.special import expit
from torch import nn

from chromozoo.classes import CLASSES, Stain
from chromozoo.errors import ChromozooError, ImageError, UnknownNameError
from chromozoo.images.extract import Extraction
from chromozoo.images.levels import Levels, measure_levels
from chromozoo.images.metaphase import MetaphasePreset
from chromozoo.images.preset import ChromosomePreset
from chromozoo.images.reading import ImageSource, read_grey
from chromozoo.images.rotate_crop import RotateCrop
from chromozoo.images.signal import foreground
from chromozoo.images.sources import image_name
from chromozoo.karyotype.alarm import cell_alarms, mark_iscn
from chromozoo.karyotype.assignment import (
    CellAssignment,
    assign_cell,
    assignment_margins,
    present_rows,
)
from chromozoo.karyotype.karyotype import Karyotype, KaryotypedChromosome
from chromozoo.karyotype.polarity import find_polarity
from chromozoo.karyotype.predictions import Predictions
from chromozoo.karyotype.quality import cell_flags
from chromozoo.structures.arrays import FloatArray, IntArray
from chromozoo.structures.prediction import Prediction
from chromozoo.structures.segmentation import Segmentation
from chromozoo.structures.weights_entry import WeightsEntry

Assignment = Literal["cell", "none"]

# Score thresholds, chosen on the validation images of BioImLab, M-FISH and CIL:54816 with the
# weights `metaphase` of ChrFast and ChrNet4. With the assignment of a cell, a detection between
# MIN_CANDIDATE_SCORE and the threshold is a chromosome with a probability that rises with its score
# and is 0.5 at PRESENCE_MIDPOINT; the assignment decides.
DEFAULT_SCORES: dict[Assignment, float] = {"cell": 0.55, "none": 0.45}
MIN_CANDIDATE_SCORE, PRESENCE_MIDPOINT, PRESENCE_SCALE = 0.3, 0.55, 0.03
# If the segmenter predicts classes, too, its probabilities are multiplied with the classifier's.
# The two predictions are not independent; the exponent tempers their over-confident product.
PRODUCT_EXPONENT = 0.75
MIN_CLASS_PROBABILITY = 1e-4
# Log-probabilities below this limit count as equal in the margin of a single chromosome.
MIN_LOG_PROBABILITY = -50.0


class Segmenter(Protocol):
    """Interface of a segmenter for :class:`Karyotyper`, such as a ``ChromosomeSegmenter``."""

    @property
    def transforms(self) -> MetaphasePreset:
        """Preprocessing of a metaphase image."""
        ...

    @property
    def categories(self) -> Sequence[str]:
        """Name of each class index."""
        ...

    @property
    def weights_entry(self) -> WeightsEntry | None:
        """Entry of the weights; None without one."""
        ...

    def segment(
        self, image: ImageSource, name: str | None = None, *, levels: Levels | None = None
    ) -> Segmentation:
        """Segment the chromosomes of a metaphase."""
        ...


class Classifier(Protocol):
    """Interface of a classifier for :class:`Karyotyper`, such as a ``ChromosomeClassifier``."""

    @property
    def transforms(self) -> ChromosomePreset:
        """Preprocessing of a single-chromosome image."""
        ...

    @property
    def weights_entry(self) -> WeightsEntry | None:
        """Entry of the weights; None without one."""
        ...

    def classify(
        self,
        images: Iterable[ImageSource],
        as_cell: bool = False,
        *,
        on_error: Literal["raise", "report"] = "raise",
    ) -> Predictions:
        """Classify single-chromosome images."""
        ...


@dataclass(frozen=True, eq=False)
class _ClassifiedDetections:
    """The K detections of a metaphase that the classifier could read."""

    segmentation: Segmentation
    images: list[NDArray[np.float32]]
    predictions: list[Prediction]
    probabilities: FloatArray  # (K, 24)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def log_probabilities(self) -> FloatArray:
        """``(K, 24)``, -inf for a probability of 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.probabilities)

    def select(self, rows: NDArray[np.intp]) -> "_ClassifiedDetections":
        """Return only the detections ``rows``."""
        return _ClassifiedDetections(
            self.segmentation.select(rows),
            [self.images[row] for row in rows],
            [self.predictions[row] for row in rows],
            self.probabilities[rows],
        )


@dataclass(frozen=True, eq=False)
class _OrientedChromosome:
    """An upright chromosome with the p arm up; see :class:`KaryotypedChromosome`."""

    image: NDArray[np.float32]
    length: int
    centromere: float
    p_arm: float
    certainty: float
    band_contrast: float


class Karyotyper(LightningModule):
    """Karyotypes metaphases with any segmenter and any classifier.

    :func:`chromozoo.models.karyotyper.get_karyotyper` builds one from model names. ``karyotype``
    takes one image; ``Trainer.predict`` with a ``DataLoader`` whose batches are lists of paths
    processes many images, on one device or several.

    Args:
        segmenter: Segments the chromosomes.
        classifier: Classifies them.
        assignment: ``"cell"`` classifies all chromosomes of a cell together, ``"none"`` each alone.
        stain: ``"g"`` (G-band), ``"q"`` (Q-band, DAPI), or ``"auto"``: G-band is dark on bright,
            fluorescence bright on dark. An inverted G-band image needs ``"g"``.
        stain_segmenters: Segmenters that replace ``segmenter`` for a stain.
        score: Minimum score of a chromosome, 0..1. With ``"cell"``, detections down to
            :data:`MIN_CANDIDATE_SCORE` are chromosomes if they fit into the cell; with ``"none"``
            they are dropped. None takes :data:`DEFAULT_SCORES`.
        min_margin: Chromosomes with a smaller margin, in nats, need review.
        min_probability: So do chromosomes with a smaller probability of the assigned class: the
            detection may not be a whole chromosome.
        min_certain_score: So do chromosomes with a smaller segmentation score.

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
        by_stain: dict[str, Segmenter] = {"q": segmenter, "g": segmenter}
        by_stain.update((key, model) for key, model in (stain_segmenters or {}).items())
        self.by_stain = nn.ModuleDict(cast("dict[str, nn.Module]", by_stain))
        self.stain: Stain | Literal["auto"] = stain
        self.assignment: Assignment = assignment
        self.score = DEFAULT_SCORES[assignment] if score is None else score
        self.min_margin = min_margin
        self.min_probability = min_probability
        self.min_certain_score = min_certain_score
        self.extraction = Extraction()
        self.rotate_crop = RotateCrop()

    def segmenter_for(self, stain: Stain) -> Segmenter:
        """Return the segmenter of a stain."""
        return cast("Segmenter", self.by_stain[stain])

    def karyotype(self, image: ImageSource, name: str | None = None) -> Karyotype:
        """Karyotype one metaphase.

        Args:
            image: Path, PIL image or array of any size, grey or RGB, dark or bright background, 8
                or 16 bit.
            name: Name in results and errors; None takes the path.

        Returns:
            The karyotype; an image without chromosomes gives an empty one with a flag.

        Raises:
            ImageError: The image cannot be read.
        """
        name = name or image_name(image, "image")
        grey = read_grey(image, name)
        scale = (self.segmenter.transforms.max_pixels / grey.size) ** 0.5
        if scale >= 1:
            return self._karyotype(grey, name)
        # Slide scans are reduced: bands are lost, but memory and time stay bounded.
        size = (max(round(grey.shape[1] * scale), 1), max(round(grey.shape[0] * scale), 1))
        small = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)
        warning = (
            f"{grey.shape[1]}x{grey.shape[0]} pixels reduced to {size[0]}x{size[1]}, and so are "
            "all coordinates: crop the image to one cell"
        )
        return self._karyotype(small, name, (warning,))

    def predict_step(
        self, batch: Sequence[str | Path], batch_idx: int
    ) -> list[Karyotype | ImageError]:
        """Karyotype the paths of a batch; an image that fails gives its error, with its path."""
        results: list[Karyotype | ImageError] = []
        for path in batch:
            try:
                results.append(self.karyotype(path, str(path)))
            except ChromozooError as error:
                results.append(
                    error if isinstance(error, ImageError) else ImageError(f"{path}: {error}")
                )
        return results

    def _karyotype(
        self, grey: NDArray[np.float32], name: str, warnings: tuple[str, ...] = ()
    ) -> Karyotype:
        levels = measure_levels(grey)
        stain = levels.stain if self.stain == "auto" else self.stain
        detections = self.segmenter_for(stain).segment(grey, name, levels=levels)
        detections = detections.filter_by_score(self._min_candidate_score)
        candidates = self._classify(detections, levels)
        chromosomes = self._select_present(candidates)

        flags = [*warnings, *levels.flags]
        if n_dropped := len(detections) - len(candidates):
            flags.append(f"{n_dropped} unreadable detections dropped")
        flags += detections.warnings
        segmentation = chromosomes.segmentation
        if not len(chromosomes):
            flags.append("no chromosomes found")
            return Karyotype(
                name, segmentation, (), None, tuple(flags), grey, levels, stain, levels.alarms
            )

        # The alarms need the assignment even if each chromosome is classified alone.
        assignment = assign_cell(chromosomes.log_probabilities)
        cell = assignment if self.assignment == "cell" else None
        classes, margins = _classes_and_margins(chromosomes, cell)
        oriented = [
            self._orient(image, int(index), prediction)
            for image, index, prediction in zip(
                chromosomes.images, classes, chromosomes.predictions, strict=True
            )
        ]
        flags += cell_flags(segmentation, cell, levels, grey)
        alarms = (*levels.alarms, *self._cell_alarms(chromosomes, assignment, oriented))
        return Karyotype(
            name=name,
            segmentation=segmentation,
            chromosomes=tuple(
                self._describe(
                    row, chromosomes, int(classes[row]), margins[row], oriented[row], cell
                )
                for row in range(len(chromosomes))
            ),
            cell=replace(cell, iscn=mark_iscn(cell.iscn, alarms)) if cell else None,
            flags=tuple(flags),
            image=grey,
            levels=levels,
            stain=stain,
            alarms=alarms,
        )

    @property
    def _min_candidate_score(self) -> float:
        """Score below which a detection is dropped without further evidence."""
        return min(MIN_CANDIDATE_SCORE, self.score) if self.assignment == "cell" else self.score

    def _classify(self, detections: Segmentation, levels: Levels) -> _ClassifiedDetections:
        """Extract and classify the detections, without those that the classifier cannot read."""
        if not len(detections):
            return _ClassifiedDetections(detections, [], [], np.zeros((0, len(CLASSES))))
        is_certain = detections.scores >= DEFAULT_SCORES["none"]
        images = self.extraction(levels.signal, detections.crops, detections.corners, is_certain)
        # As a cell, so that the scale is estimated from all images. The assignment itself has to
        # wait until the false detections are known.
        predictions = self.classifier.classify(images, on_error="report", as_cell=True)
        readable = [row for row, prediction in enumerate(predictions) if not prediction.error]
        segmentation = detections.select(readable)
        predictions_read = [predictions[row] for row in readable]
        return _ClassifiedDetections(
            segmentation,
            [images[row] for row in readable],
            predictions_read,
            combine_probabilities(predictions_read, segmentation),
        )

    def _select_present(self, candidates: _ClassifiedDetections) -> _ClassifiedDetections:
        """Drop the candidates that are false detections, given the rest of the cell."""
        if not len(candidates) or self.assignment != "cell":
            return candidates
        scores = candidates.segmentation.scores
        presence = expit((scores.astype(np.float64) - PRESENCE_MIDPOINT) / PRESENCE_SCALE)
        presence = np.where(scores >= self.score, 1.0, presence)
        return candidates.select(
            np.flatnonzero(present_rows(candidates.log_probabilities, presence))
        )

    def _orient(
        self, image: NDArray[np.float32], index: int, prediction: Prediction
    ) -> _OrientedChromosome:
        """Turn the image of a chromosome of class ``index`` upright, with the p arm up."""
        upright = self.rotate_crop(image)
        tilt = self.rotate_crop.tilt(image, foreground(image))
        polarity = find_polarity(upright, CLASSES[index])
        if prediction.p_arm_up is not None:
            prob_p_arm_up = float(prediction.p_arm_up[index])
            polarity = replace(
                polarity, p_arm_up=prob_p_arm_up >= 0.5, certainty=abs(2 * prob_p_arm_up - 1)
            )
        if not polarity.p_arm_up:
            upright, tilt = np.ascontiguousarray(upright[::-1, ::-1]), tilt + 180
        rows = np.flatnonzero((upright > 0).any(axis=1))
        length = int(rows[-1] + 1 - rows[0])
        return _OrientedChromosome(
            image=upright,
            length=length,
            centromere=float(rows[0] + polarity.centromere * length),
            p_arm=tilt % 360,
            certainty=polarity.certainty,
            band_contrast=polarity.band_contrast,
        )

    def _cell_alarms(
        self,
        chromosomes: _ClassifiedDetections,
        assignment: CellAssignment,
        oriented: Sequence[_OrientedChromosome],
    ) -> tuple[str, ...]:
        """Return the reasons why the classification of the cell is unreliable."""
        typical_length = self.classifier.transforms.typical_length
        length = float(np.median([item.length for item in oriented]))
        return cell_alarms(
            chromosomes.probabilities,
            assignment,
            band_contrasts=[item.band_contrast for item in oriented],
            zoom=typical_length / length if typical_length else 1.0,
        )

    def _describe(
        self,
        row: int,
        chromosomes: _ClassifiedDetections,
        index: int,
        margin: float,
        oriented: _OrientedChromosome,
        cell: CellAssignment | None,
    ) -> KaryotypedChromosome:
        """Return the result for one chromosome of class ``index``."""
        probabilities = chromosomes.probabilities[row]
        score = float(chromosomes.segmentation.scores[row])
        supernumerary = cell is not None and row in cell.supernumerary
        return KaryotypedChromosome(
            number=row + 1,
            label=CLASSES[index],
            probability=float(probabilities[index]),
            probabilities=probabilities,
            margin=float(margin),
            score=score,
            supernumerary=supernumerary,
            review_reasons=self._review_reasons(index, supernumerary, probabilities, margin, score),
            image=oriented.image,
            centromere=oriented.centromere,
            p_arm=oriented.p_arm,
            polarity_certainty=oriented.certainty,
        )

    def _review_reasons(
        self,
        index: int,
        supernumerary: bool,
        probabilities: FloatArray,
        margin: float,
        score: float,
    ) -> tuple[str, ...]:
        """Return the reasons why a chromosome of class ``index`` needs review."""
        reasons = []
        if supernumerary:
            reasons.append("extra copy")
        if margin < self.min_margin:
            other = next(k for k in probabilities.argsort()[::-1] if k != index)
            reasons.append(f"possibly {CLASSES[other]}")
        elif probabilities[index] < self.min_probability:
            reasons.append(f"atypical {CLASSES[index]}")
        if score < self.min_certain_score:
            reasons.append("segmentation uncertain")
        return tuple(reasons)


def combine_probabilities(
    predictions: Sequence[Prediction], segmentation: Segmentation
) -> FloatArray:
    """Return the class probabilities ``(K, 24)`` of classifier and segmenter together.

    A segmenter that predicts classes sees the same chromosomes in another way, so the result is the
    tempered product of both.

    Args:
        predictions: K predictions of the classifier.
        segmentation: The K detections.
    """
    probabilities = np.array([prediction.probabilities for prediction in predictions])
    probabilities = probabilities.reshape(-1, len(CLASSES))
    if segmentation.class_probabilities is None:
        return probabilities
    product = probabilities * np.maximum(segmentation.class_probabilities, MIN_CLASS_PROBABILITY)
    tempered = product**PRODUCT_EXPONENT
    return np.asarray(tempered / tempered.sum(axis=1, keepdims=True))


def _classes_and_margins(
    chromosomes: _ClassifiedDetections, cell: CellAssignment | None
) -> tuple[IntArray, FloatArray]:
    """Return the class ``(K,)`` of each chromosome and its margin ``(K,)`` in nats.

    Without the assignment of the cell, each chromosome is classified alone.
    """
    log_p = chromosomes.log_probabilities
    if cell is not None:
        return cell.classes, assignment_margins(log_p, cell)
    ranked = np.sort(np.maximum(log_p, MIN_LOG_PROBABILITY), axis=1)
    return chromosomes.probabilities.argmax(axis=1), ranked[:, -1] - ranked[:, -2]
