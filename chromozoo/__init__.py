"""ChromoZoo: trained networks of the published systems for human karyotyping.

Importing the package is fast: torch is imported when a model is built, not before.

Example:
    >>> import chromozoo
    >>> model = chromozoo.get_model("chrnet4")
    >>> [result.label for result in model.classify(["chromosome.png"])]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chromozoo.classes import CLASSES
    from chromozoo.models.karyotyper import get_karyotyper
    from chromozoo.models.registry import (
        get_classifier,
        get_model,
        get_segmenter,
        get_weight,
        list_models,
    )

__version__ = "0.1.0"
__all__ = [
    "CLASSES",
    "__version__",
    "get_classifier",
    "get_karyotyper",
    "get_model",
    "get_segmenter",
    "get_weight",
    "list_models",
]

_HOME_OF = {
    "CLASSES": "chromozoo.classes",
    "get_classifier": "chromozoo.models.registry",
    "get_karyotyper": "chromozoo.models.karyotyper",
    "get_model": "chromozoo.models.registry",
    "get_segmenter": "chromozoo.models.registry",
    "get_weight": "chromozoo.models.registry",
    "list_models": "chromozoo.models.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'chromozoo' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
