"""What may change the repository: rows of packaged weights, by the zoo's commands alone."""

import csv
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from chromozoo.benchmark import packaging, provenance, publish, repository
from chromozoo.benchmark.repository import ROOT
from chromozoo.cli.main import main
from chromozoo.errors import ChromozooError
from chromozoo.models.registry import get_model, get_weight
from chromozoo.models.weights import index
from chromozoo.models.weights.index import weights_entries
from chromozoo.models.weights.storage import save_weights
from chromozoo.training import recipe

CONFIG = ROOT / "configs" / "classification" / "vanilla_cnn_bioimlab.yaml"
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights like the packaged ones of `siamese_net`, with the same tag."""
    model: Any = get_model("siamese_net")
    model.network.pair.bias.data += 0.01
    return save_weights(model.network, model.weights_entry, tmp_path_factory.mktemp("own"))[0]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all that the zoo's commands may change, in place of the repository's."""
    house = tmp_path / "house"
    shutil.copytree(RESULTS, house / "benchmarks" / "results")
    marks = "".join(
        f"<!-- leaderboard:{name}:begin -->\n<!-- leaderboard:{name}:end -->\n"
        for kind in publish.KINDS.values()
        for name in kind.tables
    )
    (house / "benchmarks" / "leaderboard.md").write_text(marks)
    shutil.copytree(index.ENTRIES, house / "entries")
    (house / "weights").mkdir()
    monkeypatch.setattr(publish, "RESULTS", house / "benchmarks" / "results")
    monkeypatch.setattr(publish, "LEADERBOARD", house / "benchmarks" / "leaderboard.md")
    monkeypatch.setattr(publish, "ROOT", house)
    monkeypatch.setattr(index, "ENTRIES", house / "entries")
    for module in (publish, packaging):
        monkeypatch.setattr(module, "write_card", lambda name: house / f"{name}.md")
    monkeypatch.setattr(packaging, "WEIGHTS", house / "weights")
    return house


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_which_weights_are_packaged() -> None:
    entry = get_weight("siamese_net")
    assert provenance.is_packaged("siamese_net", "bioimlab", entry.sha256[:12])
    assert not provenance.is_packaged("siamese_net", "bioimlab", "0" * 12)
    assert not provenance.is_packaged("siamese_net", "bioimlab", "")
    assert not provenance.is_packaged("siamese_net", "pki3", entry.sha256)
    assert not provenance.is_packaged("no_such", "bioimlab", entry.sha256)
    assert provenance.weights_label(entry) == "bioimlab"
    mine = dataclasses.replace(entry, file="mine.safetensors", sha256="1" * 64)
    assert provenance.weights_label(mine) == "mine.safetensors (own file)"


@pytest.mark.parametrize("command", ["aneuploidy", "feature-matching", "benchmark"])
def test_a_command_measures_and_the_zoo_publishes(
    command: str, own: Path, house: Path, tmp_path: Path, tiny_bioimlab: Path, capsys: Any
) -> None:
    before = contents(house)
    words = [command, "siamese_net", "--root", str(tiny_bioimlab), "--dataset", "bioimlab"]
    words += ["--device", "cpu", "--output"]
    mine, packaged = tmp_path / "mine.csv", tmp_path / "packaged.csv"
    assert main([*words, str(mine), "--weights", str(own)]) == 0
    assert main([*words, str(packaged), "--weights", "bioimlab"]) == 0
    assert contents(house) == before
    with mine.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["weights"] for row in rows} == {f"{own.name} (own file)"}

    # Rows of other weights are refused, and a dry run changes nothing.
    assert main(["zoo", "publish", str(packaged), str(mine)]) == 2
    assert "are not packaged weights" in capsys.readouterr().err
    assert main(["zoo", "publish", str(packaged), "--dry-run"]) == 0
    name = {"feature-matching": "matching", "benchmark": "classification"}.get(command, command)
    assert f"{name}.csv: " in capsys.readouterr().out
    assert contents(house) == before

    assert main(["zoo", "publish", str(packaged)]) == 0
    after = contents(house)
    changed = {path for path in after if after[path] != before.get(path)}
    expected = {f"benchmarks/results/{name}.csv"}
    if command != "feature-matching":
        expected |= {"benchmarks/leaderboard.md"}
    if command == "benchmark":
        expected |= {"entries/siamese_net_bioimlab.json"}
        (row,) = csv.DictReader(packaged.open())
        metrics = weights_entries("siamese_net")["bioimlab"].metrics[row["split"]]
        assert metrics["accuracy"] == float(row["accuracy"])
    assert changed == expected


