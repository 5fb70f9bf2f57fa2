"""The small classifier: a HGNetV2-B0 on a tall and narrow canvas.

Ours. The network is timm's PP-HGNetV2 (B0) of PaddlePaddle with one grey channel. It was chosen for
its speed on two CPU cores: it is one of the three fastest of eleven backbones in training
(`benchmarks/README.md`); their accuracies were not compared.
"""

from typing import Any

from chromozoo.images.preset import ChromosomePreset
from chromozoo.models.classifiers.timm_backbone import timm_network
from chromozoo.models.layers.backbone import BackboneClassifier
from chromozoo.models.registry import register_model

BACKBONE = "hgnetv2_b0"


class ChromozooSmall(BackboneClassifier):
    """The small classifier with its training.

    Args:
        preset: Preparation of the images: a :class:`ChromosomePreset` or some of its arguments. The
            network is built for its canvas.
        **recipe: See :class:`BackboneClassifier`.
    """

    def __init__(
        self, preset: dict[str, Any] | ChromosomePreset | None = None, **recipe: Any
    ) -> None:
        canvas = self.make_preset(preset)
        network = timm_network(BACKBONE, canvas.height, canvas.width)
        super().__init__(network, network.fc.in_features, preset=preset, **recipe)


@register_model(
    task="classification",
    paper="ours: HGNetV2-B0 (timm) on upright chromosomes",
    default_weights="pki3",
)
def chromozoo_small(**kwargs: Any) -> ChromozooSmall:
    """Small and fast: HGNetV2-B0, 3,996,438 parameters; ``(B, 1 or 3, H, W)``, 32x32 or larger."""
    return ChromozooSmall(**kwargs)
