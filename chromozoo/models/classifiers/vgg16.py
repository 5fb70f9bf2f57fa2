"""VGG16, plain and with batch normalisation.

Papers: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015. As classifiers of chromosomes: plain in C. Wang et al. 2020 (table 1,
beside EResNet), with batch normalisation in Wei et al. 2022 (table 2, beside IAPP-CNN).
"""

from typing import Any

from torch import nn
from torchvision.models import vgg16 as torchvision_vgg16
from torchvision.models import vgg16_bn as torchvision_vgg16_bn

from chromozoo.models.layers.backbone import Backbone, BackboneClassifier, remove_head, resize_pool
from chromozoo.models.registry import register_model

FEATURES = 4096


def vgg_backbone(body: nn.Module, pool: tuple[int, int] | None) -> Backbone:
    """The network around a torchvision VGG; ``pool`` as in :class:`VGG16`."""
    if pool is not None:
        resize_pool(body, pool, "classifier.0")
    # Five halvings without padding.
    return Backbone(remove_head(body, "classifier.6"), FEATURES, min_side=32)


class VGG16(BackboneClassifier):
    """VGG16 of torchvision.

    Args:
        pool: Height and width of the grid before the first linear layer; None keeps the 7x7 of the
            paper, see :func:`chromozoo.models.layers.backbone.resize_pool`.
        **recipe: See :class:`BackboneClassifier`. The features, 4096, have passed the dropout.
    """

    def __init__(self, pool: tuple[int, int] | None = None, **recipe: Any) -> None:
        super().__init__(vgg_backbone(torchvision_vgg16(), pool), FEATURES, **recipe)


class VGG16BN(BackboneClassifier):
    """VGG16 of torchvision with batch normalisation. Arguments: see :class:`VGG16`."""

    def __init__(self, pool: tuple[int, int] | None = None, **recipe: Any) -> None:
        super().__init__(vgg_backbone(torchvision_vgg16_bn(), pool), FEATURES, **recipe)


@register_model(
    task="classification",
    paper="Simonyan and Zisserman 2015, ICLR; baseline of Wang et al. 2020 (EResNet)",
)
def vgg16(**kwargs: Any) -> VGG16:
    """VGG16 (Simonyan and Zisserman 2015), 134,358,872 parameters; input ``(B, 1 or 3, H, W)``.

    torchvision's, with 24 outputs. From images smaller than 224x224 its adaptive pool still makes
    7x7 cells, by repeating those of the last map. ``pool=(3, 1)``, our choice in the config, keeps
    the map of a 112x48 canvas as it is: the same function of 37,889,880 parameters, few enough for
    a weights file. Least size: 32x32.
    ``init_from="vgg16.tv_in1k"`` takes over the convolutions.
    """
    return VGG16(**kwargs)


@register_model(
    task="classification",
    paper="Simonyan and Zisserman 2015, ICLR; baseline of Wei et al. 2022 (IAPP-CNN)",
)
def vgg16_bn(**kwargs: Any) -> VGG16BN:
    """VGG16 with batch norm (torchvision), 134,367,320 parameters; input ``(B, 1 or 3, H, W)``.

    torchvision's, with 24 outputs. From images smaller than 224x224 its adaptive pool still makes
    7x7 cells, by repeating those of the last map. ``pool=(3, 1)``, our choice in the config, keeps
    the map of a 112x48 canvas as it is: the same function of 37,898,328 parameters, few enough for
    a weights file. Least size: 32x32.
    ``init_from="vgg16_bn.tv_in1k"`` takes over the convolutions and norms.
    """
    return VGG16BN(**kwargs)
