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
from PIL import Image

from chromozoo.benchmark.cards import card_markdown, card_path
from chromozoo.benchmark.repository import RESULTS
from chromozoo.benchmark.tables import segmentation as leaderboard_segmentation
from chromozoo.benchmark.tables.classification import read_results
from chromozoo.classes import CLASSES
from chromozoo.data.splits import load_split
from chromozoo.models.registry import get_model, get_weight, list_models, model_info
from chromozoo.models.weights.index import weights_entries

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "cell_46XY"
SHIPPED = [(name, tag) for name in list_models() for tag in weights_entries(name)]
ROWS = {
    "classification": read_results(RESULTS / "classification.csv"),
    "segmentation": leaderboard_segmentation.read_results(RESULTS / "segmentation.csv"),
}


def test_there_are_weights() -> None:
    assert ("chrnet4", "bioimlab") in SHIPPED


@pytest.mark.parametrize("name", list_models(pretrained=True))
def test_the_default_weights_are_shipped(name: str) -> None:
    assert (name, get_weight(name).tag) in SHIPPED


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
