"""Files that nobody ever sees half of."""

import os
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Writes under a name of its own, then renames: an interruption leaves the old file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
