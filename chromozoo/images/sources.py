"""Images as the Python API takes them: one or many, files, PIL images, arrays and tensors."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from torch import Tensor

from chromozoo.errors import ImageError
from chromozoo.images.reading import ImagePage, ImageSource

ImageLike: TypeAlias = ImageSource | Tensor

# Lengths of an axis that holds colours.
COLOURS = (1, 3, 4)


def as_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """A single image as a list of one, many as a list of all.

    Args:
        images: An image; or any iterable of images, a generator, a tensor ``(N, C, H, W)`` and an
            array of paths among them.
    """
    if isinstance(images, Tensor):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, np.ndarray):
        of_paths = images.ndim == 1 and images.dtype.kind in "OU"
        return images.tolist() if of_paths else [images]
    if isinstance(images, str | bytes) or hasattr(images, "read"):
        return [cast(ImageLike, images)]
    return list(images) if isinstance(images, Iterable) else [images]


def name_of(image: object, otherwise: str) -> str:
    """What results and errors call an image: its path; ``otherwise`` where it has none."""
    if isinstance(image, str | os.PathLike):
        return os.fsdecode(image)
    return str(image) if isinstance(image, ImagePage) else otherwise


def plain(image: ImageLike | os.PathLike[str], name: str) -> ImageSource:
    """An image as :func:`chromozoo.images.reading.read_grey` takes it.

    Args:
        image: Any image. A tensor is ``(H, W)``, or ``(C, H, W)`` with 1, 3 or 4 channels, of any
            real type and on any device; ``(H, W, C)`` where that is the only way to read it.
        name: What an error calls it.

    Raises:
        ImageError: A tensor that holds no image.
    """
    if isinstance(image, os.PathLike) and not isinstance(image, Path):
        return Path(os.fsdecode(image))
    if not isinstance(image, Tensor):
        return image
    try:
        values = image.detach().cpu()
        # numpy has no bfloat16.
        array = (values.float() if values.is_floating_point() else values).numpy()
    except Exception as error:  # of a sparse, quantised or meta tensor, each its own kind
        raise ImageError(
            f"{name}: this tensor is no image ({error}); give a dense one of (H, W) or (C, H, W)"
        ) from error
    if array.ndim == 3 and array.shape[0] in COLOURS:
        array = np.ascontiguousarray(array.transpose(1, 2, 0))
    return array
