"""What is shipped: weights, cards, rows and examples belong together and do what they say."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chromozoo.benchmark.publish_karyotyping import RESULTS as KARYOTYPING_RESULTS
from PIL import Image

from chromozoo.benchmark import aneuploidy, calibration, publish, publish_karyotyping
from chromozoo.benchmark.cards import card_markdown, card_path
from chromozoo.benchmark.measure import measure, measure_segmenter
from chromozoo.benchmark.publish import RESULTS, SEGMENTATION_RESULTS
from chromozoo.benchmark.results_file import ResultsFile
from chromozoo.benchmark.tables import karyotyping as leaderboard_karyotyping
from chromozoo.benchmark.tables import segmentation as leaderboard_segmentation
from chromozoo.benchmark.tables.classification import read_results
from chromozoo.benchmark.tables.markdown import table_is_current
from chromozoo.classes import CLASSES
from chromozoo.data.catalogue import dataset_of_tag
from chromozoo.data.splits import load_split
from chromozoo.models.registry import get_model, get_weight, list_models, model_info
from chromozoo.models.weights.index import weights_entries
from chromozoo.structures.weights_entry import MAX_BYTES

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "cell_46XY"
SHIPPED = [(name, tag) for name in list_models() for tag in weights_entries(name)]
ROWS = {
    "classification": read_results(RESULTS),
    "segmentation": leaderboard_segmentation.read_results(SEGMENTATION_RESULTS),
}


def test_there_are_weights() -> None:
    assert ("chrnet4", "bioimlab") in SHIPPED


@pytest.mark.parametrize("name", list_models(pretrained=True))
def test_the_default_weights_are_shipped(name: str) -> None:
    assert (name, get_weight(name).tag) in SHIPPED


def test_every_weights_file_has_an_entry_and_a_row() -> None:
    files = {path.name for path in (REPOSITORY / "weights").glob("*.safetensors")}
    entries = [weights_entries(name)[tag] for name, tag in SHIPPED]
    assert files == {entry.file for entry in entries}
    measured = {row["weights_sha256"] for rows in ROWS.values() for row in rows}
    assert {entry.sha256[:12] for entry in entries} <= measured
    assert all(entry.size_bytes <= MAX_BYTES for entry in entries)
    assert sum(entry.size_bytes for entry in entries) < 300e6


@pytest.mark.parametrize("name", list_models())
def test_one_name_is_builder_config_card_row_and_test(name: str) -> None:
    info = model_info(name)
    task = info.task
    assert list((REPOSITORY / "configs" / task).glob(f"{name}_*.yaml"))
    assert card_path(name).read_text(encoding="utf-8") == card_markdown(name)
    tests = (REPOSITORY / "tests" / "models" / "test_every_model.py").read_text(encoding="utf-8")
    assert f'"{name}"' in tests
    if weights_entries(name):
        assert name in {row["model"] for row in ROWS[task]}


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
    assert (REPOSITORY / entry.config).exists()
    assert entry.intended_use == "research use only, not for diagnosis"


# Those of larger sets are left out: a segmenter would have to cut all crops of `metaphase` anew,
# which takes 20 minutes, and `pki3` takes 8. The example metaphases below are named by the first.
@pytest.mark.parametrize(("name", "tag"), [one for one in SHIPPED if one[1] == "bioimlab"])
def test_shipped_weights_reproduce_their_row(name: str, tag: str, real_data: Path) -> None:
    entry = weights_entries(name)[tag]
    task = model_info(name).task
    dataset = dataset_of_tag(tag, task).name
    figures = entry.metrics[f"{entry.split}/test"]
    if task == "segmentation":
        row = measure_segmenter(name, tag, dataset, "test", root=str(real_data), device="cpu")
        for metric in ("box_ap", "box_ap50", "mask_ap", "mask_ap50"):
            assert row[metric] == pytest.approx(figures[metric], abs=0.003)
        return
    row = measure(name, tag, dataset, "test", root=str(real_data), device="cpu")
    # Convolutions differ in the last bits between machines: one chromosome of 644 may tip over.
    for metric in ("accuracy", "assigned_accuracy"):
        assert row[metric] == pytest.approx(figures[metric], abs=2.5 / row["n_chromosomes"])
    assert row["ece"] == pytest.approx(figures["ece"], abs=0.003)


@pytest.mark.parametrize("name", ["chrnet4", "chromozoo_small"])
def test_weights_of_a_large_set_name_some_of_its_cells(name: str, real_data: Path) -> None:
    """Of `pki3`, whose row is not measured again: four test karyotypes in place of 106."""
    from chromozoo.data.pki3 import Pki3DataModule

    found = Pki3DataModule(str(real_data)).chromosomes()
    cells = {cell: np.flatnonzero(found.cells == cell) for cell in load_split("pki3_v1").test[:4]}
    wanted = {row for rows in cells.values() for row in rows.tolist()}
    images = {row: one for row, (_, one) in enumerate(found.images()) if row in wanted}
    model: Any = get_model(name, weights="pki3")
    right = total = 0
    for rows in cells.values():
        named = model.classify([images[row] for row in rows], as_cell=True)
        truth = [CLASSES[label] for label in found.labels[rows]]
        right += sum(one.label == label for one, label in zip(named, truth, strict=True))
        total += len(rows)
    expected = weights_entries(name)["pki3"].metrics["pki3_v1/test"]["assigned_accuracy"]
    assert total > 150
    assert right / total == pytest.approx(expected, abs=0.03)


def test_karyotyping_rows_are_of_shipped_weights_and_committed_splits() -> None:
    shipped = {weights_entries(name)[tag].sha256[:12] for name, tag in SHIPPED}
    rows = leaderboard_karyotyping.read_results(KARYOTYPING_RESULTS)
    assert rows
    for row in rows:
        assert {row["segmenter_sha256"], row["classifier_sha256"]} <= shipped
        assert load_split(row["split"].split("/")[0]).sha256[:12] == row["split_sha256"]


@pytest.mark.parametrize("command", [aneuploidy, calibration])
def test_rows_of_cells_are_of_shipped_weights_and_shown(command: Any) -> None:
    shipped = {weights_entries(name)[tag].sha256[:12] for name, tag in SHIPPED}
    file = ResultsFile(command.RESULTS, command.COLUMNS, command.KEY, "")
    rows = file.read()
    assert rows
    for row in rows:
        assert row["weights_sha256"] in shipped
        assert load_split(row["split"].split("/")[0]).sha256[:12] == row["split_sha256"]
    mark = "aneuploidy" if command is aneuploidy else "calibration"
    assert table_is_current(command.TABLES, mark, command.table(rows))


def test_the_leaderboards_of_the_readme_are_those_of_the_csvs() -> None:
    for name, table in (
        ("bioimlab", publish.leaderboard_table()),
        ("bioimlab-segmentation", publish.segmentation_table()),
        ("karyotyping", publish_karyotyping.table()),
    ):
        assert table_is_current(publish.README, name, table), name


@pytest.fixture(scope="module")
def karyotyper() -> Any:
    load: Any = torch.hub.load
    return load(str(REPOSITORY), "karyotyper", source="local")


def test_the_example_cell_comes_out_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Through the hub, from another folder: the newcomer's first look is a right karyotype."""
    monkeypatch.chdir(tmp_path)
    model = torch.hub.load(str(REPOSITORY), "chrnet4", source="local")
    with (EXAMPLE / "labels.csv").open() as file:
        labels = {row["file"]: row["label"] for row in csv.DictReader(file)}
    files = sorted(EXAMPLE.glob("[0-9]*.png"))
    assert len(files) == len(labels) == 46
    found = model.classify(files, as_cell=True)
    right = sum(item.label == labels[Path(item.name).name] for item in found)
    assert right >= 44
    assert found.cell.iscn == "46,XY"
    assert not model.training
    assert model.categories[-2:] == ("X", "Y")
    logits = model(model.transforms(files[0])[None])
    assert logits.shape == (1, 24)
    (alone,) = model.classify(np.asarray(Image.open(files[0])))
    assert alone.probabilities.sum() == pytest.approx(1)


