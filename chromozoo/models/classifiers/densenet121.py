"""DenseNet-121, a baseline of IAPP-CNN.

Papers: G. Huang et al., "Densely Connected Convolutional Networks", CVPR 2017. As a classifier of
chromosomes: Wei et al. 2022 (table 2, beside IAPP-CNN), who do not say which depth.
"""

from typing import Any

import timm

from chromozoo.models.layers.backbone import Backbone, BackboneClassifier
from chromozoo.models.registry import register_model

FEATURES = 1024
MIN_INPUT_SIDE = 29


class DenseNet121(BackboneClassifier):
    """DenseNet-121 of timm. Arguments: see :class:`BackboneClassifier`."""

    def __init__(self, **recipe: Any) -> None:
        body = timm.create_model("densenet121", num_classes=0)
        super().__init__(Backbone(body, FEATURES, min_side=MIN_INPUT_SIDE), FEATURES, **recipe)


@register_model(
    task="classification",
    paper="Huang et al. 2017, CVPR; baseline of Wei et al. 2022 (IAPP-CNN)",
)
def densenet121(**kwargs: Any) -> DenseNet121:
    """DenseNet-121 (Huang et al. 2017), 6,978,456 parameters; input ``(B, 1 or 3, H, W)``.

    timm's, with 24 outputs; torchvision's has as many parameters. Wei et al. 2022 say "DenseNet"
    only; the depth of 121 is our choice. Least size: 29x29.
    ``init_from="densenet121.tv_in1k"`` takes over all but the head.
    """
    return DenseNet121(**kwargs)
