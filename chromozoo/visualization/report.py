"""What ``chromozoo karyotype`` writes of a cell: karyogram, overlay, JSON; and a page for a folder.

All of it can be opened without a network, and each file is written as a whole or not at all.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from chromozoo import __version__
from chromozoo.classes import CLASSES, Stain
from chromozoo.files import DISCLAIMER, remove_file, replace_file, write_image
from chromozoo.images.reading import read_grey
from chromozoo.visualization.karyogram import KaryogramEntry, draw_karyogram
from chromozoo.visualization.overlay import draw_overlay
from chromozoo.visualization.page import JSON, KARYOGRAM, OVERLAY, PAGE, write_page

__all__ = [
    "FORMAT",
    "PAGE",
    "document",
    "karyogram",
    "models_of",
    "overlay",
    "write_cell",
    "write_page",
]

if TYPE_CHECKING:
    from chromozoo.karyotype.karyotype import Karyotype
    from chromozoo.karyotype.karyotyper import Karyotyper

# Of the JSON; 2: identity, alarms. Results of another format are made again.
FORMAT = 3


def models_of(karyotyper: "Karyotyper", stain: Stain) -> list[dict[str, Any]]:
    """Name and hash of the weights of segmenter and classifier, for an image of this stain."""
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


def document(
    found: "Karyotype",
    karyotyper: "Karyotyper",
    identity: Mapping[str, Any] | None = None,
    path: str | None = None,
) -> dict[str, Any]:
    """A karyotype as plain values, as JSON takes them.

    Boxes are [x, y, w, h] and masks COCO run lengths, in pixels of the image; ``polarity`` says
    where the p arm points, in degrees clockwise from up. Where there are ``alarms``, the names
    cannot be trusted, and ``iscn`` ends in ``?``.

    Args:
        found: What the karyotyper found.
        karyotyper: That one.
        identity: What makes the result what it is (:mod:`chromozoo.batch.identity`), where known.
        path: Of the image, from the root on, where known.
    """
    height, width = found.segmentation.shape
    instances = found.segmentation.to_records(karyotyper.segmenter_for(found.stain).categories)
    return {
        "format": FORMAT,
        "chromozoo": __version__,
        "intended_use": DISCLAIMER,
        "image": found.name,
        "path": path,
        "identity": identity,
        "width": width,
        "height": height,
        "stain": found.stain,
        "stain_asked": karyotyper.stain,
        "models": models_of(karyotyper, found.stain),
        "assignment": karyotyper.assignment,
        "min_score": karyotyper.score,
        "count": found.count,
        "iscn": found.iscn,
        "gains": list(found.cell.gains) if found.cell else [],
        "losses": list(found.cell.losses) if found.cell else [],
        "alarms": list(found.alarms),
        "flags": list(found.flags),
        "needs_review": sum(item.needs_review for item in found.chromosomes),
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
            for item, instance in zip(found.chromosomes, instances, strict=True)
        ],
    }


def write_cell(
    folder: Path,
    stem: str,
    found: "Karyotype",
    karyotyper: "Karyotyper",
    *,
    identity: Mapping[str, Any] | None = None,
    path: str | None = None,
) -> None:
    """Writes ``<stem>.karyogram.png``, ``.overlay.png`` and last ``.json``, which says: complete.

    An earlier ``.json`` goes first. Of an image without chromosomes there is no karyogram. The
    other arguments are those of :func:`document`.

    Raises:
        OutputError: A file cannot be written.
    """
    remove_file(folder / f"{stem}{JSON}")
    if found.chromosomes:
        write_image(folder / f"{stem}{KARYOGRAM}", karyogram(found, karyotyper))
    else:
        remove_file(folder / f"{stem}{KARYOGRAM}")
    write_image(folder / f"{stem}{OVERLAY}", Image.fromarray(overlay(found)))
    text = json.dumps(document(found, karyotyper, identity, path), indent=1)
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
                image=item.image,
                label=item.label,
                probability=item.probability,
                needs_review=item.needs_review,
                name=f"no. {item.number}",
                centromere=item.centromere,
            )
            for item in found.chromosomes
        ],
        title=Path(found.name).name,
        iscn=found.iscn,
        alarms=found.alarms,
        footer=f"ChromoZoo {__version__}: {', '.join(sources)}.{notes}",
    )


def overlay(found: "Karyotype") -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The metaphase with its chromosomes outlined and named, ``(H, W, 3)`` uint8.

    Doubtful names have a question mark: all of them where there are alarms. Of a karyotype without
    its ``image`` the file that its name says is read.

    Raises:
        ImageError: That file cannot be read.
    """
    image = found.image if found.image is not None else read_grey(Path(found.name))
    if image.shape != found.segmentation.shape:
        height, width = found.segmentation.shape
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
    labels = [
        item.label + ("?" if item.needs_review or found.alarms else "")
        for item in found.chromosomes
    ]
    return draw_overlay(image, found.segmentation, labels)
