"""TODO docstring."""

import fnmatch
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from chromozoo.benchmark.recipe import Recipe, read_recipe
from chromozoo.benchmark.repository import ROOT
from chromozoo.environment import fast_precision
from chromozoo.errors import ChromozooError
from chromozoo.files import replace_file
from chromozoo.models.registry import TASKS

CONFIGS = tuple(ROOT / "configs" / task for task in TASKS)


# Lightning needs this long to end an epoch's step and close its files.
SECONDS_TO_STOP = 60


# What ends a training cleanly: Windows sends another process no SIGINT, but a break, if it has a
# group of its own (`chromozoo.cli.train` takes it for an interrupt).
INTERRUPT = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)


OWN_GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)


def find_recipes(patterns: list[str]) -> list[Recipe]:
    """The configs that train weights for the zoo, by config stem or model name.

    Raises:
        ChromozooError: A pattern fits no config.
    """
    # Ablations stand in folders below; the configs of the zoo stand here.
    recipes = [read_recipe(path) for folder in CONFIGS for path in sorted(folder.glob("*.yaml"))]
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


class _Record:
    """What is done of one config, kept in ``runs/<config>/zoo.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "zoo.json"
        self.values: dict[str, Any] = {}
        if self.path.exists():
            try:
                self.values = dict(json.loads(self.path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise ChromozooError(
                    f"{self.path}: is damaged ({error}); remove it, and the training goes on from "
                    "its last epoch"
                ) from error

    @property
    def packaged(self) -> bool:
        return "packaged" in self.values

    @property
    def trained(self) -> bool:
        return bool(self.values.get("trained"))

    @property
    def state(self) -> str:
        if self.trained:
            return "trained, not packaged"
        if (self.folder / "last.ckpt").exists():
            return f"begun, {self.values.get('seconds', 0) / 60:.0f} min so far"
        return "not begun"

    @property
    def described(self) -> str:
        minutes = self.values.get("seconds", 0) / 60
        device, precision = (self.values.get(key, "") for key in ("device", "precision"))
        return f"{device}, {precision}, {minutes:.0f} min"

    def update(self, **values: object) -> None:
        self.values |= values
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.path, json.dumps(self.values, indent=1).encode())


def _fit(recipe: Recipe, record: _Record, seconds: float, root: str | None) -> bool:
    """Trains in a process of its own; True when it came to its last epoch."""
    import torch

    words = ["fit", "--config", str(recipe.path), "--trainer.precision", fast_precision()]
    if root:
        words += ["--data.init_args.root", root]
    if (last := record.folder / "last.ckpt").exists():
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
        status = process.wait(timeout=seconds - SECONDS_TO_STOP / 2)
        if status != 0:
            raise ChromozooError(
                f"{recipe.stem}: training failed with status {status}, see above; "
                "mend it and call the same command again"
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
        record.update(
            seconds=round(spent), device=device, precision=fast_precision(), trained=finished
        )
    return finished
