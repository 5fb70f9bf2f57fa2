"""Two-stage detectors (Faster and Mask R-CNN) of torchvision, adapted to metaphases.

They differ from torchvision's defaults in this: one grey channel; no resizing (the preset has done
it); anchors of the sizes and proportions of chromosomes; up to 200 objects an image; the NMS
threshold of boxes is high (IoU 0.8), since the boxes of crossing chromosomes cover each other, and
masks decide (:func:`chromozoo.structures.instance.mask_nms`).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from chromozoo.errors import UnknownNameError, WeightsError
from chromozoo.models.init_from import load_published
from chromozoo.structures.instance import Instance
from chromozoo.tasks.networks import SegmentationNetwork, Target
from chromozoo.tasks.segmentation import ChromosomeSegmenter

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d")
# One size for each level of the pyramid, in pixels; chromosomes of BioImLab are 14 to 110 long.
ANCHOR_SIZES = (12, 24, 48, 80, 128)
ANCHOR_RATIOS = (1 / 3, 1 / 2, 1.0, 2.0, 3.0)
MAX_OBJECTS = 200
BOX_NMS_IOU_THRESHOLD = 0.8
# Chromosome, and background.
NUM_CLASSES = 2


class TwoStageNetwork(SegmentationNetwork):
    """A Faster or Mask R-CNN with a ResNet-FPN backbone, one grey channel, one class.

    Args:
        backbone: One of :data:`BACKBONES`.
        masks: Whether there is a mask head; without it, Otsu's threshold gives a mask in each box.
        anchor_sizes: Sizes on the five levels of the pyramid (stride 4 to 64), pixels.
        anchor_ratios: Height by width.
        rois: Regions per image that the second stage is trained on, a quarter of them objects.
        channels: Channels of the pyramid.

    Raises:
        UnknownNameError: The backbone is not one of these.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        masks: bool = True,
        anchor_sizes: Sequence[int] = ANCHOR_SIZES,
        anchor_ratios: Sequence[float] = ANCHOR_RATIOS,
        rois: int = 256,
        channels: int = 256,
    ) -> None:
        super().__init__()
        arguments: dict[str, Any] = {
            "rpn_anchor_generator": AnchorGenerator(
                tuple((size,) for size in anchor_sizes), (tuple(anchor_ratios),) * len(anchor_sizes)
            ),
            "rpn_pre_nms_top_n_train": 1000,
            "rpn_pre_nms_top_n_test": 1000,
            "rpn_post_nms_top_n_train": 1000,
            "rpn_post_nms_top_n_test": 600,
            "rpn_nms_thresh": BOX_NMS_IOU_THRESHOLD,
            "box_batch_size_per_image": rois,
            "box_nms_thresh": BOX_NMS_IOU_THRESHOLD,
            "box_detections_per_img": MAX_OBJECTS,
        }
        kind = MaskRCNN if masks else FasterRCNN
        self.detector = kind(grey_fpn(backbone, channels), NUM_CLASSES, **arguments)
        self.detector.transform = UnresizedTransform(0, 0, image_mean=[0.0], image_std=[1.0])
        self.has_masks = masks

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Return the losses of both stages, see :class:`SegmentationNetwork`."""
        losses: dict[str, Tensor] = self.detector(images, targets)
        return losses

    def detect(self, image: Tensor, min_score: float) -> list[Instance]:
        """Return the detections in one image, see :class:`SegmentationNetwork`."""
        found, _, _ = self.detect_boxes(image, min_score)
        boxes, scores = (found[key].float().cpu().numpy() for key in ("boxes", "scores"))
        if not self.has_masks:
            return box_instances(image, boxes, scores)
        masks = found["masks"][:, 0].float().cpu().numpy()
        return mask_instances(masks, boxes, scores)

    def detect_boxes(
        self, image: Tensor, min_score: float
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], list[tuple[int, int]]]:
        """Run torchvision's detector on one image ``(1, h, w)``.

        Returns:
            ``boxes`` (N, 4), ``scores`` (N,) and, with a mask head, ``masks`` (N, 1, M, M) on grids
            over the boxes; the features of the pyramid by level; the image's size as a list.
        """
        detector: Any = self.detector
        images, _ = detector.transform([image])
        features = detector.backbone(images.tensors)
        detector.roi_heads.score_thresh = min_score
        proposals, _ = detector.rpn(images, features)
        found, _ = detector.roi_heads(features, proposals, images.image_sizes)
        return found[0], features, images.image_sizes


class UnresizedTransform(GeneralizedRCNNTransform):  # type: ignore[misc]  # torchvision has no types
    """torchvision's transform without the resizing, because the preset has set the scale.

    torchvision's own ``_skip_resize`` leaves the resizing out in training only.
    """

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


def grey_fpn(backbone: str, channels: int) -> nn.Module:
    """Return a ResNet of torchvision with a pyramid (stride 4 to 64) and one input channel.

    Args:
        backbone: One of :data:`BACKBONES`.
        channels: Channels of the pyramid.

    Raises:
        UnknownNameError: The backbone is not one of :data:`BACKBONES`.
    """
    if backbone not in BACKBONES:
        raise UnknownNameError(f"unknown backbone {backbone!r}: known are {', '.join(BACKBONES)}")
    body: Any = resnet.__dict__[backbone](weights=None)
    body.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
    # As torchvision's `resnet_fpn_backbone`, which always makes 256 channels.
    levels = {f"layer{level + 1}": str(level) for level in range(4)}
    widths = [body.inplanes // 2 ** (3 - level) for level in range(4)]
    pyramid: nn.Module = BackboneWithFPN(body, levels, widths, channels)
    return pyramid


def load_segmenter_body(network: TwoStageNetwork, segmenter: str) -> None:
    """Copy the ResNet of another segmenter's published weights, to start a training from.

    Args:
        network: Network to fill; only its ResNet changes, not the pyramid or the heads.
        segmenter: Name of a segmenter of the zoo with weights, such as ``"chr_fast"``, and their
            tag after a colon, unless it is the default one: ``"chr_fast:bioimlab"``.

    Raises:
        UnknownNameError: There is no such segmenter.
        WeightsError: It has no weights, or another ResNet.
    """
    source: Any = load_published(segmenter)
    theirs = source.detector.backbone.body if hasattr(source, "detector") else source.backbone
    body: Any = network.detector.backbone.body
    try:
        body.load_state_dict(theirs.state_dict())
    except RuntimeError as error:
        raise WeightsError(
            f"init_from: {segmenter} has another ResNet than this network; choose its backbone, or "
            "leave init_from out"
        ) from error


def mask_instances(
    probabilities: NDArray[np.float32],
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    level: float = 0.5,
) -> list[Instance]:
    """Return masks on grids over boxes as instances in the image's pixels.

    Args:
        probabilities: ``(N, M, M)``, 0..1; the cells divide the box evenly.
        boxes: ``(N, 4)`` xyxy in pixels.
        scores: ``(N,)``.
        level: Probability from which a pixel belongs to the mask.
    """
    instances = []
    for grid, box, score in zip(probabilities, boxes, scores, strict=True):
        left, top = (int(value) for value in np.floor(box[:2]))
        right, bottom = (int(value) for value in np.ceil(box[2:]))
        width, height = max(right - left, 1), max(bottom - top, 1)
        across, down = grid.shape[1] / (box[2] - box[0]), grid.shape[0] / (box[3] - box[1])
        # The centre of pixel u lies at u + 0.5, that of cell k at k + 0.5.
        to_grid = np.array(
            [
                [across, 0, (left + 0.5 - box[0]) * across - 0.5],
                [0, down, (top + 0.5 - box[1]) * down - 0.5],
            ]
        )
        resampled = cv2.warpAffine(
            grid,
            to_grid,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        instances.append(Instance(np.asarray(resampled) >= level, (top, left), box, float(score)))
    return instances


def box_instances(
    image: Tensor, boxes: NDArray[np.float32], scores: NDArray[np.float32]
) -> list[Instance]:
    """Return boxes as instances whose masks are Otsu's threshold of the image in each box."""
    grey = image[0].float().cpu().numpy()
    span = max(float(grey.max() - grey.min()), 1e-6)
    eight_bit = np.round((grey - grey.min()) * (255 / span)).astype(np.uint8)
    _, found = cv2.threshold(eight_bit, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    inside = np.asarray(found) > 0
    instances = []
    for box, score in zip(boxes, scores, strict=True):
        left, top, right, bottom = (int(value) for value in np.round(box))
        crop = inside[top : max(bottom, top + 1), left : max(right, left + 1)]
        instances.append(Instance(crop, (top, left), box, float(score)))
    return instances


class TwoStageSegmenter(ChromosomeSegmenter):
    """A Faster or Mask R-CNN with a ResNet-FPN backbone, and its training.

    Args:
        backbone: One of :data:`BACKBONES`.
        anchor_sizes, anchor_ratios: See :class:`TwoStageNetwork`.
        rois: Regions per image that the second stage is trained on.
        **recipe: See :class:`ChromosomeSegmenter`.

    Attributes:
        has_masks: Whether there is a mask head.
    """

    training_arguments = ChromosomeSegmenter.training_arguments | {"rois"}
    has_masks: ClassVar[bool] = True

    network: TwoStageNetwork

    def __init__(
        self,
        backbone: str = "resnet50",
        anchor_sizes: Sequence[int] = ANCHOR_SIZES,
        anchor_ratios: Sequence[float] = ANCHOR_RATIOS,
        rois: int = 256,
        **recipe: Any,
    ) -> None:
        network = TwoStageNetwork(backbone, self.has_masks, anchor_sizes, anchor_ratios, rois)
        super().__init__(network, **recipe)
