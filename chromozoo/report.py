"""What ``chromozoo karyotype`` writes of a cell: karyogram, overlay, JSON; and a page for a folder.

All of it can be opened without a network, and each file is written as a whole or not at all.
"""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from chromozoo import __version__
from chromozoo.cells.karyogram import DISCLAIMER, KaryogramEntry, draw_karyogram
from chromozoo.classes import CLASSES, Stain
from chromozoo.files import replace_file, write_picture
from chromozoo.images.reading import read_grey
from chromozoo.overlay import draw_overlay

if TYPE_CHECKING:
    from chromozoo.cells.karyotyper import Karyotype, Karyotyper

KARYOGRAM, OVERLAY, JSON = ".karyogram.png", ".overlay.png", ".json"
PAGE = "index.html"
FORMAT = 1
STAIN_NAMES: dict[Stain, str] = {"q": "Q-band or DAPI", "g": "G-band"}


def models_of(karyotyper: "Karyotyper", stain: Stain) -> list[dict[str, Any]]:
    """Name and hash of the weights of segmenter and classifier, for a picture of this stain."""
    listed = []
    for model in (karyotyper.segmenter_for(stain), karyotyper.classifier):
        entry = model.weights_entry
        listed.append(
            {
                "name": entry.model if entry else type(model).__name__,
                "weights": entry.file if entry else None,
                "sha256": entry.sha256 if entry else None,
            }
        )
    return listed


def document(found: "Karyotype", karyotyper: "Karyotyper") -> dict[str, Any]:
    """A karyotype as plain values, as JSON takes them.

    Boxes are [x, y, w, h] and masks COCO run lengths, in pixels of the picture; ``polarity`` says
    where the p arm points, in degrees clockwise from up.
    """
    height, width = found.segmentation.shape
    instances = found.segmentation.instances(karyotyper.segmenter_for(found.stain).categories)
    return {
        "format": FORMAT,
        "chromozoo": __version__,
        "intended_use": DISCLAIMER,
        "image": found.name,
        "width": width,
        "height": height,
        "stain": found.stain,
        "stain_asked": karyotyper.stain,
        "models": models_of(karyotyper, found.stain),
        "assignment": karyotyper.assignment,
        "least_score": karyotyper.score,
        "count": found.count,
        "iscn": found.iscn,
        "gains": list(found.cell.gains) if found.cell else [],
        "losses": list(found.cell.losses) if found.cell else [],
        "flags": list(found.flags),
        "review": sum(item.review for item in found.chromosomes),
        "classes": list(CLASSES),
        "chromosomes": [
            {
                "id": item.number,
                "class": item.label,
                "probability": round(item.probability, 4),
                "probabilities": [round(float(p), 4) for p in item.probabilities],
                "margin": round(item.margin, 2),
                "bbox": instance["bbox"],
                "area": instance["area"],
                "score": instance["score"],
                "segmentation": instance["segmentation"],
                "polarity": {
                    "p_arm_degrees": round(item.p_arm, 1),
                    "certainty": round(item.polarity_certainty, 3),
                },
                "extra": item.extra,
                "review": item.review,
                "doubts": list(item.doubts),
            }
            for item, instance in zip(found.chromosomes, instances, strict=True)
        ],
    }


def write_cell(folder: Path, stem: str, found: "Karyotype", karyotyper: "Karyotyper") -> None:
    """Writes ``<stem>.karyogram.png``, ``.overlay.png`` and last ``.json``, which says: complete.

    Of a picture without chromosomes there is no karyogram.
    """
    if found.chromosomes:
        write_picture(folder / f"{stem}{KARYOGRAM}", karyogram(found, karyotyper))
    else:
        (folder / f"{stem}{KARYOGRAM}").unlink(missing_ok=True)
    write_picture(folder / f"{stem}{OVERLAY}", Image.fromarray(overlay(found)))
    text = json.dumps(document(found, karyotyper), indent=1)
    replace_file(folder / f"{stem}{JSON}", text.encode())


def karyogram(found: "Karyotype", karyotyper: "Karyotyper") -> Image.Image:
    """The chromosomes arranged by class, p arms up, homologues side by side."""
    sources = [
        f"{model['name']} {model['sha256'][:8]}" if model["sha256"] else f"{model['name']} (own)"
        for model in models_of(karyotyper, found.stain)
    ]
    notes = "".join(f" {flag[0].upper()}{flag[1:]}." for flag in found.flags)
    return draw_karyogram(
        [
            KaryogramEntry(
                image=item.picture,
                label=item.label,
                probability=item.probability,
                doubtful=item.review,
                name=f"no. {item.number}",
                centromere=item.centromere,
            )
            for item in found.chromosomes
        ],
        title=Path(found.name).name,
        iscn=found.iscn,
        footer=f"ChromoZoo {__version__}: {', '.join(sources)}.{notes}",
    )


def overlay(found: "Karyotype") -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The metaphase with its chromosomes outlined and named, ``(H, W, 3)`` uint8."""
    picture = read_grey(Path(found.name))
    if picture.shape != found.segmentation.shape:
        height, width = found.segmentation.shape
        picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))
    labels = [item.label + ("?" if item.review else "") for item in found.chromosomes]
    return draw_overlay(picture, found.segmentation, labels)


def write_page(
    folder: Path, stems: Sequence[str], failed: Sequence[str] = (), title: str = ""
) -> None:
    """Writes ``index.html`` of all karyotyped pictures of a folder.

    Args:
        folder: Where :func:`write_cell` wrote.
        stems: Of the pictures, in the order of the page.
        failed: Messages of pictures that could not be read.
        title: Of the page.
    """
    from jinja2 import Environment, PackageLoader

    cells = []
    for stem in stems:
        cell = json.loads((folder / f"{stem}{JSON}").read_text(encoding="utf-8"))
        shown = f"{stem}{KARYOGRAM if cell['chromosomes'] else OVERLAY}"
        cell |= {
            "stem": stem,
            "file": Path(cell["image"]).name,
            "karyogram": f"{stem}{KARYOGRAM}" if cell["chromosomes"] else None,
            "overlay": f"{stem}{OVERLAY}",
            "thumbnail": _thumbnail(folder / shown),
            "doubtful": [item for item in cell["chromosomes"] if item["review"]],
        }
        cells.append(cell)
    # Pictures of several stains are the work of several models.
    models = {str(model): model for cell in cells for model in cell["models"]}
    environment = Environment(
        loader=PackageLoader("chromozoo", "templates"), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("karyotypes.html.j2").render(
        title=title or folder.resolve().name,
        cells=cells,
        models=list(models.values()),
        stains=STAIN_NAMES,
        failed=failed,
        version=__version__,
        disclaimer=DISCLAIMER,
    )
    replace_file(folder / PAGE, page.encode())


def _thumbnail(path: Path) -> str:
    """A small copy as data URI: a page of a thousand cells does not load a thousand large files."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((420, 420))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
