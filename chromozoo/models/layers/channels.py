"""Expansion of grey images for networks with three colour channels."""

from torch import Tensor


def to_three_channels(x: Tensor) -> Tensor:
    """Return ``(B, 1 or 3, H, W)`` as ``(B, 3, H, W)``: a grey image as three equal channels.

    Published networks keep their colour stem, so that their parameter counts and ImageNet weights
    are the published ones. No memory is copied.
    """
    return x if x.shape[1] == 3 else x.expand(-1, 3, -1, -1)
