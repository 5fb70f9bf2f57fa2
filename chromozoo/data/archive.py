"""Finding a data set, and reading its files whether it is zipped or unpacked."""

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from chromozoo.errors import DatasetError, DatasetNotFoundError

REPOSITORY = Path(__file__).resolve().parents[2]


class Archive(Protocol):
    """A folder or a zip file: names with forward slashes, relative to its root."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...


def data_folders(root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Where data sets are looked for, in order.

    ``root`` alone where given, else ``CHROMOZOO_DATA`` alone where set, else ``data/`` and
    ``../shared/data`` of the repository and ``data/`` here.
    """
    if root is not None:
        return [Path(root)]
    if told := os.environ.get("CHROMOZOO_DATA"):
        return [Path(told)]
    return [REPOSITORY / "data", REPOSITORY.parent / "shared" / "data", Path("data")]


def find_dataset(
    file_name: str, instructions: str, root: str | os.PathLike[str] | None = None
) -> Path:
    """Path of a data set: its zip file or, beside it, the folder unpacked from it.

    Args:
        file_name: Name of the zip file, ``"bioimlab-classification.zip"``; the folder is expected
            under the same name without the suffix. ``root`` itself may also be either of them.
        instructions: Numbered steps to get the data, with ``{folder}`` where it should lie.
        root: See :func:`data_folders`.

    Raises:
        DatasetNotFoundError: Not found; the message holds the steps.
    """
    folders = data_folders(root)
    for folder in folders:
        is_set = folder.is_file() or (folder.name == Path(file_name).stem and folder.exists())
        if root is not None and is_set:
            return folder
        for name in (file_name, Path(file_name).stem):
            if (folder / name).exists():
                return folder / name
    looked = ", ".join(str(folder / file_name) for folder in folders)
    raise DatasetNotFoundError(
        f"{file_name} is not on this machine (looked for {looked}).\n"
        + instructions.format(folder=folders[0].absolute())
    )


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Opens a zip file or a folder for reading.

    Raises:
        DatasetError: The zip file is damaged.
    """
    if path.is_dir():
        yield _Folder(path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DatasetError(
            f"{path}: not a whole zip file ({error}); fetch or copy it again"
        ) from error
    with archive:
        yield _Zip(archive, path)


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        files = (file for file in self.path.rglob("*") if file.is_file())
        return sorted(file.relative_to(self.path).as_posix() for file in files)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class _Zip:
    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.archive = archive
        self.path = path

    def names(self) -> list[str]:
        return sorted(name for name in self.archive.namelist() if not name.endswith("/"))

    def read(self, name: str) -> bytes:
        try:
            return self.archive.read(name)
        except Exception as error:  # BadZipFile, zlib.error, NotImplementedError (encrypted), ...
            raise DatasetError(
                f"{self.path}: {name} is damaged ({error}); fetch the archive again"
            ) from error
