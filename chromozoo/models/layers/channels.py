"""Grey chromosomes for networks that were born with three colour channels."""

from torch import Tensor


def to_three_channels(x: Tensor) -> Tensor:
    """``(B, 1 or 3, H, W)`` to ``(B, 3, H, W)``: a grey image becomes three equal channels.

    Published networks keep their colour stem, so that their parameter counts and ImageNet
    weights stay what they were. No memory is copied.
    """
    return x if x.shape[1] == 3 else x.expand(-1, 3, -1, -1)
