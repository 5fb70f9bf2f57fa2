"""``chromozoo fit|validate|test|predict``: LightningCLI in subclass mode, with composed configs."""

import csv
import json
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import torch
import yaml
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.cli import LightningCLI

from chromozoo import __version__
from chromozoo.classes import CLASSES
from chromozoo.errors import TrainingError, WeightsError
from chromozoo.models.weights.checkpoint import load_checkpoint
from chromozoo.training.configs import TrainingConfig, config_arguments

# What Lightning itself takes for the path of a checkpoint.
CHECKPOINT_WORDS = ("best", "last", "hpc", "registry")


class PredictionTable(BasePredictionWriter):
    """Write the predictions of ``chromozoo predict`` into the run's folder.

    Classifiers give ``predictions.csv`` with the columns ``index`` (of the item in the predicted
    data set), ``label``, ``probability`` and one for each class; segmenters ``predictions.json``,
    a list of ``index`` and ``instances`` as ``chromozoo segment`` writes them. Under DDP each
    process writes its own share, ``predictions-<rank>.csv``.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        rank = f"-{trainer.global_rank}" if trainer.world_size > 1 else ""
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        instances = any("instances" in batch for batch in predictions)
        path = folder / f"predictions{rank}{'.json' if instances else '.csv'}"
        temporary = path.with_suffix(".part")
        with temporary.open("w", newline="") as file:
            (_write_instances if instances else _write_classes)(file, predictions)
        os.replace(temporary, path)
        print(f"predictions: {path}")


def _write_classes(file: TextIO, predictions: Sequence[Any]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["index", "label", "probability", *CLASSES])
    for batch in predictions:
        for index, values in zip(
            batch["index"].tolist(), batch["probabilities"].tolist(), strict=True
        ):
            best = max(range(len(values)), key=values.__getitem__)
            row = [index, CLASSES[best], f"{values[best]:.4f}"]
            writer.writerow([*row, *(f"{value:.6f}" for value in values)])


def _write_instances(file: TextIO, predictions: Sequence[Any]) -> None:
    images = [
        {"index": index, "instances": instances}
        for batch in predictions
        for index, instances in zip(batch["index"].tolist(), batch["instances"], strict=True)
    ]
    json.dump(images, file, indent=1)


class TrainingCLI(LightningCLI):
    """LightningCLI that checks a checkpoint before anything is built from it.

    Lightning would silently take the class of the model, too, from the checkpoint.
    """

    def parse_arguments(self, *arguments: Any) -> None:
        super().parse_arguments(*arguments)
        config = self.config.get(self.config.get("subcommand") or "", {})
        path = config.get("ckpt_path")
        if not path or path.startswith(CHECKPOINT_WORDS) or "://" in path:
            return
        load_checkpoint(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        trained = checkpoint.get("hyper_parameters", {}).get("_class_path")
        asked = config.model.class_path
        if trained not in (None, asked):
            raise WeightsError(
                f"{path}: is of {trained}, and the config asks for {asked}; give the config that "
                "this checkpoint was trained with, or a checkpoint of this one"
            )


def main(arguments: list[str]) -> LightningCLI:
    """Run one command.

    Args:
        arguments: The command line without the program's name.

    Example:
        >>> main(["fit", "--config", "configs/classification/chrnet4_bioimlab.yaml"])
    """
    parser: dict[str, Any] = {"prog": "chromozoo", "version": __version__}
    defaults: dict[str, Any] = {"callbacks": PredictionTable()} if arguments[0] == "predict" else {}
    with TemporaryDirectory() as folder:
        words = config_arguments(arguments, partial(_write_resolved, Path(folder)))
        if words != sys.argv[1:]:
            # LightningCLI warns of words that are not those of the process.
            warnings.filterwarnings("ignore", "LightningCLI's args parameter is intended")
        return TrainingCLI(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults=defaults,
            parser_kwargs=parser,
            # None: LightningCLI reads the command line itself, and warns if it is given both.
            args=None if words == sys.argv[1:] else words,
        )


def _write_resolved(folder: Path, config: TrainingConfig) -> Path:
    path = folder / config.path.name
    path.write_text(yaml.safe_dump(config.content))
    return path


def run(arguments: list[str]) -> int:
    """Run one command and return the exit status.

    Raises:
        TrainingError: The settings do not go together, or a model or data set refuses them.
        WeightsError: The checkpoint is missing, damaged or of another model.
    """
    if hasattr(signal, "SIGBREAK"):
        # How another process interrupts this one on Windows, see chromozoo.benchmark.zoo_training.
        signal.signal(signal.SIGBREAK, signal.default_int_handler)
    try:
        main(arguments)
    except MisconfigurationException as error:
        raise TrainingError(str(error)) from error
    except ValueError as error:
        if not (reasons := _refusals(str(error))):
            raise
        raise TrainingError("; ".join(reasons)) from error
    return 0


def _refusals(text: str) -> list[str]:
    """Return what a class says of its arguments, from the page that jsonargparse prints."""
    if "Does not validate against any of the Union subtypes" not in text:
        return []
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    start = lines.index("Errors:") + 1 if "Errors:" in lines else len(lines)
    ends = (n for n, line in enumerate(lines) if n >= start and line.startswith("Given value type"))
    reasons = lines[start : next(ends, len(lines))]
    return [reason for reason in reasons if reason and not reason.startswith("Expected a <class")]
