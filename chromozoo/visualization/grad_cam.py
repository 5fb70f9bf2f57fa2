"""Grad-CAM heat maps of a classifier (Selvaraju et al. 2017), computed by ``captum``.

Needs the extra ``figures``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from numpy.typing import NDArray

from chromozoo.errors import ChromozooError


def grad_cam(model: Any, images: Sequence[Any], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return heat maps ``(N, H, W)`` in 0..1, each scaled to its own maximum.

    Args:
        model: A classifier.
        images: N normalised tensors ``(channels, H, W)``.
        labels: ``(N,)`` class index whose evidence each heat map shows.

    Raises:
        ChromozooError: No layer of the model has a feature map.
    """
    model.eval()
    batch = torch.stack(list(images)).to(model.device)
    layer = find_last_feature_map_layer(model, batch[:1])
    target = torch.from_numpy(np.asarray(labels)).to(model.device)
    heat = LayerGradCam(model, layer).attribute(
        batch.requires_grad_(), target=target, relu_attributions=True
    )
    heat = LayerAttribution.interpolate(heat, tuple(batch.shape[-2:]), "bilinear")
    heat = heat.detach().sum(dim=1).float()
    scaled: NDArray[np.float32] = (
        (heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)).cpu().numpy()
    )
    return scaled


def find_last_feature_map_layer(model: Any, batch: Any) -> Any:
    """Return the last layer whose output is a feature map ``(B, C, h, w)``, by a forward pass."""
    layers: list[Any] = []

    def record(layer: Any, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[-2:]) > 1:
            layers.append(layer)

    leaves = [layer for layer in model.network.modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(record) for layer in leaves]
    try:
        with torch.no_grad():
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    if not layers:
        raise ChromozooError(
            f"{type(model).__name__}: no layer has a feature map, so there is no Grad-CAM; use a "
            "convolutional network"
        )
    return layers[-1]
