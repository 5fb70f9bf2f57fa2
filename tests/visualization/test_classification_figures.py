"""Figures of the predictions of a classifier."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chromozoo import visualization
from chromozoo.classes import CLASSES
from chromozoo.cli import figures as command
from chromozoo.cli.main import main
from chromozoo.data.base.crop_dataset import CropDataset
from chromozoo.errors import ChromozooError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.visualization import classification
from chromozoo.visualization.classification import StoredPredictions
from chromozoo.visualization.grad_cam import find_last_feature_map_layer, grad_cam

CELL = [*np.repeat(np.arange(22), 2).tolist(), 22, 23]


@pytest.fixture
def stored() -> StoredPredictions:
    """Two cells; one 14 of the first is classified as a 15 with high certainty."""
    labels = np.array(CELL * 2)
    predicted = labels.copy()
    predicted[26] = 14
    p = np.full((len(labels), 24), 0.002)
    p[np.arange(len(labels)), predicted] = 1 - 23 * 0.002
    features = np.eye(24)[predicted] + np.random.default_rng(0).normal(0, 0.05, (len(labels), 24))
    cells = np.repeat(["one", "two"], len(CELL))
    return StoredPredictions("a model, weights w", p, features.astype(np.float32), labels, cells)


def test_stored_predictions_are_read_back(stored: StoredPredictions, tmp_path: Path) -> None:
    stored.save(tmp_path / "p.npz")
    again = StoredPredictions.load(tmp_path / "p.npz")
    assert again.origin == stored.origin
    for name in ("probabilities", "features", "labels", "cells"):
        np.testing.assert_array_equal(getattr(again, name), getattr(stored, name))
    (tmp_path / "p.npz").write_bytes(b"something else")
    with pytest.raises(ChromozooError, match=r"p\.npz.*remove it"):
        StoredPredictions.load(tmp_path / "p.npz")
    np.savez(tmp_path / "p.npz", origin=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ChromozooError, match=r"p\.npz"):
        StoredPredictions.load(tmp_path / "p.npz")


def test_the_class_table_counts(stored: StoredPredictions) -> None:
    rows = {row["class"]: row for row in classification.class_table(stored, stored.report())}
    assert list(rows) == list(CLASSES)
    assert (rows["14"]["chromosomes"], rows["14"]["recall"]) == (4, 0.75)
    assert rows["14"]["often_predicted"] == "15 (1)"
    assert rows["15"]["precision"] == 0.8
    assert rows["15"]["auc"] < 1 == rows["3"]["auc"]
    assert rows["X"]["often_predicted"] == ""


def test_each_figure_says_what_was_measured(stored: StoredPredictions) -> None:
    report = stored.report()
    left, right, _ = classification.draw_confusion(stored, report).axes
    assert left.get_title() == "alone: 98.91% correct"
    assert {(t.get_position(), t.get_text()) for t in left.texts} >= {((14, 13), "1")}
    assert "with cell assignment" in right.get_title()
    (roc,) = classification.draw_roc(stored).axes
    assert len(roc.get_lines()) == 24
    calibration, coverage = classification.draw_reliability(stored, report).axes
    assert f"{report.metrics['ece'].value:.4f}" in calibration.get_title()
    # The error is as certain as all others, so it is among the first 90 %.
    assert "98.80%" in coverage.get_title()
    (features,) = classification.draw_features(stored).axes
    assert {text.get_text() for text in features.texts} == set(CLASSES)


def test_the_gallery_shows_homologue_and_predicted_class(
    stored: StoredPredictions,
) -> None:
    preset = ChromosomePreset(height=40, width=20)
    crops = np.zeros((len(stored.labels), 40, 20), np.uint8)
    crops[:] = np.arange(len(crops))[:, None, None]
    dataset = CropDataset(crops, stored.labels, stored.cells, preset)
    first, *others = classification.draw_errors(stored, stored.report().errors, dataset).axes
    assert first.get_title() == "cell one: 14 classified as 15 (95%)"
    shown = np.asarray(first.get_images()[0].get_array())
    # The chromosome, the other 14 of this cell, and a 15 of it.
    assert [int(shown[0, left]) for left in (0, 23, 46)] == [26, 27, 28]
    assert [text.get_text() for text in first.texts] == ["14", "14", "15"]
    assert not any(axes.get_images() for axes in others)


def test_grad_cam_highlights_the_evidence() -> None:
    class Corner(torch.nn.Module):
        """Predicts class 3 from the upper left quarter of the image."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 1, bias=False)
            torch.nn.init.ones_(self.conv.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = self.conv(x)[:, :, : x.shape[2] // 2, : x.shape[3] // 2].mean((1, 2, 3))
            return torch.nn.functional.one_hot(torch.tensor([3]), 24) * seen[:, None]

    class Model(torch.nn.Module):
        device = torch.device("cpu")

        def __init__(self) -> None:
            super().__init__()
            self.network: torch.nn.Module = Corner()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x)

    image = torch.zeros(1, 16, 16)
    image[0, :8, :8] = 1
    heat = grad_cam(Model(), [image], np.array([3]))
    assert heat.shape == (1, 16, 16)
    assert heat[0, :8, :8].min() > 0.5 > 0.1 > heat[0, 8:, 8:].max()
    flat = Model()
    flat.network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 24))
    with pytest.raises(ChromozooError, match="no layer"):
        find_last_feature_map_layer(flat, image[None])


def test_the_command_draws_stored_predictions(
    tiny_bioimlab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chromozoo.benchmark import inference

    monkeypatch.setattr(classification, "DPI", 30)
    words = ["figures", "chromozoo_small", "--root", str(tiny_bioimlab), "--output", str(tmp_path)]
    assert main(words) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "classes.csv",
        "confusion.png",
        "errors-assigned.png",
        "errors.png",
        "features.png",
        "grad-cam.png",
        "predictions.npz",
        "reliability.png",
        "roc.png",
    ]
    for name in names:
        if name.endswith(".png"):
            with Image.open(tmp_path / name) as image:
                assert min(image.size) > 100
    with (tmp_path / "classes.csv").open() as file:
        assert sum(int(row["chromosomes"]) for row in csv.DictReader(file)) == 46

    # A second run uses the stored predictions, but not for another stage.
    before = (tmp_path / "confusion.png").read_bytes()

    def refuse(*_: object) -> None:
        raise AssertionError("predicted again")

    monkeypatch.setattr(inference, "predict", refuse)
    draw_all = classification.figure_functions
    monkeypatch.setattr(
        classification,
        "figure_functions",
        lambda *arguments: {"confusion": draw_all(*arguments)["confusion"]},
    )
    assert main(words) == 0
    assert (tmp_path / "confusion.png").read_bytes() == before
    with pytest.raises(AssertionError, match="predicted again"):
        main([*words, "--stage", "val"])


def test_without_the_extra_the_error_gives_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(visualization, "classification")
    monkeypatch.setitem(sys.modules, "chromozoo.visualization.classification", None)
    assert main(["figures", "siamese_net"]) == 2
    assert "chromozoo[figures]" in capsys.readouterr().err
    assert command.STORED == "predictions.npz"
