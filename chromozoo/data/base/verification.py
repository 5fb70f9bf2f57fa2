"""Report lines and faults of the verification of data sets."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from chromozoo.classes import CLASSES
from chromozoo.data.base.crop_dataset import sha256_of
from chromozoo.data.io.archive import natural_order, open_archive
from chromozoo.data.splits import STAGES, Split
from chromozoo.errors import DatasetError
from chromozoo.images.reading import IMAGE_SUFFIXES


def describe_content(contents: Iterable[bytes]) -> str:
    """Return a line with the hash of all files, or saying that a file cannot be read."""
    try:
        return f"content sha256 {sha256_of(contents)}"
    except DatasetError:
        return "content sha256 unknown, for a file cannot be read"


def describe_ignored_images(path: Path, used: Iterable[str]) -> list[str]:
    """Return a line about the images that are ignored because their names are of another layout.

    Args:
        path: Folder or zip file.
        used: Names of the images that are read.

    Returns:
        One line, or none where all images are read.
    """
    with open_archive(path) as archive:
        files = map(PurePosixPath, archive.names())
        images = {
            file.as_posix()
            for file in files
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
        }
    ignored = natural_order(images - {*used})
    if not ignored:
        return []
    examples = ", ".join(name[:99] for name in ignored[:5])
    more = ", ..." if len(ignored) > 5 else ""
    count = f"{len(ignored)} images"
    return [f"ignored, because their names are not of the layout: {count} ({examples}{more})"]


def describe_classes(labels: Iterable[int]) -> str:
    """Return a line with the number of chromosomes of each class (index into ``CLASSES``)."""
    by_class = Counter(labels)
    return "by class: " + ", ".join(f"{name}: {by_class[k]}" for k, name in enumerate(CLASSES))


def describe_split(
    split: Split, counts: Mapping[Any, int], unit: str = "cells", parts: str = "chromosomes"
) -> list[str]:
    """Return a line for each stage with the numbers of its units and parts.

    Args:
        split: Division of the units.
        counts: Number of parts of each unit of the data set.
        unit: Name of the units in the plural: cells or images.
        parts: Name of the parts in the plural.
    """
    lines = []
    for stage in STAGES:
        present = [one for one in split.ids(stage) if one in counts]
        lines.append(
            f"{split.name}/{stage}: {len(present)} {unit}, "
            f"{sum(counts[one] for one in present)} {parts}"
        )
    return lines


def find_split_faults(split: Split, units: Iterable[Any], unit: str = "cell") -> list[str]:
    """Find the units that only the split or only the data set has.

    Args:
        split: Division of the units.
        units: Units of the data set.
        unit: Name of a unit: cell or image.
    """
    listed, present = set(split.ids("all")), set(units)
    missing, unknown = listed - present, present - listed - set(split.excluded)
    return [
        *(f"{unit} {one} of the split is not in the data set" for one in _sort_units(missing)),
        *(f"{unit} {one} is in no part of the split" for one in _sort_units(unknown)),
    ]


def _sort_units(units: set[Any]) -> list[Any]:
    """Sort numbers by size, and names by the numbers in them."""
    return sorted(units) if all(isinstance(one, int) for one in units) else natural_order(units)
