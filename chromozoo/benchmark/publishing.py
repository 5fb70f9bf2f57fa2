"""What may be written into the repository: results of the weights that are packaged in it.

``benchmark``, ``doubt``, ``abnormal`` and ``match`` measure weights of any origin. Only those of
packaged weights change the repository's CSVs, entries, cards and README by themselves; results of a
user's own file go where the user says, and say whose they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from chromozoo.benchmark.repository import ROOT
from chromozoo.errors import ChromozooError
from chromozoo.models.registry import models
from chromozoo.models.weights.index import weights_entries
from chromozoo.structures.weights_entry import WeightsEntry


def is_packaged(model: str, tag: str, sha256: str) -> bool:
    """Whether the repository has these very weights under this model and tag.

    Args:
        model: Name of the model.
        tag: Of the weights.
        sha256: Of their file, or its first digits.
    """
    own = weights_entries(model).get(tag) if model in models() else None
    return own is not None and len(sha256) >= 12 and own.sha256.startswith(sha256)


def label(entry: WeightsEntry) -> str:
    """What a result row calls weights: their tag where they are packaged, else their file.

    A file of the user's has the tag of the data that it has learnt from, and would be taken for the
    packaged weights of that data.
    """
    if is_packaged(entry.model, entry.tag, entry.sha256):
        return entry.tag
    return f"{entry.file} (own file)"


@dataclass(frozen=True)
class Destination:
    """Where rows go.

    Attributes:
        path: CSV that they are added to; None: they are shown, and not kept.
        published: Cards, entries and README follow.
        shipped: The repository's own CSV.
    """

    path: Path | None
    published: bool
    shipped: Path

    def say(self) -> str:
        """In words, for the end of a command."""
        if self.path is not None:
            return f"rows added to {self.path}"
        return (
            f"not added to {self.shipped}, which is for the weights of the repository; "
            "`--results FILE.csv` keeps the rows"
        )


def destination(
    asked: Path | None, shipped: Path, weights: Iterable[tuple[str, str, str]]
) -> Destination:
    """Where the rows of measured weights go.

    Args:
        asked: CSV that the user names, or None: the repository's, for packaged weights in a clone.
        shipped: The repository's own CSV.
        weights: Model, tag and sha256 (or its first 12 digits) of all that was measured.
    """
    own = all(is_packaged(*one) for one in weights) and shipped.parent.is_dir()
    path = asked or (shipped if own else None)
    same = path is not None and path.resolve() == shipped.resolve()
    return Destination(path, published=own and same, shipped=shipped)


def check_is_of_the_repository(config: Path, remedy: str) -> None:
    """Refuses to publish what is trained by a config that lies elsewhere.

    Raises:
        ChromozooError: It is no config of the repository.
    """
    configs = ROOT / "configs"
    if configs.resolve() not in config.resolve().parents:
        raise ChromozooError(
            f"{config}: is none of the configs in {configs}, and the repository is not changed for "
            f"others; {remedy}"
        )
