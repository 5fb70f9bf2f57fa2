"""``chromozoo segment`` and ``chromozoo benchmark`` with a tiny segmenter."""

import base64
import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO
from helpers.tiny_segmenter import Tiny, tiny_weights
from PIL import Image

from chromozoo.batch.coco import COCO_FILE
from chromozoo.batch.file_names import unique_names
from chromozoo.batch.results import LOCK, MANIFEST
from chromozoo.benchmark.tables.segmentation import RESULT_COLUMNS, read_results
from chromozoo.cli.main import main as chromozoo
from chromozoo.metrics.segmentation import METRICS, evaluate_segmentation
from chromozoo.models.registry import get_model
from chromozoo.structures.segmentation import Segmentation


@pytest.fixture
def weights(registered_tiny_segmenter: None, inline: None, tmp_path: Path) -> Path:
    """Packaged weights of the tiny segmenter."""
    return tiny_weights(tmp_path)


# y0, x0, y1, x1. The fourth crosses the third; as components they are one.
BARS = (
    (10, 10, 60, 22),
    (20, 60, 34, 110),
    (80, 20, 92, 100),
    (60, 50, 115, 61),
    (20, 130, 60, 142),
)


def metaphase(bars: tuple[tuple[int, ...], ...] = BARS) -> np.ndarray:
    image = np.full((120, 160), 10, np.uint8)
    for y0, x0, y1, x1 in bars:
        image[y0:y1, x0:x1] = 200
    return image


def write(path: Path, bars: tuple[tuple[int, ...], ...] = BARS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(metaphase(bars)).save(path)


def segment(*words: str | Path) -> int:
    return chromozoo(["segment", *map(str, words), "--model", "tiny_segmenter"])


def test_every_image_gets_an_overlay_and_its_masks(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    write(images / "a.png")
    write(images / "b.tif", BARS[:2])
    assert segment(images, "--output", output, "--weights", weights) == 0
    shown = capsys.readouterr().out
    assert "Research use only, not for diagnosis" in shown
    assert "6 chromosomes in 2 images" in shown
    names = {f"{stem}.segment{end}" for stem in "ab" for end in (".json", ".overlay.png")}
    assert {path.name for path in output.iterdir()} == {*names, COCO_FILE, MANIFEST, LOCK}

    document = json.loads((output / "a.segment.json").read_text())
    assert document["image"] == str(images / "a.png")
    assert document["model"] == "tiny_segmenter"
    assert document["weights"]["sha256"] and document["count"] == len(document["instances"]) == 4
    assert [item["number"] for item in document["instances"]] == [1, 2, 3, 4]
    scores = [item["score"] for item in document["instances"]]
    assert scores == sorted(scores, reverse=True) and min(scores) >= 0.5
    content = hashlib.sha256((images / "a.png").read_bytes()).hexdigest()
    assert document["identity"]["content"]["sha256"] == content
    assert document["identity"]["models"][0]["sha256"] == document["weights"]["sha256"]
    assert document["identity"]["options"]["score"] == 0.5
    with Image.open(output / "a.segment.overlay.png") as drawn:
        assert drawn.size == (160, 120) and drawn.mode == "RGB"

    # COCO tools read the file, and the masks are those of the image.
    coco = COCO(str(output / COCO_FILE))
    assert [image["file_name"] for image in coco.loadImgs([1, 2])] == [
        str(images / "a.png"),
        str(images / "b.tif"),
    ]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[2]))
    assert sorted(row["bbox"] for row in annotations) == [[10, 10, 12, 50], [60, 20, 50, 14]]
    union = np.any([coco.annToMask(row) for row in coco.loadAnns(coco.getAnnIds([1]))], axis=0)
    np.testing.assert_array_equal(union, metaphase() == 200)
    for row in annotations:
        assert row["area"] == coco.annToMask(row).sum() and row["category_id"] == 1


