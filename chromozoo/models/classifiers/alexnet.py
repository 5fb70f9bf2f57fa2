"""AlexNet, the oldest baseline.

Papers: A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv
1404.5997, 2014 (torchvision's variant). As a classifier of chromosomes: C. Wang et al. 2020
(table 1, beside EResNet) and Wei et al. 2022 (table 2, beside IAPP-CNN).
"""

from typing import Any, ClassVar

from torchvision.models import alexnet as torchvision_alexnet

from chromozoo.models.layers.backbone import Backbone, BackboneClassifier, remove_head, resize_pool
from chromozoo.models.registry import register_model

FEATURES = 4096
MIN_INPUT_SIDE = 63


class AlexNet(BackboneClassifier):
    """AlexNet of torchvision.

    Args:
        pool: Height and width of the grid before the first linear layer; None keeps the 6x6 of the
            paper, see :func:`chromozoo.models.layers.backbone.resize_pool`.
        **recipe: See :class:`BackboneClassifier`. The preset is 160x80 at scale 1.6 by default.
    """

    default_preset: ClassVar[dict[str, Any]] = {"height": 160, "width": 80, "scale": 1.6}

    def __init__(self, pool: tuple[int, int] | None = None, **recipe: Any) -> None:
        body = torchvision_alexnet()
        if pool is not None:
            resize_pool(body, pool, "classifier.1")
        network = Backbone(remove_head(body, "classifier.6"), FEATURES, min_side=MIN_INPUT_SIDE)
        super().__init__(network, FEATURES, **recipe)


@register_model(
    task="classification",
    paper="Krizhevsky 2014, arXiv 1404.5997; baseline of Wang et al. 2020 and Wei et al. 2022",
)
def alexnet(**kwargs: Any) -> AlexNet:
    """AlexNet (Krizhevsky 2014), 57,102,168 parameters; input ``(B, 1 or 3, H, W)``.

    torchvision's, with 24 outputs: one column, without the local response normalisation of the
    network of 2012 that the papers on karyotyping cite. Its unpadded layers need 63x63 pixels, so
    the canvas is 160x80 unless the preset says otherwise (our choice). From images smaller than
    224x224 its adaptive pool still makes 6x6 cells, by repeating those of the last map.
    ``pool=(4, 1)``, our choice in the config, keeps the map of a 160x80 canvas as it is: the same
    function of 23,547,736 parameters, few enough for a weights file. timm has no AlexNet, so
    ``init_from`` takes a checkpoint only.
    """
    return AlexNet(**kwargs)
