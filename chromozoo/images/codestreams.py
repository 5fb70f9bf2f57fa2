"""Sizes that JPEG and JPEG 2000 codes claim, read before a decoder allocates them."""

import re
import struct


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width that the header of a JPEG code claims.

    Raises:
        ValueError: It has no header.
    """
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return height, width
        else:
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    raise ValueError("a JPEG without header")


def jpeg2000_header(data: bytes) -> tuple[int, int, int, int]:
    """What the header of a JPEG 2000 code claims.

    Returns:
        Height, width and number of components, the largest where the file has several headers;
        and the most bits of a component, its sign counted as 8 more.

    Raises:
        ValueError: It has no header.
    """
    claims = []
    most_bits = 0
    # Wherever it may stand: a decoder finds the same one, or one of the others.
    for found in re.finditer(b"\xff\x4f\xff\x51", data):
        at = found.start() + 8
        header = data[at : at + 34]
        if len(header) == 34:
            right, bottom, left, top, *_, components = struct.unpack(">8LH", header)
            claims.append((bottom - top, right - left, components))
            # Three bytes for each component: its sign and its bits less one, and its grid.
            for depth in data[at + 34 : at + 34 + 3 * components : 3]:
                most_bits = max(most_bits, (depth & 127) + 1 + 8 * (depth > 127))
    if not claims:
        raise ValueError("a JPEG 2000 without header")
    return *max(claims, key=lambda claim: claim[0] * claim[1] * claim[2]), most_bits