def test_rows_without_a_kind_are_refused(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert main(["zoo", "publish", str(tmp_path / "other.csv")]) == 2
    assert "its columns are those of no kind of results" in capsys.readouterr().err
    assert main(["zoo", "publish", str(tmp_path / "none.csv")]) == 2
    assert "no such file; measure with --output" in capsys.readouterr().err


def test_one_private_half_of_a_karyotyper_is_enough_to_be_refused() -> None:
    segmenter, classifier = get_weight("chr_fast"), get_weight("chrnet4")
    row = {
        "segmenter": "chr_fast",
        "segmenter_weights": segmenter.tag,
        "segmenter_sha256": segmenter.sha256[:12],
        "classifier": "chrnet4",
        "classifier_weights": classifier.tag,
        "classifier_sha256": classifier.sha256[:12],
    }
    publish.require_packaged(publish.KINDS["karyotyping"], [row])
    with pytest.raises(ChromozooError, match=r"chrnet4, weights metaphase .*not packaged"):
        publish.require_packaged(
            publish.KINDS["karyotyping"], [row | {"classifier_sha256": "0" * 12}]
        )


@pytest.mark.parametrize(
    "words",
    [["train", "--budget", "1"], ["publish", "x.csv"], ["cards"], ["tables"]],
    ids=lambda words: words[0],
)
def test_an_installed_package_has_no_repository(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(repository, "checkout", lambda: None)
    assert main(["zoo", *words]) == 2
    assert "clone the repository" in capsys.readouterr().err


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[float], Path]:
    def save(bias: float = 0.0) -> Path:
        torch.manual_seed(0)
        preset = {"height": 48, "width": 40, "scale": 0.5}
        model: Any = get_model("vanilla_cnn", weights=None, preset=preset)
        parts = {"state_dict": model.state_dict(), "hyper_parameters": {"preset": preset}}
        torch.save(parts, tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    return save


def test_package_makes_weights_of_ones_own(
    checkpoint: Callable[[], Path], tiny_bioimlab: Path, tmp_path: Path, house: Path
) -> None:
    config = tmp_path / CONFIG.name
    shutil.copytree(CONFIG.parents[1] / "_base_", tmp_path.parent / "_base_", dirs_exist_ok=True)
    shutil.copy(CONFIG, config)
    words = ["zoo", "package", str(config), "--checkpoint", str(checkpoint())]
    words += ["--root", str(tiny_bioimlab)]
    before = contents(house)
    assert main(words) == 2
    with pytest.raises(ChromozooError, match=r"none of the configs in .*--output DIR"):
        packaging.package(recipe.read_recipe(config), [checkpoint()], root=str(tiny_bioimlab))
    assert main([*words, "--output", str(tmp_path / "mine")]) == 0
    (file,) = (tmp_path / "mine").iterdir()
    model: Any = get_model("vanilla_cnn", weights=file)
    assert model.weights_entry.file == file.name
    assert model.transforms.height == 48
    assert not provenance.is_packaged("vanilla_cnn", "bioimlab", model.weights_entry.sha256)
    assert contents(house) == before


def test_package_writes_weights_rows_entry_and_tables_together(
    checkpoint: Callable[[], Path],
    tiny_bioimlab: Path,
    house: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    old = get_weight("vanilla_cnn")
    (house / "weights" / old.file).touch()
    words = ["zoo", "package", str(CONFIG), "--checkpoint", str(checkpoint())]
    words += ["--root", str(tiny_bioimlab)]
    before = contents(house)
    assert main(words) == 2
    assert "is no gain over the packaged" in capsys.readouterr().err
    assert main([*words, "--replace", "--dry-run"]) == 0
    assert "vanilla_cnn_bioimlab" in capsys.readouterr().out
    assert contents(house) == before

    # A failure while measuring leaves everything as it was.
    with monkeypatch.context() as patch:
        patch.setattr(packaging, "evaluate_classifier", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main([*words, "--replace"])
    assert contents(house) == before

    assert main([*words, "--replace", "--training", "none"]) == 0
    entry = weights_entries("vanilla_cnn")["bioimlab"]
    assert [path.name for path in (house / "weights").iterdir()] == [entry.file]
    assert set(entry.metrics) == {"bioimlab_v1/val", "bioimlab_v1/test"}
    assert [stage["config_sha256"] for stage in entry.lineage] == [entry.config_sha256]
    rows = list(csv.DictReader((house / "benchmarks/results/classification.csv").open()))
    mine = [row for row in rows if row["weights_sha256"] == entry.sha256[:12]]
    assert [(row["weights"], row["split"]) for row in mine] == [
        ("bioimlab", "bioimlab_v1/val"),
        ("bioimlab", "bioimlab_v1/test"),
    ]
    assert entry.result_row["weights_sha256"] == entry.sha256[:12]
