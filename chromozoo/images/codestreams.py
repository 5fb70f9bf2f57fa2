"""Headers of JPEG and JPEG 2000 codes, read before a decoder allocates memory."""

import re
import struct


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the height and width in the header of a JPEG code.

    Raises:
        ValueError: The code has no header.
    """
    offset = 2
    while offset + 9 <= len(data):
        if data[offset] != 0xFF:
            break
        marker = data[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[offset + 5 : offset + 9])
            return height, width
        else:
            offset += 2 + struct.unpack(">H", data[offset + 2 : offset + 4])[0]
    raise ValueError("a JPEG without header")


def jpeg2000_header(data: bytes) -> tuple[int, int, int, int]:
    """Return the sizes in the header of a JPEG 2000 code.

    Returns:
        Height, width and number of components, the largest if the file has several headers; and the
        maximum number of bits of a component, where a sign counts as 8 bits.

    Raises:
        ValueError: The code has no header.
    """
    claims = []
    max_bits = 0
    # Every header in the file is checked, because decoders may find any of them.
    for match in re.finditer(b"\xff\x4f\xff\x51", data):
        start = match.start() + 8
        header = data[start : start + 34]
        if len(header) == 34:
            right, bottom, left, top, *_, components = struct.unpack(">8LH", header)
            claims.append((bottom - top, right - left, components))
            # Three bytes for each component: sign and number of bits less one, then its grid.
            for depth in data[start + 34 : start + 34 + 3 * components : 3]:
                max_bits = max(max_bits, (depth & 127) + 1 + 8 * (depth > 127))
    if not claims:
        raise ValueError("a JPEG 2000 without header")
    return *max(claims, key=lambda claim: claim[0] * claim[1] * claim[2]), max_bits
