"""What makes a result what it is: the content of the image, the weights, the options.

All of it stands in the JSON of the result. A result is taken for done only where all of it is
equal; neither names nor times of files count.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from chromozoo import __version__
from chromozoo.batch.images import digest

# Attributes of a karyotyper that change what it finds.
OPTIONS = ("stain", "assignment", "score", "min_margin", "min_probability", "min_certain_score")
# Of an entry of weights: what is not in their file, and changes what a model says.
_SETTINGS = ("init_args", "preprocessing", "temperature", "conformal")


def weights_of(model: Any, given: str) -> dict[str, Any]:
    """Name of a model, and the hashes of its weights and of what is recorded with them.

    Args:
        model: Of the zoo.
        given: The tag or the path of its weights; that of a checkpoint is hashed.
    """
    entry = model.weights_entry
    if entry is None:
        name = type(model).__name__
        if not given.lower().endswith(".ckpt"):
            return {"name": name, "weights": None, "sha256": None, "settings": None}
        path = Path(given)
        return {"name": name, "weights": path.name, "sha256": digest(path), "settings": None}
    settings = {name: getattr(entry, name, None) for name in _SETTINGS}
    text = json.dumps(settings, sort_keys=True, default=str)
    return {
        "name": entry.model,
        "weights": entry.file,
        "sha256": entry.sha256,
        "settings": hashlib.sha256(text.encode()).hexdigest(),
    }


def software() -> dict[str, Any]:
    """Version of ChromoZoo, and of the format of the results."""
    from chromozoo.visualization.report import FORMAT

    return {"chromozoo": __version__, "format": FORMAT}
