"""Trainings in a process of their own: a config with changes, in a run folder of its own."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from chromozoo.environment import fast_precision
from chromozoo.errors import ChromozooError
from chromozoo.files import replace_file


def set_run_folder(config: dict[str, Any], folder: Path) -> None:
    """Let a config log to a folder and keep its checkpoints there."""
    trainer = config["trainer"]
    trainer["logger"] = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(folder), "name": "", "version": ""},
    }
    for callback in trainer["callbacks"]:
        if "dirpath" in callback.get("init_args", {}):
            callback["init_args"]["dirpath"] = str(folder)


def keep_last_checkpoint(config: dict[str, Any], folder: Path) -> None:
    """Let a config log to a folder and keep its last weights there, without a best checkpoint.

    The best of many evaluations on few validation cells would be too optimistic.
    """
    trainer = config["trainer"]
    trainer["callbacks"] = [
        callback
        for callback in trainer["callbacks"]
        if callback.get("init_args", {}).get("filename") != "best"
    ]
    set_run_folder(config, folder)


def train(config: dict[str, Any], folder: Path, root: str | None = None) -> Path:
    """Train to the last epoch in a process of its own, unless that is done.

    Args:
        config: With ``folder`` as in :func:`keep_last_checkpoint`.
        folder: Folder of the run; a training that was begun in it continues.
        root: Folder of the data.

    Returns:
        The checkpoint with the last weights.

    Raises:
        ChromozooError: The training failed, or the folder holds one with other values.
    """
    # Lightning writes a config.yaml of its own.
    finished, last, written = folder / "finished", folder / "last.ckpt", folder / "training.yaml"
    text = yaml.safe_dump(config)
    if written.exists() and written.read_text() != text:
        raise ChromozooError(
            f"{written}: holds a training with other values; remove its folder to train anew"
        )
    if finished.exists():
        return last
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(written, text.encode())
    words = ["fit", "--config", str(written), "--trainer.precision", fast_precision()]
    words += ["--data.init_args.root", root] if root else []
    words += ["--ckpt_path", str(last)] if last.exists() else []
    print(f"{folder}: training", flush=True)
    status = subprocess.run(
        [sys.executable, "-m", "chromozoo.cli.main", *words], check=False
    ).returncode
    if status:
        raise ChromozooError(
            f"{written}: training failed with status {status}, see above; correct it and call the "
            "same command again"
        )
    finished.touch()
    return last
