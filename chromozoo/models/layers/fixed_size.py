"""Networks that flatten their last map: the size of the image is a part of them."""

from collections.abc import Sequence

from torch import Tensor

# Kernel and stride of each convolution or pooling, none of them padded.
Layers = Sequence[tuple[int, int]]


def flattened_map(system: str, input_size: Sequence[int], layers: Layers) -> tuple[int, int]:
    """Height and width of the map that the layers leave of an image.

    Args:
        system: What the error calls the network.
        input_size: Height and width of the image in pixels.
        layers: In the order of the network; padded layers that keep the size are left out.

    Raises:
        ValueError: The layers leave nothing; the message says the least size.
    """
    least = 1
    for kernel, stride in reversed(layers):
        least = (least - 1) * stride + kernel
    height, width = input_size
    if min(height, width) < least:
        raise ValueError(
            f"{system} needs images of at least {least}x{least} pixels, not {height}x{width}; "
            "give larger height and width"
        )
    for kernel, stride in layers:
        height = (height - kernel) // stride + 1
        width = (width - kernel) // stride + 1
    return height, width


def check_input_size(system: str, x: Tensor, input_size: Sequence[int]) -> None:
    """Refuses images of a size that the network was not built for.

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
