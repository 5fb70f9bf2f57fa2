"""Helpers for networks that flatten their last map, and so have a fixed input size."""

from collections.abc import Sequence

from torch import Tensor

# Kernel and stride of each convolution or pooling layer, all without padding.
Layers = Sequence[tuple[int, int]]


def last_map_size(system: str, input_size: Sequence[int], layers: Layers) -> tuple[int, int]:
    """Return height and width of the last map for an image.

    Args:
        system: Name of the network in the error.
        input_size: Height and width of the image in pixels.
        layers: In the order of the network; padded layers that keep the size are left out.

    Raises:
        ValueError: The image is too small; the message says the minimum size.
    """
    min_side = 1
    for kernel, stride in reversed(layers):
        min_side = (min_side - 1) * stride + kernel
    height, width = input_size
    if min(height, width) < min_side:
        raise ValueError(
            f"{system} needs images of at least {min_side}x{min_side} pixels, not "
            f"{height}x{width}; give larger height and width"
        )
    for kernel, stride in layers:
        height = (height - kernel) // stride + 1
        width = (width - kernel) // stride + 1
    return height, width


def check_input_size(system: str, x: Tensor, input_size: Sequence[int]) -> None:
    """Refuse images of a size that the network was not built for.

    Raises:
        ValueError: ``x`` is not ``(B, C, *input_size)``; the message says both sizes.
    """
    if tuple(x.shape[-2:]) != tuple(input_size):
        (height, width), (own_height, own_width) = x.shape[-2:], input_size
        raise ValueError(
            f"this {system} was built for images of {own_height}x{own_width} pixels, not "
            f"{height}x{width}: its head is a linear layer on the flattened map; prepare the "
            "images with model.transforms, or build the model with a preset of that size"
        )
