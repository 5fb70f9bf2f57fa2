"""Any backbone of timm by its name."""

import difflib
from typing import Any

import timm
import torch

from chromozoo.errors import UnknownNameError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.models.layers.backbone import Backbone, BackboneClassifier
from chromozoo.models.registry import register_model

SMALL = 32


def timm_network(backbone: str, height: int, width: int) -> Backbone:
    """A timm model with one input channel, tried on the canvas that it will see.

    Args:
        backbone: Name of the architecture.
        height: Of the canvas, in pixels. Architectures of one fixed size are built for it.
        width: Of the canvas, in pixels.

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
        features = _features(body, height, width)
    except Exception as error:  # each architecture complains in its own way
        raise ValueError(
            f"timm's {backbone!r} does not take a canvas of {height}x{width} pixels ({error}); "
            "give the preset another height and width, such as 224 and 224"
        ) from error
    try:
        _features(body, SMALL, SMALL)
        min_side = SMALL
    except Exception:  # of one fixed size, or too deep for small images
        min_side = min(height, width)
    return Backbone(body, features, min_side=min_side, channels=1)


def _features(body: torch.nn.Module, height: int, width: int) -> int:
    """Length of the pooled features that a network gives for an image of this size."""
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
    one. No paper stands behind it: it is there to try what is new. The stem has one channel, of
    three equal ones it sees the mean; ``init_from`` sums the stem of the ImageNet weights to one.
    Architectures of one fixed size (ViT, Swin) are built for the canvas of the preset. Where an
    architecture does not take it, the error says so when the model is built; the least size is
    32x32, or the short side of the canvas where it does not take that.
    """
    return TimmBackbone(**kwargs)
