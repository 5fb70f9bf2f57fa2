"""Ablations: training with and without one part of a system, measured on validation alone.

An ablation is a file in ``configs/ablations``: a base config, a number of epochs, seeds, and the
changes that each variant makes to the base. All variants have the same budget and are measured on
the validation cells or images; the test part is never touched.

- ``also: [cil54816-crops]``: data sets whose validation part every variant is measured on as well,
  prepared as the model's own images are, which shows what is left in another laboratory.
- A variant with ``weights_of: NAME`` is not trained: the weights of the variant NAME are measured
  with other attributes of the model, ``attributes: {flip_average: false}``.
"""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chromozoo.benchmark.repository import CONFIGS
from chromozoo.benchmark.results_file import ResultsFile, interval_columns
from chromozoo.data.catalogue import dataset_info, dataset_of_tag
from chromozoo.environment import fast_precision
from chromozoo.errors import ChromozooError, UnknownNameError
from chromozoo.training.configs import change, read_config
from chromozoo.training.recipe import RUNS
from chromozoo.training.runs import keep_last_checkpoint, train

ABLATIONS = CONFIGS / "ablations"


# What classifiers, and what segmenters are measured by, and the words of the tables.
METRICS = {
    "accuracy": "per chromosome (%)",
    "assigned_accuracy": "with assignment (%)",
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "mask_ap_overlap": "mask AP of those that overlap",
}


COLUMNS = (
    "ablation",
    "variant",
    "model",
    "seed",
    "epochs",
    "input_size",
    "split",
    "n_images",
    "n_chromosomes",
    *interval_columns(METRICS),
    "precision",
    "date",
)


KEY = ("ablation", "variant", "model", "seed", "epochs", "input_size", "split")


@dataclass(frozen=True)
class Ablation:
    """An ablation: one file of ``configs/ablations``.

    Attributes:
        name: Stem of the file.
        base: The config that the variants change.
        epochs: Of every variant.
        seeds: Each variant is trained once with each.
        variants: Changes by the variant's name: dotted keys of the config and their values; of
            those that are trained.
        also: Data sets that every variant is measured on, besides the base's own.
        reused: Of the variants that are not trained: the variant whose weights they take, and the
            attributes of the model that they set. Measured last.
    """

    name: str
    base: Path
    epochs: int
    seeds: tuple[int, ...]
    variants: dict[str, dict[str, Any]]
    also: tuple[str, ...] = ()
    reused: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    def config(self, variant: str, seed: int, epochs: int) -> dict[str, Any]:
        """Return the base config with the changes of a variant, in a run folder of its own."""
        config = read_config(self.base).content
        change(config, self.variants[variant])
        config["seed_everything"] = config["data"]["init_args"]["seed"] = seed
        trainer = config["trainer"]
        trainer["max_epochs"] = epochs
        # Validation runs once, at the end.
        trainer["check_val_every_n_epoch"] = epochs
        keep_last_checkpoint(config, self.folder(variant, seed, epochs))
        # No averaged weights: the average of the last 500 steps lags in so short a run.
        trainer["callbacks"] = [
            callback
            for callback in trainer["callbacks"]
            if not callback["class_path"].endswith("EMAWeightAveraging")
        ]
        return config

    def folder(self, variant: str, seed: int, epochs: int) -> Path:
        """Return the folder of the run."""
        words = "-".join(variant.replace(",", " ").split())
        return RUNS / "ablations" / self.name / f"{words}-{epochs}-{seed}"


def read_ablation(name: str) -> Ablation:
    """Read ``configs/ablations/<name>.yaml``.

    Raises:
        UnknownNameError: There is none of this name; or it names a data set or a variant that there
            is not.
        ChromozooError: A variant with weights of another one changes the training, too.
    """
    import yaml

    path = ABLATIONS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(file.stem for file in sorted(ABLATIONS.glob("*.yaml")))
        raise UnknownNameError(f"unknown ablation {name!r}: known are {known}")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    variants: dict[str, dict[str, Any]] = {}
    reused: dict[str, tuple[str, dict[str, Any]]] = {}
    for variant, changes in content["variants"].items():
        if "weights_of" not in changes:
            variants[variant] = changes
        elif changes.keys() == {"weights_of", "attributes"}:
            reused[variant] = changes["weights_of"], changes["attributes"]
        else:
            raise ChromozooError(
                f"{path}: {variant!r} has weights_of, so it takes attributes and nothing else"
            )
    for variant, (source, _) in reused.items():
        if source not in variants:
            raise UnknownNameError(
                f"{path}: {variant!r} has the weights of {source!r}, which is no variant that is "
                f"trained; those are {', '.join(map(repr, variants))}"
            )
    also = tuple(content.get("also", ()))
    for dataset in also:
        dataset_info(dataset)
    return Ablation(
        name=name,
        base=(path.parent / content["base"]).resolve(),
        epochs=content["epochs"],
        seeds=tuple(content["seeds"]),
        variants=variants,
        also=also,
        reused=reused,
    )


