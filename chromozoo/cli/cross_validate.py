"""``chromozoo cross-validate``: trains a config on each fold of its data set, measures all cells.

Fold k of five tests on part k of the cells, is calibrated on part k + 1, and trains on the other
three: after all five every cell has been named once, by weights that never saw it. Each fold gives
a row, and all cells together one more, of the split ``<name>/folds``, with its intervals over
cells. It can be stopped and called again; the folds may be called one by one.

Weights that a training starts from must not have seen these cells either: those of the zoo whose
lineage holds the same data are refused.
"""

import argparse
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chromozoo.benchmark.packaging import choose_classifier, entry_of
from chromozoo.benchmark.publishing import check_is_of_the_repository
from chromozoo.benchmark.recipe import RUNS, Recipe, read_recipe
from chromozoo.benchmark.tables.classification import METRIC_COLUMNS
from chromozoo.benchmark.trainings import change, keep_last_alone, train
from chromozoo.data.splits import FOLDS
from chromozoo.errors import ChromozooError
from chromozoo.files import replace_file
from chromozoo.models.init_from import ZOO

# The weights with this tag learnt from several sets.
PARTS = {"metaphase": ("bioimlab", "pki3", "cil")}
SHOWN = ("accuracy", "assigned_accuracy", "cells_without_error", "ece")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="config of a classifier, <model>_<tag>.yaml")
    parser.add_argument(
        "--folds", type=int, nargs="+", default=list(range(FOLDS)), choices=range(FOLDS)
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        dest="changes",
        help="changes to the config, such as trainer.max_epochs=12; {fold} in a value is the "
        "number of the fold",
    )
    parser.add_argument("--training", default="", help="machine and time, for the record")
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument(
        "--results",
        type=Path,
        help="CSV of the rows (default: the leaderboard's, for configs of the repository)",
    )


def run(arguments: argparse.Namespace) -> int:
    from chromozoo.benchmark.publish import RESULTS, publish
    from chromozoo.benchmark.tables import classification as leaderboard

    recipe = read_recipe(arguments.config)
    changes = read_changes(arguments.changes)
    results = arguments.results or RESULTS
    if results.resolve() == RESULTS.resolve():
        check_is_of_the_repository(recipe.path, "--results FILE.csv keeps the rows")
    for fold in arguments.folds:
        row = measure_fold(recipe, fold, changes, arguments.root, arguments.training)
        leaderboard.append_row(results, row)
        _show(row)
    missing = [k for k in range(FOLDS) if not (_folder(recipe, k) / "row.json").exists()]
    if missing:
        print(f"folds {', '.join(map(str, missing))} are not measured yet")
        return 0
    row = all_folds(recipe)
    leaderboard.append_row(results, row)
    _show(row)
    print(f"rows added to {results}")
    if results.resolve() == RESULTS.resolve():
        publish(row)
    return 0


