"""COCO instance file of the segmented images of a folder."""

from collections.abc import Sequence
from typing import Any

from chromozoo import __version__
from chromozoo.files import DISCLAIMER

COCO_FILE = "annotations.json"


def to_coco(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return segmentation results as one COCO instance document with run-length masks.

    Args:
        documents: Results of :class:`chromozoo.batch.segment_task.SegmentTask`, one for each image.
            Their models may have different categories.
    """
    names = dict.fromkeys(name for document in documents for name in document["categories"])
    ids = {name: number for number, name in enumerate(names, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, document in enumerate(documents, start=1):
        images.append(
            {
                "id": image_id,
                "file_name": document["image"],
                "width": document["width"],
                "height": document["height"],
                # chromozoo.data.io.coco finds the image file by its path and verifies its content.
                "path": document.get("path"),
                "content": document.get("identity", {}).get("content"),
            }
        )
        for instance in document["instances"]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": ids[instance["category"]],
                    **{key: instance[key] for key in ("bbox", "score", "area", "segmentation")},
                    "iscrowd": 0,
                }
            )
    return {
        "info": {"description": f"ChromoZoo {__version__}. {DISCLAIMER}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
