"""Ground truth of karyotyping, on drawn metaphases."""

from pathlib import Path

import numpy as np
import pytest
from helpers.drawn_metaphases import draw

from chromozoo.data import karyotyping_truth
from chromozoo.data.joint_labels import JointLabels
from chromozoo.data.karyotyping_truth import true_cells
from chromozoo.errors import DatasetError
from chromozoo.metrics.karyotyping import evaluate_karyotyping
from chromozoo.structures import metaphase
from chromozoo.structures.karyotyped_cell import PredictedCell
from chromozoo.structures.polygons import polygon_mask
from chromozoo.structures.segmentation import Segmentation


@pytest.fixture
def labelled(tiny_metaphases: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bars of image 5 have classes; those of image 10 are uncertain."""
    labels = {
        "5": JointLabels(6, np.array([0, 0, 1, -1, 22, 23, 4, 5])),
        "10": JointLabels(None, np.full(8, -1)),
    }
    monkeypatch.setattr(karyotyping_truth, "joint_labels", lambda: labels)
    return tiny_metaphases


def test_outlines_and_classes_belong_together(labelled: Path) -> None:
    (image, five), (_, ten) = true_cells("bioimlab-segmentation", "test", labelled)
    drawn, polygons = draw("5")
    np.testing.assert_array_equal(image, drawn)
    assert (five.name, ten.name) == ("5", "10")
    assert five.instances.shape == image.shape == (160, 200)
    assert five.classes.tolist() == [0, 0, 1, -1, 22, 23, 4, 5]
    assert ten.classes.tolist() == [-1] * 8
    assert isinstance(five.instances, Segmentation)
    masks = [polygon_mask(polygon, 160, 200) for polygon in polygons]
    np.testing.assert_array_equal(five.instances.masks, masks)
    assert (masks[6] & masks[7]).any()  # amodal: the two that cross share pixels


def test_evaluation_of_a_perfect_segmentation(labelled: Path) -> None:
    """All are found in another order; the 2 is classified as 3, and the flagged Y as X."""
    true = [cell for _, cell in true_cells("bioimlab-segmentation", "test", labelled)]
    found = []
    for cell in true:
        assert isinstance(cell.instances, Segmentation)
        segmentation = Segmentation.from_masks(cell.instances.masks[::-1])
        named = np.where(cell.classes == 1, 2, cell.classes)
        named = np.where(named == 23, 22, named).clip(0)[::-1]
        flags = cell.classes[::-1] == 23
        found.append(PredictedCell(cell.name, segmentation, named, needs_review=flags))
    report = evaluate_karyotyping(found, true)
    row = report.to_row()
    assert (row["n_images"], row["n_named_images"], row["n_certain"]) == (2, 1, 7)
    assert report.metrics["fka"].value == report.metrics["oca"].value == 5 / 7
    assert row["edits_relabel"] == row["edits"] == 2
    assert row["review_recall"] == 0.5
    assert row["segmentation_recall"] == 1 and row["geometry"] == "mask"


def test_outlines_without_a_pixel_are_dropped_with_their_class(
    labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_the_first(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
        mask = polygon_mask(polygon, height, width)
        return mask & (not np.array_equal(polygon, draw("5")[1][0]))

    monkeypatch.setattr(metaphase, "polygon_mask", without_the_first)
    _, five = next(iter(true_cells("bioimlab-segmentation", "test", labelled)))
    assert five.classes.tolist() == [0, 1, -1, 22, 23, 4, 5]
    assert len(five.instances.boxes) == 7


def test_images_without_joint_labels_are_refused(tiny_metaphases: Path, labelled: Path) -> None:
    with pytest.raises(DatasetError, match=r"original_6\.json: has 8 polygons.*lack the image"):
        next(true_cells("bioimlab-segmentation", "val", labelled))


def test_other_numbers_of_polygons_are_refused(tiny_metaphases: Path) -> None:
    with pytest.raises(DatasetError, match=r"original_5\.json: has 8 polygons.*have 46"):
        next(true_cells("bioimlab-segmentation", "test", tiny_metaphases))


@pytest.mark.data
def test_the_real_test_images(real_data: Path) -> None:
    cells = [cell for _, cell in true_cells("bioimlab-segmentation", "test", real_data)]
    found = [PredictedCell(cell.name, cell.instances, cell.classes.clip(0)) for cell in cells]
    row = evaluate_karyotyping(found, cells, n_bootstrap=10).to_row()
    assert (row["n_images"], row["n_named_images"]) == (16, 14)
    assert (row["n_chromosomes"], row["n_certain"]) == (728, 615)
    assert row["fka"] == row["exact_match_rate"] == 1
    assert row["edits"] == row["count_error"] == 0


def test_a_set_without_classes_is_refused() -> None:
    with pytest.raises(DatasetError, match="pki3 has no classes for whole metaphases; use one of"):
        next(true_cells("pki3", "test"))
