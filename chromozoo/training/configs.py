"""Training configs: parts in ``_base_``, short class names and the folder of the run.

A config is a YAML file for LightningCLI with five additions, which :func:`read_config` resolves:

- ``_base_``: path, or list of paths, of configs that this one extends, relative to its own folder.
  Mappings are merged key by key, the later file wins, and any other value is replaced.
- ``${name}`` in a value: the stem of the config's file name, which is also the folder of its run.
- ``class_path`` of the model and of the data without a module, such as ``ChrNet4``.
- ``trainer.callbacks`` as a mapping of callbacks by name: an extending config can change one of
  them, or remove it by null.
- ``rounds`` and ``packaging``, see :class:`TrainingConfig`.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from chromozoo.data.catalogue import DATASETS
from chromozoo.errors import ChromozooError
from chromozoo.models.registry import models

BASE = "_base_"
MAX_DEPTH = 10  # of configs that extend each other


@dataclass(frozen=True)
class TrainingConfig:
    """A resolved config.

    Attributes:
        path: Its file.
        content: What LightningCLI reads: ``seed_everything``, ``trainer``, ``model``, ``data``.
        rounds: Trainings in a row, each as the changes that it makes to ``content``, by dotted key.
            The first starts as ``content`` says, each of the others from the weights of the one
            before. Empty for a single training.
        packaging: How the weights are packaged: ``preset`` (changes to the preset of the training),
            ``storage``. Empty for the defaults.
    """

    path: Path
    content: dict[str, Any]
    rounds: tuple[dict[str, Any], ...] = ()
    packaging: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of all that the config says, however it is divided into files."""
        parts = [self.content, list(self.rounds), self.packaging]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_config(path: str | Path) -> TrainingConfig:
    """Read a training config and resolve its parts.

    Args:
        path: The YAML file.

    Returns:
        The config; nothing of it has been imported or built.

    Raises:
        ChromozooError: A file is missing or is no YAML mapping, or a class name is unknown.
    """
    path = Path(path)
    content = _insert_name(_merged(path, ()), path.stem)
    rounds, packaging = content.pop("rounds", None) or [], content.pop("packaging", None) or {}
    if not isinstance(rounds, list) or not isinstance(packaging, dict):
        raise ChromozooError(
            f"{path}: rounds must be a list of changes, packaging a mapping; see "
            "chromozoo.training.configs"
        )
    for part, known in (("model", _model_classes), ("data", _data_classes)):
        chosen = content.get(part)
        if isinstance(chosen, dict) and isinstance(chosen.get("class_path"), str):
            chosen["class_path"] = _full_class_path(chosen["class_path"], known(), path)
    trainer = content.get("trainer")
    if isinstance(trainer, dict) and isinstance(trainer.get("callbacks"), dict):
        trainer["callbacks"] = [one for one in trainer["callbacks"].values() if one is not None]
    return TrainingConfig(path, content, tuple(rounds), packaging)


def is_composed(path: str | Path) -> bool:
    """Whether LightningCLI cannot read a config as it is: it extends another one."""
    try:
        return BASE in _load(Path(path))
    except ChromozooError:
        return False  # LightningCLI reports it


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ChromozooError(f"{path}: no such config; check the path")
    try:
        content = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ChromozooError(f"{path}: cannot be read as YAML ({error}); correct it") from error
    if not isinstance(content, dict):
        raise ChromozooError(
            f"{path}: holds no parts by name; write it as the configs of the repository"
        )
    return content


def _merged(path: Path, extending: tuple[Path, ...]) -> dict[str, Any]:
    """The content of a config on top of the configs that it extends."""
    if path.resolve() in extending or len(extending) >= MAX_DEPTH:
        chain = " > ".join(str(one) for one in (*extending, path.resolve()))
        raise ChromozooError(f"{path}: {BASE} leads in a circle ({chain}); remove one of them")
    content = _load(path)
    named = content.pop(BASE, None) or []
    bases: list[str] = [named] if isinstance(named, str) else named
    result: dict[str, Any] = {}
    for base in bases:
        result = merge(result, _merged(path.parent / base, (*extending, path.resolve())))
    return merge(result, content)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings key by key, at all depths; values of ``changes`` win."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = merge(old, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _insert_name(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value.replace("${name}", name)
    if isinstance(value, dict):
        return {key: _insert_name(item, name) for key, item in value.items()}
    return [_insert_name(item, name) for item in value] if isinstance(value, list) else value


def _model_classes() -> dict[str, str]:
    return {info.class_name: info.module for info in models().values() if info.class_name}


def _data_classes() -> dict[str, str]:
    return {info.data_module: info.module for info in DATASETS.values()}


def _full_class_path(name: str, modules: Mapping[str, str], path: Path) -> str:
    if "." in name:
        return name
    if name not in modules:
        raise ChromozooError(
            f"{path}: unknown class {name!r}; use one of {', '.join(sorted(modules))}, or a full "
            "class path"
        )
    return f"{modules[name]}.{name}"


def change(config: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Set values in a config by dotted keys such as ``"model.init_args.lr"``.

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


def config_arguments(arguments: Sequence[str], write: Any) -> list[str]:
    """Replace composed configs on a command line of LightningCLI by resolved ones.

    Args:
        arguments: Words such as ``["fit", "--config", "a.yaml"]``; also ``--config=a.yaml``.
        write: Called with a :class:`TrainingConfig`; returns the path of a file that holds its
            ``content``.

    Returns:
        The words with the paths replaced.
    """
    words = list(arguments)
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option not in ("--config", "-c"):
            continue
        place = index if equals else index + 1
        if place >= len(words):
            continue
        value = value if equals else words[place]
        if is_composed(value):
            resolved = str(write(read_config(value)))
            words[place] = f"{option}={resolved}" if equals else resolved
    return words
