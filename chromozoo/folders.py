"""Folders of weights, data sets and caches.

An installed package uses the user's own folders (`platformdirs`). In a source checkout, such as a
clone or a copy fetched by ``torch.hub``, its ``weights/`` and ``data/`` are searched as well.
"""

import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

_PACKAGE = Path(__file__).resolve().parent


def checkout() -> Path | None:
    """Return the root of the source checkout that is imported; None for an installed package."""
    root = _PACKAGE.parent
    return root if (root / "hubconf.py").is_file() else None


def cache_folder() -> Path:
    """Return the folder of downloads and prepared crops: ``$CHROMOZOO_HOME``, or the cache."""
    if home := os.environ.get("CHROMOZOO_HOME"):
        return Path(home).expanduser()
    return user_cache_path("chromozoo", appauthor=False)


def weights_folders() -> list[Path]:
    """Return the folders that are searched for weights, in order; downloads go to the first."""
    root = checkout()
    return [cache_folder() / "weights", *([root / "weights"] if root else [])]


def data_folders(root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the folders that are searched for data sets, in order.

    Args:
        root: If given, the only folder that is searched.

    Returns:
        ``root``; without it ``$CHROMOZOO_DATA``; without either, ``data/`` of the checkout,
        ``data/`` of the working directory and the user's data folder.
    """
    if root is not None:
        return [Path(root)]
    if folder := os.environ.get("CHROMOZOO_DATA"):
        return [Path(folder).expanduser()]
    source = checkout()
    user = user_data_path("chromozoo", appauthor=False)
    return [*([source / "data"] if source else []), Path("data"), user]
