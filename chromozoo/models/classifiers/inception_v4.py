"""Inception-v4, a baseline of IAPP-CNN.

Papers: C. Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections
on Learning", AAAI 2017. As a classifier of chromosomes: Wei et al. 2022 (table 2, beside IAPP-CNN).
"""

from typing import Any, ClassVar

import timm

from chromozoo.models.layers.backbone import Backbone, BackboneClassifier
from chromozoo.models.registry import register_model

FEATURES = 1536
MIN_INPUT_SIDE = 75


class InceptionV4(BackboneClassifier):
    """Inception-v4 of timm.

    Args:
        **recipe: See :class:`BackboneClassifier`. The preset is 160x80 at scale 1.6 by default.
    """

    default_preset: ClassVar[dict[str, Any]] = {"height": 160, "width": 80, "scale": 1.6}

    def __init__(self, **recipe: Any) -> None:
        body = timm.create_model("inception_v4", num_classes=0)
        network = Backbone(body, FEATURES, min_side=MIN_INPUT_SIDE)
        super().__init__(network, FEATURES, **recipe)


@register_model(
    task="classification",
    paper="Szegedy et al. 2017, AAAI; baseline of Wei et al. 2022 (IAPP-CNN)",
)
def inception_v4(**kwargs: Any) -> InceptionV4:
    """Inception-v4 (Szegedy et al. 2017), 41,179,704 parameters; input ``(B, 1 or 3, H, W)``.

    timm's, with 24 outputs. Its unpadded layers need 75x75 pixels, so the canvas is 160x80 unless
    the preset says otherwise (our choice; Wei et al. 2022 use 224x224).
    ``init_from="inception_v4.tf_in1k"`` takes over all but the head.
    """
    return InceptionV4(**kwargs)
