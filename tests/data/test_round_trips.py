"""Round trips: results and exports of the commands are read again without loss."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from faster_coco_eval.core import mask as coco_mask
from helpers.drawn_karyograms import MALE, draw_karyogram_page
from helpers.tiny_segmenter import tiny_weights
from PIL import Image

from chromozoo.classes import CLASSES
from chromozoo.cli.main import main
from chromozoo.data.io.coco import CocoFiles
from chromozoo.data.io.labelme import LabelmeFiles
from chromozoo.data.io.metaphase_files import open_metaphases
from chromozoo.data.pki3 import Pki3DataModule
from chromozoo.errors import DatasetError
from chromozoo.images.reading import read_grey
from chromozoo.metrics.segmentation import evaluate_segmentation
from chromozoo.structures.metaphase import Metaphase, check_metaphase
from chromozoo.structures.segmentation import Segmentation


@pytest.fixture
def segment(registered_tiny_segmenter: None, inline: None, tmp_path: Path) -> list[str]:
    """Arguments of the command before the images."""
    return ["segment", "--model", "tiny_segmenter", "--weights", str(tiny_weights(tmp_path))]


def metaphase(shift: int = 0) -> np.ndarray:
    """Bars; the first has a hole, and the second touches itself."""
    image = np.full((120, 160), 10, np.uint8)
    image[10:60, 10 + shift : 40 + shift] = 200
    image[20:40, 18 + shift : 34 + shift] = 10
    image[74:104, 20:36] = image[104:114, 36:60] = image[64:74, 36:60] = 200
    image[20:34, 60:110] = 180
    return image


def masks_in(instances: list[dict]) -> np.ndarray:
    """The masks as pycocotools decodes them."""
    return np.stack([coco_mask.decode(item["segmentation"]) for item in instances]).astype(bool)


def test_outlines_of_segment(
    segment: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, shift in (("one/1.png", 0), ("two/1.png", 7), ("two/x.png", 3)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(metaphase(shift)).save(tmp_path / name)
    tifffile.imwrite(tmp_path / "two" / "p.tif", np.stack([metaphase(1), metaphase(2)]))
    monkeypatch.chdir(tmp_path)
    assert main([*segment, "one", "two", "--page", "1", "--output", "out"]) == 0
    documents = [
        json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("*.segment.json"))
    ]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # names that were relative lead nowhere
    files = open_metaphases(tmp_path / "out")
    assert isinstance(files, CocoFiles) and files.left_out == []
    assert len(files.keys()) == 4 and {"1", "x", "p-page1"} < {*files.keys()}
    read = {
        metaphase.source: check_metaphase(metaphase) for metaphase in map(files.read, files.keys())
    }
    for document in documents:
        page = " (page 1)" if document["path"].endswith(".tif") else ""
        found = read[document["path"] + page]
        shift = {"1": 0, "x": 3, "p-page1": 1}.get(found.key, 7)
        np.testing.assert_array_equal(found.image, metaphase(shift))
        np.testing.assert_array_equal(found.masks(), masks_in(document["instances"]))
        assert found.labels == ["chromosome"] * document["count"] and document["count"] >= 3
        assert not found.masks()[:, 25:35, 25 + shift].any(), "the hole is one"
    # The JSON of each image has the same masks.
    for path in (tmp_path / "out").glob("*.segment.json"):
        alone = open_metaphases(path)
        assert isinstance(alone, LabelmeFiles) and len(alone.keys()) == 1
        (twin,) = map(alone.read, alone.keys())
        document = json.loads(path.read_text())
        np.testing.assert_array_equal(twin.masks(), masks_in(document["instances"]))
    # A result is not applied to a changed image of the same size.
    Image.fromarray(metaphase(9)).save(tmp_path / "two" / "x.png")
    with pytest.raises(DatasetError, match=r"x\.png: is another image than the one that was anno"):
        files.read("x")
    (tmp_path / "two" / "x.png").unlink()
    with pytest.raises(DatasetError, match=r"image .*x\.png is missing; put it into the folder"):
        open_metaphases(tmp_path / "out")


def test_results_and_images_that_were_moved_together(segment: list[str], tmp_path: Path) -> None:
    Image.fromarray(metaphase()).save(tmp_path / "a.png")
    assert main([*segment, str(tmp_path / "a.png"), "--output", str(tmp_path / "out")]) == 0
    (tmp_path / "a.png").rename(tmp_path / "out" / "a.png")
    for path in (tmp_path / "out", tmp_path / "out" / "a.segment.json"):
        files = open_metaphases(path)
        (found,) = map(files.read, files.keys())
        assert len(found.polygons) == 3
        np.testing.assert_array_equal(found.image, metaphase())
    zipped = shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "out")
    np.testing.assert_array_equal(open_metaphases(Path(zipped)).read("a").masks(), found.masks())


def test_json_of_karyotype(registered_tiny_segmenter: None, inline: None, tmp_path: Path) -> None:
    Image.fromarray(metaphase()).save(tmp_path / "a.png")
    words = [str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), "--score", "0"]
    words += ["--segmenter", "tiny_segmenter"]
    words += ["--segmenter-weights", str(tiny_weights(tmp_path)), "--classifier", "vanilla_cnn"]
    assert main(["karyotype", *words]) == 0
    document = json.loads((tmp_path / "out" / "a.json").read_text())
    for path in (tmp_path / "out", tmp_path / "out" / "a.json"):
        found = check_metaphase(open_metaphases(path).read("a"))
        np.testing.assert_array_equal(found.image, metaphase())
        np.testing.assert_array_equal(found.masks(), masks_in(document["chromosomes"]))
        assert found.labels == [item["class"] for item in document["chromosomes"]]
        assert set(found.labels) <= {*CLASSES} and len(found.labels) >= 3


def test_composed_metaphases(tiny_metaphases: Path, tmp_path: Path) -> None:
    words = ["--count", "2", "--chromosomes", "9", "--root", str(tiny_metaphases)]
    assert main(["data", "synthesize", *words, "--output", str(tmp_path / "made")]) == 0
    document = json.loads((tmp_path / "made" / "annotations.json").read_text())
    files = open_metaphases(tmp_path / "made")
    assert files.keys() == [Path(image["file_name"]).stem for image in document["images"]]
    for key, image in zip(files.keys(), document["images"], strict=True):
        found = check_metaphase(files.read(key))
        rows = [row for row in document["annotations"] if row["image_id"] == image["id"]]
        np.testing.assert_array_equal(
            found.image, read_grey(tmp_path / "made" / "images" / image["file_name"])
        )
        assert found.masks().sum(axis=(1, 2)).tolist() == [row["area"] for row in rows]
        for mask, row in zip(found.masks(), rows, strict=True):
            runs = coco_mask.frPyObjects(row["segmentation"], *found.image.shape)
            np.testing.assert_array_equal(mask, coco_mask.decode(runs)[..., 0])


@pytest.mark.parametrize("zipped", [False, True])
def test_chromosomes_of_karyograms(tmp_path: Path, zipped: bool) -> None:
    for name in ("p1_1.png", "p1_2.png", "p2_1.png"):
        Image.fromarray(draw_karyogram_page(MALE)[0]).save(tmp_path / name)
    path = tmp_path / "crops"
    names = [str(tmp_path / name) for name in ("p1_1.png", "p1_2.png", "p2_1.png")]
    assert main(["data", "from-karyogram", *names, "--output", str(path)]) == 0
    rows = list(csv.DictReader((path / "labels.csv").open(encoding="utf-8")))
    if zipped:
        path = Path(shutil.make_archive(str(tmp_path / "set"), "zip", path))
    data = Pki3DataModule(path, "labels-csv", cache=str(tmp_path / "cache"), preset={"height": 64})
    data.setup()
    found = data.chromosomes()
    assert Counter(CLASSES[label] for label in found.labels) == Counter(
        row["class"] for row in rows
    )
    boxes = {f"{row['file']}": (int(row["h"]), int(row["w"])) for row in rows}
    for (name, image), label, cell in zip(found.images(), found.labels, found.cells, strict=True):
        file = name.removeprefix(f"{path}: ")
        assert image.shape == boxes.pop(file)
        assert file.startswith(f"{cell}/{CLASSES[label]}")
    assert not boxes
    # The cells of one patient stay together.
    parts = [set(data.split.ids(stage)) for stage in ("train", "val", "test")]
    assert set.union(*parts) == {"p1_1", "p1_2", "p2_1"}
    assert any({"p1_1", "p1_2"} <= part for part in parts)
    assert data.dataset("all").crops.shape[1] == 64


def test_chromosomes_that_are_drawn(tmp_path: Path) -> None:
    assert main(["synthesize", str(tmp_path / "drawn"), "--cells", "2", "--seed", "3"]) == 0
    found = Pki3DataModule(tmp_path / "drawn", "labels-csv").chromosomes()
    assert set(found.cells) == {"cell_001", "cell_002"} and len(found.labels) == 92
    drawn = {
        f"{folder.name}/{row['file']}": row["label"]
        for folder in (tmp_path / "drawn").iterdir()
        for row in csv.DictReader((folder / "labels.csv").open())
    }
    for (name, image), label in zip(found.images(), found.labels, strict=True):
        file = name.removeprefix(f"{tmp_path / 'drawn'}: ")
        assert drawn.pop(file) == CLASSES[label]
        np.testing.assert_array_equal(image, np.asarray(Image.open(tmp_path / "drawn" / file)))
    assert not drawn


def test_masks_of_a_result_are_exact(segment: list[str], tmp_path: Path) -> None:
    """A prediction that is read again as ground truth has an average precision of 1."""
    Image.fromarray(metaphase()).save(tmp_path / "a.png")
    assert main([*segment, str(tmp_path / "a.png"), "--output", str(tmp_path / "out")]) == 0
    found: Metaphase = open_metaphases(tmp_path / "out").read("a")
    report = evaluate_segmentation([Segmentation.from_masks(found.masks())], [found.masks()])
    assert report.metrics["mask_ap"].value == pytest.approx(1)