def test_detections_below_the_score_are_left_out(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.png")
    words = [tmp_path / "a.png", "--output", tmp_path / "out", "--weights", weights]
    assert segment(*words, "--score", "0.7") == 0
    result = tmp_path / "out" / "a.segment.json"
    few = json.loads(result.read_text())
    assert few["count"] == 2 and few["min_score"] == 0.7
    # The result of another score is replaced, that of the same score is reused.
    capsys.readouterr()
    assert segment(*words, "--score", "0.1") == 0
    assert "1 done again: other options (score)" in capsys.readouterr().out
    assert json.loads(result.read_text())["count"] == 4
    made = result.stat().st_mtime_ns
    assert segment(*words, "--score", "0.1") == 0
    assert "(1 were done before)" in capsys.readouterr().out
    assert result.stat().st_mtime_ns == made


def test_bad_images_do_not_stop_the_others(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, output = tmp_path / "images", tmp_path / "out"
    write(inputs / "a.png")
    (inputs / "b.png").write_bytes(b"")
    (inputs / "c.png").write_bytes((inputs / "a.png").read_bytes()[:90])
    Image.new("L", (160, 120)).save(inputs / "d.png")
    write(inputs / "e.png")
    words = [inputs, tmp_path / "nowhere.png", "--output", output, "--weights", weights]
    assert segment(*words) == 1
    shown = capsys.readouterr()
    assert "3 of 6 images failed" in shown.out
    for name in ("b.png", "c.png", "nowhere.png"):
        assert f"{name}: " in shown.out
    # A black image is no error.
    assert "d.png: nothing stands out" in shown.out
    assert json.loads((output / "d.segment.json").read_text())["count"] == 0
    assert not list(output.glob("*.part"))
    assert {path.name for path in output.glob("[bc].*")} == {
        "b.segment.failed.txt",
        "c.segment.failed.txt",
    }
    images = json.loads((output / COCO_FILE).read_text())["images"]
    assert [Path(image["file_name"]).name for image in images] == ["a.png", "d.png", "e.png"]


def test_equal_names_do_not_overwrite_each_other(weights: Path, tmp_path: Path) -> None:
    for name in ("one/1.png", "two/1.png", "two/1.tif", "two/x.png", "two/annotations.png"):
        write(tmp_path / name)
    output = tmp_path / "out"
    words = [tmp_path / "one", tmp_path / "two", tmp_path / "two" / "x.png"]
    assert segment(*words, "--output", output, "--weights", weights) == 0
    stems = {path.name.removesuffix(".segment.overlay.png") for path in output.glob("*.png")}
    assert stems == {"one_1", "two_1_png", "1_tif", "x", "annotations"}
    assert len(list(output.glob("*.json"))) == 6
    assert len(json.loads((output / COCO_FILE).read_text())["images"]) == 5


def test_names_differ_in_more_than_capitals() -> None:
    files = [Path(name) for name in ("a/x.png", "b/X.tif", "a/x.tif", "a_x.png", "c/y.png")]
    names = unique_names(files)
    assert len({name.casefold() for name in names}) == 5
    assert names == ["x_png", "b_X", "a_x_tif", "a_x", "y"]


def test_results_among_the_images_are_not_segmented_again(weights: Path, tmp_path: Path) -> None:
    write(tmp_path / "p" / "a.png")
    for _ in range(2):
        assert segment(tmp_path / "p", "--output", tmp_path / "p", "--weights", weights) == 0
    assert {path.name for path in (tmp_path / "p").iterdir()} == {
        "a.png",
        "a.segment.json",
        "a.segment.overlay.png",
        COCO_FILE,
        MANIFEST,
        LOCK,
    }


def test_the_coco_file_holds_the_results_of_earlier_runs(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    for name, bars in (("a", BARS), ("b", BARS[:2])):
        write(tmp_path / name / "1.png", bars)
        words = [tmp_path / name, "--output", output, "--weights", weights]
        assert segment(*words) == 0
    assert "also holds 1 results of earlier runs on other images" in capsys.readouterr().out
    document = json.loads((output / COCO_FILE).read_text())
    names = [image["file_name"] for image in document["images"]]
    assert names == [str(tmp_path / "b" / "1.png"), str(tmp_path / "a" / "1.png")]
    assert len(document["annotations"]) == 6
    # A COCO file of another program is not replaced.
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / COCO_FILE).write_text('{"images": []}')
    assert segment(tmp_path / "a", "--output", tmp_path / "c", "--weights", weights) == 2
    assert f"{COCO_FILE}: is there already and was not written by" in capsys.readouterr().err
    assert (tmp_path / "c" / COCO_FILE).read_text() == '{"images": []}'


def test_karyotype_and_segment_share_a_folder(weights: Path, tmp_path: Path) -> None:
    write(tmp_path / "p" / "a.png")
    output = tmp_path / "out"
    words = ["karyotype", tmp_path / "p", "--segmenter", "tiny_segmenter", "--output", output]
    words += ["--segmenter-weights", weights, "--classifier", "vanilla_cnn", "--score", "0"]
    assert chromozoo([str(word) for word in words]) == 0
    before = {path.name: path.read_bytes() for path in output.glob("a.*")}
    assert segment(tmp_path / "p", "--output", output, "--weights", weights) == 0
    assert before.items() <= {path.name: path.read_bytes() for path in output.glob("a.*")}.items()
    page = (output / "index.html").read_bytes()
    assert chromozoo([str(word) for word in words]) == 0
    assert (output / "index.html").read_bytes() == page
    assert len(json.loads((output / COCO_FILE).read_text())["images"]) == 1
    # Results of either command do not count as images.
    assert segment(output, "--output", tmp_path / "x", "--weights", weights) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.png", "--model", "chrnet4"], "chrnet4 is not a segmenter; use one of"),
        (["a.png", "--model", "chr_fst"], "did you mean chr_fast"),
        (["a.png", "--model", "tiny_segmenter"], "has no weights"),
        (["empty", "--timeout", "9"], "empty: the folder holds no image"),
        (["a.png", "--output", "a.png"], "a.png: cannot be made a folder"),
    ],
)
def test_errors_say_the_remedy(
    words: list[str],
    said: str,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("a.png"))
    Path("empty").mkdir()
    if "--model" not in words:
        words = [*words, "--model", "tiny_segmenter", "--weights", str(weights)]
    assert chromozoo(["segment", *words]) == 2
    assert said in capsys.readouterr().err


