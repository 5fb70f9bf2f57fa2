"""Atomic file writes, and PNG files that are marked as results of ChromoZoo."""

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from chromozoo import __version__
from chromozoo.errors import OutputError

if TYPE_CHECKING:
    from PIL import Image

# Part of every result.
DISCLAIMER = "Research use only, not for diagnosis."
# Text chunk of every PNG that shows a result, so that no command takes one for an input image.
SOFTWARE = f"ChromoZoo {__version__}"
_SOFTWARE_KEY = b"Software\0"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def replace_file(path: Path, data: bytes) -> None:
    """Write a file atomically: an interruption leaves the old file in place.

    Args:
        path: File to write or replace; its folder must exist.
        data: The new content.

    Raises:
        OutputError: The file cannot be written; the system's error is its ``__cause__``.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the folder is gone or read-only
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(
                f"{path}: cannot be written ({error.strerror or error}); free space or name "
                "another folder"
            ) from error
        raise


def remove_file(path: Path) -> None:
    """Remove a result before it is replaced; do nothing if there is no such file.

    Raises:
        OutputError: The file cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be replaced ({error.strerror or error}); remove it or name another "
            "folder"
        ) from error


def write_image(path: Path, image: "Image.Image") -> None:
    """Write a PNG that shows a result, atomically.

    The PNG names ChromoZoo as its software, which :func:`is_result_image` recognises.
    """
    from PIL.PngImagePlugin import PngInfo

    metadata = PngInfo()
    metadata.add_text("Software", SOFTWARE)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=metadata)
    replace_file(path, buffer.getvalue())


def is_result_image(path: Path) -> bool:
    """Return whether :func:`write_image` wrote this file, whatever its name is.

    Only the chunk headers of the PNG are read. A file that cannot be read gives False.
    """
    try:
        if not path.is_file():  # reading a pipe would block
            return False
        with path.open("rb") as file:
            return file.read(8) == _PNG_SIGNATURE and _has_software_chunk(file)
    except OSError:
        return False


def _has_software_chunk(file: BinaryIO) -> bool:
    """Return whether one of a PNG's chunks names ChromoZoo; ``file`` is at the first chunk."""
    # The limit bounds the time for hostile files: a PNG of ours has a few chunks.
    for _ in range(10_000):
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or kind == b"IEND":
            return False
        if kind in (b"tEXt", b"iTXt") and length < 1000:
            text = file.read(length)
            value = text.rpartition(b"\0")[2]
            if text.startswith(_SOFTWARE_KEY) and value.startswith(b"ChromoZoo "):
                return True
            length = 0
        file.seek(length + 4, os.SEEK_CUR)
    return False
