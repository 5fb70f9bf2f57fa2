"""Image formats, recognised by the first bytes of a file and never by its name."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG, TIFF, JPEG, JPEG2000 = "PNG", "TIFF", "JPEG", "JPEG2000"
# Supported formats, by their name in Pillow. WebP has its signature in two parts.
_SUPPORTED = {
    PNG_SIGNATURE: PNG,
    b"II*\0": TIFF,
    b"MM\0*": TIFF,
    b"II+\0": TIFF,
    b"MM\0+": TIFF,
    b"\xff\xd8\xff": JPEG,
    b"\0\0\0\x0cjP  \r\n\x87\n": JPEG2000,
    b"\xff\x4f\xff\x51": JPEG2000,
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
}
# Names that Pillow may give to images of supported formats.
PILLOW_FORMATS = {*_SUPPORTED.values(), "MPO", "WEBP"}
SUPPORTED_NAMES = "PNG, TIFF, JPEG, JPEG 2000, BMP, GIF or WebP"
# Unsupported formats that the error message names.
_UNSUPPORTED = {
    b"%!PS": "EPS or PostScript",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"%PDF": "PDF",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"\x01\0\0\0": "EMF",
    b"8BPS": "PSD (Photoshop)",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"P1": "PNM",
    b"P2": "PGM",
    b"P3": "PPM",
    b"P4": "PBM",
    b"P5": "PGM",
    b"P6": "PPM",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"II\xbc\x01": "JPEG XR",
    b"ZISRAWFILE": "CZI (Zeiss)",
    b"\x70\0\0\0": "LIF (Leica)",
    b"\xda\xce\xbe\x0a": "ND2 (Nikon)",
    b"\0\0\0\x0cjP  \x1a\x1a": "ND2 (Nikon)",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "GZIP",
    b"\x89HDF": "HDF5",
    b"SIMPLE  =": "FITS",
    b"\0\0\x01\0": "ICO",
}
# Bytes that the two functions need: DICOM has its signature behind a preamble.
HEAD_BYTES = 132


def supported_format(head: bytes) -> str | None:
    """Return Pillow's name of a supported format; None for any other.

    Args:
        head: First bytes of the file, up to :data:`HEAD_BYTES`.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return _match(_SUPPORTED, head)


def unsupported_format(head: bytes) -> str | None:
    """Return the name of a format that is known but not supported; None for unknown bytes."""
    if head[4:8] == b"ftyp":
        return "HEIC, AVIF or video"
    if name := _match(_UNSUPPORTED, head):
        return name
    return "DICOM" if head[128:132] == b"DICM" else None


def _match(signatures: dict[bytes, str], head: bytes) -> str | None:
    return next((name for start, name in signatures.items() if head.startswith(start)), None)
