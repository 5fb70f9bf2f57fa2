"""Inference of classifiers: averaged and calibrated probabilities, polarity, and ``classify``."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chromozoo.classes import CLASSES
from chromozoo.errors import ChromozooError, ImageError, UnknownNameError, WeightsError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.images.sources import ImageLike, as_list, image_name, to_image_source
from chromozoo.karyotype.alarm import cell_alarms, image_alarms, mark_iscn
from chromozoo.karyotype.conformal import get_threshold
from chromozoo.karyotype.polarity import band_contrast
from chromozoo.karyotype.predictions import Predictions, to_predictions
from chromozoo.tasks.base import BaseTask
from chromozoo.tasks.networks import ClassifierNetwork

# Identity, upside down, left-right, both: rotate & crop leaves these orientations open.
FLIPS: tuple[tuple[int, ...], ...] = ((), (-2,), (-1,), (-2, -1))
# Whether the p arm of an upright chromosome is up (1) or down (-1) in each of them.
P_ARM_UP = (1.0, -1.0, 1.0, -1.0)


class ClassifierInference(BaseTask[ChromosomePreset]):
    """The part of :class:`chromozoo.tasks.classification.ChromosomeClassifier` that predicts.

    Attributes:
        sees_cells: Whether the prediction for a chromosome depends on the others of its cell.
        flip_average: Average the probabilities over the four mirror images.
        polarity: Whether the network predicts which end is the p arm.
    """

    preset_type = ChromosomePreset
    sees_cells: ClassVar[bool] = False

    network: ClassifierNetwork
    flip_average: bool
    polarity: bool

    @property
    def categories(self) -> tuple[str, ...]:
        """Class of each output."""
        return CLASSES

    @property
    def temperature(self) -> float:
        """Divisor of the logits that calibrates the probabilities; 1 where it is not known."""
        return self.weights_entry.temperature if self.weights_entry else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(B, 24)`` of ``(B, channels, H, W)``: one pass, no averaging."""
        logits: Tensor = self.network(x)
        return logits

    def forward_with_polarity(
        self, x: Tensor, cells: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the logits of the classes and of the p arm being up, ``(B, 24)`` each.

        One pass, no averaging. Models that see whole cells override it. The arguments are those of
        :meth:`predict_with_polarity`.
        """
        if not self.polarity:
            return self(x), None
        features = self.network.forward_features(x)
        return self.network.forward_head(features), self.network.polarity(features)

    def predict_with_polarity(
        self, x: Tensor, cells: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return calibrated probabilities of the classes, averaged over the flips, and polarity.

        Args:
            x: Normalised images ``(B, channels, H, W)``.
            cells: ``(B,)`` int, a number for each cell: images with one number are all chromosomes
                of one cell. Only models with ``sees_cells`` use it.

        Returns:
            Class probabilities ``(B, 24)``, and the probability that the p arm is up, given each
            class, ``(B, 24)``; None for a model without ``polarity``.
        """
        # What the preset gives is float32, a model may be of half or double precision.
        x = x.to(self.place[1])
        flips = FLIPS if self.flip_average else FLIPS[:1]
        turned = [x.flip(axes) if axes else x for axes in flips]
        if len(x) == 1:
            # Of one image a small network sees four mirror images in the time of two. Without
            # `cells` each of them is a cell of its own, as the image would be.
            passes = [self.forward_with_polarity(torch.cat(turned))]
        else:
            passes = [self.forward_with_polarity(images, cells) for images in turned]
        by_flip = (len(flips), len(x), len(CLASSES))
        logits = promote_to_float32(torch.cat([logit for logit, _ in passes])).reshape(by_flip)
        arms = [up for _, up in passes if up is not None]
        probabilities = torch.softmax(logits / self.temperature, dim=-1).mean(dim=0)
        if not arms:
            return probabilities, None
        sign = torch.tensor(P_ARM_UP[: len(flips)], device=x.device)[:, None, None]
        up = (promote_to_float32(torch.cat(arms)).reshape(by_flip) * sign).mean(dim=0)
        return probabilities, up.sigmoid()

    @torch.inference_mode()
    def classify(
        self,
        images: ImageLike | Iterable[ImageLike],
        as_cell: bool = False,
        *,
        error_rate: float | None = None,
        on_error: Literal["raise", "report"] = "raise",
        batch_size: int = 64,
    ) -> Predictions:
        """Classify images of one chromosome each.

        The model is not changed: one in training mode predicts in evaluation mode and stays in
        training, and threads may share it. It may be on any device, and of half, bfloat16 or double
        precision; probabilities are computed in single precision or better.

        Args:
            images: Paths, pages, PIL images, arrays or tensors (of any size, grey or RGB, dark or
                light background, 8 or 16 bit), one chromosome each; or a single one of these. A
                tensor is ``(H, W)`` or ``(C, H, W)``, and ``(N, C, H, W)`` are N images.
            as_cell: The images are all chromosomes of one cell: classify them together by
                maximum-likelihood assignment. ``label`` is then the assigned class. Images of
                another pixel size are brought to that of the training data
                (:meth:`ChromosomePreset.cell_zoom`).
            error_rate: Give a prediction set for each chromosome; this share of the sets, 0.005 to
                0.1, lacks the true class. None gives no sets. See
                :mod:`chromozoo.karyotype.conformal` for the assumptions.
            on_error: ``"report"`` goes on with the rest and returns the reason in ``error``.
            batch_size: Images per forward pass.

        Returns:
            One prediction for each image, in their order; none for none.

        Raises:
            ImageError: An image cannot be read (only with ``on_error="raise"``).
            ConformalError: The weights have no thresholds for this error rate.
            WeightsError: The network gives no numbers: damaged weights, or too low a precision.
        """
        if on_error not in ("raise", "report"):
            raise UnknownNameError(f"on_error is {on_error!r}; give 'raise' or 'report'")
        if batch_size < 1:
            raise ChromozooError(f"batch_size is {batch_size}; give 1 or more")
        set_threshold = None
        if error_rate is not None:
            stored = self.weights_entry.conformal if self.weights_entry else {}
            set_threshold = get_threshold(
                stored.get("cell" if as_cell else "alone", {}), error_rate
            )
        listed = as_list(images)
        names = [
            image_name(image, f"image {number}") for number, image in enumerate(listed, start=1)
        ]
        prepared = prepare_images(self.transforms, listed, names, as_cell, on_error)
        probabilities = np.full((len(listed), len(CLASSES)), np.nan)
        arms = np.full_like(probabilities, np.nan) if self.polarity else None
        readable = list(prepared.tensors)
        if readable:
            tensors = torch.stack(list(prepared.tensors.values()))
            values, ups = self._predict_in_batches(tensors, as_cell, batch_size)
            # Rounded to float32 on the way: put the sum back to exactly 1.
            probabilities[readable] = values / values.sum(axis=1, keepdims=True)
            if arms is not None and ups is not None:
                arms[readable] = ups
        predictions = to_predictions(
            probabilities, names, prepared.errors, as_cell, arms, set_threshold
        )
        if readable:
            add_alarms(predictions, probabilities[readable], prepared, self.transforms)
        return predictions

    def _predict_in_batches(
        self, images: Tensor, as_cell: bool, batch_size: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return class probabilities and p-arm probabilities ``(N, 24)`` of normalised images.

        Raises:
            WeightsError: A probability is NaN.
        """
        model, (device, dtype) = self.in_evaluation(), self.place
        # A cell may be split into batches unless the model sees it as a whole.
        whole = as_cell and self.sees_cells
        cells = torch.zeros(len(images), dtype=torch.int64, device=device) if whole else None
        batches = [
            model.predict_with_polarity(batch.to(device), cells)
            for batch in torch.split(images, len(images) if whole else batch_size)
        ]
        values: NDArray[np.float64] = (
            torch.cat([probabilities for probabilities, _ in batches]).cpu().double().numpy()
        )
        if not np.isfinite(values).all():
            raise WeightsError(
                f"{type(self).__name__}: the network gives no numbers (NaN) in {dtype}; its "
                "weights are damaged, or their precision too low: load them again, and use "
                ".float() or .bfloat16() instead of .half()"
            )
        ups = [up for _, up in batches if up is not None]
        return values, torch.cat(ups).cpu().double().numpy() if ups else None


@dataclass(eq=False)
class PreparedImages:
    """Images on their way into a classifier, each by its index in the input.

    Attributes:
        tensors: Normalised images ``(channels, H, W)``.
        lengths: Lengths of the chromosomes in pixels of their images.
        errors: Reasons why an image could not be prepared.
    """

    tensors: dict[int, Tensor] = field(default_factory=dict)
    lengths: dict[int, float] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)


def prepare_images(
    preset: ChromosomePreset,
    images: Sequence[ImageLike],
    names: Sequence[str],
    as_cell: bool,
    on_error: Literal["raise", "report"],
) -> PreparedImages:
    """Read, normalise and turn images; each is read once.

    Args:
        preset: Of the classifier.
        images: One chromosome each.
        names: What errors call them.
        as_cell: Bring the cell to the scale of the training data, which takes the lengths of all
            its chromosomes.
        on_error: ``"report"`` records why an image cannot be prepared, and goes on.

    Raises:
        ImageError: An image cannot be prepared (only with ``on_error="raise"``).
    """
    prepared = PreparedImages()
    signals: dict[int, NDArray[np.float32]] = {}

    def attempt(index: int, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # a damaged file raises whatever its decoder does
            reason = _image_error(error, names[index])
            if on_error == "raise":
                raise reason from error
            prepared.errors[index] = str(reason)

    def read(index: int, image: ImageLike) -> None:
        signal = preset.signal(to_image_source(image, names[index]), names[index])
        length = preset.length_of(signal)
        if as_cell:  # drawn when all lengths are known
            signals[index] = signal
        else:
            prepared.tensors[index] = preset.tensor(preset.draw(signal))
        prepared.lengths[index] = length

    def draw(index: int, signal: NDArray[np.float32]) -> None:
        prepared.tensors[index] = preset.tensor(preset.draw(signal, zoom))

    for index, image in enumerate(images):
        attempt(index, partial(read, index, image))
    zoom = preset.cell_zoom(list(prepared.lengths.values())) if signals else 1.0
    for index, signal in signals.items():
        attempt(index, partial(draw, index, signal))
    prepared.lengths = {index: prepared.lengths[index] for index in prepared.tensors}
    return prepared


def add_alarms(
    predictions: Predictions,
    probabilities: NDArray[np.float64],
    prepared: PreparedImages,
    preset: ChromosomePreset,
) -> None:
    """Add the alarms of a cell or of single images to their predictions, and mark the karyotype.

    Args:
        predictions: Are changed.
        probabilities: ``(N, 24)`` of the images that could be read.
        prepared: These N images.
        preset: Of the classifier.
    """
    lengths, cell = list(prepared.lengths.values()), predictions.cell
    length = float(np.median(lengths))
    if cell is None:
        predictions.alarms = image_alarms(probabilities, lengths, preset.typical_length)
        return
    contrasts: list[float] = []
    if preset.rotate_crop != "none":  # profiles run along the vertical axis
        first_views = [
            (image[0] * preset.std + preset.mean).float().numpy()
            for image in prepared.tensors.values()
        ]
        contrasts = [band_contrast(view) for view in first_views]
    zoom = preset.typical_length / length if preset.typical_length else 1.0
    predictions.alarms = cell_alarms(probabilities, cell, band_contrasts=contrasts, zoom=zoom)
    predictions.cell = replace(cell, iscn=mark_iscn(cell.iscn, predictions.alarms))


def promote_to_float32(values: Tensor) -> Tensor:
    """Return half precision as float32, and double precision unchanged."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _image_error(error: Exception, name: str) -> ImageError:
    """Return any error of an image as one whose message begins with the image's name."""
    if isinstance(error, ImageError) and str(error).startswith(name):
        return error
    if isinstance(error, ChromozooError):
        return ImageError(f"{name}: {error}")
    return ImageError(
        f"{name}: the image cannot be prepared ({type(error).__name__}: {error}); check that it "
        "shows one chromosome, and export it again as PNG or TIFF"
    )
