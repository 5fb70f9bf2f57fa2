"""Alarms for cells whose classification is unreliable."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from chromozoo.classes import AUTOSOMES, CLASS_INDEX, CLASSES
from chromozoo.images.reading import read_grey
from chromozoo.images.signal import signal_image
from chromozoo.karyotype.alarm import cell_alarms, image_alarms, mark_iscn
from chromozoo.karyotype.assignment import assign_cell
from chromozoo.karyotype.polarity import band_contrast
from chromozoo.models.karyotyper import get_karyotyper
from chromozoo.models.registry import get_model

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NORMAL = [*np.repeat(AUTOSOMES, 2).tolist(), "X", "Y"]

FloatArray = NDArray[np.float64]


def class_probabilities(labels: list[str], certainty: float) -> FloatArray:
    """Return class probabilities with ``certainty`` for each label."""
    probabilities = np.full((len(labels), len(CLASSES)), (1 - certainty) / (len(CLASSES) - 1))
    probabilities[range(len(labels)), [CLASS_INDEX[label] for label in labels]] = certainty
    return probabilities


def alarms(labels: list[str], certainty: float = 0.95, **evidence: Any) -> tuple[str, ...]:
    probabilities = class_probabilities(labels, certainty)
    return cell_alarms(probabilities, assign_cell(np.log(probabilities)), **evidence)


@pytest.mark.parametrize(
    "labels",
    [NORMAL, [*NORMAL, "21"], NORMAL[:-1], NORMAL[:41]],
    ids=["normal", "trisomy", "45,X", "41 of 46"],
)
def test_a_certain_cell_keeps_its_karyotype(labels: list[str]) -> None:
    assert alarms(labels, band_contrasts=[0.15] * len(labels), zoom=1.2) == ()


@pytest.mark.parametrize(
    ("labels", "evidence", "words"),
    [
        (NORMAL, {"certainty": 0.69}, "mean probability 69%"),
        (NORMAL, {"band_contrasts": [0.05] * 46}, "hardly any bands"),
        (NORMAL[:39], {}, "too few chromosomes for a complete cell: 39"),
        ([*NORMAL, *["7"] * 15], {}, "too many chromosomes for one cell: 61"),
        ([*NORMAL, *["7"] * 7], {}, "too many gains and losses: 7"),
        (NORMAL, {"zoom": 3.0}, "chromosomes are 0.33 times as long"),
        (NORMAL, {"zoom": 0.1}, "reduce the image"),
    ],
)
def test_each_reason_raises_one_alarm(
    labels: list[str], evidence: dict[str, Any], words: str
) -> None:
    (alarm,) = alarms(labels, **evidence)
    assert words in alarm


def test_classes_that_do_not_fit_one_cell_are_uncertain() -> None:
    """Each prediction is certain, but all are of the same few classes, as in an unbanded cell."""
    probabilities = class_probabilities(["6"] * 23 + ["X"] * 23, 0.9)
    cell = assign_cell(np.log(probabilities), extra_cost=50, missing_cost=50)
    assert cell.iscn in ("46,XX", "46,XY")
    assert any("classes uncertain" in alarm for alarm in cell_alarms(probabilities, cell))


def test_alarms_mark_the_iscn_string() -> None:
    assert mark_iscn("46,XY", ["reason"]) == "46,XY?"
    assert mark_iscn("46,XY", []) == "46,XY"
    assert mark_iscn("", ["reason"]) == ""


def test_single_images_of_unusual_size_and_appearance() -> None:
    sure = class_probabilities(NORMAL, 0.95)
    unsure = class_probabilities(NORMAL, 0.6)
    lengths = np.linspace(30, 110, 46)
    assert image_alarms(sure, lengths.tolist(), 63.0) == ()
    (size,) = image_alarms(sure, (2 * lengths).tolist(), 63.0)
    assert "unusual size" in size and "resize the images by 0.45" in size
    (appearance,) = image_alarms(unsure, lengths.tolist(), 63.0)
    assert "unusual appearance: mean probability 60%" in appearance
    # The largest and the smallest chromosome of a cell raise no alarm.
    assert image_alarms(sure[:1], [120.0], 63.0) == ()
    assert image_alarms(sure[:1], [28.0], 63.0) == ()
    assert image_alarms(sure[:1], [300.0], 63.0) != ()
    assert image_alarms(unsure[:1], [63.0], 63.0) == ()
    assert image_alarms(sure, lengths.tolist(), 0.0) == ()


def signals() -> list[NDArray[np.float32]]:
    files = sorted((EXAMPLES / "cell_46XY").glob("[0-9]*.png"))
    return [signal_image(read_grey(file)) for file in files]


def edge(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 inside the chromosome, falling to 0 at its edge."""
    inside = cv2.morphologyEx((signal > 0.12).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3)))
    return np.asarray(cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 0.9))


def unbanded(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    return 0.85 * edge(signal)


def reversed_bands(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the reverse of the bands, as R-bands are of G-bands."""
    return edge(signal) * np.clip(1.1 - signal, 0.15, 1)


@pytest.fixture(scope="module")
def classifier() -> Any:
    return get_model("chromozoo_small", weights="pki3")


@pytest.mark.parametrize("change", [unbanded, reversed_bands])
def test_crops_without_the_bands_of_their_class_raise_the_alarm(
    classifier: Any, change: Any
) -> None:
    found = classifier.classify([change(signal) for signal in signals()], as_cell=True)
    assert any("classes uncertain" in alarm for alarm in found.alarms)
    assert found.cell.iscn.endswith("?")


def test_crops_of_a_banded_cell_raise_no_alarm(classifier: Any) -> None:
    found = classifier.classify(signals(), as_cell=True)
    assert found.alarms == ()
    assert found.cell.iscn == "46,XY"


def test_band_contrast_separates_banded_from_unbanded() -> None:
    assert np.median([band_contrast(signal) for signal in signals()]) > 0.15
    assert np.median([band_contrast(unbanded(signal)) for signal in signals()]) < 0.075


def test_the_karyotype_of_an_unbanded_metaphase_is_marked() -> None:
    grey = read_grey(EXAMPLES / "normal_46XY.png")
    background = np.median(grey)
    departure = np.abs(grey - background)
    inside = (departure > 0.25 * np.percentile(departure, 99.5)).astype(np.uint8)
    solid = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 1.2)
    found = get_karyotyper().karyotype((30 + 170 * solid).astype(np.float32), "solid stain")
    assert found.count > 30
    assert any("classes uncertain" in alarm for alarm in found.alarms)
    assert found.iscn.endswith("?")
    assert found.cell is not None and found.cell.iscn == found.iscn
    assert found.mean_probability < 0.7
