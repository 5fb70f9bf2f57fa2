"""Search for image files in the paths that a command gets."""

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from chromozoo.errors import ImageError
from chromozoo.files import is_result_image


@dataclass(frozen=True)
class FoundImages:
    """Image files of the given paths, and the paths that give no image.

    Attributes:
        files: Image files without duplicates; those of a folder are sorted by name.
        errors: Error message of each path that gives no image. It begins with the path.
        n_hidden: Number of hidden image files that were left out of folders.
        n_results: Number of result images of ChromoZoo that were left out of folders.
    """

    files: list[Path] = field(default_factory=list)
    errors: dict[Path, str] = field(default_factory=dict)
    n_hidden: int = 0
    n_results: int = 0

    def describe_left_out(self) -> list[str]:
        """Return one line about the files that were left out; no line if there are none."""
        parts = []
        if self.n_hidden:
            parts.append(f"{self.n_hidden} hidden file{'' if self.n_hidden == 1 else 's'}")
        if self.n_results:
            parts.append(
                f"{self.n_results} result{'' if self.n_results == 1 else 's'} of ChromoZoo"
            )
        return [f"Left out of the folder: {' and '.join(parts)}"] if parts else []


def find_images(paths: Iterable[Path]) -> FoundImages:
    """Find the image files among paths and in folders, by suffix.

    Hidden files, sub-folders and results of ChromoZoo are left out of folders. A file that is given
    by its own path is either an image or an error. No image is decoded.

    Raises:
        ImageError: No path gives an image; the message has one line for each path.
    """
    files: dict[tuple[str, str], Path] = {}
    errors: dict[Path, str] = {}
    n_hidden = n_results = 0
    for path in paths:
        if _is_folder(path):
            try:
                listed = _find_in_folder(path)
            except OSError as error:
                errors[path] = (
                    f"{printable_path(path)}: the folder cannot be read ({error.strerror}); "
                    "check its permissions"
                )
                continue
            n_hidden += listed.n_hidden
            n_results += listed.n_results
            if not listed.files and not listed.errors:
                errors[path] = _describe_empty_folder(path, listed)
            errors |= listed.errors
            found = listed.files
        elif message := _check_image_file(path):
            errors[path] = message
            continue
        else:
            found = [path]
        for file in found:
            # Two links to one file stay two images: their names may be the only difference.
            files.setdefault((os.path.realpath(file.parent), file.name), file)
    if not files:
        raise ImageError("\n".join(errors.values()) or "no image was given; name files or folders")
    return FoundImages(list(files.values()), errors, n_hidden, n_results)


def _find_in_folder(folder: Path) -> FoundImages:
    from chromozoo.images.reading import IMAGE_SUFFIXES

    files: list[Path] = []
    errors: dict[Path, str] = {}
    n_hidden = n_results = 0
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if path.suffix.lower() not in IMAGE_SUFFIXES or _is_folder(path):
            continue
        if name.startswith("."):
            n_hidden += 1
        elif message := _check_readable(path):
            errors[path] = message
        elif is_result(path):
            n_results += 1
        else:
            files.append(path)
    return FoundImages(files, errors, n_hidden, n_results)


def _describe_empty_folder(folder: Path, listed: FoundImages) -> str:
    from chromozoo.images.reading import IMAGE_SUFFIXES

    if listed.n_results:
        return (
            f"{printable_path(folder)}: the folder holds no image but {listed.n_results} results "
            "that ChromoZoo wrote; give the folder of the images"
        )
    hidden = f" but {listed.n_hidden} hidden ones" if listed.n_hidden else ""
    return (
        f"{printable_path(folder)}: the folder holds no image{hidden} "
        f"({', '.join(sorted(IMAGE_SUFFIXES))}); check the path"
    )


def _check_image_file(path: Path) -> str | None:
    """Return the error message of a path that is given as an image, or None."""
    if message := _check_readable(path):
        return message
    if is_result(path):
        return (
            f"{printable_path(path)}: this is a result that ChromoZoo wrote; give the image that "
            "it was made of"
        )
    return None


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:  # the path does not exist, or is a circular link
        return False


def _check_readable(path: Path) -> str | None:
    """Return the error message of a path that cannot be opened as a file, or None."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink():
            return (
                f"{printable_path(path)}: a link that leads to no file ({error.strerror}); mend or "
                "remove it"
            )
        if isinstance(error, FileNotFoundError):
            return f"{printable_path(path)}: no such image file; check the path"
        return f"{printable_path(path)}: cannot be read ({error.strerror}); check the path"
    if not stat.S_ISREG(mode):
        return f"{printable_path(path)}: is a pipe or a device; give an image file"
    if not os.access(path, os.R_OK):
        return f"{printable_path(path)}: cannot be read (no permission); change its permissions"
    return None


def is_result(path: Path) -> bool:
    """Return whether a file is a result image of ChromoZoo, by its PNG tag or its JSON."""
    if path.suffix.lower() != ".png":
        return False
    if is_result_image(path):
        return True
    # The first versions wrote no PNG tag; their results are recognised by the JSON.
    for ending in (".karyogram.png", ".overlay.png"):
        if path.name.endswith(ending):
            return _is_result_json(path.with_name(path.name.removesuffix(ending) + ".json"))
    return path.name == "karyogram.png" and _is_result_json(path.with_name("predictions.json"))


def _is_result_json(path: Path) -> bool:
    """Return whether a JSON file begins as a result of ChromoZoo."""
    try:
        with path.open("rb") as file:
            return b'"chromozoo"' in file.read(200)
    except OSError:
        return False


def printable_path(path: object) -> str:
    r"""Return a path as one encodable line; an undecodable byte becomes ``\udce9``."""
    from chromozoo.images.contents import printable

    return printable(str(path))


def escape_undecodable(text: str) -> str:
    """Escape undecodable bytes in a text of several lines, as :func:`printable_path` does."""
    return text.encode("utf-8", "backslashreplace").decode()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Raises:
        ImageError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(
            f"{printable_path(path)}: the file cannot be read ({error.strerror}); check the path"
        ) from error
