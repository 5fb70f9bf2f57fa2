"""Mask R-CNN, the segmenter that karyotyping systems are compared with.

Papers: K. He et al., "Mask R-CNN", ICCV 2017. Xie et al. 2019 train it with a ResNet-101 on
metaphases composed of single chromosomes (Matterport's implementation, anchors 8 to 128, ratios
0.5, 1 and 2, Adam 1e-3); Wang et al. 2024 compare with a ResNet-50 (Detectron2, COCO weights,
256x256). Ours is torchvision's, from random weights, at the images' own scale, with what
:mod:`chromozoo.models.layers.two_stage` changes for metaphases.
"""

from collections.abc import Sequence
from typing import Any

from chromozoo.models.layers.two_stage import ANCHOR_RATIOS, ANCHOR_SIZES, TwoStageNetwork
from chromozoo.models.registry import register_model
from chromozoo.tasks.optimisation import OptimizerName
from chromozoo.tasks.segmentation import ChromosomeSegmenter

XIE_ANCHOR_SIZES = (8, 16, 32, 64, 128)
XIE_ANCHOR_RATIOS = (0.5, 1.0, 2.0)


class MaskRCNN(ChromosomeSegmenter):
    """Mask R-CNN with a ResNet-FPN backbone.

    Args:
        backbone: See :data:`chromozoo.models.layers.two_stage.BACKBONES`.
        anchor_sizes, anchor_ratios: See :class:`TwoStageNetwork`.
        rois: Regions per image that the second stage is trained on.
        preset, optimizer, lr, weight_decay, min_score, nms_iou_threshold: See
            :class:`ChromosomeSegmenter`.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        anchor_sizes: Sequence[int] = ANCHOR_SIZES,
        anchor_ratios: Sequence[float] = ANCHOR_RATIOS,
        rois: int = 256,
        preset: dict[str, Any] | None = None,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        min_score: float = 0.05,
        nms_iou_threshold: float = 0.5,
    ) -> None:
        self.save_hyperparameters()
        super().__init__(
            TwoStageNetwork(
                backbone, anchor_sizes=anchor_sizes, anchor_ratios=anchor_ratios, rois=rois
            ),
            preset=preset,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            min_score=min_score,
            nms_iou_threshold=nms_iou_threshold,
        )


@register_model(task="segmentation", paper="He et al. 2017, ICCV; as in Wang et al. 2024")
def mask_rcnn_r50_fpn(backbone: str = "resnet50", **kwargs: Any) -> MaskRCNN:
    """Mask R-CNN, ResNet-50-FPN: boxes and 28x28 masks; one grey channel, any size."""
    return MaskRCNN(backbone=backbone, **kwargs)


@register_model(task="segmentation", paper="Xie et al. 2019, after He et al. 2017")
def mask_rcnn_r101_fpn(
    backbone: str = "resnet101", xie_anchors: bool = False, **kwargs: Any
) -> MaskRCNN:
    """Mask R-CNN, ResNet-101-FPN, the segmenter of mCNN_GO.

    ``xie_anchors`` takes the anchors of Xie et al. 2019: 8 to 128 pixels, ratios 0.5, 1 and 2.
    """
    if xie_anchors:
        kwargs |= {
            "anchor_sizes": list(XIE_ANCHOR_SIZES),
            "anchor_ratios": list(XIE_ANCHOR_RATIOS),
        }
    return MaskRCNN(backbone=backbone, **kwargs)