def measure_variant(
    ablation: Ablation, variant: str, seed: int, epochs: int, root: str | None
) -> Iterator[dict[str, Any]]:
    """Train a variant, unless that is done, and evaluate its last weights on validation.

    Yields:
        A row for the base's own data set, and for each that is measured also.
    """
    from chromozoo.benchmark.measure import evaluate_on_validation
    from chromozoo.models.registry import get_model, model_info
    from chromozoo.training.recipe import read_recipe

    recipe = read_recipe(ablation.base)
    trained, attributes = ablation.reused.get(variant, (variant, {}))
    config = ablation.config(trained, seed, epochs)
    last = train(config, ablation.folder(trained, seed, epochs), root)
    model: Any = get_model(recipe.model, weights=last)
    for attribute, value in attributes.items():
        if not hasattr(model, attribute):
            raise ChromozooError(
                f"{ablation.name}, {variant}: {recipe.model} has no attribute {attribute!r}; "
                "correct the attributes of this variant"
            )
        setattr(model, attribute, value)
    task = model_info(recipe.model).task
    for info in (dataset_of_tag(recipe.tag, task), *map(dataset_info, ablation.also)):
        data = info.load_data(root=root, preset=model.transforms.to_dict())
        if task == "classification":
            found = _classified(model, data)
        else:
            found = evaluate_on_validation(model, data).to_row() | {"input_size": "whole images"}
        yield {
            "ablation": ablation.name,
            "variant": variant,
            "model": recipe.model,
            "seed": seed,
            "epochs": epochs,
            "split": f"{data.split.name}/val",
            "precision": fast_precision(),
            "date": datetime.date.today().isoformat(),
            **{column: found[column] for column in COLUMNS if column in found},
        }


def _classified(model: Any, data: Any) -> dict[str, Any]:
    from chromozoo.benchmark.inference import predict
    from chromozoo.metrics.classification import evaluate_classification

    crops = data.dataset("val")
    report = evaluate_classification(predict(model, crops)[0], crops.labels, crops.cells)
    preset = model.transforms
    return report.to_row() | {"input_size": f"{preset.height}x{preset.width}"}


def results_file(path: Path) -> ResultsFile:
    """A row is one variant, trained with one seed and measured on one data set."""
    return ResultsFile(path, COLUMNS, KEY, "ablate")


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a result file as text; a missing file has no rows."""
    return results_file(path).read()


def table(rows: Sequence[dict[str, str]], ablation: str) -> str:
    """One ablation as a Markdown table: each variant with its mean over the seeds.

    Where it was measured on several data sets each has its own columns, named by its split.
    """
    rows = [row for row in rows if row["ablation"] == ablation]
    splits = list(dict.fromkeys(row["split"] for row in rows))
    columns = [
        (split, metric)
        for split in splits
        for metric in METRICS
        if any(row[metric] for row in rows if row["split"] == split)
    ]
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        same = tuple(row[key] for key in ("variant", "model", "input_size", "epochs"))
        groups.setdefault(same, []).append(row)
    lines = [
        "| variant | model | input | epochs | seeds | "
        + " | ".join(
            f"{split}, {METRICS[metric]}" if len(splits) > 1 else METRICS[metric]
            for split, metric in columns
        )
        + " |",
        "|---|---|---|---:|---|" + "---|" * len(columns),
    ]
    for key, members in groups.items():
        figures = []
        for split, metric in columns:
            measured = [row for row in members if row["split"] == split]
            if not measured:
                figures.append("–")
                continue
            values = [100 * float(row[metric]) for row in measured]
            mean = f"{sum(values) / len(values):.2f}"
            ends = [measured[0][f"{metric}_{end}"] for end in ("low", "high")]
            if len(measured) > 1:
                mean += f" ({', '.join(f'{value:.2f}' for value in values)})"
            elif all(ends):
                mean += f" [{', '.join(f'{100 * float(end):.1f}' for end in ends)}]"
            figures.append(mean)
        seeds = ", ".join(dict.fromkeys(row["seed"] for row in members))
        lines.append("| " + " | ".join([*key, seeds, *figures]) + " |")
    return "\n".join(lines)


def tables(rows: Sequence[dict[str, str]]) -> str:
    """Return the tables of all ablations with rows, each under its name."""
    names = dict.fromkeys(row["ablation"] for row in rows)
    return "\n\n".join(f"**{name}**\n\n{table(rows, name)}" for name in names)
