"""Reading images of any common kind into one grey array, with an error that names the file."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from chromozoo.errors import ImageError

ImageSource: TypeAlias = str | Path | Image.Image | NDArray[np.generic]

IMAGE_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg"})

# A single chromosome of 3x3 pixels cannot be told from dust.
SMALLEST_SIDE = 4
# One image above this is a mistake (a whole slide), not a chromosome or a metaphase.
LARGEST_PIXELS = 150_000_000
# Differences and sums of such values still fit into float32.
LARGEST_VALUE = 1e30


def read_grey(source: ImageSource, name: str | None = None) -> NDArray[np.float32]:
    """Reads a path, PIL image or array as one grey plane.

    Args:
        source: A file path; a PIL image of any mode; or an array ``(H, W)``, ``(H, W, 1)``,
            ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA of any integer or float type.
        name: What errors call the image; the path itself when None.

    Returns:
        ``(H, W)`` float32 in the units of the source (0..255 for 8 bit, 0..65535 for 16 bit).
        Transparent pixels take the level that the rim of the visible part fades into.

    Raises:
        ImageError: The file is missing, empty, damaged or not an image; the array has another
            shape or type, NaN, or a side below 4 pixels. The message begins with the name.
    """
    if isinstance(source, str | Path):
        name = name or str(source)
        array = _read_file(Path(source), name)
    elif isinstance(source, Image.Image):
        name = name or "PIL image"
        with _pil_errors(name):
            array = _from_pil(source)
    else:
        name = name or "array"
        try:
            array = np.asarray(source)
        except Exception as error:  # rows of unequal length, a tensor on a GPU, ...
            raise ImageError(f"{name}: this is no image ({error}); give an array (H, W)") from error
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (1, 3, 4)):
        raise ImageError(
            f"{name}: an image of shape {array.shape} cannot be read as grey; "
            "give (H, W), (H, W, 3) or (H, W, 4)"
        )
    if array.dtype.kind not in "buif":
        raise ImageError(
            f"{name}: values of type {array.dtype} are no grey values; give integers or floats"
        )
    if min(array.shape[:2]) < SMALLEST_SIDE:
        raise ImageError(
            f"{name}: the image is {array.shape[1]}x{array.shape[0]} pixels, too small to show a "
            f"chromosome; give a crop of at least {SMALLEST_SIDE}x{SMALLEST_SIDE}"
        )
    with np.errstate(over="ignore"):
        planes = array.astype(np.float32)
    # Comparisons with NaN are false. No copy is made: the image may be a large one.
    if not (planes.min() > -LARGEST_VALUE and planes.max() < LARGEST_VALUE):
        raise ImageError(f"{name}: the image holds NaN or infinite values; mend it first")
    return planes if planes.ndim == 2 else _to_grey(planes)


def _read_file(path: Path, name: str) -> NDArray[np.generic]:
    try:
        if not path.is_file():
            raise ImageError(f"{name}: no such image file; check the path")
        data = path.read_bytes()
    except OSError as error:  # no permission, a name too long, a disk that fails
        raise ImageError(f"{name}: the file cannot be read ({error}); check the path") from error
    return read_bytes(data, name)


def read_bytes(data: bytes, name: str) -> NDArray[np.generic]:
    """Decodes an image file's bytes to ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``.

    Raises:
        ImageError: Empty, damaged, not an image, or far too large.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes); export the image again")
    with _pil_errors(name):
        with Image.open(io.BytesIO(data)) as picture:
            picture.verify()  # the checksums of a PNG, which loading ignores
        with Image.open(io.BytesIO(data)) as picture:
            return _from_pil(picture)


@contextmanager
def _pil_errors(name: str) -> Iterator[None]:
    """PIL raises a dozen kinds of errors (SyntaxError among them) on bad files, and warns too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: far too large for a crop or metaphase ({error}); cut the cell out first"
        ) from error
    except Exception as error:
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise ImageError(
            f"{name}: the file is damaged or not an image ({reason}); "
            "export it again as PNG or TIFF"
        ) from error


def _from_pil(picture: Image.Image) -> NDArray[np.generic]:
    if picture.width * picture.height > LARGEST_PIXELS:
        raise Image.DecompressionBombError(f"{picture.width}x{picture.height} pixels")
    picture.load()
    if picture.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        transparent = picture.mode == "PA" or "transparency" in picture.info
        picture = picture.convert("RGBA" if transparent else "RGB")
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.mode in ("LA", "RGBa"):
        picture = picture.convert("RGBA")
    if picture.mode == "1":
        picture = picture.convert("L")
    return np.asarray(picture)


def _to_grey(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    if planes.shape[2] == 1:
        return planes[..., 0]
    grey = np.asarray(cv2.cvtColor(planes[..., :3], cv2.COLOR_RGB2GRAY), np.float32)
    if planes.shape[2] == 4 and (opaque := planes[..., 3] > 0).any() and not opaque.all():
        edge = cv2.dilate((~opaque).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        rim = grey[opaque & edge]
        # The rim shades from the chromosome into the background: its far end comes nearest to it.
        bright = np.median(grey[opaque]) >= np.median(rim)
        grey[~opaque] = np.percentile(rim, 5 if bright else 95)
    return grey
