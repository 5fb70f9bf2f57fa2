"""Entry points of torch.hub: each registered model, ``karyotyper``, and two that list them.

Example:
    >>> import torch
    >>> model = torch.hub.load(".", "chrnet4", source="local")

The heavy imports happen inside the entries, so that a missing library is reported by name. Helpers
begin with an underscore: ``torch.hub.list`` shows every other callable.
"""

from collections.abc import Callable as _Callable
from typing import Any as _Any

from chromozoo.errors import ChromozooError as _ChromozooError
from chromozoo.models.registry import ModelInfo as _ModelInfo
from chromozoo.models.registry import get_model as _get_model
from chromozoo.models.registry import get_weight, list_models  # noqa: F401 (these are entry points)
from chromozoo.models.registry import models as _models
from chromozoo.models.weights.index import weights_entries as _weights_entries

# Import names, not names of distributions: torch.hub looks for modules.
dependencies = [
    "torch",
    "torchvision",
    "lightning",
    "timm",
    "torchmetrics",
    "cv2",
    "albumentations",
    "faster_coco_eval",
    "safetensors",
    "scipy",
    "numpy",
    "PIL",
    "tifffile",
    "imagecodecs",
    "platformdirs",
]


def _known_weights(name: str) -> str:
    """What a model's help says of its weights."""
    try:
        tags = ", ".join(map(repr, _weights_entries(name)))
    except _ChromozooError as error:  # loading the others must go on
        return f"cannot be listed ({error})"
    if not tags:
        return "a path, or None (untrained); there are no published ones, so give one of these"
    return f"a tag ({tags}), a path, 'DEFAULT' (the best) or None (untrained)"


def _entry(info: _ModelInfo) -> _Callable[..., _Any]:
    def entry(weights: str | None = "DEFAULT", **kwargs: _Any) -> _Any:
        return _get_model(info.name, weights=weights, **kwargs)

    entry.__name__ = entry.__qualname__ = info.name
    entry.__doc__ = (
        f"{info.doc}\n\nPaper: {info.paper}\n\n``weights``: {_known_weights(info.name)}."
    )
    return entry


def karyotyper(segmenter: str = "chr_fast", classifier: str = "chrnet4", **kwargs: _Any) -> _Any:
    """Karyotypes metaphases: a segmenter and a classifier together.

    ``karyotyper().karyotype(path)``. The arguments are those of
    :func:`chromozoo.models.karyotyper.get_karyotyper`.
    """
    from chromozoo.models.karyotyper import get_karyotyper

    return get_karyotyper(segmenter, classifier, **kwargs)


globals().update({name: _entry(info) for name, info in _models().items()})
