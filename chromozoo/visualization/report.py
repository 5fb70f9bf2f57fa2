"""Result files of a karyotype: karyogram, overlay and JSON; and the page of a folder.

They need no network connection to be opened, and each file is written atomically.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chromozoo import __version__
from chromozoo.classes import CLASSES, Stain
from chromozoo.files import DISCLAIMER, remove_file, replace_file, write_image
from chromozoo.visualization.karyogram import KaryogramEntry, draw_karyogram
from chromozoo.visualization.overlay import draw_overlay
from chromozoo.visualization.page import JSON, KARYOGRAM, OVERLAY, PAGE, write_page

__all__ = [
    "FORMAT",
    "PAGE",
    "describe_models",
    "draw_cell_karyogram",
    "draw_cell_overlay",
    "to_document",
    "write_cell",
    "write_page",
]

if TYPE_CHECKING:
    from chromozoo.karyotype.karyotype import Karyotype
    from chromozoo.karyotype.karyotyper import Karyotyper

# Format of the JSON, counted up with every change; results of another format are computed again.
FORMAT = 3


def describe_models(karyotyper: "Karyotyper", stain: Stain) -> list[dict[str, Any]]:
    """Return name and weights of the segmenter and the classifier of a stain."""
    described = []
    for model in (karyotyper.segmenter_for(stain), karyotyper.classifier):
        entry = model.weights_entry
        described.append(
            {
                "name": entry.model if entry else type(model).__name__,
                "weights": entry.file if entry else None,
                "sha256": entry.sha256 if entry else None,
            }
        )
    return described


def to_document(
    karyotype: "Karyotype",
    karyotyper: "Karyotyper",
    identity: Mapping[str, Any] | None = None,
    path: str | None = None,
) -> dict[str, Any]:
    """Return a karyotype as JSON values.

    Boxes are [x, y, w, h] and masks COCO run-length encodings, in pixels of the image. ``polarity``
    holds the direction of the p arm in degrees clockwise from up. With ``alarms``, the
    classification is unreliable, and ``iscn`` ends in ``?``.

    Args:
        karyotype: The karyotype.
        karyotyper: The karyotyper that computed it.
        identity: Identity of image, models and options (:mod:`chromozoo.batch.identity`), if known.
        path: Absolute path of the image, if known.
    """
    height, width = karyotype.segmentation.shape
    instances = karyotype.segmentation.to_records(
        karyotyper.segmenter_for(karyotype.stain).categories
    )
    return {
        "format": FORMAT,
        "chromozoo": __version__,
        "intended_use": DISCLAIMER,
        "image": karyotype.name,
        "path": path,
        "identity": identity,
        "width": width,
        "height": height,
        "stain": karyotype.stain,
        "stain_asked": karyotyper.stain,
        "models": describe_models(karyotyper, karyotype.stain),
        "assignment": karyotyper.assignment,
        "min_score": karyotyper.score,
        "count": karyotype.count,
        "iscn": karyotype.iscn,
        "gains": list(karyotype.cell.gains) if karyotype.cell else [],
        "losses": list(karyotype.cell.losses) if karyotype.cell else [],
        "alarms": list(karyotype.alarms),
        "flags": list(karyotype.flags),
        "needs_review": sum(item.needs_review for item in karyotype.chromosomes),
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
                "supernumerary": item.supernumerary,
                "needs_review": item.needs_review,
                "review_reasons": list(item.review_reasons),
            }
            for item, instance in zip(karyotype.chromosomes, instances, strict=True)
        ],
    }


def write_cell(
    folder: Path,
    stem: str,
    karyotype: "Karyotype",
    karyotyper: "Karyotyper",
    *,
    identity: Mapping[str, Any] | None = None,
    path: str | None = None,
) -> None:
    """Write ``<stem>.karyogram.png``, ``.overlay.png`` and ``.json``.

    The JSON marks the result as complete, so an earlier one is removed first, and the new one is
    written last. An image without chromosomes has no karyogram.

    Args:
        folder: Folder of the results.
        stem: File name without extension.
        karyotype: The karyotype.
        karyotyper: The karyotyper that computed it.
        identity: As for :func:`to_document`.
        path: As for :func:`to_document`.

    Raises:
        OutputError: A file cannot be written.
    """
    remove_file(folder / f"{stem}{JSON}")
    if karyotype.chromosomes:
        write_image(folder / f"{stem}{KARYOGRAM}", draw_cell_karyogram(karyotype, karyotyper))
    else:
        remove_file(folder / f"{stem}{KARYOGRAM}")
    write_image(folder / f"{stem}{OVERLAY}", Image.fromarray(draw_cell_overlay(karyotype)))
    text = json.dumps(to_document(karyotype, karyotyper, identity, path), indent=1)
    replace_file(folder / f"{stem}{JSON}", text.encode())


def draw_cell_karyogram(karyotype: "Karyotype", karyotyper: "Karyotyper") -> Image.Image:
    """Draw the karyogram of a cell, with the models and the flags in its legend."""
    sources = [
        f"{model['name']} {model['sha256'][:8]}" if model["sha256"] else f"{model['name']} (own)"
        for model in describe_models(karyotyper, karyotype.stain)
    ]
    notes = "".join(f" {flag[0].upper()}{flag[1:]}." for flag in karyotype.flags)
    return draw_karyogram(
        [
            KaryogramEntry(
                image=item.image,
                label=item.label,
                probability=item.probability,
                needs_review=item.needs_review,
                name=f"no. {item.number}",
                centromere=item.centromere,
            )
            for item in karyotype.chromosomes
        ],
        title=Path(karyotype.name).name,
        iscn=karyotype.iscn,
        alarms=karyotype.alarms,
        footer=f"ChromoZoo {__version__}: {', '.join(sources)}.{notes}",
    )


def draw_cell_overlay(karyotype: "Karyotype") -> NDArray[np.uint8]:
    """Draw the contours and classes of a cell over its metaphase, ``(H, W, 3)`` uint8.

    Chromosomes that need review have a question mark, with alarms all of them.
    """
    labels = [
        item.label + ("?" if item.needs_review or karyotype.alarms else "")
        for item in karyotype.chromosomes
    ]
    return draw_overlay(karyotype.image, karyotype.segmentation, labels)
