"""What all segmenters share: training steps, mask-based suppression, and ``segment``."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from chromozoo.images.levels import Levels
from chromozoo.images.metaphase import MetaphasePreset, PreparedMetaphase
from chromozoo.images.sources import ImageLike, image_name, to_image_source
from chromozoo.structures.instance import Instance, crop_to_mask, mask_nms
from chromozoo.structures.segmentation import CATEGORIES, Segmentation, merge_instances
from chromozoo.tasks.base import BaseTask
from chromozoo.tasks.optimisation import OptimizerName, one_cycle

if TYPE_CHECKING:
    from torchmetrics.detection import MeanAveragePrecision

# What scores this much is nearly always a chromosome, whole enough for its length to count.
SURE = 0.5

# A target is a dict of boxes (N, 4) float32 xyxy, labels (N,) int64 from 1 and masks (N, H, W)
# uint8, as torchvision's detectors take it.
Target = dict[str, Tensor]


class SegmentationNetwork(Protocol):
    """What a :class:`ChromosomeSegmenter` wraps: any ``nn.Module`` with these two methods.

    One whose boxes and masks are right in any precision of its weights says so by an attribute
    ``any_precision = True``; in the others, weights of another precision are used as float32.
    """

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Named scalars whose sum is minimised; images ``(1, h, w)`` normalised."""
        ...

    def detect(self, image: Tensor, min_score: float) -> list[Instance]:
        """The chromosomes of one image ``(1, h, w)``, in its pixels; may still overlap.

        What scores less than ``min_score`` need not be drawn.
        """
        ...