def test_no_image_of_the_examples_is_real(tmp_path: Path) -> None:
    """The examples are what the package draws: drawn anew, they are the same pixels."""
    subprocess.run(
        [sys.executable, str(EXAMPLE.parent / "make_examples.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    labels = (EXAMPLE / "labels.csv").relative_to(EXAMPLE.parent)
    assert (tmp_path / labels).read_text() == (EXAMPLE / "labels.csv").read_text()
    images = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.png"))
    shipped_too = sorted(path.relative_to(EXAMPLE.parent) for path in EXAMPLE.parent.rglob("*.png"))
    assert images == shipped_too
    for image in images:
        drawn = tmp_path / image
        shipped = np.asarray(Image.open(EXAMPLE.parent / image)).astype(int)
        # Another version of OpenCV may round another way.
        assert np.abs(shipped - np.asarray(Image.open(drawn)).astype(int)).max() <= 2


@pytest.mark.parametrize(
    ("name", "iscn"),
    [
        ("normal_46XY", "46,XY"),
        ("overlaps_46XX", "46,XX"),
        ("trisomy_47XX", "47,XX,+21"),
    ],
)
def test_the_example_metaphases_come_out_right(
    karyotyper: Any, name: str, iscn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    from make_examples import example_metaphase

    found = karyotyper.karyotype(EXAMPLE.parent / f"{name}.png")
    assert found.iscn == iscn
    truth = example_metaphase(name)
    middles = (found.segmentation.boxes[:, :2] + found.segmentation.boxes[:, 2:]) / 2
    named = [
        found.chromosomes[int(np.argmin(np.hypot(*(middles - polygon.mean(axis=0)).T)))].label
        for polygon in truth.polygons
    ]
    assert np.mean(np.array(named) == np.array(truth.labels)) > 0.95