def read_changes(words: Sequence[str]) -> dict[str, str]:
    """``KEY=VALUE`` words as a mapping; the values are still YAML text.

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
    """The recipe on one fold: trained to its end without a look at validation."""
    import copy

    import yaml

    config = copy.deepcopy(recipe.content)
    values = {}
    for key, text in changes.items():
        try:
            values[key] = yaml.safe_load(text.replace("{fold}", str(fold)))
        except yaml.YAMLError as error:
            raise ChromozooError(f"--set {key}={text}: the value is no YAML ({error})") from error
    change(config, values | {"data.init_args.fold": fold, "trainer.limit_val_batches": 0})
    keep_last_alone(config, _folder(recipe, fold))
    return config


def refuse_what_saw_the_cells(recipe: Recipe, init_from: object) -> None:
    """Follows published weights back through the configs that they come from.

    Raises:
        ChromozooError: These, or weights that they started from, learnt from the recipe's data; or
            it is not known what they learnt from.
        UnknownNameError: The zoo has no such model or tag.
    """
    import yaml

    from chromozoo.benchmark.repository import ROOT
    from chromozoo.models.registry import get_weight

    if not isinstance(init_from, str | None):
        raise ChromozooError(
            f"{recipe.path}: init_from is {init_from!r}; give the name or path of weights, or null"
        )
    origin, seen = init_from, set[str]()
    while origin and origin.startswith(ZOO) and origin not in seen:
        seen.add(origin)
        name, _, tag = origin.removeprefix(ZOO).partition(":")
        entry = get_weight(name, tag or "DEFAULT")
        if recipe.tag in (entry.tag, *PARTS.get(entry.tag, ())):
            raise ChromozooError(
                f"{recipe.path}: starts from {init_from}, and {entry.model}:{entry.tag} learnt "
                f"from {recipe.tag}, test cells of the folds included; give others, such as --set "
                "model.init_args.init_from=null"
            )
        try:
            config = yaml.safe_load((ROOT / entry.config).read_bytes())
            origin = config["model"]["init_args"].get("init_from")
        except (
            *(OSError, ValueError, LookupError, TypeError, AttributeError),
            yaml.YAMLError,
        ) as error:
            raise ChromozooError(
                f"{recipe.path}: starts from {init_from}, and what that learnt from is not known: "
                f"{entry.config} cannot be read ({error}); restore it from the repository"
            ) from error


def measure_fold(
    recipe: Recipe,
    fold: int,
    changes: Mapping[str, str],
    root: str | None = None,
    training: str = "",
) -> dict[str, Any]:
    """Trains on one fold, unless that is done, and measures its test cells.

    Returns:
        The row of the fold. Its weights and predictions are kept in the run folder.
    """
    import json

    import numpy as np

    from chromozoo.benchmark.measure import classified
    from chromozoo.models.registry import get_model
    from chromozoo.models.weights.storage import save_weights

    folder = _folder(recipe, fold)
    if recipe.dataset.task != "classification":
        raise ChromozooError(
            f"{recipe.path}: trains no classifier; folds are of single chromosomes"
        )
    split = recipe.dataset.load_data(root=root, fold=fold).split
    config = config_of(recipe, fold, changes)
    refuse_what_saw_the_cells(recipe, (config["model"].get("init_args") or {}).get("init_from"))
    last = train(config, folder, root)
    kept = folder / "row.json"
    if kept.exists():
        row: dict[str, Any] = json.loads(kept.read_text())
        return row
    choice = choose_classifier(recipe, [last], root, fold)
    entry = entry_of(recipe, choice, split, training)
    network: Any = get_model(recipe.model, weights=last).network
    file, _ = save_weights(network, entry, folder, "fp16")
    predictions, row = classified(
        recipe.model, str(file), recipe.dataset.name, "test", fold=fold, root=root
    )
    # The split says whose weights these are.
    row["weights"] = recipe.tag
    row["note"] = "; ".join(["fold, not shipped", *(f"{k}={v}" for k, v in changes.items())])
    buffer = io.BytesIO()
    arrays: dict[str, Any] = predictions
    np.savez(buffer, **arrays)
    replace_file(folder / "test.npz", buffer.getvalue())
    replace_file(kept, json.dumps(row, indent=1).encode())
    return row


def all_folds(recipe: Recipe) -> dict[str, Any]:
    """The row of all cells together, from the predictions that the folds keep."""
    import json

    import numpy as np

    from chromozoo.metrics.classification import evaluate_classification

    folders = [_folder(recipe, fold) for fold in range(FOLDS)]
    rows = [json.loads((folder / "row.json").read_text()) for folder in folders]
    parts = [np.load(folder / "test.npz", allow_pickle=False) for folder in folders]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0].files}
    if len(set(joined["cells"].tolist())) != sum(len(set(p["cells"].tolist())) for p in parts):
        raise ChromozooError(f"{folders[0].parent}: a cell is tested in two folds; train anew")
    report = evaluate_classification(
        joined["probabilities"],
        joined["targets"],
        joined["cells"],
        prob_p_arm_up=joined.get("p_arm_up"),
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


def _folder(recipe: Recipe, fold: int) -> Path:
    return RUNS / "folds" / recipe.stem / f"fold{fold}"


def _show(row: Mapping[str, Any]) -> None:
    figures = ", ".join(
        f"{name} {100 * row[name]:.2f} [{row[f'{name}_low']}, {row[f'{name}_high']}]"
        for name in SHOWN
        if row.get(name) is not None
    )
    print(f"{row['model']}, {row['split']}, {row['n_cells']} cells: {figures}", flush=True)
