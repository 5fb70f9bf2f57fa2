"""SENet50: ResNet-50 with squeeze and excitation in each block.

Papers: J. Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018. As a classifier of chromosomes:
C. Wang et al., IEEE Access 12:46081, 2024, table II, whose count only comes out with a squeeze
and excitation without bias.
"""

from functools import partial
from typing import Any

import timm
from timm.layers.squeeze_excite import SEModule

from chromozoo.models.layers.backbone import Backbone, BackboneClassifier
from chromozoo.models.registry import register_model

REDUCTION = 16
FEATURES = 2048


class SENet50(BackboneClassifier):
    """ResNet-50 with squeeze and excitation. Arguments: see :class:`BackboneClassifier`."""

    def __init__(self, **recipe: Any) -> None:
        attention = partial(SEModule, rd_ratio=1 / REDUCTION, bias=False)
        body = timm.create_model(
            "resnet50",
            num_classes=0,
            block_args={"attn_layer": attention},
            zero_init_last=False,  # as in torchvision's ResNet-50, the other baseline
        )
        super().__init__(Backbone(body, FEATURES), FEATURES, **recipe)


@register_model(
    task="classification",
    paper="Hu et al. 2018, CVPR; baseline of Wang et al. 2024, IEEE Access 12:46081",
)
def senet50(**kwargs: Any) -> SENet50:
    """SENet50 (Hu et al. 2018), 26,072,152 parameters; input ``(B, 1 or 3, H, W)``.

    timm's ResNet-50 with squeeze and excitation, reduction 16, in each block, and 24 outputs: the
    99.46 MiB of Wang et al. 2024. Theirs, and ours, has no bias in the squeeze and excitation;
    timm's ``seresnet50`` has, and 26,088,200 parameters. The linear layers of the squeeze and
    excitation are 1x1 convolutions here, which is the same. All layers are padded, so it would
    take an image of one pixel; we refuse sides below 32, the distance between two cells of its
    last map. ``init_from="resnet50.tv_in1k"`` takes over all but squeeze and excitation and head.
    """
    return SENet50(**kwargs)
