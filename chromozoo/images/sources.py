"""Image arguments of the Python API: one or many files, PIL images, arrays or tensors."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from torch import Tensor

from chromozoo.errors import ImageError
from chromozoo.images.reading import ImagePage, ImageSource

ImageLike: TypeAlias = ImageSource | Tensor

# Possible lengths of a channel axis.
CHANNELS = (1, 3, 4)


def as_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """Return one or many images as a list.

    Args:
        images: An image, or any iterable of images, including generators, tensors
            ``(N, C, H, W)`` and arrays of paths.
    """
    if isinstance(images, Tensor):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, np.ndarray):
        of_paths = images.ndim == 1 and images.dtype.kind in "OU"
        return images.tolist() if of_paths else [images]
    if isinstance(images, str | bytes) or hasattr(images, "read"):
        return [cast(ImageLike, images)]
    return list(images) if isinstance(images, Iterable) else [images]


def image_name(image: object, default: str) -> str:
    """Return the name of an image in results and errors: its path, or a default without one."""
    if isinstance(image, str | os.PathLike):
        return os.fsdecode(image)
    return str(image) if isinstance(image, ImagePage) else default


def to_image_source(image: ImageLike | os.PathLike[str], name: str) -> ImageSource:
    """Convert an image to a type that :func:`chromozoo.images.reading.read_grey` accepts.

    Args:
        image: Any image. A tensor is ``(H, W)``, or ``(C, H, W)`` with 1, 3 or 4 channels, of any
            real type and on any device; ``(H, W, C)`` if its first axis cannot be the channels.
        name: Name of the image in error messages.

    Raises:
        ImageError: A tensor cannot be read as an image.
    """
    if isinstance(image, os.PathLike) and not isinstance(image, Path):
        return Path(os.fsdecode(image))
    if not isinstance(image, Tensor):
        return image
    try:
        values = image.detach().cpu()
        # numpy has no bfloat16.
        array = (values.float() if values.is_floating_point() else values).numpy()
    except Exception as error:  # sparse, quantised and meta tensors raise several kinds
        raise ImageError(
            f"{name}: this tensor is not an image ({error}); give a dense (H, W) or (C, H, W)"
        ) from error
    if array.ndim == 3 and array.shape[0] in CHANNELS:
        array = np.ascontiguousarray(array.transpose(1, 2, 0))
    return array
