"""HTML page of a folder of karyotypes, rendered from their result files.

Opening the page needs no network connection, and rendering it needs no model.
"""

import base64
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from chromozoo import __version__
from chromozoo.classes import Stain
from chromozoo.files import DISCLAIMER, replace_file

KARYOGRAM, OVERLAY, JSON = ".karyogram.png", ".overlay.png", ".json"
PAGE = "index.html"
_REQUIRED_KEYS = (
    "image",
    "stain",
    "models",
    "count",
    "iscn",
    "flags",
    "needs_review",
    "chromosomes",
)
STAIN_NAMES: dict[Stain, str] = {"q": "Q-band or DAPI", "g": "G-band"}


def write_page(
    folder: Path,
    stems: Sequence[str],
    failed: Sequence[str] = (),
    title: str = "",
    *,
    earlier: Sequence[str] = (),
    failed_earlier: Sequence[str] = (),
    cells: Mapping[str, Mapping[str, Any]] | None = None,
    seconds: float | None = None,
) -> None:
    """Write ``index.html`` with all karyotypes of a folder.

    Args:
        folder: Folder of the files of :func:`chromozoo.visualization.report.write_cell`.
        stems: File stems of the images, in the order of the page.
        failed: Error messages of images that failed.
        title: Title of the page.
        earlier: File stems of earlier runs on other images, which come last; files that are not
            karyotypes are skipped.
        failed_earlier: Error messages of the earlier runs.
        cells: Results of :func:`page_cell` by stem, if it was called before.
        seconds: Time limit; the page shows the number of karyotypes that were not read in time.
            None for no limit.

    Raises:
        OutputError: The page cannot be written.
    """
    from jinja2 import Environment, PackageLoader

    deadline = None if seconds is None else time.monotonic() + seconds
    known = cells or {}
    shown: list[Mapping[str, Any]] = []
    unread = 0
    for group, names in (("now", stems), ("earlier", earlier)):
        for stem in names:
            cell = known.get(stem)
            if cell is None and deadline is not None and time.monotonic() > deadline:
                unread += 1
            elif (cell := cell or page_cell(folder, stem)) is not None:
                shown.append({**cell, "group": group})
    # Images of different stains have different models.
    models = {str(model): model for cell in shown for model in cell["models"]}
    environment = Environment(
        loader=PackageLoader("chromozoo.visualization", "templates"),
        autoescape=True,
        trim_blocks=True,
    )
    page = environment.get_template("karyotypes.html.j2").render(
        title=title or folder.resolve().name,
        cells=shown,
        unread=unread,
        models=list(models.values()),
        stains=STAIN_NAMES,
        failed=failed,
        failed_earlier=failed_earlier,
        version=__version__,
        disclaimer=DISCLAIMER,
    )
    replace_file(folder / PAGE, page.encode("utf-8", "backslashreplace"))


def page_cell(folder: Path, stem: str) -> dict[str, Any] | None:
    """Return the template variables of a karyotype; None if it cannot be read.

    ``part`` is the image in a file with several, such as ``page2``; None for a single one.
    """
    try:
        cell: dict[str, Any] = json.loads((folder / f"{stem}{JSON}").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(cell, dict) or any(key not in cell for key in _REQUIRED_KEYS):
        return None
    # Keys that the first formats lack.
    content = (cell.get("identity") or {}).get("content") or {}
    path = str(cell.get("path") or cell["image"])
    has_karyogram = (folder / f"{stem}{KARYOGRAM}").exists()
    return {
        **{key: cell[key] for key in _REQUIRED_KEYS if key != "chromosomes"},
        "alarms": cell.get("alarms", []),
        "part": content.get("part"),
        "stem": stem,
        "file": Path(cell["image"]).name,
        "place": str(Path(path).parent),
        "karyogram": f"{stem}{KARYOGRAM}" if has_karyogram else None,
        "overlay": f"{stem}{OVERLAY}",
        "image": f"{stem}{KARYOGRAM if has_karyogram else OVERLAY}",
        "thumbnail": _thumbnail(folder, stem),
        "needs_review_items": [
            {key: item[key] for key in ("id", "class", "probability", "review_reasons")}
            for item in cell["chromosomes"]
            if item["needs_review"]
        ],
    }


def _thumbnail(folder: Path, stem: str) -> str:
    """Return a small copy of a result's image as a data URI; empty without an image.

    Thus a page of a thousand cells does not load a thousand large files.
    """
    for ending in (KARYOGRAM, OVERLAY):
        try:
            with Image.open(folder / f"{stem}{ending}") as image:
                small = image.convert("RGB")
                small.thumbnail((420, 420))
        except (OSError, ValueError, SyntaxError):  # missing or damaged
            continue
        buffer = io.BytesIO()
        small.save(buffer, format="JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return ""
