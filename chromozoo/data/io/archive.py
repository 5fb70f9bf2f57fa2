"""Finding a data set, and reading its files whether it is zipped or unpacked."""

import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from chromozoo.errors import DatasetError, DatasetNotFoundError
from chromozoo.folders import data_folders
from chromozoo.strict_json import short_repr

# What a file of a data set may have at most, also as a zip file claims it: it is read as a whole.
MAX_FILE_BYTES = 512 << 20
# Bit of a zip entry's flags.
ENCRYPTED = 0x1
# Of the others, which are rare, a few bytes may become gigabytes before anybody can count them.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
STEP = 1 << 20


class Archive(Protocol):
    """A folder or a zip file: names with forward slashes, relative to its root."""

    def names(self) -> list[str]:
        """Of all files, sorted."""

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            DatasetError: It is not there, damaged, encrypted or far too large.
        """


def find_dataset(
    file_name: str, instructions: str, root: str | os.PathLike[str] | None = None
) -> Path:
    """Path of a data set: its zip file or, beside it, the folder unpacked from it.

    Args:
        file_name: Name of the zip file, ``"bioimlab-classification.zip"``; the folder is expected
            under the same name without the suffix. ``root`` itself may also be either of them.
        instructions: Numbered steps to get the data, with ``{folder}`` where it should lie.
        root: See :func:`chromozoo.folders.data_folders`.

    Raises:
        DatasetNotFoundError: Not found; the message holds the steps.
    """
    folders = data_folders(root)
    for folder in folders:
        is_set = _is_file(folder) or (folder.name == Path(file_name).stem and exists(folder))
        if root is not None and is_set:
            return folder
        for name in (file_name, Path(file_name).stem):
            if exists(folder / name):
                return folder / name
    looked = ", ".join(str(folder / file_name) for folder in folders)
    raise DatasetNotFoundError(
        f"{file_name} is not on this machine (looked for {looked}).\n"
        + instructions.format(folder=folders[0].absolute())
    )


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Opens a zip file or a folder for reading. Nothing is ever unpacked to the disk.

    Raises:
        DatasetError: There is none; the zip file is damaged or of a kind that cannot be read, or
            has two files of one name or one that leads out of it.
    """
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if is_folder:
        yield _Folder(path)
        return
    if not is_file:  # a pipe would never end
        raise DatasetError(f"{path}: no such folder or zip file; check the path")
    try:
        archive = zipfile.ZipFile(path)
    except NotImplementedError as error:
        raise DatasetError(
            f"{path}: a zip file of a kind that cannot be read ({error}); pack it again as an "
            "ordinary one, or unpack it and name the folder"
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: a name in the zip file is said to be UTF-8 and is not ({error}); pack it "
            "again, or unpack it and name the folder"
        ) from error
    except Exception as error:  # BadZipFile, OSError, and others by the sort of damage
        raise DatasetError(
            f"{path}: not a whole zip file ({error}); fetch or copy it again"
        ) from error
    with archive:
        yield _Zip(archive, path)


def name_bytes(name: str) -> bytes:
    """A name of an archive for a hash: in UTF-8, or as the file system has it where it is not."""
    return name.encode("utf-8", "surrogateescape")


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return sorted(
            file.relative_to(self.path).as_posix()
            for file in self.path.rglob("*")
            if _is_file(file)
        )

    def read(self, name: str) -> bytes:
        file = self.path / name
        if not _is_file(file):
            raise DatasetError(f"{file}: no such file; check the path")
        try:
            _check_size(file.stat().st_size, str(file))
            return file.read_bytes()
        except OSError as error:
            raise DatasetError(
                f"{file}: cannot be read ({error.strerror}); check the disk and the rights"
            ) from error


def exists(path: Path) -> bool:
    """Whether there is a file or folder; False also where the system cannot say."""
    try:
        return path.exists()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def _is_file(path: Path) -> bool:
    return exists(path) and path.is_file()


class _Zip:
    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.archive = archive
        self.path = path
        self.members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            # Old packers on Windows write its separators.
            name = member.filename.replace("\\", "/")
            if name.endswith("/"):
                continue
            if name.startswith("/") or ".." in name.split("/"):
                raise DatasetError(
                    f"{path}: the name {short_repr(name)} leads out of the zip file; pack it again"
                )
            if name in self.members:
                raise DatasetError(
                    f"{path}: holds two files named {short_repr(name)}; pack it again with one"
                )
            self.members[name] = member

    def names(self) -> list[str]:
        return sorted(self.members)

    def read(self, name: str) -> bytes:
        source = f"{self.path}: {name}"
        member = self.members.get(name)
        if member is None:
            raise DatasetError(f"{source} is not there; fetch the archive again")
        if member.flag_bits & ENCRYPTED:
            raise DatasetError(
                f"{source} is encrypted; unpack the archive with its password and name the folder"
            )
        if member.compress_type not in METHODS:
            raise DatasetError(
                f"{source} is packed by a method that is not read (number {member.compress_type}); "
                "pack the archive again as an ordinary one (deflate), or unpack it and name the "
                "folder"
            )
        _check_size(member.file_size, source)
        try:
            # In steps: a stream that holds more than it claims is never decompressed as a whole.
            with self.archive.open(member) as file:
                return b"".join(iter(partial(file.read, STEP), b""))
        except Exception as error:  # BadZipFile, zlib.error, NotImplementedError, EOFError, ...
            raise DatasetError(f"{source} is damaged ({error}); fetch the archive again") from error


def _check_size(size: int, source: str) -> None:
    if size > MAX_FILE_BYTES:
        raise DatasetError(
            f"{source} has {size:,} bytes, more than any file of a data set ({MAX_FILE_BYTES:,}); "
            "divide it or fetch it again"
        )


_DIGITS = re.compile("[0-9]+")


def natural_order(keys: Iterable[str]) -> list[str]:
    """Sorted as people count: 5, 24a, 24b, 107."""
    return sorted(keys, key=lambda key: ([_number(run) for run in _DIGITS.findall(key)], key))


def _number(digits: str) -> tuple[int, str]:
    """Sorts as the number does; Python makes none of thousands of digits."""
    significant = digits.lstrip("0")
    return len(significant), significant
