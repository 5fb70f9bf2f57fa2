"""From a metaphase to a karyotype, with a segmenter that finds whatever hangs together."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.tiny_segmenter import Components
from PIL import Image

from chromozoo.classes import AUTOSOMES
from chromozoo.errors import ImageError, UnknownNameError
from chromozoo.karyotype import karyotyper as karyotyper_karyotype
from chromozoo.karyotype.karyotype import Karyotype
from chromozoo.karyotype.karyotyper import Karyotyper
from chromozoo.karyotype.naming import to_predictions
from chromozoo.models.karyotyper import get_karyotyper
from chromozoo.models.registry import get_model
from chromozoo.structures.segmentation import Segmentation
from chromozoo.synthetic import Appearance, SyntheticMetaphase, draw_metaphase
from chromozoo.tasks.segmentation import ChromosomeSegmenter
from chromozoo.visualization import report

# Clear enough that what hangs together is one chromosome.
LOOK = Appearance(length=80, blur=1.2, bend=0.2, overlap=0.0, band_spread=0.05, noise=0.2)
NORMAL = [*np.repeat(AUTOSOMES, 2).tolist(), "X", "Y"]
TRISOMY = [*np.repeat(AUTOSOMES, 2).tolist(), "21", "X", "X"]
# Of a network that need not know anything.
SMALL = {"height": 48, "width": 48, "scale": 0.4}


class Bright(ChromosomeSegmenter):
    """Connected components; exact where nothing touches."""

    def __init__(self) -> None:
        super().__init__(
            Components(), preset={"typical_width": 0.0, "mean": 0.0, "std": 1.0}, min_score=0.01
        )
        torch.nn.init.constant_(self.network.level, 0.25)

    def detect(self, image: torch.Tensor) -> list[Any]:
        return [piece for piece in super().detect(image) if piece.crop.sum() > 20]


def metaphase(seed: int, karyotype: list[str], **size: Any) -> SyntheticMetaphase:
    return drawn(seed, tuple(karyotype), tuple(size.items()))


@cache
def drawn(seed: int, karyotype: tuple[str, ...], size: tuple[Any, ...]) -> SyntheticMetaphase:
    """Drawn once: a whole cell takes a second, and several tests look at the same."""
    return draw_metaphase(
        np.random.default_rng(seed),
        karyotype=list(karyotype),
        appearance=LOOK,
        overlap=0.0,
        **dict(size),
    )


@pytest.fixture(scope="module")
def karyotyper() -> Karyotyper:
    return get_karyotyper(Bright(), "chrnet4", score=0.0)


@pytest.fixture(scope="module")
def untrained() -> Karyotyper:
    torch.manual_seed(0)
    small = get_model("vanilla_cnn", weights=None, preset=SMALL)
    return get_karyotyper(Bright(), small, score=0.0)  # type: ignore[arg-type]


def agreement(found: Karyotype, truth: SyntheticMetaphase) -> float:
    """Share of the true chromosomes whose place has the right name."""
    right = 0
    for label, polygon in zip(truth.labels, truth.polygons, strict=True):
        x, y = polygon.mean(axis=0)
        middles = (found.segmentation.boxes[:, :2] + found.segmentation.boxes[:, 2:]) / 2
        nearest = int(np.argmin(np.hypot(middles[:, 0] - x, middles[:, 1] - y)))
        right += found.chromosomes[nearest].label == label
    return right / len(truth.labels)


def test_a_trisomy_is_counted_named_and_flagged(karyotyper: Karyotyper) -> None:
    truth = metaphase(1, TRISOMY)
    found = karyotyper.karyotype(truth.image, "trisomy")
    assert found.count == 47
    assert agreement(found, truth) > 0.9
    assert found.flags[0] == "47 chromosomes, not 46"
    assert sum(item.supernumerary for item in found.chromosomes) == len(found.cell.gains)  # type: ignore[union-attr]
    for item in found.chromosomes:
        assert item.probabilities.shape == (24,)
        assert np.isclose(item.probabilities.sum(), 1)
        assert item.margin >= 0 and 0 <= item.p_arm < 360
        assert 0 <= item.centromere <= item.image.shape[0]
        assert item.needs_review == bool(item.review_reasons)
        assert not item.supernumerary or item.needs_review


def test_polarity_is_that_of_the_metaphase(untrained: Karyotyper) -> None:
    """Turning the image by half a turn turns every p arm by half a turn."""
    truth = metaphase(3, ["1", "13", "18", "9", "Y"], height=200, width=260)
    here = untrained.karyotype(truth.image)
    there = untrained.karyotype(truth.image[::-1, ::-1].copy())
    middles = (there.segmentation.boxes[:, :2] + there.segmentation.boxes[:, 2:]) / 2
    for index, item in enumerate(here.chromosomes):
        box = here.segmentation.boxes[index]
        x, y = 260 - (box[0] + box[2]) / 2, 200 - (box[1] + box[3]) / 2
        twin = there.chromosomes[int(np.argmin(np.hypot(*(middles - (x, y)).T)))]
        if twin.label == item.label:
            turned = (twin.p_arm - item.p_arm) % 360
            assert abs(turned - 180) < 5


def test_without_assignment_each_is_named_alone() -> None:
    torch.manual_seed(0)
    model: Any = get_model("vanilla_cnn", weights=None, preset=SMALL)
    alone = get_karyotyper(Bright(), model, "none", score=0.0)
    found = alone.karyotype(metaphase(1, ["1"] * 6, height=300, width=300).image)
    assert found.cell is None
    assert all(item.probability == item.probabilities.max() for item in found.chromosomes)


@pytest.mark.parametrize("value", [0, 255])
def test_an_empty_image_is_flagged(untrained: Karyotyper, value: int) -> None:
    found = untrained.karyotype(np.full((40, 60), value, np.uint8), "empty")
    assert (found.count, found.iscn, found.cell) == (0, "", None)
    assert found.flags[-1] == "no chromosomes found" or "no chromosomes" in " ".join(found.flags)


def test_three_chromosomes_are_an_incomplete_cell(untrained: Karyotyper) -> None:
    found = untrained.karyotype(metaphase(2, ["1", "2", "3"], height=200, width=200).image)
    assert found.count == 3
    assert "3 chromosomes, not 46" in found.flags
    assert any("incomplete cell" in flag for flag in found.flags)


def test_two_cells_are_seen(untrained: Karyotyper) -> None:
    cells = [metaphase(seed, NORMAL).image for seed in (0, 2)]
    found = untrained.karyotype(np.hstack([cells[0], np.zeros((576, 100), np.uint8), cells[1]]))
    (flag,) = [flag for flag in found.flags if flag.startswith("several cells?")]
    assert sum(int(word) for word in flag.split() if word.isdigit()) == found.count == 92


def test_a_karyogram_is_no_metaphase(untrained: Karyotyper) -> None:
    masks = np.zeros((40, 300, 640), bool)
    for k in range(40):
        row, column = divmod(k, 20)
        masks[k, 40 + row * 120 : 110 + row * 120, 20 + column * 30 : 34 + column * 30] = True
    image = (masks.any(axis=0) * 180).astype(np.uint8)
    found = untrained.karyotype(image)
    assert any("a karyogram, not a metaphase" in flag for flag in found.flags)
    turned = untrained.karyotype(metaphase(2, NORMAL).image)
    assert not any("karyogram" in flag for flag in turned.flags)


def test_a_slide_scan_is_reduced(untrained: Karyotyper) -> None:
    scan = np.zeros((2600, 2600), np.uint8)
    scan[:576, :768] = metaphase(0, NORMAL).image
    found = untrained.karyotype(scan)
    assert max(found.segmentation.shape) < 1800
    assert any("reduced to" in flag for flag in found.flags)


def test_wrong_models_and_settings() -> None:
    with pytest.raises(UnknownNameError, match="ChromosomeSegmenter"):
        get_karyotyper("vanilla_cnn", "vanilla_cnn")
    with pytest.raises(UnknownNameError, match="'cell' or 'none'"):
        get_karyotyper(Bright(), "vanilla_cnn", "both")  # type: ignore[arg-type]


def test_a_batch_reports_what_cannot_be_read(untrained: Karyotyper, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.png", tmp_path / "good.png"
    bad.write_bytes(b"no image")
    Image.fromarray(metaphase(2, ["1", "2"], height=160, width=160).image).save(good)
    error, found = untrained.predict_step([bad, good], 0)
    assert isinstance(error, ImageError) and "bad.png" in str(error)
    assert isinstance(found, Karyotype) and found.count == 2


def test_the_document_holds_what_was_found(untrained: Karyotyper, tmp_path: Path) -> None:
    path = tmp_path / "cell.png"
    Image.fromarray(metaphase(9, ["1", "2", "X"], height=200, width=220).image).save(path)
    found = untrained.karyotype(path)
    document = report.document(found, untrained)
    assert document["image"] == str(path)
    assert document["count"] == len(document["chromosomes"]) == 3
    assert document["iscn"] == found.iscn
    from faster_coco_eval.core import mask as coco_mask

    for index, item in enumerate(document["chromosomes"]):
        mask = coco_mask.decode(
            {**item["segmentation"], "counts": item["segmentation"]["counts"].encode()}
        )
        assert np.array_equal(mask > 0, found.segmentation.masks[index])
        x, y, w, h = item["bbox"]
        rows, columns = np.nonzero(mask)
        assert (x, y) == (columns.min(), rows.min())
        assert (x + w, y + h) == (columns.max() + 1, rows.max() + 1)
        assert len(item["probabilities"]) == 24


def test_select_and_above() -> None:
    masks = np.zeros((3, 10, 10), bool)
    for k in range(3):
        masks[k, 3 * k : 3 * k + 2] = True
    found = Segmentation.from_masks(masks, scores=[0.9, 0.5, 0.2])
    assert len(found.filter_by_score(0.5)) == 2
    assert np.array_equal(found.select([2]).masks[0], masks[2])
    assert cv2.countNonZero(found.select([0]).masks[0].astype(np.uint8)) == 20


def test_a_classifier_that_tells_polarity_turns_the_images() -> None:
    torch.manual_seed(0)
    classifier: Any = get_model(
        "timm_backbone",
        weights=None,
        backbone="resnet10t",
        preset={"height": 64, "width": 32},
        polarity=True,
        flip_average=False,  # what is said of mirror images would cancel the bias
    )
    truth = metaphase(0, NORMAL[:2])
    found = []
    for bias in (10.0, -10.0):
        torch.nn.init.zeros_(classifier.network.polarity.weight)
        torch.nn.init.constant_(classifier.network.polarity.bias, bias)
        found.append(get_karyotyper(Bright(), classifier, score=0.0).karyotype(truth.image))
    assert found[0].count == found[1].count > 0
    for up, down in zip(found[0].chromosomes, found[1].chromosomes, strict=True):
        assert (up.p_arm - down.p_arm) % 360 == pytest.approx(180)
        np.testing.assert_array_equal(up.image, down.image[::-1, ::-1])
        assert up.polarity_certainty > 0.99


def test_the_stain_chooses_the_segmenter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def made(name: str, weights: str | None = None, **_: Any) -> Any:
        if name != "chr_fast":
            return get_model("timm_backbone", weights=None, backbone="resnet10t", preset=SMALL)
        model = Bright()
        model.tag = weights
        return model

    monkeypatch.setattr(karyotyper_karyotype, "get_model", made)
    truth = metaphase(0, NORMAL[:4])
    light = 255 - truth.image
    both = get_karyotyper()
    assert both.segmenter_for("q").tag == "DEFAULT"
    assert both.segmenter_for("g").tag == "cil"
    assert (both.karyotype(truth.image).stain, both.karyotype(light).stain) == ("q", "g")
    assert [one["name"] for one in report.models_of(both, "g")] == ["Bright", "TimmBackbone"]
    # A folder of both: the page names the stain of each, and all models.
    for stem, image in (("bright", truth.image), ("dark", light)):
        file = tmp_path / f"{stem}.tif"
        Image.fromarray(image).save(file)
        report.write_cell(tmp_path, stem, both.karyotype(file), both)
    models = [
        {"name": f"segmenter {stain}", "weights": None, "sha256": None} for stain in ("q", "g")
    ]
    for stem, model in zip(("bright", "dark"), models, strict=True):
        path = tmp_path / f"{stem}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"models": [model]}))
    report.write_page(tmp_path, ["bright", "dark", "dark"])
    page = (tmp_path / report.PAGE).read_text()
    assert [page.count(words) for words in ("Q-band or DAPI", "G-band")] == [1, 2]
    assert [page.count(model["name"]) for model in models] == [1, 1]
    # An inverted G-band image, and weights that were asked for.
    assert get_karyotyper(stain="g").karyotype(truth.image).stain == "g"
    assert get_karyotyper(segmenter_weights="bioimlab").segmenter_for("g").tag == "bioimlab"
    assert get_karyotyper(stain="q").segmenter_for("q").tag == "DEFAULT"
    with pytest.raises(UnknownNameError, match="stain is 'r'"):
        get_karyotyper(stain="r")  # type: ignore[arg-type]


def test_a_segmenter_that_names_has_a_say() -> None:
    masks = np.zeros((2, 4, 8), bool)
    masks[0, :, :3], masks[1, :, 5:] = True, True
    found = Segmentation.from_masks(masks)
    named = to_predictions(np.full((2, 24), 1 / 24), ["a", "b"])
    assert np.allclose(karyotyper_karyotype._opinion(named, found, [1]), 1 / 24)
    class_probabilities = np.full((2, 24), 0.01, np.float32)
    class_probabilities[0, 3], class_probabilities[1, 5] = 0.77, 0.77
    found = replace(found, class_probabilities=class_probabilities)
    mixed = karyotyper_karyotype._opinion(named, found, [1])
    assert mixed.shape == (1, 24)
    assert mixed.sum() == pytest.approx(1)
    assert mixed[0].argmax() == 5
    assert found.select([1]).class_probabilities is not None
    assert mixed[0, 5] < 0.77  # two that looked at one chromosome
