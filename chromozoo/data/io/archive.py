"""Location of data sets, and reading of their files from folders and zip files."""

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

# Largest size of a file of a data set, because files are read as a whole.
MAX_FILE_BYTES = 512 << 20
# Bit of the flags of a zip entry.
ENCRYPTED = 0x1
# Other methods are rare, and decompressing a few bytes may yield gigabytes before they are counted.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
STEP = 1 << 20


class Archive(Protocol):
    """A folder or a zip file: names with forward slashes, relative to its root."""

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    def read(self, name: str) -> bytes:
        """Read one file.

        Raises:
            DatasetError: The file is missing, damaged, encrypted or too large.
        """


def find_dataset(
    file_name: str, instructions: str, root: str | os.PathLike[str] | None = None
) -> Path:
    """Find the zip file of a data set or the folder unpacked from it.

    Args:
        file_name: Name of the zip file, ``"bioimlab-classification.zip"``; the folder has the same
            name without the suffix. ``root`` itself may also be either of them.
        instructions: Numbered steps to get the data, with ``{folder}`` in place of its folder.
        root: See :func:`chromozoo.folders.data_folders`.

    Raises:
        DatasetNotFoundError: The data set is not on this machine; the message has the steps.
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
    """Open a zip file or a folder for reading. Nothing is unpacked to the disk.

    Raises:
        DatasetError: The path does not exist; the zip file is damaged, of an unsupported kind, has
            two files of one name, or a name that leads out of it.
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
    """Return the bytes of a name in an archive: UTF-8, or the bytes of the file system."""
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
    """Return whether a file or folder exists; False also where the system cannot tell."""
    try:
        return path.exists()
    except OSError:  # the name is too long, or the folder may not be entered
        return False


def _is_file(path: Path) -> bool:
    return exists(path) and path.is_file()


class _Zip:
    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.archive = archive
        self.path = path
        self.members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            # Old packers on Windows write backslashes.
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
            # In steps: a stream may be longer than its header says.
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
    """Sort names by the numbers in them: 5, 24a, 24b, 107."""
    return sorted(keys, key=lambda key: ([_number_key(run) for run in _DIGITS.findall(key)], key))


def _number_key(digits: str) -> tuple[int, str]:
    """Return a key that sorts digits by value; Python refuses to parse thousands of digits."""
    significant = digits.lstrip("0")
    return len(significant), significant
