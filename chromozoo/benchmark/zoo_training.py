"""Training of the configs of the zoo within a time budget.

It can be stopped at any time and called again: a finished config is skipped, and a training that
was begun continues from its last epoch (``runs/<config>/last.ckpt``).
"""

import copy
import fnmatch
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from chromozoo.benchmark.repository import CONFIGS
from chromozoo.environment import fast_precision
from chromozoo.errors import ChromozooError
from chromozoo.files import replace_file
from chromozoo.models.registry import TASKS
from chromozoo.training.configs import change
from chromozoo.training.recipe import RUNS, Recipe, read_recipe
from chromozoo.training.runs import set_run_folder

FOLDERS = tuple(CONFIGS / task for task in TASKS)
# Lightning needs this long to end an epoch's step and close its files.
SECONDS_TO_STOP = 60
# What ends a training cleanly. Windows sends another process no SIGINT, but a break, if it has a
# process group of its own (`chromozoo.training.command` takes it for an interrupt).
INTERRUPT = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)
OWN_GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)


def find_recipes(patterns: list[str]) -> list[Recipe]:
    """Find the configs that train weights of the zoo, by config stem or model name.

    Raises:
        ChromozooError: A pattern fits no config.
    """
    # Ablations stand in folders below; the configs of the zoo stand here.
    recipes = [read_recipe(path) for folder in FOLDERS for path in sorted(folder.glob("*.yaml"))]
    chosen: list[Recipe] = []
    for pattern in patterns:
        fitting = [
            recipe
            for recipe in recipes
            if fnmatch.fnmatch(recipe.stem, pattern) or fnmatch.fnmatch(recipe.model, pattern)
        ]
        if not fitting:
            raise ChromozooError(
                f"--only {pattern}: no such config; there are "
                + ", ".join(recipe.stem for recipe in recipes)
            )
        chosen += [recipe for recipe in fitting if recipe not in chosen]
    return chosen


class TrainingRecord:
    """Progress of one config, kept in ``runs/<config>/zoo.json``."""

    def __init__(self, recipe: Recipe) -> None:
        self.folder = RUNS / recipe.stem
        self.path = self.folder / "zoo.json"
        self.values: dict[str, Any] = {}
        if self.path.exists():
            try:
                self.values = dict(json.loads(self.path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise ChromozooError(
                    f"{self.path}: is damaged ({error}); remove it, and the training continues "
                    "from its last epoch"
                ) from error

    @property
    def packaged(self) -> bool:
        """Whether its weights are packaged."""
        return "packaged" in self.values

    @property
    def trained(self) -> bool:
        """Whether its last epoch is done."""
        return bool(self.values.get("trained"))

    @property
    def rounds(self) -> int:
        """Number of finished rounds before the last one."""
        return int(self.values.get("rounds", 0))

    @property
    def state(self) -> str:
        """Progress in words."""
        if self.trained:
            return "trained, not packaged"
        if self.rounds or any(self.folder.rglob("last.ckpt")):
            return f"begun, {self.values.get('seconds', 0) / 60:.0f} min so far"
        return "not begun"

    @property
    def described(self) -> str:
        """Machine and time in words, for the weights entry."""
        minutes = self.values.get("seconds", 0) / 60
        device, precision = (self.values.get(key, "") for key in ("device", "precision"))
        return f"{device}, {precision}, {minutes:.0f} min"

    def update(self, **values: object) -> None:
        """Set values and write them to the file."""
        self.values |= values
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.path, json.dumps(self.values, indent=1).encode())


def fit(recipe: Recipe, record: TrainingRecord, seconds: float, root: str | None) -> bool:
    """Train a recipe, round by round, for a limited time.

    Args:
        recipe: What to train.
        record: Its progress, which is updated.
        seconds: Time for all of it.
        root: Folder of the data.

    Returns:
        Whether its last epoch is done.

    Raises:
        ChromozooError: A training failed.
    """
    end = time.monotonic() + seconds
    rounds = recipe.config.rounds or ({},)
    for number, changes in enumerate(rounds, start=1):
        is_last = number == len(rounds)
        if number <= record.rounds:
            continue
        content = copy.deepcopy(recipe.content)
        change(content, changes)
        if number > 1:
            before = record.folder / f"round-{number - 1}" / "last.ckpt"
            content["model"]["init_args"]["init_from"] = str(before)
        folder = record.folder if is_last else record.folder / f"round-{number}"
        set_run_folder(content, folder)
        if not _fit_round(content, folder, record, end - time.monotonic(), root):
            return False
        record.update(**({"trained": True} if is_last else {"rounds": number}))
    return True


def _fit_round(
    content: dict[str, Any],
    folder: Path,
    record: TrainingRecord,
    seconds: float,
    root: str | None,
) -> bool:
    """Train one round in a process of its own; True if it came to its last epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "training.yaml"  # Lightning writes a config.yaml of its own
    replace_file(config, yaml.safe_dump(content).encode())
    precision = content["trainer"].get("precision") or fast_precision()
    words = ["fit", "--config", str(config), "--trainer.precision", precision]
    if root:
        words += ["--data.init_args.root", root]
    if (last := folder / "last.ckpt").exists():
        words += ["--ckpt_path", str(last)]
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    )
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "chromozoo.cli.main", *words], creationflags=OWN_GROUP
    )
    finished = False
    try:
        status = process.wait(timeout=max(seconds - SECONDS_TO_STOP / 2, 0.0))
        if status != 0:
            raise ChromozooError(
                f"{config}: training failed with status {status}, see above; correct it and call "
                "the same command again"
            )
        finished = True
    except subprocess.TimeoutExpired:
        # Lightning ends cleanly on an interrupt; the last whole epoch is on disk.
        process.send_signal(INTERRUPT)
        try:
            process.wait(timeout=SECONDS_TO_STOP / 2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    finally:
        spent = record.values.get("seconds", 0) + time.monotonic() - start
        record.update(seconds=round(spent), device=device, precision=precision)
    return finished
