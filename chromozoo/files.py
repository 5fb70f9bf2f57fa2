"""Files that nobody ever sees half of, and that are known again as results of ChromoZoo."""

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from chromozoo import __version__
from chromozoo.errors import OutputError

if TYPE_CHECKING:
    from PIL import Image

# Stands in every result.
DISCLAIMER = "Research use only, not for diagnosis."
# Stands in every PNG that shows a result, so that no command takes one for an image of its own.
SOFTWARE = f"ChromoZoo {__version__}"
_SOFTWARE_KEY = b"Software\0"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def replace_file(path: Path, data: bytes) -> None:
    """Writes under a name of its own, then renames: an interruption leaves the old file.

    Raises:
        OutputError: It cannot be written; the message ends with a remedy, and the error of the
            system is its ``__cause__``.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the folder is gone or read-only: nothing to tidy up
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(
                f"{path}: cannot be written ({error.strerror or error}); free space or name "
                "another folder"
            ) from error
        raise


def remove_file(path: Path) -> None:
    """Removes a result that is to be replaced; none is no fault.

    Raises:
        OutputError: It cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be replaced ({error.strerror or error}); remove it or name another "
            "folder"
        ) from error


def write_image(path: Path, image: "Image.Image") -> None:
    """Writes a PNG that shows a result; the file is replaced as a whole.

    It names ChromoZoo as its software, see :func:`is_result_image`.
    """
    from PIL.PngImagePlugin import PngInfo

    about = PngInfo()
    about.add_text("Software", SOFTWARE)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=about)
    replace_file(path, buffer.getvalue())


def is_result_image(path: Path) -> bool:
    """Whether a file is a PNG that :func:`write_image` made, under whatever name.

    Only the heads of the PNG's chunks are read. False for what cannot be read.
    """
    try:
        if not path.is_file():  # a pipe would never end
            return False
        with path.open("rb") as file:
            return file.read(8) == _PNG_SIGNATURE and _names_chromozoo(file)
    except OSError:
        return False


def _names_chromozoo(file: BinaryIO) -> bool:
    """Looks for the text chunk, from the first chunk of a PNG on."""
    # Images have a few chunks, or one for every row: a file of more is none of ours.
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
