"""Faster R-CNN: boxes alone, the first baseline of Wang et al. 2024.

Papers: S. Ren et al., "Faster R-CNN", NeurIPS 2015; Wang et al. 2024 (Detectron2, ResNet-101,
256x256): box AP 73.75 on the 16 official images. Ours is torchvision's, from random weights. It has
no mask head; its masks are Otsu's threshold of the image in each box.
"""

from typing import Any

from chromozoo.models.layers.two_stage import TwoStageSegmenter
from chromozoo.models.registry import register_model


class FasterRCNN(TwoStageSegmenter):
    """Faster R-CNN with a ResNet-FPN backbone.

    Args:
        backbone: See :data:`chromozoo.models.layers.two_stage.BACKBONES`.
        nms_iou_threshold: Mask IoU above which the less certain of two detections is left out.
        **recipe: See :class:`TwoStageSegmenter`.
    """

    has_masks = False

    def __init__(
        self, backbone: str = "resnet101", nms_iou_threshold: float = 0.7, **recipe: Any
    ) -> None:
        super().__init__(backbone=backbone, nms_iou_threshold=nms_iou_threshold, **recipe)


@register_model(task="segmentation", paper="Ren et al. 2015, NeurIPS; as in Wang et al. 2024")
def faster_rcnn_r101_fpn(backbone: str = "resnet101", **kwargs: Any) -> FasterRCNN:
    """Faster R-CNN, ResNet-101-FPN: boxes; one grey channel, any size."""
    return FasterRCNN(backbone=backbone, **kwargs)
