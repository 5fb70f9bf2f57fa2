"""Unique file names of results that every file system accepts."""

import hashlib
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

# With the longest ending, a page number and the suffix of a partial file, names of this length
# stay below the 255 bytes that file systems accept.
MAX_NAME_BYTES = 150
# Characters that Windows does not accept in file names, and `%`, which escapes them.
_RESERVED_CHARACTERS = frozenset('<>:"/\\|?*%')
_RESERVED_NAMES = frozenset(
    ("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)))
)
# Ending of the names that `page_name` makes.
_PAGE = re.compile(r"-(page|channel|frame|plane|max|mean|min)[a-z0-9-]*$", re.IGNORECASE)


def safe_name(stem: str) -> str:
    """Return a file name that every file system accepts; most names stay unchanged.

    Reserved characters become ``%`` and their code. A long name is cut and ends in a hash.
    """
    text = unicodedata.normalize("NFC", stem)
    text = "".join(_escape(character) for character in text).strip(" .") or "image"
    if text.partition(".")[0].lower() in _RESERVED_NAMES:
        text = f"_{text}"
    data = text.encode()
    if len(data) <= MAX_NAME_BYTES:
        return text
    end = "~" + hashlib.sha256(stem.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return data[: MAX_NAME_BYTES - len(end)].decode("utf-8", "ignore") + end


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # an undecodable byte of the file name
        return f"%{code - 0xDC00:02X}"
    is_control = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    if character in _RESERVED_CHARACTERS or is_control:
        return f"%{code:02X}"
    return character


def name_key(name: str) -> str:
    """Return a key that is equal for names that differ in case or Unicode composition alone."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class TakenNames:
    """Set of names that are taken, together with the names of their pages."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._keys: set[str] = set()
        self._with_pages: set[str] = set()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Add a name."""
        key = name_key(name)
        self._keys.add(key)
        if (stem := strip_page(key)) != key:
            self._with_pages.add(stem)

    def __contains__(self, name: str) -> bool:
        key = name_key(name)
        stem = strip_page(key)
        return key in self._keys or key in self._with_pages or (stem != key and stem in self._keys)


def page_name(name: str, suffix: str) -> str:
    """Return the name of the result of one image of a file, such as ``x-page2``."""
    return f"{name}-{safe_name(suffix)}"


def strip_page(name: str) -> str:
    """Remove the ending that :func:`page_name` adds; other names stay unchanged."""
    page = _PAGE.search(name)
    return name[: page.start()] if page else name


def unique_names(
    files: Sequence[Path], is_free: Callable[[str, Path], bool] = lambda name, file: True
) -> list[str]:
    """Return a unique name for the results of each image.

    The name is the stem of the file where that is unique. Otherwise the name of the folder is put
    in front, or the suffix or a number is added. No two names are equal where case is ignored, and
    no name looks like the page of another.

    Args:
        files: Image files.
        is_free: Returns whether a name may be used for a file; called in the order of preference.
    """
    candidates = [_candidate_names(file) for file in files]
    taken = TakenNames()
    chosen: dict[int, str] = {}

    def try_name(index: int, name: str) -> None:
        if name not in taken and is_free(name, files[index]):
            taken.add(name)
            chosen[index] = name

    # All files get a name of one kind before the next kind, so that unique stems stay unchanged.
    for level in zip(*candidates, strict=True):
        counts = Counter(name_key(name) for name in level)
        for index, name in enumerate(level):
            if index not in chosen and counts[name_key(name)] == 1:
                try_name(index, name)
    for index, names in enumerate(candidates):
        for number in itertools.count(2):
            if index in chosen:
                break
            try_name(index, safe_name(f"{names[-1]}_{number}"))
    return [chosen[index] for index in range(len(files))]


def _candidate_names(file: Path) -> list[str]:
    """Return names for the results of a file in the order of preference."""
    folder = Path(os.path.realpath(file.parent)).name
    stem, suffix = file.stem, file.suffix.removeprefix(".")
    names = (stem, f"{folder}_{stem}", f"{stem}_{suffix}", f"{folder}_{stem}_{suffix}")
    return [safe_name(name) for name in names]
