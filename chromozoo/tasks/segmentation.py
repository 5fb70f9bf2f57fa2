"""Training and inference of segmenters: losses, mask NMS, and ``segment``."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor

from chromozoo.images.levels import Levels
from chromozoo.images.metaphase import MetaphasePreset, PreparedMetaphase
from chromozoo.images.sources import ImageLike, image_name, to_image_source
from chromozoo.structures.instance import Instance, crop_to_mask, mask_nms
from chromozoo.structures.segmentation import CATEGORIES, Segmentation, merge_instances
from chromozoo.tasks.base import BaseTask
from chromozoo.tasks.networks import SegmentationNetwork, Target

if TYPE_CHECKING:
    from torchmetrics.detection import MeanAveragePrecision

# A detection with this score is nearly always a chromosome, and complete enough to be measured.
SURE_SCORE = 0.5


class ChromosomeSegmenter(BaseTask[MetaphasePreset]):
    """A LightningModule around a network with ``losses`` and ``detect``.

    Args:
        network: The pure network, see :class:`chromozoo.tasks.networks.SegmentationNetwork`.
        preset: Preparation of the images: a :class:`MetaphasePreset` or some of its arguments.
        min_score: Detections with a lower score are not returned.
        nms_iou_threshold: Mask IoU above which the less certain of two detections is left out.
        **optimisation: ``optimizer``, ``lr``, ``weight_decay``; see
            :class:`chromozoo.tasks.base.BaseTask`.
    """

    preset_type = MetaphasePreset

    network: SegmentationNetwork

    def __init__(
        self,
        network: SegmentationNetwork,
        preset: dict[str, Any] | MetaphasePreset | None = None,
        min_score: float = 0.05,
        nms_iou_threshold: float = 0.5,
        **optimisation: Any,
    ) -> None:
        super().__init__(network, preset, **optimisation)
        self.min_score = min_score
        self.nms_iou_threshold = nms_iou_threshold
        self._precision: MeanAveragePrecision | None = None

    @property
    def categories(self) -> tuple[str, ...]:
        """Name of each label."""
        return CATEGORIES

    # Training

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Return the sum of the network's losses, and log each of them."""
        losses = self.network.losses(batch["image"], self._targets(batch))
        for name, value in losses.items():
            self.log(f"train/{name}", value)
        return torch.stack(list(losses.values())).sum()

    def on_validation_epoch_start(self) -> None:
        self._reset_precision()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._update_precision(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_precision("val")

    def on_test_epoch_start(self) -> None:
        self._reset_precision()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._update_precision(batch)

    def on_test_epoch_end(self) -> None:
        self._log_precision("test")

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Return ``index (B,)`` and the ``instances`` of each image, in pixels of the input."""
        return {
            "index": batch["index"],
            "instances": [
                merge_instances(self.detect(image), _size(image)).to_records(self.categories)
                for image in batch["image"]
            ],
        }

    def _targets(self, batch: dict[str, Any]) -> list[Target]:
        """Return the targets of a batch, with one label for all unless the model has classes."""
        targets: list[Target] = batch["target"]
        if len(self.categories) > 1:
            return targets
        return [target | {"labels": torch.ones_like(target["labels"])} for target in targets]

    def _reset_precision(self) -> None:
        # The metric is no child module, or it would follow the model into checkpoints. The first
        # batch makes it, because it shows whether there are masks.
        self._precision = None

    def _update_precision(self, batch: dict[str, Any]) -> None:
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
        """Log the mean average precision over the model's classes; of boxes alone without masks."""
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

    # Use

    def detect(self, image: Tensor) -> list[Instance]:
        """Return the detections of a normalised image ``(1, h, w)`` after mask NMS.

        All have at least the score ``min_score``, and masks within the image.
        """
        size = _size(image)
        instances = (
            crop_to_mask(instance, size)
            for instance in self.network.detect(image, self.min_score)
            if instance.score >= self.min_score
        )
        return mask_nms(
            [instance for instance in instances if instance is not None], self.nms_iou_threshold
        )

    @torch.inference_mode()
    def segment(
        self, image: ImageLike, name: str | None = None, *, levels: Levels | None = None
    ) -> Segmentation:
        """Segment the chromosomes of a metaphase.

        The model is not changed: one in training mode predicts in evaluation mode and stays in
        training, and threads may share it. It may be of half, bfloat16 or double precision.

        An image whose chromosomes come out far from their usual length is segmented again at the
        scale that brings them to it, and the result with more chromosomes is returned.

        Args:
            image: Path, page, PIL image, array or tensor of any size, grey or RGB, dark or light
                background, 8 or 16 bit.
            name: What errors and warnings call it; the path when None.
            levels: Grey levels of this image (:func:`chromozoo.images.levels.measure_levels`),
                where they are known; None measures them, and warns of anomalies.

        Returns:
            Masks, boxes and scores in pixels of the given image. Empty, with a warning, where
            nothing stands out of the background.

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
        instances = model._detect_prepared(prepared)
        sure = [instance for instance in instances if instance.score >= SURE_SCORE]
        zoom = self.transforms.cell_zoom([float(np.hypot(*one.crop.shape)) for one in sure])
        if zoom != 1:
            zoomed = self.transforms(image, name, zoom=zoom, levels=prepared.levels)
            zoomed_instances = model._detect_prepared(zoomed)
            # A cell may be contracted, and not small: the scale that finds more is taken.
            if sum(one.score >= SURE_SCORE for one in zoomed_instances) > len(sure):
                prepared, instances = zoomed, zoomed_instances
        height, width = prepared.canvas.shape
        ratio = (prepared.shape[0] / height, prepared.shape[1] / width)
        if ratio != (1.0, 1.0):
            instances = [_resized(instance, ratio) for instance in instances]
        return merge_instances(instances, prepared.shape, warnings)

    def _detect_prepared(self, prepared: PreparedMetaphase) -> list[Instance]:
        device, dtype = self.place
        return self.detect(self.transforms.tensor(prepared.canvas).to(device, dtype))


def _size(image: Tensor) -> tuple[int, int]:
    """Return height and width of an image ``(1, h, w)``."""
    return int(image.shape[-2]), int(image.shape[-1])


def _resized(instance: Instance, ratio: tuple[float, float]) -> Instance:
    """Return an instance in pixels of an image that is ``ratio`` times as high and wide."""
    down, across = ratio
    top, left = round(instance.corner[0] * down), round(instance.corner[1] * across)
    bottom = max(round((instance.corner[0] + instance.crop.shape[0]) * down), top + 1)
    right = max(round((instance.corner[1] + instance.crop.shape[1]) * across), left + 1)
    soft = cv2.resize(
        instance.crop.astype(np.float32),
        (right - left, bottom - top),
        interpolation=cv2.INTER_LINEAR,
    )
    assert instance.box is not None
    box = instance.box * np.array([across, down, across, down], np.float32)
    return replace(instance, crop=np.asarray(soft) >= 0.5, corner=(top, left), box=box)
