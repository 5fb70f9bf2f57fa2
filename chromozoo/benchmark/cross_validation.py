"""Cross-validation of a config: each cell is tested once, by weights that did not see it.

Fold k of five tests on part k of the cells, is calibrated on part k + 1 and trains on the other
three. Each fold gives a row, and all cells together one more, of the split ``<name>/folds``, with
intervals over cells. Initial weights of the zoo whose lineage holds the same data are refused.
"""

import copy
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from chromozoo.benchmark.lineage import refuse_cells_of_folds
from chromozoo.benchmark.measure import evaluate_classifier, load_model_with_entry
from chromozoo.benchmark.packaging import choose_classifier, entry_of
from chromozoo.benchmark.tables.classification import METRIC_COLUMNS
from chromozoo.data.splits import FOLDS
from chromozoo.errors import ChromozooError
from chromozoo.files import replace_file
from chromozoo.metrics.classification import evaluate_classification
from chromozoo.models.registry import get_model
from chromozoo.models.weights.storage import save_weights
from chromozoo.training.configs import change
from chromozoo.training.recipe import RUNS, Recipe
from chromozoo.training.runs import keep_last_checkpoint, train


def read_changes(words: Sequence[str]) -> dict[str, str]:
    """Parse ``KEY=VALUE`` words; the values are still YAML text.

    Raises:
        ChromozooError: A word has no ``=``, or names what each fold sets itself.
    """
    changes = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ChromozooError(f"--set {word}: give KEY=VALUE, such as trainer.max_epochs=12")
        if key == "data.init_args.fold":
            raise ChromozooError(f"--set {word}: every fold sets this; choose with --folds")
        changes[key] = value
    return changes


def config_of(recipe: Recipe, fold: int, changes: Mapping[str, str]) -> dict[str, Any]:
    """Return the config of one fold: trained to its end without validation."""
    config = copy.deepcopy(recipe.content)
    values = {}
    for key, text in changes.items():
        try:
            values[key] = yaml.safe_load(text.replace("{fold}", str(fold)))
        except yaml.YAMLError as error:
            raise ChromozooError(f"--set {key}={text}: the value is no YAML ({error})") from error
    change(config, values | {"data.init_args.fold": fold, "trainer.limit_val_batches": 0})
    keep_last_checkpoint(config, fold_folder(recipe, fold))
    return config


def measure_fold(
    recipe: Recipe,
    fold: int,
    changes: Mapping[str, str],
    root: str | None = None,
    training: str = "",
) -> dict[str, Any]:
    """Train on one fold, unless that is done, and evaluate its test cells.

    Returns:
        The row of the fold. Its weights and predictions are kept in the run folder.
    """
    folder = fold_folder(recipe, fold)
    if recipe.dataset.task != "classification":
        raise ChromozooError(
            f"{recipe.path}: trains no classifier; folds are of single chromosomes"
        )
    split = recipe.dataset.load_data(root=root, fold=fold).split
    config = config_of(recipe, fold, changes)
    refuse_cells_of_folds(recipe, (config["model"].get("init_args") or {}).get("init_from"))
    last = train(config, folder, root)
    kept = folder / "row.json"
    if kept.exists():
        row: dict[str, Any] = json.loads(kept.read_text())
        return row
    choice = choose_classifier(recipe, [last], root, fold)
    entry = entry_of(recipe, choice, split, training)
    network: Any = get_model(recipe.model, weights=last).network
    file, _ = save_weights(network, entry, folder, "fp16")
    model = load_model_with_entry(recipe.model, str(file), "auto")
    predictions, row = evaluate_classifier(model, recipe.dataset.name, "test", fold=fold, root=root)
    # The split tells the weights of the folds apart.
    row["weights"] = recipe.tag
    row["note"] = "; ".join(["fold, not shipped", *(f"{k}={v}" for k, v in changes.items())])
    buffer = io.BytesIO()
    arrays: dict[str, Any] = predictions
    np.savez(buffer, **arrays)
    replace_file(folder / "test.npz", buffer.getvalue())
    replace_file(kept, json.dumps(row, indent=1).encode())
    return row


def all_folds(recipe: Recipe) -> dict[str, Any]:
    """Return the row of all cells together, from the stored predictions of the folds."""
    folders = [fold_folder(recipe, fold) for fold in range(FOLDS)]
    rows = [json.loads((folder / "row.json").read_text()) for folder in folders]
    parts = [np.load(folder / "test.npz", allow_pickle=False) for folder in folders]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0].files}
    if len(set(joined["cells"].tolist())) != sum(len(set(p["cells"].tolist())) for p in parts):
        raise ChromozooError(f"{folders[0].parent}: a cell is tested in two folds; train anew")
    report = evaluate_classification(
        joined["probabilities"],
        joined["targets"],
        joined["cells"],
        prob_p_arm_up=joined.get("prob_p_arm_up"),
    )
    shas = "".join(row["weights_sha256"] for row in rows)
    split = rows[0]["split"].rsplit("/", 1)[0]
    milliseconds = sum(row["ms_per_image"] for row in rows) / FOLDS
    return {k: v for k, v in rows[-1].items() if k not in METRIC_COLUMNS} | {
        "weights_sha256": hashlib.sha256(shas.encode()).hexdigest()[:12],
        "split": f"{split}/folds",
        "ms_per_image": round(milliseconds, 2),
        "note": rows[0]["note"].replace("fold,", "5 folds,"),
        **report.to_row(),
    }


def fold_folder(recipe: Recipe, fold: int) -> Path:
    """Return the run folder of a fold."""
    return RUNS / "folds" / recipe.stem / f"fold{fold}"
