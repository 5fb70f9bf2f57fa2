"""``chromozoo segment``: outlines the chromosomes in metaphases."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo import __version__
from chromozoo.cli.pictures import (
    COCO_NAME,
    INTENDED_USE,
    find_pictures,
    output_names,
    results_folder,
)
from chromozoo.errors import ChromozooError, UnknownNameError
from chromozoo.files import replace_file, write_picture

if TYPE_CHECKING:
    from chromozoo.tasks.segmentation import Segmentation

OVERLAY_SUFFIX = ".overlay.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, help="pictures of metaphases, or folders")
    parser.add_argument("--model", default="chr_fast", help="see `chromozoo models`")
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--score",
        type=float,
        default=0.5,
        help="leave out what the model is less sure of, 0 to 1 (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of the results (default: chromozoo-results/<name of the first path>)",
    )


def run(arguments: argparse.Namespace) -> int:
    files = find_pictures(arguments.paths, (OVERLAY_SUFFIX,))
    names = output_names(files)
    model = _load(arguments.model, arguments.weights, arguments.device)
    output = results_folder(arguments.output, arguments.paths)
    from rich.progress import track

    documents: list[dict[str, Any]] = []
    failed: list[str] = []
    for file, name in track(list(zip(files, names, strict=True)), "Outlining"):
        try:
            found = model.segment(file, str(file)).above(arguments.score)
        except ChromozooError as error:
            failed.append(str(error))
            continue
        document = _document(file, model, found, arguments.score)
        _write_overlay(output / f"{name}{OVERLAY_SUFFIX}", file, found)
        _write_json(output / f"{name}.json", document)
        documents.append(document)
    _write_json(output / COCO_NAME, coco_document(documents, model.categories))
    for document in documents:
        print(f"{document['image']}: {document['count']} chromosomes")
        for warning in document["warnings"]:
            print(f"  {warning}")
    total = sum(document["count"] for document in documents)
    print(
        f"\n{total} chromosomes in {len(documents)} pictures\n{INTENDED_USE}\n"
        f"Written: overlays and outlines in {output}, all together in {output / COCO_NAME}"
    )
    if failed:
        print(f"{len(failed)} of {len(files)} pictures could not be read:")
        for message in failed:
            print(f"  {message}")
    return 1 if failed else 0


def coco_document(documents: Sequence[dict[str, Any]], categories: Sequence[str]) -> dict[str, Any]:
    """The results of all pictures as a COCO instance file; masks are run lengths (RLE)."""
    ids = {name: number for number, name in enumerate(categories, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, document in enumerate(documents, start=1):
        images.append(
            {
                "id": image_id,
                "file_name": document["image"],
                "width": document["width"],
                "height": document["height"],
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
        "info": {"description": f"ChromoZoo {__version__}. {INTENDED_USE}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }


def _load(name: str, weights: str, device: str) -> Any:
    import torch

    from chromozoo.registry import get_model, list_models, model_info

    if model_info(name).task != "segmentation":
        raise UnknownNameError(
            f"{name} finds no chromosomes in metaphases; use one of "
            f"{', '.join(list_models(task='segmentation'))}"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return get_model(name, weights=weights).to(device)


def _document(file: Path, model: Any, found: "Segmentation", score: float) -> dict[str, Any]:
    entry = model.weights_entry
    height, width = found.shape
    return {
        "chromozoo": __version__,
        "intended_use": INTENDED_USE,
        "image": str(file),
        "width": width,
        "height": height,
        "model": entry.model if entry else type(model).__name__,
        "weights": {"file": entry.file, "sha256": entry.sha256} if entry else None,
        "least_score": score,
        "count": len(found),
        "warnings": list(found.warnings),
        "instances": found.instances(model.categories),
    }


def _write_overlay(path: Path, file: Path, found: "Segmentation") -> None:
    from PIL import Image

    from chromozoo.images.reading import read_grey
    from chromozoo.overlay import draw_overlay

    write_picture(path, Image.fromarray(draw_overlay(read_grey(file), found)))


def _write_json(path: Path, document: dict[str, Any]) -> None:
    replace_file(path, json.dumps(document, indent=1).encode())
