"""Identity of a result: content of the image, weights, options and version of the software.

The identity is stored in the JSON of a result. A result is reused only if its whole identity is
unchanged. Names and modification times of files are not part of it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chromozoo import __version__
from chromozoo.batch.images import file_sha256

# Attributes of a karyotyper that change its results.
KARYOTYPER_OPTIONS = (
    "stain",
    "assignment",
    "score",
    "min_margin",
    "min_probability",
    "min_certain_score",
)
# Fields of a weights entry that change the predictions, but are not part of the hashed file.
_ENTRY_SETTINGS = ("init_args", "preprocessing", "temperature", "conformal")


def weights_identity(model: Any, weights: str) -> dict[str, Any]:
    """Return the name of a model, the hash of its weights file and the hash of its settings.

    Args:
        model: Model of the zoo.
        weights: Tag or path of its weights; the file of a checkpoint is hashed.
    """
    entry = model.weights_entry
    if entry is None:
        name = type(model).__name__
        if not weights.lower().endswith(".ckpt"):
            return {"name": name, "weights": None, "sha256": None, "settings": None}
        path = Path(weights)
        return {"name": name, "weights": path.name, "sha256": file_sha256(path), "settings": None}
    settings = {name: getattr(entry, name, None) for name in _ENTRY_SETTINGS}
    text = json.dumps(settings, sort_keys=True, default=str)
    return {
        "name": entry.model,
        "weights": entry.file,
        "sha256": entry.sha256,
        "settings": hashlib.sha256(text.encode()).hexdigest(),
    }


def software_identity(result_format: int) -> dict[str, Any]:
    """Return the version of ChromoZoo and the version of the result's JSON format."""
    return {"chromozoo": __version__, "format": result_format}


def describe_weights(model: Any) -> dict[str, Any]:
    """Return the keys ``model`` and ``weights`` of the JSON of a model's results."""
    entry = model.weights_entry
    if entry is None:
        return {"model": type(model).__name__, "weights": None}
    return {"model": entry.model, "weights": {"file": entry.file, "sha256": entry.sha256}}


def identity_for_stain(identity: Mapping[str, Any], stain: str | None) -> dict[str, Any]:
    """Return the identity of a karyotype from that of the task: the stain selects the models.

    Args:
        identity: Identity with the models of each stain, see
            :meth:`chromozoo.batch.karyotype_task.KaryotypeTask.identity`.
        stain: ``"g"`` for G-band; any other stain uses the Q-band models.
    """
    models = identity["models"].get("g" if stain == "g" else "q")
    return {"models": models, "options": identity["options"], "software": identity["software"]}
