"""COCO's run lengths (RLE): masks as annotation tools and ``chromozoo segment`` write them.

The decoder of pycocotools and faster-coco-eval is in C and believes what it is given: run lengths
of a damaged file write beyond its memory. Here they are checked before anything is made of them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chromozoo.errors import DatasetError
from chromozoo.strict_json import shown, whole

# A character of the compressed text has 5 bits of a number and one that says: there are more.
_FIRST, _MORE, _BITS = 48, 0x20, 5
# 35 bits hold more than any image has pixels.
_LONGEST_NUMBER = 7


def read_mask(runs: Any, shape: tuple[int, int], name: str) -> NDArray[np.bool_]:
    """Decodes a mask.

    Args:
        runs: ``{"size": [height, width], "counts": ...}`` of a file, the counts as a list or as
            compressed text.
        shape: ``(H, W)`` of the image.
        name: What errors call the mask.

    Returns:
        ``(H, W)``.

    Raises:
        DatasetError: It is no mask, or of another image; the message begins with the name.
    """
    try:
        size = tuple(whole(side) for side in runs["size"])
        if size != shape:
            raise ValueError(
                f"it is of an image of {shown(list(size))}, height and width, not {list(shape)}"
            )
        counts = runs["counts"]
        lengths = _decompressed(counts) if isinstance(counts, str) else _listed(counts)
        pixels = shape[0] * shape[1]
        # Each by itself first: the sum of larger ones may overflow.
        if ((lengths < 0) | (lengths > pixels)).any() or lengths.sum() != pixels:
            raise ValueError("its runs do not add up to the image")
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise DatasetError(
            f"{name} is no mask in run lengths ({what}); export it again or remove it"
        ) from error
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(shape[::-1]).T


def _listed(counts: Any) -> NDArray[np.int64]:
    if not isinstance(counts, list):
        raise ValueError(f"counts is {shown(counts)}")
    return np.array([whole(count) for count in counts], np.int64)


def _decompressed(text: str) -> NDArray[np.int64]:
    """COCO's own variant of LEB128, as ``rleFrString`` of pycocotools reads it.

    From the fourth on, numbers are differences to the last but one.
    """
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - _FIRST
    if not codes.size:
        return codes
    if codes.min() < 0 or codes.max() >= 64 or codes[-1] & _MORE:
        raise ValueError("its text is damaged")
    ends = np.flatnonzero(codes & _MORE == 0)
    starts = np.append(0, ends[:-1] + 1)
    places = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    if places.max() >= _LONGEST_NUMBER:
        raise ValueError("its text is damaged")
    numbers = np.add.reduceat((codes & 0x1F) << (_BITS * places), starts)
    # The highest bit of the last character is the sign.
    numbers -= np.where(codes[ends] & 0x10, np.int64(1) << (_BITS * (places[ends] + 1)), 0)
    numbers[1::2] = numbers[1::2].cumsum()
    numbers[2::2] = numbers[2::2].cumsum()
    return numbers
