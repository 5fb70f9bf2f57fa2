"""ResNeXt-50 32x4d, the network that ChrNet4 grew from.

Papers: S. Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017.
As a classifier of chromosomes: C. Wang et al., IEEE Access 12:46081, 2024, table II.
"""

from typing import Any

from torchvision.models import resnext50_32x4d

from chromozoo.models.layers.backbone import Backbone, BackboneClassifier, remove_head
from chromozoo.models.registry import register_model

FEATURES = 2048


class ResNeXt50(BackboneClassifier):
    """ResNeXt-50 32x4d of torchvision. Arguments: see :class:`BackboneClassifier`."""

    def __init__(self, **recipe: Any) -> None:
        body = remove_head(resnext50_32x4d(), "fc")
        super().__init__(Backbone(body, FEATURES), FEATURES, **recipe)


@register_model(
    task="classification",
    paper="Xie et al. 2017, CVPR; baseline of Wang et al. 2024, IEEE Access 12:46081",
)
def resnext50(**kwargs: Any) -> ResNeXt50:
    """ResNeXt-50 32x4d (Xie et al. 2017), 23,029,080 parameters; input ``(B, 1 or 3, H, W)``.

    torchvision's, with 24 outputs: the 87.85 MiB of Wang et al. 2024. All its layers are padded,
    so it would take an image of one pixel; we refuse sides below 32, the distance between two
    cells of its last map. ``init_from="resnext50_32x4d.tv_in1k"`` takes over all but the head.
    """
    return ResNeXt50(**kwargs)
