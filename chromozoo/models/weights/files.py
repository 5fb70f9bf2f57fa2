"""TODO docstring."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

from chromozoo.errors import OutputError, WeightsError
from chromozoo.files import replace_file

# Files of other networks, and checkpoints, hold the state of the optimiser, too.
MAX_FILE_BYTES = 4 << 30


def split_safetensors(data: bytes) -> tuple[bytes, bytes]:
    """JSON header and tensor bytes of a safetensors file (8 bytes of length come first)."""
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], data[end:]


def read_file(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise WeightsError(f"{path}: is no file; check the path")
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise WeightsError(f"{path}: has {size:,} bytes, more than any weights; check the path")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check_hash(path: Path, data: bytes, expected: str, found: str, size: int | None = None) -> None:
    """Raises a WeightsError with the remedy unless the hashes are equal."""
    if found != expected:
        wrong = _what_is_wrong(data) or "has been altered or damaged"
        if size is not None and len(data) < size and "git" not in wrong:
            wrong = f"is truncated ({len(data)} of {size} bytes)"
        raise WeightsError(
            f"{path}: {wrong} (sha256 expected {expected}, found {found}); "
            f"delete it and load again, or restore it from the repository"
        )


def _what_is_wrong(data: bytes) -> str:
    if data.startswith(b"version https://git-lfs"):
        return "is a git-LFS pointer, not the file itself (run: git lfs pull)"
    return "" if data else "is empty"


def temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")


def write_file(path: Path, data: bytes) -> None:
    """Writes a file as a whole, and its folder.

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
