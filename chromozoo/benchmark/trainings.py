"""Trainings that other commands start: a config with changes, in a run folder of its own."""

import copy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chromozoo.environment import fast_precision
from chromozoo.errors import ChromozooError
from chromozoo.files import replace_file


def change(config: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Sets values in a config, by dotted keys such as ``"model.init_args.lr"``.

    The place of a list's item is its number, as in ``"trainer.callbacks.0.init_args.decay"``.

    Raises:
        ChromozooError: A key leads nowhere.
    """
    for key, value in changes.items():
        *parents, last = key.split(".")
        place: Any = config
        try:
            for parent in parents:
                is_list = isinstance(place, list)
                place = place[int(parent)] if is_list else place.setdefault(parent, {})
            place[int(last) if isinstance(place, list) else last] = copy.deepcopy(value)
        except (ValueError, IndexError, AttributeError, TypeError) as error:
            raise ChromozooError(f"{key}: the config has no such place ({error})") from error


def keep_last_alone(config: dict[str, Any], folder: Path) -> None:
    """Lets a config log to a folder and keep its last weights there.

    A best of many looks at few validation cells would flatter.
    """
    trainer = config["trainer"]
    trainer["logger"] = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(folder), "name": "", "version": ""},
    }
    trainer["callbacks"] = [
        callback
        for callback in trainer["callbacks"]
        if callback.get("init_args", {}).get("filename") != "best"
    ]
    for callback in trainer["callbacks"]:
        if "dirpath" in callback.get("init_args", {}):
            callback["init_args"]["dirpath"] = str(folder)


def train(config: dict[str, Any], folder: Path, root: str | None = None) -> Path:
    """Trains to the last epoch, in a process of its own, unless that is done.

    Args:
        config: With ``folder`` as in :func:`keep_last_alone`.
        folder: Of the run; a begun training in it goes on.
        root: Folder of the data.

    Returns:
        The checkpoint with the last weights.

    Raises:
        ChromozooError: The training failed, or the folder holds one with other values.
    """
    import yaml

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
            f"{written}: training failed with status {status}, see above; mend it and call the "
            "same command again"
        )
    finished.touch()
    return last
