"""What all classifiers share: training steps, calibrated probabilities, and ``classify``."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
import torchmetrics
from numpy.typing import NDArray
from torch import Tensor, nn

from chromozoo.classes import CLASSES
from chromozoo.errors import ChromozooError, ImageError, UnknownNameError, WeightsError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.images.sources import ImageLike, as_list, image_name, to_image_source
from chromozoo.karyotype.alarm import cell_alarms, image_alarms, mark_iscn
from chromozoo.karyotype.conformal import get_threshold
from chromozoo.karyotype.polarity import band_contrast
from chromozoo.karyotype.predictions import Predictions, to_predictions
from chromozoo.losses.embedding import CentreLoss, CentreLossPreset, SupervisedContrastiveLoss
from chromozoo.tasks.base import BaseTask
from chromozoo.tasks.onednn_bf16 import fix_narrow_maps
from chromozoo.tasks.optimisation import OptimizerName, one_cycle

if TYPE_CHECKING:
    pass

# Identity, upside down, left-right, both: the turns that rotate & crop leaves open.
FLIPS: tuple[tuple[int, ...], ...] = ((), (-2,), (-1,), (-2, -1))
# Whether the p arm of an upright chromosome is up (1) or down (-1) in each of them.
P_ARM_UP = (1.0, -1.0, 1.0, -1.0)


class ChromosomeClassifier(BaseTask):
    """A LightningModule around any network that has ``forward_features`` and ``forward_head``.

    Called as ``model(x)`` it gives logits ``(B, 24)`` for normalised tensors
    ``(B, channels, H, W)``, the output of ``model.transforms``.

    Args:
        network: The pure network.
        features: Length of the network's feature vectors, for the centre loss.
        preset: Arguments of :class:`ChromosomePreset`.
        optimizer: ``"adamw"``, or ``"sgd"`` with momentum 0.9.
        lr: Highest learning rate of the one-cycle schedule.
        weight_decay: Of weights with two or more dimensions; norms and biases have none.
        label_smoothing: Share of the target spread over all classes.
        centre_loss: Preset of :class:`CentreLoss`, or None.
        contrastive: Weight of :class:`SupervisedContrastiveLoss` on the pooled features; 0 is none.
        flip_average: Average the probabilities over the four mirror images when predicting.
        polarity: Tell also which end is the p arm. The network then has a second head, trained on
            those images that the data call upright; the mirror images are made here, so the
            augmentation must leave flips out.
    """

    monitor = "val/accuracy"

    # Whether what is said of a chromosome depends on the others of its cell.
    sees_cells: ClassVar[bool] = False

    def __init__(
        self,
        network: nn.Module,
        features: int,
        preset: dict[str, Any] | None = None,
        optimizer: OptimizerName = "adamw",
        lr: float = 2e-3,
        weight_decay: float = 0.05,
        label_smoothing: float = 0.1,
        centre_loss: CentreLossPreset | None = None,
        contrastive: float = 0.0,
        flip_average: bool = True,
        polarity: bool = False,
    ) -> None:
        super().__init__()
        if polarity:
            # A logit for each class: where the centromere and the bands are depends on it.
            network.polarity = nn.Linear(features, len(CLASSES))
        # A third faster on CPUs, and on GPUs in half precision, than the default layout.
        self.network = network.to(memory_format=torch.channels_last)
        fix_narrow_maps(self.network)
        self.transforms = ChromosomePreset(**(preset or {}))
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.cross_entropy = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.centre_loss = CentreLoss(len(CLASSES), features, centre_loss) if centre_loss else None
        self.contrastive = contrastive
        self.contrastive_loss = SupervisedContrastiveLoss()
        self.flip_average = flip_average
        self.polarity = polarity
        self.val_accuracy = torchmetrics.classification.MulticlassAccuracy(
            len(CLASSES), average="micro"
        )
        self.test_accuracy = self.val_accuracy.clone()

    @property
    def categories(self) -> tuple[str, ...]:
        """Class of each output."""
        return CLASSES

    @property
    def temperature(self) -> float:
        """Divides the logits so that the probabilities are calibrated; 1 where it is not known."""
        return self.weights_entry.temperature if self.weights_entry else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, 24)`` of ``(B, channels, H, W)``, one pass, no averaging."""
        logits: Tensor = self.network(x)
        return logits

    # Training

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The scalar to be minimised; systems with a loss of their own override it.

        Args:
            batch: ``image`` (B, channels, H, W) normalised and ``label`` (B,); for polarity also
                ``upright`` (B,) bool.
        """
        network: Any = self.network
        image, label = batch["image"], batch["label"]
        if self.polarity:
            image = mirrored(image)
        features = network.forward_features(image)
        loss = self.class_loss(features, label)
        if self.polarity:
            up = network.polarity(features).gather(1, label[:, None])[:, 0]
            sign = torch.tensor(P_ARM_UP, device=up.device).repeat(len(up) // len(FLIPS) + 1)
            known = batch["upright"].float()
            wrong = nn.functional.softplus(-up * sign[: len(up)]) * known
            loss = loss + wrong.sum() / known.sum().clamp_min(1)
        return loss

    def class_loss(self, features: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy of the head, and the losses that draw the features of a class together.

        Args:
            features: ``(B, features)`` of ``forward_features``.
            label: ``(B,)`` class indices.
        """
        network: Any = self.network
        loss: Tensor = self.cross_entropy(network.forward_head(features), label)
        if self.centre_loss is not None:
            loss = loss + self.centre_loss(features, label)
        if self.contrastive:
            loss = loss + self.contrastive * self.contrastive_loss(features, label)
        return loss

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        probabilities = self.predict_with_polarity(batch["image"], batch.get("cell"))[0]
        self.val_accuracy(probabilities, batch["label"])
        loss = nn.functional.nll_loss(probabilities.clamp_min(1e-12).log(), batch["label"])
        self.log("val/loss", loss, sync_dist=True)
        self.log("val/accuracy", self.val_accuracy, prog_bar=True)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        probabilities, _ = self.predict_with_polarity(batch["image"], batch.get("cell"))
        self.test_accuracy(probabilities, batch["label"])
        self.log("test/accuracy", self.test_accuracy)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """``index (B,)``, where the item stands in the data set, and ``probabilities (B, 24)``.

        Of a model with ``polarity`` also ``p_arm_up (B, 24)``, see :meth:`predict_with_polarity`.
        """
        probabilities, up = self.predict_with_polarity(batch["image"], batch.get("cell"))
        found = {"index": batch["index"], "probabilities": probabilities}
        return found if up is None else found | {"p_arm_up": up}

    def configure_optimizers(self) -> Any:
        return one_cycle(self, self.network, self.optimizer, self.lr, self.weight_decay)

    # Use

    def predict_probabilities(self, x: Tensor) -> Tensor:
        """Calibrated probabilities ``(B, 24)`` of normalised tensors, averaged over the flips."""
        return self.predict_with_polarity(x)[0]

    def predict_with_polarity(
        self, x: Tensor, cells: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What :meth:`predict_probabilities` gives, and where the p arm is.

        Args:
            x: Normalised images ``(B, channels, H, W)``.
            cells: ``(B,)`` int: those with one number are all chromosomes of one cell. Most models
                look at each image alone and do not ask.

        Returns:
            Probabilities ``(B, 24)``, and the probability that the p arm is up, given each class,
            ``(B, 24)``; None for a model without ``polarity``.
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
        logits = at_least_float32(torch.cat([logit for logit, _ in passes])).reshape(by_flip)
        arms = [up for _, up in passes if up is not None]
        probabilities = torch.softmax(logits / self.temperature, dim=-1).mean(dim=0)
        if not arms:
            return probabilities, None
        sign = torch.tensor(P_ARM_UP[: len(flips)], device=x.device)[:, None, None]
        up = (at_least_float32(torch.cat(arms)).reshape(by_flip) * sign).mean(dim=0)
        return probabilities, up.sigmoid()

    def forward_with_polarity(
        self, x: Tensor, cells: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits of the classes and of the p arm being up, ``(B, 24)`` each, without averaging.

        The arguments are those of :meth:`predict_with_polarity`; models that see whole cells override it.
        """
        if not self.polarity:
            return self(x), None
        network: Any = self.network
        features = network.forward_features(x)
        return network.forward_head(features), network.polarity(features)

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
        """Names the chromosome in each image.

        The model is not changed: one in training mode judges in evaluation mode and stays in
        training, and threads may share it. It may be on any device, and of half, bfloat16 or double
        precision; probabilities are computed in single precision or better.

        Args:
            images: Paths, pages, PIL images, arrays or tensors (of any size, grey or RGB, dark or
                light background, 8 or 16 bit), one chromosome each; or a single one of these. A
                tensor is ``(H, W)`` or ``(C, H, W)``, and ``(N, C, H, W)`` are N images.
            as_cell: The images are all chromosomes of one cell: name them together by
                maximum-likelihood assignment. ``label`` is then the assigned class. Images of
                another pixel size are brought to that of the training data
                (:meth:`ChromosomePreset.cell_zoom`).
            error_rate: Give for each the set of classes that it may be, so that this share of the
                sets lacks the right one, 0.005 to 0.1; None gives no sets. What that rests on, and
                for whom it holds: :mod:`chromozoo.karyotype.conformal`.
            on_error: ``"report"`` goes on with the rest and returns the reason in ``error``.
            batch_size: Images per forward pass.

        Returns:
            One prediction for each image, in their order; none for none.

        Raises:
            ImageError: An image cannot be read (only with ``on_error="raise"``).
            ConformalError: The weights know no sets with this error rate.
            WeightsError: The network gives no numbers: damaged weights, or too low a precision.
        """
        if on_error not in ("raise", "report"):
            raise UnknownNameError(f"on_error is {on_error!r}; give 'raise' or 'report'")
        if batch_size < 1:
            raise ChromozooError(f"batch_size is {batch_size}; give 1 or more")
        limit = None
        if error_rate is not None:
            stored = self.weights_entry.conformal if self.weights_entry else {}
            limit = get_threshold(stored.get("cell" if as_cell else "alone", {}), error_rate)
        given = as_list(images)
        names = [
            image_name(image, f"image {number}") for number, image in enumerate(given, start=1)
        ]
        tensors, lengths, errors = self._prepared(given, names, as_cell, on_error)
        probabilities = np.full((len(given), len(CLASSES)), np.nan)
        arms = np.full_like(probabilities, np.nan) if self.polarity else None
        if tensors:
            readable = list(tensors)
            values, ups = self._looked_at(torch.stack(list(tensors.values())), as_cell, batch_size)
            # Rounded to float32 on the way: put the sum back to exactly 1.
            probabilities[readable] = values / values.sum(axis=1, keepdims=True)
            if arms is not None and ups is not None:
                arms[readable] = ups
        predictions = to_predictions(probabilities, names, errors, as_cell, arms, limit)
        if tensors:
            self._raise_alarms(
                predictions, probabilities[readable], list(tensors.values()), lengths
            )
        return predictions

    def _raise_alarms(
        self,
        predictions: Predictions,
        probabilities: NDArray[np.float64],
        images: Sequence[Tensor],
        lengths: dict[int, float],
    ) -> None:
        """Says of predictions why they cannot be trusted, and marks the karyotype.

        Args:
            predictions: Are changed.
            probabilities: ``(N, 24)`` of the images that could be read.
            images: N tensors ``(channels, H, W)``, as the network saw them.
            lengths: Of the N chromosomes, in pixels of their images.
        """
        preset, cell = self.transforms, predictions.cell
        length = float(np.median(list(lengths.values())))
        if cell is None:
            predictions.alarms = image_alarms(
                probabilities, list(lengths.values()), preset.typical_length
            )
            return
        contrasts: list[float] = []
        if preset.rotate_crop != "none":  # profiles run along the vertical axis
            first_views = [
                (image[0] * preset.std + preset.mean).float().numpy() for image in images
            ]
            contrasts = [band_contrast(view) for view in first_views]
        zoom = preset.typical_length / length if preset.typical_length else 1.0
        predictions.alarms = cell_alarms(probabilities, cell, band_contrasts=contrasts, zoom=zoom)
        predictions.cell = replace(cell, iscn=mark_iscn(cell.iscn, predictions.alarms))

    def _prepared(
        self, images: list[ImageLike], names: list[str], as_cell: bool, on_error: str
    ) -> tuple[dict[int, Tensor], dict[int, float], dict[int, str]]:
        """What the network sees of the images; each is read once.

        Returns:
            Normalised images, lengths of their chromosomes in pixels, and what is wrong with the
            others, each by the place of the image.

        Raises:
            ImageError: An image cannot be read (only with ``on_error="raise"``).
        """
        preset = self.transforms
        signals: dict[int, NDArray[np.float32]] = {}
        lengths: dict[int, float] = {}
        tensors: dict[int, Tensor] = {}
        errors: dict[int, str] = {}

        def attempt(index: int, step: Callable[[], None]) -> None:
            try:
                step()
            except Exception as error:  # a damaged file raises whatever its decoder does
                reason = _image_error(error, names[index])
                if on_error == "raise":
                    raise reason from error
                errors[index] = str(reason)

        def read(index: int, image: ImageLike) -> None:
            signal = preset.signal(to_image_source(image, names[index]), names[index])
            length = preset.length_of(signal)
            if as_cell:  # drawn when all lengths are known
                signals[index] = signal
            else:
                tensors[index] = preset.tensor(preset.draw(signal))
            lengths[index] = length

        def draw(index: int, signal: NDArray[np.float32]) -> None:
            tensors[index] = preset.tensor(preset.draw(signal, zoom))

        for index, image in enumerate(images):
            attempt(index, partial(read, index, image))
        zoom = preset.cell_zoom(list(lengths.values())) if signals else 1.0
        for index, signal in signals.items():
            attempt(index, partial(draw, index, signal))
        return tensors, {index: lengths[index] for index in tensors}, errors

    def _looked_at(
        self, images: Tensor, as_cell: bool, batch_size: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Probabilities ``(N, 24)``, and of p arms being up, of normalised images.

        Raises:
            WeightsError: Some are no numbers.
        """
        model, (device, dtype) = self.in_evaluation(), self.place
        # A cell is parted only for those that look at each image alone.
        whole = as_cell and self.sees_cells
        cells = torch.zeros(len(images), dtype=torch.int64, device=device) if whole else None
        found = [
            model.predict_with_polarity(batch.to(device), cells)
            for batch in torch.split(images, len(images) if whole else batch_size)
        ]
        values: NDArray[np.float64] = torch.cat([part for part, _ in found]).cpu().double().numpy()
        if not np.isfinite(values).all():
            raise WeightsError(
                f"{type(self).__name__}: the network gives no numbers (NaN) in {dtype}; its "
                "weights are damaged, or their precision too low: load them again, and use "
                ".float() or .bfloat16() instead of .half()"
            )
        ups = [up for _, up in found if up is not None]
        return values, torch.cat(ups).cpu().double().numpy() if ups else None


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32, double as it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _image_error(error: Exception, name: str) -> ImageError:
    """Whatever went wrong with an image as an error whose message begins with its name."""
    if isinstance(error, ImageError) and str(error).startswith(name):
        return error
    if isinstance(error, ChromozooError):
        return ImageError(f"{name}: {error}")
    return ImageError(
        f"{name}: the image cannot be prepared ({type(error).__name__}: {error}); check that it "
        "shows one chromosome, and export it again as PNG or TIFF"
    )


def mirrored(images: Tensor) -> Tensor:
    """A batch ``(B, channels, H, W)`` whose images are mirrored in turn as FLIPS says."""
    result = images.clone()
    for number, axes in enumerate(FLIPS):
        if axes:
            result[number :: len(FLIPS)] = images[number :: len(FLIPS)].flip(axes)
    return result
