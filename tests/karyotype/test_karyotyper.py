"""Karyotyping of metaphases, with a segmenter that finds connected components."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_segmenter import Components
from PIL import Image

from chromozoo.classes import AUTOSOMES
from chromozoo.errors import ImageError, UnknownNameError
from chromozoo.karyotype.karyotype import Karyotype
from chromozoo.karyotype.karyotyper import Karyotyper, combine_probabilities
from chromozoo.karyotype.predictions import to_predictions
from chromozoo.models import karyotyper as karyotyper_models
from chromozoo.models.karyotyper import get_karyotyper
from chromozoo.models.registry import get_model
from chromozoo.structures.segmentation import Segmentation
from chromozoo.synthetic import Appearance, SyntheticMetaphase, draw_metaphase
from chromozoo.tasks.segmentation import ChromosomeSegmenter
from chromozoo.visualization import report

# Contrast and distances at which every connected component is one chromosome.
APPEARANCE = Appearance(length=80, blur=1.2, bend=0.2, overlap=0.0, band_spread=0.05, noise=0.2)
TRISOMY = (*np.repeat(AUTOSOMES, 2).tolist(), "21", "X", "X")
# Preset of an untrained classifier.
SMALL = {"height": 48, "width": 48, "scale": 0.4}


class Bright(ChromosomeSegmenter):
    """Connected components; exact if no chromosomes touch."""

    def __init__(self, **preset: Any) -> None:
        preset = {"typical_width": 0.0, "mean": 0.0, "std": 1.0} | preset
        super().__init__(Components(), preset=preset, min_score=0.01)
        torch.nn.init.constant_(self.network.level, 0.25)

    def detect(self, image: torch.Tensor) -> list[Any]:
        return [instance for instance in super().detect(image) if instance.crop.sum() > 20]


@cache
def metaphase(seed: int, karyotype: tuple[str, ...], **size: int) -> SyntheticMetaphase:
    rng = np.random.default_rng(seed)
    return draw_metaphase(
        rng, karyotype=list(karyotype), appearance=APPEARANCE, overlap=0.0, **size
    )


def untrained_classifier() -> Any:
    torch.manual_seed(0)
    return get_model("timm_backbone", weights=None, backbone="resnet10t", preset=SMALL)


@pytest.fixture(scope="module")
def untrained() -> Karyotyper:
    return get_karyotyper(Bright(), untrained_classifier(), score=0.0)


def nearest(found: Karyotype, point: Sequence[float]) -> int:
    """Return the index of the chromosome nearest to a point xy."""
    middles = (found.segmentation.boxes[:, :2] + found.segmentation.boxes[:, 2:]) / 2
    return int(np.argmin(np.hypot(*(middles - point).T)))


def test_a_trisomy_is_counted_classified_and_flagged() -> None:
    truth = metaphase(1, TRISOMY)
    karyotyper = get_karyotyper(Bright(), "chromozoo_small", score=0.0)
    found = karyotyper.karyotype(truth.image, "trisomy")
    assert found.count == 47
    right = [
        found.chromosomes[nearest(found, polygon.mean(axis=0))].label == label
        for label, polygon in zip(truth.labels, truth.polygons, strict=True)
    ]
    assert np.mean(right) > 0.9
    assert found.flags[0] == "47 chromosomes, not 46"
    assert found.cell is not None
    assert sum(item.supernumerary for item in found.chromosomes) == len(found.cell.gains)
    for item in found.chromosomes:
        assert item.probabilities.shape == (24,)
        assert np.isclose(item.probabilities.sum(), 1)
        assert item.margin >= 0 and 0 <= item.p_arm < 360
        assert 0 <= item.centromere <= item.image.shape[0]
        assert item.needs_review == bool(item.review_reasons)
        assert not item.supernumerary or item.needs_review


def test_the_p_arm_turns_with_the_metaphase(untrained: Karyotyper) -> None:
    truth = metaphase(3, ("1", "13", "18", "9", "Y"), height=200, width=260)
    here = untrained.karyotype(truth.image)
    there = untrained.karyotype(truth.image[::-1, ::-1].copy())
    n_compared = 0
    for box, item in zip(here.segmentation.boxes, here.chromosomes, strict=True):
        middle = (260 - (box[0] + box[2]) / 2, 200 - (box[1] + box[3]) / 2)
        twin = there.chromosomes[nearest(there, middle)]
        if twin.label == item.label:
            n_compared += 1
            assert abs((twin.p_arm - item.p_arm) % 360 - 180) < 5
    assert n_compared >= 3


def test_without_assignment_each_chromosome_is_classified_alone() -> None:
    karyotyper = get_karyotyper(Bright(), untrained_classifier(), "none", score=0.0)
    found = karyotyper.karyotype(metaphase(1, ("1",) * 6, height=300, width=300).image)
    assert found.cell is None and found.count == 6
    assert all(item.probability == item.probabilities.max() for item in found.chromosomes)
    for item in found.chromosomes:
        first, second = np.sort(item.probabilities)[[-1, -2]]
        assert item.margin == pytest.approx(np.log(first / second))


@pytest.mark.parametrize("value", [0, 255])
def test_an_empty_image_is_flagged(untrained: Karyotyper, value: int) -> None:
    found = untrained.karyotype(np.full((40, 60), value, np.uint8), "empty")
    assert (found.count, found.iscn, found.cell) == (0, "", None)
    assert found.flags[-1] == "no chromosomes found"
    assert np.isnan(found.mean_probability)


def test_three_chromosomes_are_an_incomplete_cell(untrained: Karyotyper) -> None:
    found = untrained.karyotype(metaphase(2, ("1", "2", "3"), height=200, width=200).image)
    assert found.count == 3
    assert "3 chromosomes, not 46" in found.flags
    assert any("incomplete cell" in flag for flag in found.flags)
    assert found.iscn.endswith("?") and found.cell is not None and found.cell.iscn == found.iscn


def test_large_images_are_reduced() -> None:
    karyotyper = get_karyotyper(Bright(max_pixels=40_000), untrained_classifier(), score=0.0)
    found = karyotyper.karyotype(metaphase(1, ("1",) * 6, height=300, width=300).image)
    assert found.image.shape == found.segmentation.shape == (200, 200)
    assert found.count == 6
    assert found.flags[0].startswith("300x300 pixels reduced to 200x200")


def test_wrong_models_and_settings() -> None:
    with pytest.raises(UnknownNameError, match="vanilla_cnn"):
        get_karyotyper("vanilla_cnn", "vanilla_cnn")
    with pytest.raises(UnknownNameError, match="has no method 'segment'"):
        Karyotyper(torch.nn.Identity(), untrained_classifier())  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="'cell' or 'none'"):
        get_karyotyper(Bright(), untrained_classifier(), "both")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="stain is 'r'"):
        get_karyotyper(Bright(), untrained_classifier(), stain="r")  # type: ignore[arg-type]


def test_a_batch_reports_unreadable_images(untrained: Karyotyper, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.png", tmp_path / "good.png"
    bad.write_bytes(b"no image")
    Image.fromarray(metaphase(2, ("1", "2"), height=160, width=160).image).save(good)
    error, found = untrained.predict_step([bad, good], 0)
    assert isinstance(error, ImageError) and "bad.png" in str(error)
    assert isinstance(found, Karyotype) and found.count == 2


def test_the_document_holds_the_karyotype(untrained: Karyotyper, tmp_path: Path) -> None:
    from faster_coco_eval.core import mask as coco_mask

    path = tmp_path / "cell.png"
    Image.fromarray(metaphase(9, ("1", "2", "X"), height=200, width=220).image).save(path)
    found = untrained.karyotype(path)
    document = report.to_document(found, untrained)
    assert document["image"] == str(path)
    assert document["count"] == len(document["chromosomes"]) == 3
    assert document["iscn"] == found.iscn
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


def test_the_overlay_needs_no_file(untrained: Karyotyper) -> None:
    """A karyotype keeps its image, so arrays can be drawn as well as files."""
    image = metaphase(2, ("1", "2"), height=160, width=160).image
    found = untrained.karyotype(image, "no such file.png")
    assert report.draw_cell_overlay(found).shape == (160, 160, 3)
    assert report.draw_cell_karyogram(found, untrained).width == 1400


def test_a_polarity_head_turns_the_images() -> None:
    torch.manual_seed(0)
    classifier: Any = get_model(
        "timm_backbone",
        weights=None,
        backbone="resnet10t",
        preset={"height": 64, "width": 32},
        polarity=True,
        flip_average=False,  # averaging over mirror images would cancel the bias
    )
    image = metaphase(0, ("1", "1"), height=200, width=200).image
    karyotyper = get_karyotyper(Bright(), classifier, score=0.0)
    found = []
    for bias in (10.0, -10.0):
        with torch.no_grad():
            classifier.network.polarity.weight.zero_()
            classifier.network.polarity.bias.fill_(bias)
        found.append(karyotyper.karyotype(image))
    assert found[0].count == found[1].count == 2
    for up, down in zip(found[0].chromosomes, found[1].chromosomes, strict=True):
        assert (up.p_arm - down.p_arm) % 360 == pytest.approx(180)
        np.testing.assert_array_equal(up.image, down.image[::-1, ::-1])
        assert up.polarity_certainty > 0.99


def test_the_stain_selects_the_segmenter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def get_fake_model(name: str, weights: str | None = "DEFAULT", **_: Any) -> Any:
        if name != "chr_fast":
            return untrained_classifier()
        model = Bright()
        model.tag = weights
        return model

    for name in ("get_segmenter", "get_classifier"):
        monkeypatch.setattr(karyotyper_models, name, get_fake_model)
    bright = metaphase(0, ("1", "1"), height=200, width=200).image
    both = get_karyotyper()
    assert both.segmenter_for("q").tag == "DEFAULT"  # type: ignore[attr-defined]
    assert both.segmenter_for("g").tag == "cil"  # type: ignore[attr-defined]
    found = [both.karyotype(image) for image in (bright, 255 - bright)]
    assert [one.stain for one in found] == ["q", "g"]
    names = [model["name"] for model in report.describe_models(both, "g")]
    assert names == ["Bright", "TimmBackbone"]
    # The page of a folder with both stains gives the stain of each cell, and all models.
    models = [
        {"name": f"segmenter {stain}", "weights": None, "sha256": None} for stain in ("q", "g")
    ]
    for one, model in zip(found, models, strict=True):
        report.write_cell(tmp_path, one.stain, one, both)
        path = tmp_path / f"{one.stain}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"models": [model]}))
    report.write_page(tmp_path, ["q", "g", "g"])
    page = (tmp_path / report.PAGE).read_text()
    assert [page.count(words) for words in ("Q-band or DAPI", "G-band")] == [1, 2]
    assert [page.count(model["name"]) for model in models] == [1, 1]
    # An inverted G-band image, and given weights.
    assert get_karyotyper(stain="g").karyotype(bright).stain == "g"
    given = get_karyotyper(segmenter_weights="bioimlab").segmenter_for("g")
    assert given.tag == "bioimlab"  # type: ignore[attr-defined]
    assert get_karyotyper(stain="q").segmenter_for("q").tag == "DEFAULT"  # type: ignore[attr-defined]


def test_class_probabilities_of_the_segmenter_are_combined() -> None:
    masks = np.zeros((2, 4, 8), bool)
    masks[0, :, :3], masks[1, :, 5:] = True, True
    segmentation = Segmentation.from_masks(masks)
    predictions = to_predictions(np.full((2, 24), 1 / 24), ["a", "b"])
    assert np.allclose(combine_probabilities(predictions, segmentation), 1 / 24)
    class_probabilities = np.full((2, 24), 0.01, np.float32)
    class_probabilities[0, 3], class_probabilities[1, 5] = 0.77, 0.77
    segmentation = replace(segmentation, class_probabilities=class_probabilities)
    combined = combine_probabilities(predictions[1:], segmentation.select([1]))
    assert combined.shape == (1, 24)
    assert combined.sum() == pytest.approx(1)
    assert combined[0].argmax() == 5
    assert combined[0, 5] < 0.77  # tempered: the two predictions are not independent
