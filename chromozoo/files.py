"""Files that nobody ever sees half of."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def replace_file(path: Path, data: bytes) -> None:
    """Writes under a name of its own, then renames: an interruption leaves the old file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_picture(path: Path, picture: "Image.Image") -> None:
    """Writes a PNG; the file is replaced as a whole."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    replace_file(path, buffer.getvalue())
