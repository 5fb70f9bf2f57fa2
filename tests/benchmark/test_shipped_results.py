"""The repository's results: rows belong to shipped weights and splits, tables to rows."""

import csv
from typing import Any

import pytest

from chromozoo.benchmark.cards import card_markdown, card_path
from chromozoo.benchmark.measure import (
    evaluate_classifier,
    evaluate_segmenter,
    load_model_with_entry,
)
from chromozoo.benchmark.publish import KINDS, kind_of_task
from chromozoo.benchmark.repository import LEADERBOARD, ROOT, WEIGHTS
from chromozoo.benchmark.results_file import ResultsFile
from chromozoo.benchmark.tables.markdown import table_is_current
from chromozoo.data.catalogue import dataset_of_tag
from chromozoo.data.splits import load_split
from chromozoo.models.registry import list_models, model_info
from chromozoo.models.weights.index import weights_entries
from chromozoo.structures.weights_entry import MAX_BYTES
from chromozoo.training.recipe import read_recipe

SHIPPED = [(name, tag) for name in list_models() for tag in weights_entries(name)]


def rows_of(kind: str) -> list[dict[str, str]]:
    kind_ = KINDS[kind]
    return ResultsFile(kind_.path, kind_.columns, kind_.key, kind).read()


ROWS = {task: rows_of(kind_of_task(task).name) for task in ("classification", "segmentation")}


def test_every_weights_file_has_an_entry_and_a_row() -> None:
    files = {path.name for path in WEIGHTS.glob("*.safetensors")}
    entries = [weights_entries(name)[tag] for name, tag in SHIPPED]
    assert files == {entry.file for entry in entries}
    measured = {row["weights_sha256"] for rows in ROWS.values() for row in rows}
    assert {entry.sha256[:12] for entry in entries} <= measured
    assert all(entry.size_bytes <= MAX_BYTES for entry in entries)
    assert sum(entry.size_bytes for entry in entries) < 300e6


@pytest.mark.parametrize(("name", "tag"), SHIPPED)
def test_entry_repeats_its_rows(name: str, tag: str) -> None:
    entry = weights_entries(name)[tag]
    task = model_info(name).task
    rows = {row["split"]: row for row in ROWS[task] if row["weights_sha256"] == entry.sha256[:12]}
    assert load_split(entry.split).sha256 == entry.split_sha256
    assert f"{entry.split}/test" in entry.metrics
    for split, metrics in entry.metrics.items():
        assert metrics
        for metric, figure in metrics.items():
            assert float(rows[split][metric]) == figure, (split, metric)
        assert int(rows[split]["parameters"]) == entry.parameters
        assert rows[split]["split_sha256"] == load_split(split.split("/")[0]).sha256[:12]
    assert entry.intended_use == "research use only, not for diagnosis"


@pytest.mark.parametrize(("name", "tag"), SHIPPED)
def test_entry_records_the_config_and_every_stage(name: str, tag: str) -> None:
    entry = weights_entries(name)[tag]
    recipe = read_recipe(ROOT / entry.config)
    assert (recipe.model, recipe.tag) == (name, tag)
    assert recipe.config.sha256 == entry.config_sha256, "the config has changed since the training"
    last = entry.lineage[-1]
    assert (last["config"], last["config_sha256"]) == (entry.config, entry.config_sha256)
    assert last["split_sha256"] == entry.split_sha256
    assert last["round"] == max(len(recipe.config.rounds), 1)
    if recipe.content["model"]["init_args"].get("init_from"):
        first = entry.lineage[0]
        assert first["config"] != entry.config and first["init_from"] is None
    for stage in entry.lineage:
        assert stage["config_sha256"] == read_recipe(ROOT / stage["config"]).config.sha256
        assert load_split(stage["split"]).sha256 == stage["split_sha256"]
    # What the builder is given is what the config trains, or changes when it is packaged.
    trained = recipe.content["model"]["init_args"]
    packaged = trained.get("preset", {}) | recipe.config.packaging.get("preset", {})
    for key, value in packaged.items():
        assert entry.init_args["preset"][key] == value
    for key in entry.init_args.keys() & trained.keys() - {"preset"}:
        assert entry.init_args[key] == trained[key]


@pytest.mark.data
@pytest.mark.parametrize(("name", "tag"), [one for one in SHIPPED if one[1] == "bioimlab"])
def test_shipped_weights_reproduce_their_row(name: str, tag: str, real_data: Any) -> None:
    """Larger data sets are left out: `metaphase` takes 20 minutes and `pki3` 8."""
    entry = weights_entries(name)[tag]
    task = model_info(name).task
    dataset = dataset_of_tag(tag, task).name
    figures = entry.metrics[f"{entry.split}/test"]
    model = load_model_with_entry(name, tag, "cpu")
    if task == "segmentation":
        row = evaluate_segmenter(model, dataset, "test", root=str(real_data))
        for metric in ("box_ap", "box_ap50", "mask_ap", "mask_ap50"):
            assert row[metric] == pytest.approx(figures[metric], abs=0.003)
        return
    row = evaluate_classifier(model, dataset, "test", root=str(real_data))[1]
    # Convolutions differ in the last bits between machines: one chromosome of 644 may tip over.
    for metric in ("accuracy", "assigned_accuracy"):
        assert row[metric] == pytest.approx(figures[metric], abs=2.5 / row["n_chromosomes"])
    assert row["ece"] == pytest.approx(figures["ece"], abs=0.003)


@pytest.mark.parametrize("kind", ["karyotyping", "aneuploidy", "calibration"])
def test_rows_are_of_shipped_weights_and_committed_splits(kind: str) -> None:
    shipped = {weights_entries(name)[tag].sha256[:12] for name, tag in SHIPPED}
    rows = rows_of(kind)
    assert rows
    for row in rows:
        assert {row[column] for _, _, column in KINDS[kind].weights} <= shipped
        assert load_split(row["split"].split("/")[0]).sha256[:12] == row["split_sha256"]


@pytest.mark.parametrize("kind", KINDS)
def test_tables_are_those_of_the_rows(kind: str) -> None:
    for name, table in KINDS[kind].tables.items():
        assert table_is_current(LEADERBOARD, name, table()), name


@pytest.mark.parametrize("name", list_models())
def test_cards_are_current(name: str) -> None:
    assert card_path(name).read_text(encoding="utf-8") == card_markdown(name)


def test_result_files_hold_no_columns_of_another_kind() -> None:
    for kind in KINDS.values():
        with kind.path.open(newline="", encoding="utf-8") as file:
            assert set(next(csv.reader(file))) <= set(kind.columns)
