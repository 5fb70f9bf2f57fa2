"""Mask R-CNN, the reference segmenter of karyotyping systems.

Papers: K. He et al., "Mask R-CNN", ICCV 2017. Xie et al. 2019 train it with a ResNet-101 on
metaphases composed of single chromosomes (Matterport's implementation, anchors 8 to 128, ratios
0.5, 1 and 2, Adam 1e-3); Wang et al. 2024 compare with a ResNet-50 (Detectron2, COCO weights,
256x256). Ours is torchvision's, from random weights, at the images' own scale, with the
adaptations of :mod:`chromozoo.models.layers.two_stage` to metaphases.
"""

from typing import Any

from chromozoo.models.layers.two_stage import TwoStageSegmenter
from chromozoo.models.registry import register_model

XIE_ANCHOR_SIZES = (8, 16, 32, 64, 128)
XIE_ANCHOR_RATIOS = (0.5, 1.0, 2.0)


class MaskRCNN(TwoStageSegmenter):
    """Mask R-CNN with a ResNet-FPN backbone. Arguments: see :class:`TwoStageSegmenter`."""


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
