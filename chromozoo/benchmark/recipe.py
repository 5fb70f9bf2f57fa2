"""TODO docstring."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chromozoo.data.catalogue import TAGS, DatasetInfo, dataset_of_tag
from chromozoo.errors import ChromozooError, UnknownNameError
from chromozoo.models.registry import list_models, model_info

RUNS = Path("runs")


@dataclass(frozen=True)
class Recipe:
    """A training config: its file, the model and tag in its name, and its content."""

    path: Path
    model: str
    tag: str
    content: dict[str, Any]

    @property
    def stem(self) -> str:
        """Name of the config without suffix; also of its folder in ``runs/``."""
        return self.path.stem

    @property
    def dataset(self) -> DatasetInfo:
        """What it trains on: the data set of this tag for the model's task."""
        return dataset_of_tag(self.tag, model_info(self.model).task)


def read_recipe(path: Path) -> Recipe:
    """Reads a config whose name says what it trains: ``<model>_<tag>.yaml``.

    Raises:
        ChromozooError: No such file, or its name holds no known model and data set.
    """
    import yaml

    if not path.is_file():
        raise ChromozooError(f"{path}: no such config")
    for name in list_models():
        tag = path.stem.removeprefix(f"{name}_")
        if path.stem.startswith(f"{name}_") and tag in TAGS:
            try:
                content = yaml.safe_load(path.read_bytes())
            except (OSError, ValueError, yaml.YAMLError) as error:
                raise ChromozooError(f"{path}: is no YAML file ({error}); mend it") from error
            _check_content(path, content)
            return Recipe(path, name, tag, content)
    raise UnknownNameError(
        f"{path}: its name is not <model>_<tag>.yaml with a known model "
        f"({', '.join(list_models())}) and tag ({', '.join(sorted(TAGS))})"
    )


def _check_content(path: Path, content: Any) -> None:
    """Refuses a config without the parts that are read here."""
    parts = content if isinstance(content, dict) else {}
    for part in ("model", "data", "trainer"):
        if not isinstance(parts.get(part), dict):
            raise ChromozooError(
                f"{path}: has no part {part!r}; write it as those in the repository's configs/"
            )
    for part in ("model", "data"):
        if not isinstance(parts[part].get("init_args", {}), dict):
            raise ChromozooError(f"{path}: {part}.init_args are no arguments by name; mend them")
