"""``chromozoo karyotype``: files in, karyograms out; interruptions, bad files, processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_segmenter import tiny_weights

import chromozoo
from chromozoo.cli.main import main
from chromozoo.synthetic import Appearance, SyntheticMetaphase, draw_metaphase

# Clear enough that what hangs together is one chromosome.
LOOK = Appearance(length=80, blur=1.2, bend=0.2, overlap=0.0, band_spread=0.05, noise=0.2)
ROOT = Path(chromozoo.__file__).resolve().parents[1]


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
def weights(registered_tiny_segmenter: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packaged weights of the tiny segmenter."""
    return tiny_weights(tmp_path_factory.mktemp("weights"))


def karyotype(weights: Path, *words: str | Path) -> int:
    models = ["--segmenter", "tiny_segmenter", "--segmenter-weights", str(weights)]
    models += ["--classifier", "vanilla_cnn", "--score", "0"]
    return main(["karyotype", *map(str, words), *models])


def test_every_picture_gets_its_files_and_the_folder_a_page(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, output = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    write(pictures / "a.png", 1, ["1", "2", "3", "X"])
    write(pictures / "b.png", 2, ["1", "Y"])
    Image.fromarray(np.zeros((50, 60), np.uint8)).save(pictures / "empty.png")
    (pictures / "torn.png").write_bytes(b"half a file")
    assert karyotype(weights, pictures, "--output", output) == 1
    shown = capsys.readouterr().out
    assert "1 of 4 pictures could not be read" in shown and "torn.png" in shown
    assert "Research use only, not for diagnosis" in shown
    names = {path.name for path in output.iterdir()}
    assert names == {
        *(f"{stem}{end}" for stem in "ab" for end in (".json", ".karyogram.png", ".overlay.png")),
        "empty.json",
        "empty.overlay.png",
        "torn.failed.txt",
        "index.html",
    }
    cell = json.loads((output / "a.json").read_text())
    assert cell["count"] == 4 and len(cell["chromosomes"]) == 4
    assert cell["models"][0]["name"] == "tiny_segmenter" and cell["models"][0]["sha256"]
    assert json.loads((output / "empty.json").read_text())["flags"]
    page = (output / "index.html").read_text()
    for words in ("a.karyogram.png", "b.overlay.png", "empty.png", "torn.png", cell["iscn"]):
        assert words in page
    assert "http" not in page.replace("http-equiv", "")  # nothing from a network

    # Mended and called again: only that one is done, and the message goes.
    before = {path: path.stat().st_mtime_ns for path in output.glob("*.json")}
    write(pictures / "torn.png", 3, ["1", "2"])
    assert karyotype(weights, pictures, "--output", output) == 0
    assert "3 were done before" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert not (output / "torn.failed.txt").exists()
    # Other settings do them all again.
    assert karyotype(weights, pictures, "--output", output, "--assignment", "none") == 0
    assert all(path.stat().st_mtime_ns > time for path, time in before.items())


def test_an_interrupted_run_keeps_what_it_has(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chromozoo.cells.karyotyper import Karyotyper

    pictures, output = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for name in "abc":
        write(pictures / f"{name}.png", 4, ["1", "2"])
    whole = Karyotyper.karyotype

    def stops(self: Karyotyper, image: Path, name: str | None = None):
        if Path(image).name == "c.png":
            raise RuntimeError("power cut")
        return whole(self, image, name)

    monkeypatch.setattr(Karyotyper, "karyotype", stops)
    with pytest.raises(RuntimeError, match="power cut"):
        karyotype(weights, pictures, "--output", output)
    assert {path.name for path in output.glob("*.json")} == {"a.json", "b.json"}
    assert not list(output.glob("*.part"))
    monkeypatch.setattr(Karyotyper, "karyotype", whole)
    assert karyotype(weights, pictures, "--output", output) == 0
    assert len(list(output.glob("*.json"))) == 3


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


def test_a_folder_without_pictures(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert karyotype(weights, tmp_path) == 2
    assert "holds no picture" in capsys.readouterr().err


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    """With models that every process can load: the untrained segmenter is seeded by its file."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        write(pictures / f"{number}.png", number, ["1", "2", "X"])
    (pictures / "torn.png").write_bytes(b"half a file")
    script = tmp_path / "karyotype.py"
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "from tiny_segmenter import Tiny\n"
        "from chromozoo.cells import karyotyper\n"
        "get_model = karyotyper.get_model\n"
        "karyotyper.get_model = lambda name, weights: (\n"
        "    Tiny() if name == 'tiny' else get_model(name, weights=weights))\n"
        "from chromozoo.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    for processes in ("1", "2"):
        words = ["karyotype", str(pictures), "--segmenter", "tiny", "--classifier", "vanilla_cnn"]
        words += ["--score", "0", "--processes", processes, "--output", str(tmp_path / processes)]
        done = subprocess.run(
            [sys.executable, str(script), *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-3000:]
        assert "1 of 4 pictures could not be read" in done.stdout
    one, two = (
        {path.name: json.loads(path.read_text()) for path in (tmp_path / name).glob("*.json")}
        for name in "12"
    )
    assert sorted(one) == ["0.json", "1.json", "2.json"]
    assert one == two
    assert (tmp_path / "2" / "index.html").read_text() == (
        tmp_path / "1" / "index.html"
    ).read_text()


def test_the_benchmark_measures_the_whole_way(
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from chromozoo.classes import CLASS_INDEX
    from chromozoo.data import karyotyped
    from chromozoo.data.polygons import polygon_mask
    from chromozoo.karyotyping_metrics import TrueCell
    from chromozoo.leaderboard_karyotyping import read_results
    from chromozoo.tasks.segmentation import Segmentation

    def drawn_cells(dataset: str, stage: str, root: str | None):
        for seed in (1, 2):
            cell = drawn(seed, ["1", "2", "9", "X"])
            masks = np.stack([polygon_mask(p, 220, 260) for p in cell.polygons])
            classes = np.array([CLASS_INDEX[label] for label in cell.labels])
            true = TrueCell(f"cell {seed}", Segmentation.from_masks(masks), classes)
            yield cell.image.astype(np.float32), true

    monkeypatch.setattr(karyotyped, "true_cells", drawn_cells)
    results = tmp_path / "karyotyping.csv"
    words = ["benchmark", "tiny_segmenter", "--weights", str(weights), "--results", str(results)]
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
    assert "--classifier goes with a segmenter" in capsys.readouterr().err
