"""``chromozoo karyotype``: result files, page, alarms and processes."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.inline_worker import InlineWorker
from helpers.tiny_segmenter import tiny_weights
from PIL import Image

import chromozoo
from chromozoo.batch import worker_pool
from chromozoo.batch.identity import weights_identity
from chromozoo.batch.results import LOCK, MANIFEST
from chromozoo.cli.main import main
from chromozoo.karyotype.karyotype import Karyotype
from chromozoo.karyotype.karyotyper import Karyotyper
from chromozoo.models import registry
from chromozoo.models.karyotyper import get_karyotyper
from chromozoo.models.registry import get_model, get_weight
from chromozoo.synthetic import Appearance, SyntheticMetaphase, draw_metaphase
from chromozoo.visualization import report

# Chromosomes are clear and apart, so that each connected component is one.
LOOK = Appearance(length=80, blur=1.2, bend=0.2, overlap=0.0, band_spread=0.05, noise=0.2)


def write(path: Path, seed: int, karyotype: list[str]) -> None:
    Image.fromarray(drawn(seed, karyotype).image).save(path)


def drawn(seed: int, karyotype: list[str]) -> SyntheticMetaphase:
    return draw_metaphase(
        np.random.default_rng(seed),
        karyotype=karyotype,
        appearance=LOOK,
        overlap=0.0,
        height=220,
        width=260,
    )


@pytest.fixture
def weights(
    registered_tiny_segmenter: None,
    inline: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Packaged weights of the tiny segmenter."""
    return tiny_weights(tmp_path_factory.mktemp("weights"))


def karyotype(weights: Path, *words: str | Path) -> int:
    models = ["--segmenter", "tiny_segmenter", "--segmenter-weights", str(weights)]
    models += ["--classifier", "vanilla_cnn", "--score", "0"]
    return main(["karyotype", *map(str, words), *models])


def test_every_image_gets_its_files_and_the_folder_a_page(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    write(images / "a.png", 1, ["1", "2", "3", "X"])
    write(images / "b.png", 2, ["1", "Y"])
    Image.fromarray(np.zeros((50, 60), np.uint8)).save(images / "empty.png")
    (images / "torn.png").write_bytes(b"half a file")
    assert karyotype(weights, images, "--output", output) == 1
    shown = capsys.readouterr().out
    assert "1 of 4 images failed" in shown and "torn.png" in shown
    assert "Research use only, not for diagnosis" in shown
    names = {path.name for path in output.iterdir()}
    assert names == {
        *(f"{stem}{end}" for stem in "ab" for end in (".json", ".karyogram.png", ".overlay.png")),
        "empty.json",
        "empty.overlay.png",
        "torn.failed.txt",
        "index.html",
        MANIFEST,
        LOCK,
    }
    cell = json.loads((output / "a.json").read_text())
    assert cell["count"] == 4 and len(cell["chromosomes"]) == 4
    assert cell["models"][0]["name"] == "tiny_segmenter" and cell["models"][0]["sha256"]
    assert json.loads((output / "empty.json").read_text())["flags"]
    page = (output / "index.html").read_text()
    for words in ("a.karyogram.png", "b.overlay.png", "empty.png", "torn.png", cell["iscn"]):
        assert words in page
    assert "http" not in page.replace("http-equiv", "")  # nothing from a network

    # After the repair only that image is processed, and its error message is removed.
    before = {path: path.stat().st_mtime_ns for path in output.glob("*.json")}
    write(images / "torn.png", 3, ["1", "2"])
    assert karyotype(weights, images, "--output", output) == 0
    assert "3 were done before" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert not (output / "torn.failed.txt").exists()
    # Other options process all images again.
    assert karyotype(weights, images, "--output", output, "--assignment", "none") == 0
    assert "4 done again: other options (assignment)" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns > time for path, time in before.items())


