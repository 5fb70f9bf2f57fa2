"""Recipes: training configs whose file name says what they train."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chromozoo.data.catalogue import TAGS, DatasetInfo, dataset_of_tag
from chromozoo.errors import ChromozooError, UnknownNameError
from chromozoo.models.registry import list_models, model_info
from chromozoo.training.configs import TrainingConfig, read_config

RUNS = Path("runs")


@dataclass(frozen=True)
class Recipe:
    """A training config named ``<model>_<tag>.yaml``.

    Attributes:
        config: The resolved config.
        model: Registered name of the model that it trains.
        tag: Tag of the weights, which names the data set.
    """

    config: TrainingConfig
    model: str
    tag: str

    @property
    def path(self) -> Path:
        """File of the config."""
        return self.config.path

    @property
    def content(self) -> dict[str, Any]:
        """Settings for LightningCLI."""
        return self.config.content

    @property
    def stem(self) -> str:
        """Name of the config without suffix, and of its folder in ``runs/``."""
        return self.path.stem

    @property
    def dataset(self) -> DatasetInfo:
        """Data set of the tag for the model's task."""
        return dataset_of_tag(self.tag, model_info(self.model).task)


def read_recipe(path: Path) -> Recipe:
    """Read a config that is named ``<model>_<tag>.yaml``.

    Raises:
        ChromozooError: The file is missing or damaged, or lacks a part.
        UnknownNameError: Its name holds no known model and data set.
    """
    if not path.is_file():
        raise ChromozooError(f"{path}: no such config; check the path")
    for name in list_models():
        tag = path.stem.removeprefix(f"{name}_")
        if path.stem.startswith(f"{name}_") and tag in TAGS:
            config = read_config(path)
            _check_parts(path, config.content)
            return Recipe(config, name, tag)
    raise UnknownNameError(
        f"{path}: its name is not <model>_<tag>.yaml with a known model "
        f"({', '.join(list_models())}) and tag ({', '.join(sorted(TAGS))})"
    )


def _check_parts(path: Path, content: dict[str, Any]) -> None:
    for part in ("model", "data", "trainer"):
        if not isinstance(content.get(part), dict):
            raise ChromozooError(
                f"{path}: has no part {part!r}; write it as the configs of the repository"
            )
    for part in ("model", "data"):
        if not isinstance(content[part].get("init_args", {}), dict):
            raise ChromozooError(f"{path}: {part}.init_args is no mapping of arguments; correct it")
