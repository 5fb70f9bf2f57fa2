"""Lines and faults that the verifications of all data sets have in common."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from chromozoo.classes import CLASSES
from chromozoo.data.base.crops import sha256_of
from chromozoo.data.io.archive import natural_order, open_archive
from chromozoo.data.splits import STAGES, Split
from chromozoo.errors import DatasetError
from chromozoo.images.reading import IMAGE_SUFFIXES


def content_line(contents: Iterable[bytes]) -> str:
    """Hash of all files of a set; where one cannot be read, the line says so."""
    try:
        return f"content sha256 {sha256_of(contents)}"
    except DatasetError:
        return "content sha256 unknown, for a file cannot be read"


def left_out_lines(path: Path, used: Iterable[str]) -> list[str]:
    """How many images of a set are not read, for their names are not of its layout.

    Args:
        path: Folder or zip file.
        used: Names of those that are read.
    """
    with open_archive(path) as archive:
        files = map(PurePosixPath, archive.names())
        images = {
            file.as_posix()
            for file in files
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
        }
    left_out = natural_order(images - {*used})
    if not left_out:
        return []
    named = ", ".join(name[:99] for name in left_out[:5])
    more = ", ..." if len(left_out) > 5 else ""
    return [
        f"left out, for their names are not of the layout: {len(left_out)} images ({named}{more})"
    ]


def class_line(labels: Iterable[int]) -> str:
    """How many chromosomes of each class (index into ``CLASSES``) there are."""
    by_class = Counter(labels)
    return "by class: " + ", ".join(f"{name}: {by_class[k]}" for k, name in enumerate(CLASSES))


def split_lines(
    split: Split, counts: Mapping[Any, int], unit: str = "cells", parts: str = "chromosomes"
) -> list[str]:
    """How much each stage has.

    Args:
        split: Lists the units.
        counts: Number of the parts of each unit that is there.
        unit: What the split lists, in the plural: cells or images.
        parts: What they hold.
    """
    lines = []
    for stage in STAGES:
        there = [one for one in split.ids(stage) if one in counts]
        lines.append(
            f"{split.name}/{stage}: {len(there)} {unit}, "
            f"{sum(counts[one] for one in there)} {parts}"
        )
    return lines


def split_faults(split: Split, there: Iterable[Any], unit: str = "cell") -> list[str]:
    """What the split or the set lacks of the other.

    Args:
        split: Lists the units.
        there: Units of the set.
        unit: What they are: a cell or an image.
    """
    listed, present = set(split.ids("all")), set(there)
    missing, unknown = listed - present, present - listed - set(split.excluded)
    return [
        *(f"{unit} {one} of the split is not in the data set" for one in _ordered(missing)),
        *(f"{unit} {one} is in no part of the split" for one in _ordered(unknown)),
    ]


def _ordered(units: set[Any]) -> list[Any]:
    """Numbers by size, names with numbers in them by these."""
    return sorted(units) if all(isinstance(one, int) for one in units) else natural_order(units)
