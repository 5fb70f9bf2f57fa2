"""Decoder for COCO run-length encoded masks (RLE), with checks.

The C decoder of pycocotools and faster-coco-eval trusts its input: run lengths of a damaged file
make it write beyond its memory. Here they are checked before a mask is allocated.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import DatasetError
from chromozoo.strict_json import parse_int, short_repr

# A character of the compressed text holds 5 bits of a number, and one bit that more follow.
_FIRST_CODE, _MORE_BIT, _BITS = 48, 0x20, 5
# 35 bits hold more than the number of pixels of any image.
_MAX_NUMBER_LENGTH = 7


def read_mask(runs: Any, shape: tuple[int, int], name: str) -> NDArray[np.bool_]:
    """Decode a mask.

    Args:
        runs: ``{"size": [height, width], "counts": ...}``, the counts as a list or compressed text.
        shape: ``(H, W)`` of the image.
        name: Name of the mask in error messages.

    Returns:
        Mask ``(H, W)``.

    Raises:
        DatasetError: The runs are damaged, or belong to an image of another size; the message
            begins with the name.
    """
    try:
        size = tuple(parse_int(side) for side in runs["size"])
        if size != shape:
            raise ValueError(
                f"it is of an image of {short_repr(list(size))}, height and width, "
                f"not {list(shape)}"
            )
        counts = runs["counts"]
        lengths = _decompress(counts) if isinstance(counts, str) else _read_list(counts)
        pixels = shape[0] * shape[1]
        # Each length is checked first, because the sum of larger ones may overflow.
        if ((lengths < 0) | (lengths > pixels)).any() or lengths.sum() != pixels:
            raise ValueError("its runs do not add up to the image")
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise DatasetError(
            f"{name} is not a run-length encoded mask ({reason}); export it again or remove it"
        ) from error
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(shape[::-1]).T


def _read_list(counts: Any) -> NDArray[np.int64]:
    if not isinstance(counts, list):
        raise ValueError(f"counts is {short_repr(counts)}")
    return np.array([parse_int(count) for count in counts], np.int64)


def _decompress(text: str) -> NDArray[np.int64]:
    """Decompress COCO's variant of LEB128, as ``rleFrString`` of pycocotools does.

    From the fourth number on, each is the difference to the last but one.
    """
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - _FIRST_CODE
    if not codes.size:
        return codes
    if codes.min() < 0 or codes.max() >= 64 or codes[-1] & _MORE_BIT:
        raise ValueError("its text is damaged")
    ends = np.flatnonzero(codes & _MORE_BIT == 0)
    starts = np.append(0, ends[:-1] + 1)
    places = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    if places.max() >= _MAX_NUMBER_LENGTH:
        raise ValueError("its text is damaged")
    numbers = np.add.reduceat((codes & 0x1F) << (_BITS * places), starts)
    # The highest bit of the last character is the sign.
    numbers -= np.where(codes[ends] & 0x10, np.int64(1) << (_BITS * (places[ends] + 1)), 0)
    numbers[1::2] = numbers[1::2].cumsum()
    numbers[2::2] = numbers[2::2].cumsum()
    return numbers
