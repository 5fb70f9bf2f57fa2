"""Lineage of weights: every stage of their training, from the first weights on.

A stage is a mapping of plain values: ``config`` (path in the repository), ``config_sha256`` (hash
of the resolved config), ``round`` (from 1), ``dataset``, ``learnt_from`` (tags of all data sets
whose cells it saw), ``split``, ``split_sha256``, ``seed``, ``epochs`` and ``init_from``.
"""

import copy
from typing import Any

from chromozoo.benchmark.repository import ROOT
from chromozoo.data.catalogue import DATASETS
from chromozoo.data.splits import Split
from chromozoo.errors import ChromozooError
from chromozoo.models.init_from import ZOO
from chromozoo.models.registry import get_weight, models
from chromozoo.training.configs import change
from chromozoo.training.recipe import Recipe


def lineage_of(recipe: Recipe, split: Split) -> list[dict[str, Any]]:
    """Return all stages behind weights that a recipe has trained.

    Args:
        recipe: Recipe of the last training.
        split: Split that it trained on.

    Raises:
        UnknownNameError: The recipe starts from weights that the zoo does not have.
    """
    stages: list[dict[str, Any]] = []
    init_from = recipe.content["model"].get("init_args", {}).get("init_from")
    name, _, tag = str(init_from or "").removeprefix(ZOO).partition(":")
    if name in models():
        stages += get_weight(name, tag or "DEFAULT").lineage
    info = recipe.dataset
    for number, changes in enumerate(recipe.config.rounds or ({},), start=1):
        content = copy.deepcopy(recipe.content)
        change(content, changes)
        stages.append(
            {
                "config": config_path(recipe),
                "config_sha256": recipe.config.sha256,
                "round": number,
                "dataset": info.name,
                "learnt_from": sorted({info.tag, *info.parts}),
                "split": split.name,
                "split_sha256": split.sha256,
                "seed": int(content.get("seed_everything", 0)),
                "epochs": content["trainer"].get("max_epochs"),
                "init_from": init_from if number == 1 else f"round {number - 1}",
            }
        )
    return stages


def config_path(recipe: Recipe) -> str:
    """Return the path of a recipe's config in the repository, else its file name."""
    path = recipe.path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def refuse_cells_of_folds(recipe: Recipe, init_from: object) -> None:
    """Check that the weights which folds start from have not learnt from the folds' own data.

    Args:
        recipe: Recipe of the folds.
        init_from: Value of ``model.init_args.init_from``.

    Raises:
        ChromozooError: These weights, or weights that they started from, learnt from the recipe's
            data, or their lineage is not recorded.
        UnknownNameError: The zoo has no such model or tag.
    """
    if not isinstance(init_from, str | None):
        raise ChromozooError(
            f"{recipe.path}: init_from is {init_from!r}; give the name or path of weights, or null"
        )
    if not init_from or not init_from.startswith(ZOO):
        return
    name, _, tag = init_from.removeprefix(ZOO).partition(":")
    entry = get_weight(name, tag or "DEFAULT")
    if not entry.lineage:
        raise ChromozooError(
            f"{recipe.path}: starts from {init_from}, and the entry of these weights does not "
            "record what they learnt from; package them again"
        )
    known = {info.tag for info in DATASETS.values()}
    seen = {one for stage in entry.lineage for one in stage["learnt_from"]} & known
    if recipe.tag in seen:
        raise ChromozooError(
            f"{recipe.path}: starts from {init_from}, and {entry.model}:{entry.tag} learnt from "
            f"{recipe.tag}, test cells of the folds included; give others, such as --set "
            "model.init_args.init_from=null"
        )
