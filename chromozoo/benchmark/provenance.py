"""Whether measured weights are those of the repository."""

from chromozoo.models.weights.index import weights_entries
from chromozoo.structures.weights_entry import WeightsEntry

MIN_DIGITS = 12  # of a sha256 in a result row


def is_packaged(model: str, tag: str, sha256: str) -> bool:
    """Whether the package lists these weights under this model and tag.

    Args:
        model: Registered name.
        tag: Tag of the weights.
        sha256: Hash of the weights file, or its first 12 digits or more.
    """
    entry = weights_entries(model).get(tag)
    return entry is not None and len(sha256) >= MIN_DIGITS and entry.sha256.startswith(sha256)


def weights_label(entry: WeightsEntry) -> str:
    """Name weights in a result row: by their tag if they are packaged, else by their file.

    A file of a user carries the tag of its training data, and would be taken for the packaged
    weights of that tag.
    """
    if is_packaged(entry.model, entry.tag, entry.sha256):
        return entry.tag
    return f"{entry.file} (own file)"
