"""The index of published weights: their entries, by model and tag.

The entries of the zoo lie in ``chromozoo/models/weights/entries``; a model file that lives
elsewhere, such as a user's own, has its entries in ``weights/`` beside it.
"""

from glob import escape
from pathlib import Path

from chromozoo.errors import WeightsError
from chromozoo.models.weights.files import read_file, write_file
from chromozoo.structures.weights_entry import WeightsEntry

ENTRIES = Path(__file__).resolve().parent / "entries"
# Folders of the entries of models outside of this package, by name.
_folders: dict[str, Path] = {}


def set_entries_folder(model: str, folder: Path) -> None:
    """Declare the folder with the entries of a model that is not part of this package."""
    _folders[model] = folder


def weights_entries(model: str) -> dict[str, WeightsEntry]:
    """Read the entries of a model, by tag in alphabetical order. Does not import torch.

    Args:
        model: Registered name; an unknown one has no entries.

    Raises:
        WeightsError: An entry is damaged or has the wrong file name.
    """
    entries: dict[str, WeightsEntry] = {}
    if not model.isidentifier():  # a damaged name from a file
        return entries
    for file in sorted(_folders.get(model, ENTRIES).glob(f"{escape(model)}_*.json")):
        entry = WeightsEntry.from_json(read_file(file), file)
        if file.stem != f"{entry.model}_{entry.tag}":
            raise WeightsError(
                f"{file}: holds the entry of {entry.model!r}, tag {entry.tag!r}; "
                f"its name must be {entry.model}_{entry.tag}.json"
            )
        if entry.model == model:  # not so for model 'a' and the file 'a_b_tag.json' of model 'a_b'
            entries[entry.tag] = entry
    return entries


def write_entry(entry: WeightsEntry) -> Path:
    """Write an entry where :func:`weights_entries` finds it, and return its path."""
    folder = _folders.get(entry.model, ENTRIES)
    path = folder / f"{entry.model}_{entry.tag}.json"
    write_file(path, entry.to_json().encode())
    return path
