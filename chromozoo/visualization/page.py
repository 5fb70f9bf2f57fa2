"""The page of a folder of karyotypes, and what it needs to be read back of them.

It can be opened without a network, and is made without loading a model.
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
_NEEDED = ("image", "stain", "models", "count", "iscn", "flags", "needs_review", "chromosomes")
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
    """Writes ``index.html`` of all karyotyped images of a folder.

    Args:
        folder: Where :func:`chromozoo.visualization.report.write_cell` wrote.
        stems: Of the images, in the order of the page.
        failed: Messages of images that could not be done.
        title: Of the page.
        earlier: Of the results of earlier runs on other images, which come last; what is no
            karyotype is left out.
        failed_earlier: Messages of those runs.
        cells: What :func:`page_cell` gave, where it was called already.
        seconds: When they are over, the page says how many more there are and does not show them;
            None gives all the time that is needed.

    Raises:
        OutputError: It cannot be written.
    """
    from jinja2 import Environment, PackageLoader

    until = None if seconds is None else time.monotonic() + seconds
    known = cells or {}
    listed: list[Mapping[str, Any]] = []
    unread = 0
    for group, names in (("now", stems), ("earlier", earlier)):
        for stem in names:
            cell = known.get(stem)
            if cell is None and until is not None and time.monotonic() > until:
                unread += 1
            elif (cell := cell or page_cell(folder, stem)) is not None:
                listed.append({**cell, "group": group})
    # Images of several stains are the work of several models.
    models = {str(model): model for cell in listed for model in cell["models"]}
    environment = Environment(
        loader=PackageLoader("chromozoo.visualization", "templates"),
        autoescape=True,
        trim_blocks=True,
    )
    page = environment.get_template("karyotypes.html.j2").render(
        title=title or folder.resolve().name,
        cells=listed,
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
    """What the page shows of a karyotype; None where there is none that can be read.

    ``part`` says which image of its file it is of, such as ``page2``; None where that has one.
    """
    try:
        cell: dict[str, Any] = json.loads((folder / f"{stem}{JSON}").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(cell, dict) or any(key not in cell for key in _NEEDED):
        return None
    # What came later than the first format.
    content = (cell.get("identity") or {}).get("content") or {}
    path = str(cell.get("path") or cell["image"])
    has_karyogram = (folder / f"{stem}{KARYOGRAM}").exists()
    return {
        **{key: cell[key] for key in _NEEDED if key != "chromosomes"},
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
    """A small copy of a result's image as data URI; empty where there is none.

    A page of a thousand cells does not load a thousand large files.
    """
    for ending in (KARYOGRAM, OVERLAY):
        try:
            with Image.open(folder / f"{stem}{ending}") as image:
                small = image.convert("RGB")
                small.thumbnail((420, 420))
        except (OSError, ValueError, SyntaxError):  # not there, or damaged
            continue
        buffer = io.BytesIO()
        small.save(buffer, format="JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return ""
