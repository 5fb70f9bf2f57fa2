"""Reading, writing and hashes of weights files."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

from chromozoo.errors import OutputError, WeightsError
from chromozoo.files import replace_file

# Checkpoints are larger than weights: they hold the state of the optimiser, too.
MAX_FILE_BYTES = 4 << 30


def split_safetensors(data: bytes) -> tuple[bytes, bytes]:
    """Return the JSON header and the tensor bytes of a safetensors file."""
    # The first 8 bytes are the length of the header.
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], data[end:]


def read_file(path: Path) -> bytes:
    """Read a whole file.

    Raises:
        WeightsError: It is no file, too large, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise WeightsError(f"{path}: is no file; check the path")
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise WeightsError(f"{path}: has {size:,} bytes, more than any weights; check the path")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def sha256_of(data: bytes) -> str:
    """Return the sha256 of bytes as a hexadecimal text."""
    return hashlib.sha256(data).hexdigest()


def check_hash(path: Path, data: bytes, expected: str, found: str, size: int | None = None) -> None:
    """Check that two hashes are equal.

    Raises:
        WeightsError: They differ; the message says the probable cause and the remedy.
    """
    if found != expected:
        wrong = describe_damage(data) or "has been altered or damaged"
        if size is not None and len(data) < size and "git" not in wrong:
            wrong = f"is truncated ({len(data)} of {size} bytes)"
        raise WeightsError(
            f"{path}: {wrong} (sha256 expected {expected}, found {found}); "
            f"delete it and load again, or restore it from the repository"
        )


def describe_damage(data: bytes) -> str:
    """Return the visible damage of a file, or an empty text."""
    if data.startswith(b"version https://git-lfs"):
        return "is a git-LFS pointer, not the file itself (run: git lfs pull)"
    return "" if data else "is empty"


def temporary_name(path: Path) -> Path:
    """Return a unique path beside ``path`` to write to before the file is renamed."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")


def write_file(path: Path, data: bytes) -> None:
    """Write a file atomically, and make its folder.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path.parent}: cannot be made a folder ({error.strerror}); name another"
        ) from error
    replace_file(path, data)
