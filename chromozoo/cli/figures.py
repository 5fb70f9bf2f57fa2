"""``chromozoo figures``: figures of a classifier on a data set.

Confusion matrix, class metrics, ROC, calibration, t-SNE of the features, Grad-CAM and errors.
"""

import argparse
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo.benchmark.provenance import weights_label
from chromozoo.cli.options import add_device_option
from chromozoo.data.catalogue import dataset_info, datasets
from chromozoo.errors import ChromozooError
from chromozoo.files import replace_file

if TYPE_CHECKING:
    from chromozoo.visualization.classification import StoredPredictions

STORED = "predictions.npz"
CLASS_TABLE = "classes.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a classifier, see `chromozoo models`")
    parser.add_argument("--weights", default="DEFAULT", help="tag or path")
    parser.add_argument(
        "--dataset",
        default="bioimlab",
        choices=sorted(datasets("classification")),
        help="data set (default: %(default)s)",
    )
    parser.add_argument("--stage", default="test", choices=("train", "val", "test"))
    parser.add_argument("--root", help="folder of the data (default: CHROMOZOO_DATA, data/)")
    add_device_option(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the figures (default: chromozoo-results/figures/MODEL-TAG-DATASET-STAGE); "
        "predictions that are stored there are reused",
    )


def run(arguments: argparse.Namespace) -> int:
    try:
        from chromozoo.visualization import classification as figures
    except ImportError as error:
        raise ChromozooError(
            f"{error.name} is not installed; install it with `pip install 'chromozoo[figures]'`"
        ) from error
    from chromozoo.benchmark.measure import load_model_with_entry

    model = load_model_with_entry(arguments.model, arguments.weights, arguments.device)
    entry = model.weights_entry
    data = dataset_info(arguments.dataset).load_data(
        root=arguments.root, preset=model.transforms.to_dict()
    )
    crops = data.dataset(arguments.stage)
    weights = weights_label(entry)
    origin = (
        f"{entry.model}, weights {weights} {entry.sha256[:8]}, {data.split.name}/"
        f"{arguments.stage} ({data.split.sha256[:8]})"
    )
    # Weights files of users may have the tag of packaged weights, and get a separate folder.
    weights_name = (
        weights if weights == entry.tag else f"{Path(entry.file).stem}-{entry.sha256[:8]}"
    )
    output: Path = arguments.output or Path(
        "chromozoo-results",
        "figures",
        f"{entry.model}-{weights_name}-{arguments.dataset}-{arguments.stage}",
    )
    output.mkdir(parents=True, exist_ok=True)
    stored = _load_or_predict(output / STORED, origin, model, crops)
    report = stored.report()
    _write_table(output / CLASS_TABLE, figures.class_table(stored, report))
    for name, draw in figures.figure_functions(model, stored, report, crops).items():
        figures.write_figure(output / f"{name}.png", draw())
        print(f"{output / name}.png")
    print(f"{output / CLASS_TABLE}")
    return 0


def _load_or_predict(path: Path, origin: str, model: Any, crops: Any) -> "StoredPredictions":
    """Return the stored predictions of these weights and cells, or predict and store them."""
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    from chromozoo.benchmark.inference import predict
    from chromozoo.visualization.classification import StoredPredictions

    if path.exists():
        stored = StoredPredictions.load(path)
        if stored.origin == origin and len(stored.labels) == len(crops):
            return stored
    probabilities, _ = predict(model, crops)
    with torch.inference_mode():
        features = [
            model.network.forward_features(batch["image"].to(model.device)).float().cpu()
            for batch in DataLoader(crops, 64)
        ]
    stored = StoredPredictions(
        origin,
        probabilities,
        torch.cat(features).numpy(),
        np.asarray(crops.labels, np.int64),
        np.asarray(crops.cells).astype(str),
    )
    stored.save(path)
    return stored


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(path, text.getvalue().encode())