def test_results_hold_their_identity(weights: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.png", 1, ["1", "2"])
    assert karyotype(weights, tmp_path / "a.png", "--output", tmp_path / "out") == 0
    cell = json.loads((tmp_path / "out" / "a.json").read_text())
    identity = cell["identity"]
    content = (tmp_path / "a.png").read_bytes()
    assert identity["content"] == {
        "sha256": hashlib.sha256(content).hexdigest(),
        "part": None,
        "parts": 1,
    }
    segmenter, classifier = identity["models"]
    assert segmenter["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert classifier["sha256"] == get_weight("vanilla_cnn").sha256
    assert (
        identity["options"].items()
        >= {
            "stain": "auto",
            "assignment": "cell",
            "score": 0.0,
            "page": None,
            "projection": None,
        }.items()
    )
    assert identity["software"] == {"chromozoo": chromozoo.__version__, "format": report.FORMAT}
    # The temperature is not part of the weights file, but changes the predictions.
    model: Any = get_model("vanilla_cnn")
    same, other = (
        weights_identity(SimpleNamespace(weights_entry=entry), "DEFAULT")
        for entry in (
            model.weights_entry,
            dataclasses.replace(model.weights_entry, temperature=9.0),
        )
    )
    assert same == classifier and same["settings"] != other["settings"]


def test_alarms_appear_in_all_results(
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Terminal, JSON, karyogram, overlay and page show the alarms."""
    karyotype_image = Karyotyper.karyotype
    alarms = ("the chromosomes show no bands", "2 of 4 classes are uncertain")

    def alarmed(self: Karyotyper, image: Any, name: str | None = None) -> Karyotype:
        found = karyotype_image(self, image, name)
        raised = "a.png" in found.name
        return dataclasses.replace(found, alarms=alarms if raised else (), flags=("a flag",))

    monkeypatch.setattr(Karyotyper, "karyotype", alarmed)
    write(tmp_path / "a.png", 1, ["1", "2", "3", "X"])
    write(tmp_path / "b.png", 1, ["1", "2", "3", "X"])
    output = tmp_path / "out"
    assert karyotype(weights, tmp_path / "a.png", tmp_path / "b.png", "--output", output) == 0
    cells = {name: json.loads((output / f"{name}.json").read_text()) for name in "ab"}
    marked = cells["a"]["iscn"]
    assert marked == cells["b"]["iscn"] + "?"
    assert cells["a"]["alarms"] == list(alarms) and cells["b"]["alarms"] == []
    shown = capsys.readouterr().out
    lines = [f"{tmp_path / 'a.png'}: {marked}", *(f"  {words}" for words in (*alarms, "a flag"))]
    assert "\n".join(lines) in shown
    assert "2 flagged, 1 unreliable; " in shown
    images = {name: np.asarray(Image.open(output / f"{name}.karyogram.png")) for name in "ab"}
    red = {name: (drawn == (176, 0, 32)).all(axis=2) for name, drawn in images.items()}
    assert red["a"].sum() > 50_000 and not red["b"].any()
    page = (output / "index.html").read_text()
    assert page.count("Unreliable karyotype") == 1
    assert "1 unreliable" in page and 'id="alarmed"' in page
    assert page.count('data-alarmed="1"') == page.count('data-alarmed="0"') == 1
    assert all(f"<li>{words}</li>" in page for words in alarms)


def test_a_karyotype_of_an_array_can_be_drawn(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = drawn(1, ["1", "2", "X"]).image
    karyotyper = get_karyotyper(
        get_model("tiny_segmenter", weights=str(weights)), "vanilla_cnn", score=0.0
    )
    found = dataclasses.replace(karyotyper.karyotype(image), image=image.astype(np.float32))
    assert found.name == "image"
    overlay = report.draw_cell_overlay(found)
    assert overlay.shape == (*image.shape, 3)
    # Every name that cannot be trusted has a question mark.
    written: list[Sequence[str]] = []
    monkeypatch.setattr(report, "draw_overlay", lambda *given: written.append(given[2]))
    certain = tuple(dataclasses.replace(item, review_reasons=()) for item in found.chromosomes)
    for alarms in ((), ("why",)):
        report.draw_cell_overlay(dataclasses.replace(found, chromosomes=certain, alarms=alarms))
    labels = [item.label for item in certain]
    assert written == [labels, [f"{label}?" for label in labels]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes", "0"], "--processes 0: give 1 or more"),
        (["--score", "2"], "--score 2.0: give a number from 0 to 1"),
    ],
)
def test_wrong_settings(
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    write(tmp_path / "a.png", 1, ["1"])
    models = ["--segmenter", "tiny_segmenter", "--segmenter-weights", str(weights)]
    assert main(["karyotype", str(tmp_path / "a.png"), *models, *words]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_images(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert karyotype(weights, tmp_path) == 2
    assert "holds no image" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker processes load a model that a module of the user registers."""
    monkeypatch.delitem(registry._REGISTERED, "tiny_segmenter", raising=False)
    weights = tiny_weights(tmp_path / "weights")
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        write(images / f"{number}.png", number, ["1", "2", "X"])
    (images / "torn.png").write_bytes(b"half a file")
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    sys.modules.pop("helpers.tiny_zoo", None)
    import_module("helpers.tiny_zoo")
    words = (images, "--output", tmp_path / "2", "--processes", "2")
    assert karyotype(weights, *words) == 1
    monkeypatch.setattr(worker_pool, "Worker", InlineWorker)
    assert karyotype(weights, images, "--output", tmp_path / "1") == 1
    one, two = (
        {path.name: json.loads(path.read_text()) for path in (tmp_path / name).glob("*.json")}
        for name in "12"
    )
    assert sorted(one) == ["0.json", "1.json", "2.json"]
    assert one == two
    assert (tmp_path / "2" / "index.html").read_text() == (
        tmp_path / "1" / "index.html"
    ).read_text()


def test_the_benchmark_evaluates_karyotypes(
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from chromozoo.benchmark.tables.karyotyping import read_results
    from chromozoo.classes import CLASS_INDEX
    from chromozoo.data import karyotyping_truth
    from chromozoo.structures.karyotyped_cell import TrueCell
    from chromozoo.structures.polygons import polygon_mask
    from chromozoo.structures.segmentation import Segmentation

    def drawn_cells(dataset: str, stage: str, root: str | None):
        for seed in (1, 2):
            cell = drawn(seed, ["1", "2", "9", "X"])
            masks = np.stack([polygon_mask(p, 220, 260) for p in cell.polygons])
            classes = np.array([CLASS_INDEX[label] for label in cell.labels])
            true = TrueCell(f"cell {seed}", Segmentation.from_masks(masks), classes)
            yield cell.image.astype(np.float32), true

    monkeypatch.setattr(karyotyping_truth, "true_cells", drawn_cells)
    results = tmp_path / "karyotyping.csv"
    words = ["benchmark", "tiny_segmenter", "--weights", str(weights), "--output", str(results)]
    words += ["--classifier", "vanilla_cnn", "--score", "0", "--device", "cpu"]
    assert main(words) == 0
    assert "fka" in capsys.readouterr().out
    (row,) = read_results(results)
    assert (row["segmenter"], row["classifier"]) == ("tiny_segmenter", "vanilla_cnn")
    assert (row["n_images"], row["n_chromosomes"]) == ("2", "8")
    assert row["split"] == "bioimlab_segmentation_v1/test"
    assert float(row["segmentation_recall"]) == 1
    assert 0 <= float(row["fka"]) <= 1
    assert main([*words[:1], "vanilla_cnn", *words[2:]]) == 2
    assert "--classifier needs a segmenter" in capsys.readouterr().err
