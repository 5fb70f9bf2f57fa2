"""Faster R-CNN: boxes alone, the first baseline of Wang et al. 2024.

Papers: S. Ren et al., "Faster R-CNN", NeurIPS 2015; Wang et al. 2024 (Detectron2, ResNet-101,
256x256): box AP 73.75 on the 16 official images. Ours is torchvision's, from random weights. It
draws no masks; the one it reports is what Otsu's threshold of the image leaves in each box.
"""

from collections.abc import Sequence
from typing import Any

from chromozoo.models.layers.two_stage import ANCHOR_RATIOS, ANCHOR_SIZES, TwoStageNetwork
from chromozoo.models.registry import register_model
from chromozoo.tasks.optimisation import OptimizerName
from chromozoo.tasks.segmentation import ChromosomeSegmenter


class FasterRCNN(ChromosomeSegmenter):
    """Faster R-CNN with a ResNet-FPN backbone.

    Args:
        backbone: See :data:`chromozoo.models.layers.two_stage.BACKBONES`.
        anchor_sizes, anchor_ratios: See :class:`TwoStageNetwork`.
        rois: Regions per image that the second stage is trained on.
        preset, optimizer, lr, weight_decay, min_score, nms_iou_threshold: See
            :class:`ChromosomeSegmenter`.
    """

    def __init__(
        self,
        backbone: str = "resnet101",
        anchor_sizes: Sequence[int] = ANCHOR_SIZES,
        anchor_ratios: Sequence[float] = ANCHOR_RATIOS,
        rois: int = 256,
        preset: dict[str, Any] | None = None,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        min_score: float = 0.05,
        nms_iou_threshold: float = 0.7,
    ) -> None:
        self.save_hyperparameters()
        network = TwoStageNetwork(
            backbone,
            masks=False,
            anchor_sizes=anchor_sizes,
            anchor_ratios=anchor_ratios,
            rois=rois,
        )
        super().__init__(
            network,
            preset=preset,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            min_score=min_score,
            nms_iou_threshold=nms_iou_threshold,
        )


@register_model(task="segmentation", paper="Ren et al. 2015, NeurIPS; as in Wang et al. 2024")
def faster_rcnn_r101_fpn(backbone: str = "resnet101", **kwargs: Any) -> FasterRCNN:
    """Faster R-CNN, ResNet-101-FPN: boxes; one grey channel, any size."""
    return FasterRCNN(backbone=backbone, **kwargs)
