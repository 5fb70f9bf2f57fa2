"""ResNet-50, the baseline of most papers on karyotyping.

Papers: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. As a classifier of
chromosomes: C. Wang et al., IEEE Access 12:46081, 2024, table II.
"""

from typing import Any

from torchvision.models import resnet50 as torchvision_resnet50

from chromozoo.models.layers.backbone import Backbone, BackboneClassifier, remove_head
from chromozoo.models.registry import register_model

FEATURES = 2048


class ResNet50(BackboneClassifier):
    """ResNet-50 of torchvision. Arguments: see :class:`BackboneClassifier`."""

    def __init__(self, **recipe: Any) -> None:
        body = remove_head(torchvision_resnet50(), "fc")
        super().__init__(Backbone(body, FEATURES), FEATURES, **recipe)


@register_model(
    task="classification",
    paper="He et al. 2016, CVPR; baseline of Wang et al. 2024, IEEE Access 12:46081",
)
def resnet50(**kwargs: Any) -> ResNet50:
    """ResNet-50 (He et al. 2016), 23,557,208 parameters; input ``(B, 1 or 3, H, W)``.

    torchvision's, with 24 outputs. Wang et al. 2024 give 89.96 MB, a slip for the 89.86 MiB that
    these parameters take. All its layers are padded, so it would take an image of one pixel; we
    refuse sides below 32, the distance between two cells of its last map.
    ``init_from="resnet50.tv_in1k"`` takes over all but the head.
    """
    return ResNet50(**kwargs)
