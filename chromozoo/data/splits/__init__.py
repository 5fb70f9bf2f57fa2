"""Splits: which cells or patients form the train, validation and test parts of a data set.

Data sets of single chromosomes are split by cell or patient and never by image, because one
metaphase gives 46 chromosomes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from chromozoo.data.io.archive import name_bytes
from chromozoo.errors import UnknownNameError

STAGES = ("train", "val", "test")
FOLDS = 5


@dataclass(frozen=True)
class Split:
    """The division of a data set into train, validation and test parts.

    Attributes:
        name: ``"bioimlab_v1"``, or ``"bioimlab_v1/fold0"`` for a fold.
        sha256: Hash of the split's file, which all folds share; of the parts for a drawn split.
        train, val, test: Ids of the units: numbers of cells, or names of cells or images.
        excluded: Ids that no part uses; the file gives the reason.
    """

    name: str
    sha256: str
    train: tuple[Any, ...]
    val: tuple[Any, ...]
    test: tuple[Any, ...]
    excluded: tuple[Any, ...] = ()

    def ids(self, stage: str) -> tuple[Any, ...]:
        """Return the ids of ``"train"``, ``"val"``, ``"test"`` or ``"all"``.

        Raises:
            UnknownNameError: No such part.
        """
        if stage == "all":
            return tuple(sorted(self.train + self.val + self.test))
        if stage not in STAGES:
            raise UnknownNameError(f"unknown stage {stage!r}; known are train, val, test, all")
        ids: tuple[Any, ...] = getattr(self, stage)
        return ids

    def divide_members(self, owners: Mapping[str, str]) -> "Split":
        """Return the same division of the members of the ids, such as the cells of patients.

        Args:
            owners: Id in this split by member, such as the patient by cell.
        """
        parts = (
            tuple(sorted(member for member, owner in owners.items() if owner in ids))
            for ids in map(set, (self.train, self.val, self.test, self.excluded))
        )
        return Split(self.name, self.sha256, *parts)


def load_split(name: str, fold: int | None = None) -> Split:
    """Read a committed split, or one of its folds.

    Fold k tests on part k, validates on part k + 1 and trains on the others.

    Args:
        name: Stem of the file, such as ``"bioimlab_v1"``.
        fold: None for train/val/test, else 0 to 4.

    Raises:
        UnknownNameError: No such split or fold.
    """
    file = resources.files(__name__) / f"{name}.json"
    if not file.is_file():
        files = (item.name for item in resources.files(__name__).iterdir())
        known = sorted(item.removesuffix(".json") for item in files if item.endswith(".json"))
        raise UnknownNameError(f"unknown split {name!r}; known are {', '.join(known)}")
    data = file.read_bytes()
    sha256, lists = hashlib.sha256(data).hexdigest(), json.loads(data)
    if fold is None:
        parts = (tuple(lists.get(part, ())) for part in (*STAGES, "excluded"))
        return Split(name, sha256, *parts)
    folds = lists.get("folds")
    if folds is None:
        raise UnknownNameError(f"split {name!r} has no folds; use it without")
    if not 0 <= fold < len(folds):
        raise UnknownNameError(f"split {name!r} has folds 0 to {len(folds) - 1}, not {fold}")
    val = (fold + 1) % len(folds)
    train = sorted(i for k, part in enumerate(folds) if k not in (fold, val) for i in part)
    return Split(f"{name}/fold{fold}", sha256, tuple(train), tuple(folds[val]), tuple(folds[fold]))


def draw_split(name: str, ids: Iterable[str], fold: int | None = None) -> Split:
    """Divide the ids of a data set without a committed split.

    The hash of an id decides its part, so ids do not move when others are added or removed: 70 %
    train, 10 % val, 20 % test, or one of five folds as in :func:`load_split`.

    Args:
        name: Name of the data set; the split is named ``"<name>_drawn"``.
        ids: Ids of cells, patients or files.
        fold: None for train/val/test, else 0 to 4.

    Raises:
        UnknownNameError: No such fold.
    """
    if fold is not None and not 0 <= fold < FOLDS:
        raise UnknownNameError(f"split {name!r} has folds 0 to {FOLDS - 1}, not {fold}")
    parts: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for one in sorted(set(ids)):
        digest = hashlib.sha256(name_bytes(one)).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if fold is None:
            stage = "test" if place < 0.2 else "val" if place < 0.3 else "train"
        else:
            stage = {fold: "test", (fold + 1) % FOLDS: "val"}.get(int(place * FOLDS), "train")
        parts[stage].append(one)
    sha256 = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    full_name = f"{name}_drawn" if fold is None else f"{name}_drawn/fold{fold}"
    return Split(full_name, sha256, *(tuple(parts[stage]) for stage in STAGES))
