"""What the commands over images share: which they are, and what their results are called."""

import hashlib
import itertools
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chromozoo.errors import ImageError
from chromozoo.files import DISCLAIMER, is_result_image

INTENDED_USE = DISCLAIMER
# The outlines of all images of a folder, see `chromozoo segment`.
COCO_NAME = "annotations.json"
# Names of results are cut to so many bytes: with the longest ending, the number of a page and the
# mark of an unfinished file they stay below the 255 that file systems take.
MAX_NAME_BYTES = 150
# What the file systems of Windows do not take in a name, and `%`, which stands for it.
_RESERVED_SIGNS = frozenset('<>:"/\\|?*%')
_RESERVED_NAMES = frozenset(
    ("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)))
)
# How the names of the images of one file end, see `page_name`.
_PAGE = re.compile(r"-(page|channel|frame|plane|max|mean|min)[a-z0-9-]*$", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """The images that were given to a command.

    Attributes:
        files: Each once, those of a folder in the order of their names.
        faults: Why a path gives no image, by the path; each message begins with its name.
        hidden: Number of hidden images in the folders, which were left out.
        results: Number of ChromoZoo's own results in the folders, which were left out.
    """

    files: list[Path] = field(default_factory=list)
    faults: dict[Path, str] = field(default_factory=dict)
    hidden: int = 0
    results: int = 0

    def notes(self) -> list[str]:
        """What was left out, in words."""
        words = []
        if self.hidden:
            words.append(f"{self.hidden} hidden file{'' if self.hidden == 1 else 's'}")
        if self.results:
            words.append(f"{self.results} result{'' if self.results == 1 else 's'} of ChromoZoo")
        return [f"Left out of the folder: {' and '.join(words)}"] if words else []


def find_images(paths: Iterable[Path]) -> Found:
    """The files, and those in the folders that have the suffix of an image.

    Hidden files and sub-folders are left out of folders, and so are results of ChromoZoo, by
    whatever name. What is given by its own name is either an image or a fault. Nothing but the
    kind of a file and the marks of a result are looked at.

    Raises:
        ImageError: There is not one image; the message tells of every path why.
    """
    files: dict[tuple[str, str], Path] = {}
    faults: dict[Path, str] = {}
    hidden = results = 0
    for path in paths:
        if _is_folder(path):
            try:
                listed = _images_in(path)
            except OSError as error:
                faults[path] = (
                    f"{shown(path)}: the folder cannot be read ({error.strerror}); "
                    "check its permissions"
                )
                continue
            hidden += listed.hidden
            results += listed.results
            if not listed.files and not listed.faults:
                faults[path] = _nothing_in(path, listed)
            faults |= listed.faults
            inside = listed.files
        elif fault := _fault(path):
            faults[path] = fault
            continue
        else:
            inside = [path]
        for file in inside:
            # Two links to one file are two images: their names may be all that tells them apart.
            files.setdefault((os.path.realpath(file.parent), file.name), file)
    if not files:
        raise ImageError("\n".join(faults.values()) or "no image was given; name files or folders")
    return Found(list(files.values()), faults, hidden, results)


def _images_in(folder: Path) -> Found:
    from chromozoo.images.reading import IMAGE_SUFFIXES

    files: list[Path] = []
    faults: dict[Path, str] = {}
    hidden = results = 0
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if path.suffix.lower() not in IMAGE_SUFFIXES or _is_folder(path):
            continue
        if name.startswith("."):
            hidden += 1
        elif fault := _unreadable(path):
            faults[path] = fault
        elif is_result(path):
            results += 1
        else:
            files.append(path)
    return Found(files, faults, hidden, results)


def _nothing_in(folder: Path, listed: Found) -> str:
    from chromozoo.images.reading import IMAGE_SUFFIXES

    if listed.results:
        return (
            f"{shown(folder)}: the folder holds no image but {listed.results} results that "
            "ChromoZoo wrote; give the folder of the images"
        )
    hidden = f" but {listed.hidden} hidden ones" if listed.hidden else ""
    return (
        f"{shown(folder)}: the folder holds no image{hidden} "
        f"({', '.join(sorted(IMAGE_SUFFIXES))}); check the path"
    )


def _fault(path: Path) -> str | None:
    """Why a path that was given is no image, or None."""
    if fault := _unreadable(path):
        return fault
    if is_result(path):
        return (
            f"{shown(path)}: this is a result that ChromoZoo wrote; give the image that it was "
            "made of"
        )
    return None


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:  # not there, or a link that leads round in a circle
        return False


def _unreadable(path: Path) -> str | None:
    """Why a path cannot be opened as a file, or None."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink():
            return (
                f"{shown(path)}: a link that leads to no file ({error.strerror}); mend or remove it"
            )
        if isinstance(error, FileNotFoundError):
            return f"{shown(path)}: no such image file; check the path"
        return f"{shown(path)}: cannot be read ({error.strerror}); check the path"
    if not stat.S_ISREG(mode):
        return f"{shown(path)}: is no file but a pipe or a device; give an image file"
    if not os.access(path, os.R_OK):
        return f"{shown(path)}: cannot be read (no permission); change its permissions"
    return None


def is_result(path: Path) -> bool:
    """Whether a file is an image that ChromoZoo drew: by its mark, or by what lies beside it."""
    if path.suffix.lower() != ".png":
        return False
    if is_result_image(path):
        return True
    # What the versions before the mark wrote: the JSON of the same result tells.
    for ending in (".karyogram.png", ".overlay.png"):
        if path.name.endswith(ending):
            return _is_own_json(path.with_name(path.name.removesuffix(ending) + ".json"))
    return path.name == "karyogram.png" and _is_own_json(path.with_name("predictions.json"))


def _is_own_json(path: Path) -> bool:
    """Whether a JSON file begins as ChromoZoo's results do."""
    try:
        with path.open("rb") as file:
            return b'"chromozoo"' in file.read(200)
    except OSError:
        return False


def shown(path: object) -> str:
    r"""A path as one line that can be encoded: a byte that is no text becomes ``\udce9``."""
    from chromozoo.images.contents import printable

    return printable(str(path))


def encodable(text: str) -> str:
    """A text of several lines, with the same escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def digest(path: Path) -> str:
    """The sha256 of a file's content.

    Raises:
        ImageError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(
            f"{shown(path)}: the file cannot be read ({error.strerror}); check the path"
        ) from error


# Names of results


def safe_name(stem: str) -> str:
    """A name that every file system takes, from any other; most names stay as they are.

    Signs that cannot stand in a name become ``%`` and their number, and a long name is cut and gets
    a hash of the whole in place of its end.
    """
    text = unicodedata.normalize("NFC", stem)
    text = "".join(_escaped(sign) for sign in text).strip(" .") or "image"
    if text.partition(".")[0].lower() in _RESERVED_NAMES:
        text = f"_{text}"
    data = text.encode()
    if len(data) <= MAX_NAME_BYTES:
        return text
    end = "~" + hashlib.sha256(stem.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return data[: MAX_NAME_BYTES - len(end)].decode("utf-8", "ignore") + end


def _escaped(sign: str) -> str:
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no text
        return f"%{code - 0xDC00:02X}"
    if sign in _RESERVED_SIGNS or unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp"):
        return f"%{code:02X}"
    return sign


def name_key(name: str) -> str:
    """Equal for names that some file system does not tell apart: capitals, composed letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class Names:
    """Names that are taken; what looks like a page of another one is not free either."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._keys: set[str] = set()
        self._with_pages: set[str] = set()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Takes a name."""
        key = name_key(name)
        self._keys.add(key)
        if (stem := without_page(key)) != key:
            self._with_pages.add(stem)

    def __contains__(self, name: str) -> bool:
        key = name_key(name)
        stem = without_page(key)
        return key in self._keys or key in self._with_pages or (stem != key and stem in self._keys)


def page_name(name: str, suffix: str) -> str:
    """Name of the result of one image of a file that holds several, such as ``x-page2``."""
    return f"{name}-{safe_name(suffix)}"


def without_page(name: str) -> str:
    """What :func:`page_name` was made of; other names as they are."""
    page = _PAGE.search(name)
    return name[: page.start()] if page else name


def output_names(
    files: Sequence[Path], is_free: Callable[[str, Path], bool] = lambda name, file: True
) -> list[str]:
    """Name of each image's results: its stem, where that is unique.

    Else the name of its folder stands before it, or its suffix behind it, or a number. No two are
    equal, also where capitals do not count, nor does one look like the page of another.

    Args:
        files: The images.
        is_free: Whether a name may be taken for a file; asked in the order of preference.
    """
    listed = [_candidates(file) for file in files]
    taken = Names()
    chosen: dict[int, str] = {}

    def take(index: int, name: str) -> None:
        if name not in taken and is_free(name, files[index]):
            taken.add(name)
            chosen[index] = name

    # One kind of name after the other: no stem that is unique gives way to a made up name.
    for level in zip(*listed, strict=True):
        counts = Counter(name_key(name) for name in level)
        for index, name in enumerate(level):
            if index not in chosen and counts[name_key(name)] == 1:
                take(index, name)
    for index, names in enumerate(listed):
        for number in itertools.count(2):
            if index in chosen:
                break
            take(index, safe_name(f"{names[-1]}_{number}"))
    return [chosen[index] for index in range(len(files))]


def _candidates(file: Path) -> list[str]:
    """Names for the results of a file, the best first."""
    folder = Path(os.path.realpath(file.parent)).name
    stem, suffix = file.stem, file.suffix.removeprefix(".")
    names = (stem, f"{folder}_{stem}", f"{stem}_{suffix}", f"{folder}_{stem}_{suffix}")
    return [safe_name(name) for name in names]