def test_filtering_by_score_keeps_the_warnings() -> None:
    masks = np.zeros((3, 20, 20), bool)
    for k, mask in enumerate(masks):
        mask[5 * k : 5 * k + 3] = True
    found = Segmentation.from_masks(masks, [0.2, 0.9, 0.5], warnings=["look"])
    shown = found.filter_by_score(0.5)
    assert shown.scores.tolist() == [np.float32(0.9), 0.5] and shown.warnings == ("look",)
    np.testing.assert_array_equal(shown.masks, masks[[1, 2]])
    assert len(found.filter_by_score(1)) == 0


# Benchmark


def labelme(path: Path, bars: tuple[tuple[int, ...], ...]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(metaphase(bars)).save(buffer, format="PNG")
    corners = [[[x0, y0], [x1, y0], [x1, y1], [x0, y1]] for y0, x0, y1, x1 in bars]
    document = {
        "imageData": base64.b64encode(buffer.getvalue()).decode(),
        "imageHeight": 120,
        "imageWidth": 160,
        "shapes": [{"label": "chr", "points": points} for points in corners],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two of the 16 official test images, by name."""
    folder = tmp_path / "data" / "bioimlab-segmentation"
    labelme(folder / "original_5.json", BARS)
    labelme(folder / "original_10.json", BARS[:2])
    return tmp_path / "data"


def test_the_benchmark_evaluates_segment(
    weights: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, overlays = tmp_path / "segmentation.csv", tmp_path / "overlays"
    words = ["benchmark", "tiny_segmenter", "--weights", str(weights), "--root", str(data)]
    words += ["--output", str(results), "--overlays", str(overlays), "--note", "two images"]
    assert chromozoo(words) == 0
    assert "mask_ap_overlap" in capsys.readouterr().out
    with results.open(newline="") as file:
        assert tuple(next(csv.reader(file))) == RESULT_COLUMNS
    (row,) = read_results(results)
    assert (row["dataset"], row["split"]) == (
        "bioimlab-segmentation",
        "bioimlab_segmentation_v1/test",
    )
    assert (row["n_images"], row["n_chromosomes"], row["max_detections"]) == ("2", "7", "100")
    assert (row["image_scale"], row["parameters"], row["note"]) == ("160x120", "1", "two images")
    assert row["backend"].startswith("faster-coco-eval ") and float(row["seconds_per_image"]) > 0
    # The crossed pair is one detection, so that at least one chromosome is missed.
    model: Any = get_model("tiny_segmenter", weights=weights)
    from chromozoo.structures.polygons import polygon_mask

    outlines = [
        np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float) for y0, x0, y1, x1 in BARS
    ]
    masks = np.stack([polygon_mask(outline, 120, 160) for outline in outlines])
    report = evaluate_segmentation(
        [model.segment(metaphase()), model.segment(metaphase(BARS[:2]))], [masks, masks[:2]]
    )
    for metric in METRICS:
        expected = report.metrics[metric].value
        found = float(row[metric]) if row[metric] else np.nan
        assert found == pytest.approx(expected, abs=1e-4, nan_ok=True), metric
    assert float(row["exact_match_rate"]) == 0.5 and float(row["mask_ap_overlap"]) < 0.3
    assert {path.name for path in overlays.iterdir()} == {"5.png", "10.png"}
    with Image.open(overlays / "5.png") as image:
        red, green, blue = np.moveaxis(np.asarray(image).astype(int), 2, 0)
    is_red = (red > 180) & (green < 120) & (blue < 120)
    assert is_red[60:115, 50:61].any() or is_red[80:92, 20:100].any()
    assert not is_red[10:60, 10:22].any()

    # A repeated measurement replaces the row, also with another score.
    assert chromozoo([*words, "--score", "0.9"]) == 0
    (row,) = read_results(results)
    assert row["score_threshold"] == "0.9"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset", "bioimlab"], "bioimlab is not a data set for it; use bioimlab-segmentation"),
        (["--fold", "0"], "has no folds"),
        (["--stage", "val"], "none of the val images"),
        (["--weights", "tiny.ckpt"], "chromozoo zoo package"),
    ],
)
def test_errors_of_the_benchmark_say_the_remedy(
    words: list[str],
    said: str,
    weights: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Tiny().state_dict(), "hyper_parameters": {}}, "tiny.ckpt")
    fixed = ["--weights", str(weights), "--root", str(data), "--output", "x.csv"]
    assert chromozoo(["benchmark", "tiny_segmenter", *fixed, *words]) == 2
    assert said in capsys.readouterr().err
    assert not Path("x.csv").exists()


def test_classifiers_are_not_evaluated_on_metaphases(capsys: pytest.CaptureFixture[str]) -> None:
    assert chromozoo(["benchmark", "chrnet4", "--dataset", "bioimlab-segmentation"]) == 2
    assert "is not a data set for it; use bioimlab" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        chromozoo(["feature-matching", "chrnet4", "--dataset", "bioimlab-segmentation"])
    assert "invalid choice" in capsys.readouterr().err