class ChromosomeSegmenter(BaseTask):
    """A LightningModule around any network that has ``losses`` and ``detect``.

    Args:
        network: The pure network, see :class:`SegmentationNetwork`.
        preset: Arguments of :class:`MetaphasePreset`.
        optimizer: ``"adamw"``, or ``"sgd"`` with momentum 0.9.
        lr: Highest learning rate of the one-cycle schedule.
        weight_decay: Of weights with two or more dimensions; norms and biases have none.
        min_score: Detections with a lower score are not returned.
        nms_iou_threshold: Mask IoU above which the less certain of two detections is left out.
    """

    monitor = "val/mask_ap"

    def __init__(
        self,
        network: nn.Module,
        preset: dict[str, Any] | None = None,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        min_score: float = 0.05,
        nms_iou_threshold: float = 0.5,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.transforms = MetaphasePreset(**(preset or {}))
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.min_score = min_score
        self.nms_iou_threshold = nms_iou_threshold
        self._precision: MeanAveragePrecision | None = None

    @property
    def categories(self) -> tuple[str, ...]:
        """Name of each label."""
        return CATEGORIES

    # Training

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        network: Any = self.network
        losses: dict[str, Tensor] = network.losses(batch["image"], self._targets(batch))
        for name, value in losses.items():
            self.log(f"train/{name}", value)
        loss = torch.stack(list(losses.values())).sum()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._begin_precision()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._add_to_precision(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_precision("val")

    def on_test_epoch_start(self) -> None:
        self._begin_precision()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._add_to_precision(batch)

    def on_test_epoch_end(self) -> None:
        self._log_precision("test")

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """``index (B,)`` and ``instances``, of each image, in pixels of the network's input."""
        return {
            "index": batch["index"],
            "instances": [
                merge_instances(self.detect(image), _size(image)).to_records(self.categories)
                for image in batch["image"]
            ],
        }

    def _targets(self, batch: dict[str, Any]) -> list[Target]:
        """The targets of a batch; classes only for a model that tells them apart."""
        targets: list[Target] = batch["target"]
        if len(self.categories) > 1:
            return targets
        return [target | {"labels": torch.ones_like(target["labels"])} for target in targets]

    def _begin_precision(self) -> None:
        # Made anew, not a child module: it would otherwise follow the model into checkpoints. And
        # at the first batch, which shows whether there are masks.
        self._precision = None

    def _add_to_precision(self, batch: dict[str, Any]) -> None:
        from torchmetrics.detection import MeanAveragePrecision

        for image, target in zip(batch["image"], self._targets(batch), strict=True):
            has_masks = "masks" in target
            if self._precision is None:
                self._precision = MeanAveragePrecision(
                    iou_type=("bbox", "segm") if has_masks else "bbox", backend="faster_coco_eval"
                )
                self._precision.warn_on_many_detections = False
            found = merge_instances(self.detect(image), _size(image))
            predicted = {
                "boxes": torch.from_numpy(found.boxes),
                "scores": torch.from_numpy(
                    found.scores
                    if found.class_probabilities is None
                    else found.scores * found.class_probabilities.max(axis=1)
                ),
                "labels": torch.from_numpy(found.labels) + 1,
            }
            true = {"boxes": target["boxes"].cpu(), "labels": target["labels"].cpu()}
            if has_masks:
                predicted["masks"] = torch.from_numpy(found.masks)
                true["masks"] = target["masks"].bool().cpu()
            self._precision.update([predicted], [true])

    def _log_precision(self, stage: str) -> None:
        """Means over the classes that the model tells apart; of boxes alone without masks."""
        assert self._precision is not None
        figures = self._precision.compute()
        with_masks = "segm" in self._precision.iou_type
        for kind, key in (("box", "bbox_"), ("mask", "segm_")) if with_masks else (("box", ""),):
            for name, end in (("ap", "map"), ("ap50", "map_50"), ("ap75", "map_75")):
                self.log(
                    f"{stage}/{kind}_{name}",
                    figures[f"{key}{end}"].clamp_min(0),  # -1 where there is nothing to find
                    prog_bar=(kind, name) == ("mask", "ap"),
                    sync_dist=True,
                )
        self._precision = None

    def configure_optimizers(self) -> Any:
        return one_cycle(self, self.network, self.optimizer, self.lr, self.weight_decay)

    # Use

    def detect(self, image: Tensor) -> list[Instance]:
        """Detections of a normalised image ``(1, h, w)`` above the least score, suppressed."""
        network: Any = self.network
        size = _size(image)
        cut = (
            crop_to_mask(piece, size)
            for piece in network.detect(image, self.min_score)
            if piece.score >= self.min_score
        )
        return mask_nms([piece for piece in cut if piece is not None], self.nms_iou_threshold)

    @torch.inference_mode()
    def segment(
        self, image: ImageLike, name: str | None = None, *, levels: Levels | None = None
    ) -> Segmentation:
        """Finds the chromosomes of a metaphase.

        The model is not changed: one in training mode judges in evaluation mode and stays in
        training, and threads may share it. It may be of half, bfloat16 or double precision.

        Args:
            image: Path, page, PIL image, array or tensor of any size, grey or RGB, dark or light
                background, 8 or 16 bit.
            name: What errors and warnings call it; the path when None.
            levels: Grey levels of this image (:func:`chromozoo.images.levels.measure_levels`),
                where they are known; None measures them, and warns of what was odd.

        Returns:
            Masks, boxes and scores in pixels of the given image. Empty, with a warning, where
            nothing stands out of the background. An image whose chromosomes come out far from
            their usual length is looked at again at the scale that brings them to it, and the look
            that finds more is returned.

        Raises:
            ImageError: The image cannot be read.
        """
        image = to_image_source(image, name or image_name(image, "tensor"))
        prepared = self.transforms(image, name, levels=levels)
        warnings = prepared.warnings
        if not prepared.canvas.any():
            return Segmentation.empty(prepared.shape, prepared.warnings)
        any_precision = getattr(self.network, "any_precision", False)
        model = self.in_evaluation(None if any_precision else torch.float32)
        pieces = model._look(prepared)
        sure = [piece for piece in pieces if piece.score >= SURE]
        zoom = self.transforms.cell_zoom([float(np.hypot(*p.crop.shape)) for p in sure])
        if zoom != 1:
            again = self.transforms(image, name, zoom=zoom, levels=prepared.levels)
            other = model._look(again)
            # A cell may be contracted, and not small: the look that finds more is taken.
            if sum(piece.score >= SURE for piece in other) > len(sure):
                prepared, pieces = again, other
        height, width = prepared.canvas.shape
        ratio = (prepared.shape[0] / height, prepared.shape[1] / width)
        if ratio != (1.0, 1.0):
            pieces = [_enlarged(piece, ratio) for piece in pieces]
        return merge_instances(pieces, prepared.shape, warnings)

    def _look(self, prepared: PreparedMetaphase) -> list[Instance]:
        device, dtype = self.place
        return self.detect(self.transforms.tensor(prepared.canvas).to(device, dtype))


def _size(image: Tensor) -> tuple[int, int]:
    """Height and width of an image ``(1, h, w)``."""
    return int(image.shape[-2]), int(image.shape[-1])


def _enlarged(piece: Instance, ratio: tuple[float, float]) -> Instance:
    """A piece in pixels of an image that is ``ratio`` times as high and wide."""
    down, across = ratio
    top, left = round(piece.corner[0] * down), round(piece.corner[1] * across)
    bottom = max(round((piece.corner[0] + piece.crop.shape[0]) * down), top + 1)
    right = max(round((piece.corner[1] + piece.crop.shape[1]) * across), left + 1)
    soft = cv2.resize(
        piece.crop.astype(np.float32), (right - left, bottom - top), interpolation=cv2.INTER_LINEAR
    )
    assert piece.box is not None
    box = piece.box * np.array([across, down, across, down], np.float32)
    return replace(piece, crop=np.asarray(soft) >= 0.5, corner=(top, left), box=box)
