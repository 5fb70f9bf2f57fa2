"""Any architecture of timm as a classifier, by its name."""

import difflib
from typing import Any

import timm
import torch

from chromozoo.errors import UnknownNameError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.models.layers.backbone import Backbone, BackboneClassifier
from chromozoo.models.registry import register_model

# Side of the smallest image on which an architecture is tried.
SMALL = 32


def timm_network(backbone: str, height: int, width: int) -> Backbone:
    """Return a timm model with one input channel, after a trial on its canvas.

    Args:
        backbone: Name of the architecture.
        height: Height of the canvas in pixels. Architectures of one fixed size are built for it.
        width: Width of the canvas in pixels.

    Raises:
        UnknownNameError: timm has no such architecture; the message lists close names.
        ValueError: The architecture does not take this canvas.
    """
    known = timm.list_models()
    if backbone not in known:
        close = difflib.get_close_matches(backbone, known, n=5)
        raise UnknownNameError(
            f"timm has no architecture {backbone!r}: "
            + (f"did you mean {', '.join(close)}?" if close else "see timm.list_models()")
            + (" Names of weights go into init_from." if "." in backbone else "")
        )
    config = timm.get_pretrained_cfg(backbone)
    size: dict[str, Any] = (
        {"img_size": (height, width)} if config and config.fixed_input_size else {}
    )
    try:
        body = timm.create_model(backbone, num_classes=0, in_chans=1, **size)
        features = count_features(body, height, width)
    except Exception as error:  # each architecture raises another kind
        raise ValueError(
            f"timm's {backbone!r} does not take a canvas of {height}x{width} pixels ({error}); "
            "give the preset another height and width, such as 224 and 224"
        ) from error
    try:
        count_features(body, SMALL, SMALL)
        min_side = SMALL
    except Exception:  # of one fixed size, or too deep for small images
        min_side = min(height, width)
    return Backbone(body, features, min_side=min_side, channels=1)


def count_features(body: torch.nn.Module, height: int, width: int) -> int:
    """Return the length of a network's pooled features for an image of this size."""
    body.eval()
    with torch.no_grad():
        _, features = body(torch.zeros(1, 1, height, width)).shape
    body.train()
    return int(features)


class TimmBackbone(BackboneClassifier):
    """A backbone of timm with one input channel.

    Args:
        backbone: Name of an architecture in ``timm.list_models()``.
        preset: Preparation of the images: a :class:`ChromosomePreset` or some of its arguments. The
            network is built for its canvas.
        **recipe: See :class:`BackboneClassifier`.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        preset: dict[str, Any] | ChromosomePreset | None = None,
        **recipe: Any,
    ) -> None:
        canvas = self.make_preset(preset)
        network = timm_network(backbone, canvas.height, canvas.width)
        super().__init__(network, network.fc.in_features, preset=preset, **recipe)


@register_model(task="classification", paper="Wightman 2019, PyTorch Image Models (timm)")
def timm_backbone(**kwargs: Any) -> TimmBackbone:
    """Any timm architecture, by default ResNet-18: 11,182,552 parameters; ``(B, 1 or 3, H, W)``.

    ``backbone="convnext_tiny"`` or ``get_model("timm/convnext_tiny", weights=None)`` takes another
    one. It belongs to no published system and serves to try new architectures. The stem has one
    channel, and three channels are averaged; ``init_from`` sums the stem of the ImageNet weights to
    one. Architectures of one fixed size (ViT, Swin) are built for the canvas of the preset. An
    architecture that does not take the canvas raises an error when the model is built; the minimum
    size is 32x32, or the short side of the canvas for architectures that need more.
    """
    return TimmBackbone(**kwargs)
