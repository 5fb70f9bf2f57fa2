"""Where ChromoZoo looks for weights and data, and where it keeps what it has computed.

A package that was installed keeps everything in the user's own folders (`platformdirs`). In a
source checkout, such as a clone or a copy that ``torch.hub`` has fetched, the folders ``weights/``
and ``data/`` of the checkout are searched as well.
"""

import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

_PACKAGE = Path(__file__).resolve().parent


def checkout() -> Path | None:
    """Root of the source checkout that the package is imported from; None if it was installed."""
    root = _PACKAGE.parent
    return root if (root / "hubconf.py").is_file() else None


def cache_folder() -> Path:
    """Folder for downloads and prepared crops: ``$CHROMOZOO_HOME``, or the platform's cache."""
    if home := os.environ.get("CHROMOZOO_HOME"):
        return Path(home).expanduser()
    return user_cache_path("chromozoo", appauthor=False)


def weights_folders() -> list[Path]:
    """Folders that are searched for weights files, in order. Downloads go to the first."""
    root = checkout()
    return [cache_folder() / "weights", *([root / "weights"] if root else [])]


def data_folders(root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Folders that are searched for data sets, in order.

    Args:
        root: Searched alone if given.

    Returns:
        ``root``, else ``$CHROMOZOO_DATA`` if set, else ``data/`` of the checkout, ``data/`` of the
        working directory and the platform's folder for data of applications.
    """
    if root is not None:
        return [Path(root)]
    if folder := os.environ.get("CHROMOZOO_DATA"):
        return [Path(folder).expanduser()]
    source = checkout()
    user = user_data_path("chromozoo", appauthor=False)
    return [*([source / "data"] if source else []), Path("data"), user]
