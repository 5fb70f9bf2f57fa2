"""What may change the repository: weights that are packaged in it, and nothing of a user's own."""

import csv
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from chromozoo.benchmark import (
    aneuploidy,
    matching,
    packaging,
    publish_karyotyping,
    publishing,
    recipe,
)
from chromozoo.benchmark import publish as publish_benchmark
from chromozoo.benchmark.repository import ROOT
from chromozoo.cli.main import main
from chromozoo.errors import ChromozooError
from chromozoo.models.registry import get_model, get_weight
from chromozoo.models.weights.index import weights_entries
from chromozoo.models.weights.storage import read_entry, save_weights

CONFIG = ROOT / "configs" / "classification" / "vanilla_cnn_bioimlab.yaml"
MARKS = "<!-- leaderboard:{0}:begin -->\n<!-- leaderboard:{0}:end -->\n"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights like the packaged ones of `siamese_net`, with the same tag."""
    model: Any = get_model("siamese_net")
    model.network.pair.bias.data += 0.01
    return save_weights(model.network, model.weights_entry, tmp_path_factory.mktemp("own"))[0]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CSVs and tables of the commands, in a place where they may change."""
    house = tmp_path / "house"
    house.mkdir()
    for module in (aneuploidy, matching, publish_benchmark, publish_karyotyping):
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(module, "RESULTS", house / f"{name}.csv")
    monkeypatch.setattr(publish_benchmark, "SEGMENTATION_RESULTS", house / "segmentation.csv")
    monkeypatch.setattr(aneuploidy, "TABLES", house / "README.md")
    (house / "README.md").write_text(MARKS.format("aneuploidy"))

    def publish(row: dict[str, Any]) -> None:
        (house / "published").write_text(row["weights"])

    monkeypatch.setattr(publish_benchmark, "publish", publish)
    monkeypatch.setattr(publish_karyotyping, "publish", publish)
    return house


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


def test_what_is_packaged() -> None:
    entry = get_weight("siamese_net")
    assert publishing.is_packaged("siamese_net", "bioimlab", entry.sha256[:12])
    assert not publishing.is_packaged("siamese_net", "bioimlab", "0" * 12)
    assert not publishing.is_packaged("siamese_net", "bioimlab", "")
    assert not publishing.is_packaged("siamese_net", "pki3", entry.sha256)
    assert not publishing.is_packaged("no_such", "bioimlab", entry.sha256)
    assert publishing.label(entry) == "bioimlab"
    mine = dataclasses.replace(entry, file="mine.safetensors", sha256="1" * 64)
    assert publishing.label(mine) == "mine.safetensors (own file)"


def test_where_rows_go(tmp_path: Path) -> None:
    sha = get_weight("siamese_net").sha256
    packaged, mine = ("siamese_net", "bioimlab", sha), ("siamese_net", "bioimlab", "1" * 64)
    shipped, other = tmp_path / "shipped.csv", tmp_path / "other.csv"

    def to(asked: Path | None, *weights: tuple[str, str, str]) -> tuple[Path | None, bool]:
        found = publishing.destination(asked, shipped, weights)
        assert "shipped.csv" in found.say() or found.path == other
        return found.path, found.published

    assert to(None, packaged) == (shipped, True)
    assert to(None, packaged, mine) == (None, False)
    assert to(other, packaged) == to(other, mine) == (other, False)
    # Named by the user it takes any rows; they say whose they are, and nothing follows.
    assert to(shipped, packaged) == (shipped, True)
    assert to(shipped, mine) == (shipped, False)
    # An installed package has no such folder, and none is made.
    shipped = tmp_path / "site-packages" / "benchmarks" / "shipped.csv"
    assert publishing.destination(None, shipped, [packaged]).path is None


@pytest.mark.parametrize("command", ["abnormal", "match", "benchmark"])
def test_results_of_a_file_of_ones_own(
    command: str, own: Path, house: Path, tmp_path: Path, tiny_bioimlab: Path, capsys: Any
) -> None:
    before, entry = contents(house), get_weight("siamese_net")
    words = [command, "siamese_net", "--root", str(tiny_bioimlab), "--dataset", "bioimlab"]
    words += ["--device", "cpu", "--weights"]
    assert main([*words, str(own)]) == 0
    shown = capsys.readouterr().out
    assert "not added to" in shown and "--results FILE.csv" in shown
    assert contents(house) == before
    assert get_weight("siamese_net") == entry

    results = tmp_path / "mine.csv"
    assert main([*words, str(own), "--results", str(results)]) == 0
    assert contents(house) == before
    with results.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["weights"] for row in rows} == {f"{own.name} (own file)"}

    # The same command for what is packaged.
    assert main([*words, "bioimlab"]) == 0
    with (house / f"{command}.csv").open() as file:
        assert {row["weights"] for row in csv.DictReader(file)} == {"bioimlab"}
    if command == "abnormal":
        assert "| siamese_net | bioimlab |" in (house / "README.md").read_text()
    if command == "benchmark":
        assert (house / "published").read_text() == "bioimlab"


def test_karyotyping_rows_of_a_file_of_ones_own(own: Path, house: Path) -> None:
    """One private half is enough."""
    entries = [get_weight("chr_fast"), read_entry(own)]
    assert [publishing.label(entry) for entry in entries] == [
        "metaphase",
        f"{own.name} (own file)",
    ]
    measured = [(entry.model, publishing.label(entry), entry.sha256[:12]) for entry in entries]
    assert publishing.destination(None, house / "x.csv", measured).path is None
    assert publishing.destination(None, house / "x.csv", measured[:1]).published


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    preset = {"height": 48, "width": 40, "scale": 0.5}
    model: Any = get_model("vanilla_cnn", weights=None, preset=preset)
    parts = {"state_dict": model.state_dict(), "hyper_parameters": {"preset": preset}}
    torch.save(parts, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_package_makes_weights_of_ones_own(
    checkpoint: Path, tiny_bioimlab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data of one's own, a name of the zoo: the packaged weights stay what they are."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the repository would be changed")

    for name in ("write_entry", "write_card"):
        monkeypatch.setattr(packaging, name, refuse)
    config = tmp_path / CONFIG.name
    shutil.copy(CONFIG, config)
    words = ["package", str(config), "--checkpoint", str(checkpoint), "--root", str(tiny_bioimlab)]
    before = sorted((ROOT / "weights").iterdir())
    assert main(words) == 2
    with pytest.raises(ChromozooError, match=r"none of the configs in .*--output DIR"):
        packaging.package(recipe.read_recipe(config), [checkpoint], root=str(tiny_bioimlab))
    assert main([*words, "--replace"]) == 2
    assert main([*words, "--output", str(tmp_path / "mine")]) == 0
    (file,) = (tmp_path / "mine").iterdir()
    model: Any = get_model("vanilla_cnn", weights=file)
    assert model.weights_entry.file == file.name
    assert model.transforms.height == 48
    assert not publishing.is_packaged("vanilla_cnn", "bioimlab", model.weights_entry.sha256)
    assert sorted((ROOT / "weights").iterdir()) == before
    assert weights_entries("vanilla_cnn")["bioimlab"].sha256 != model.weights_entry.sha256


def test_configs_of_the_repository_may_be_published() -> None:
    publishing.check_is_of_the_repository(CONFIG, "")
    with pytest.raises(ChromozooError, match=r"run\.py: is none of the configs.*; do another"):
        publishing.check_is_of_the_repository(ROOT / "run.py", "do another")
