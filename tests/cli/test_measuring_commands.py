"""``calibrate`` and ``aneuploidy``: they print, and write to ``--output`` alone."""

import csv
from pathlib import Path

import numpy as np
import pytest
from helpers.drawn_gband import pki3_files, write_files

from chromozoo.benchmark import publish
from chromozoo.benchmark.repository import ROOT
from chromozoo.cli.main import main
from chromozoo.cli.zoo import calibrate as zoo_calibrate
from chromozoo.data.splits import load_split
from chromozoo.models.registry import get_model
from chromozoo.models.weights.storage import save_weights


@pytest.fixture(scope="module")
def drawn_pki3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    split = load_split("pki3_v1")
    for cell in (*split.val[:3], *split.test[:2]):
        write_files(root / "gband-pki3", pki3_files(cell))
    return root


def test_aneuploidy_writes_a_row_for_each_kind_and_replaces_it(
    drawn_pki3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rows.csv"
    words = ["aneuploidy", "vanilla_cnn", "--root", str(drawn_pki3), "--output", str(output)]
    for _ in range(2):
        assert main(words) == 0
    rows = output.read_text().splitlines()
    assert [row.split(",")[6] for row in rows] == ["kind", "normal", "loss", "gain", "incomplete"]
    assert "| vanilla_cnn | bioimlab | pki3_v1/test | gain | 20 |" in capsys.readouterr().out


def test_calibrate_writes_a_copy_of_the_weights_and_rows(
    drawn_pki3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = get_model("chromozoo_small", weights="pki3")
    model.network.fc.bias.data += 0.01
    own, _ = save_weights(model.network, model.weights_entry, tmp_path / "own", "fp16")
    output = tmp_path / "calibrated"
    words = ["calibrate", "chromozoo_small", "--root", str(drawn_pki3), "--weights", str(own)]
    assert main([*words, "--output", str(output)]) == 0
    label = f"{own.name} (own file)"
    assert f"| chromozoo_small | {label} | pki3_v1/test | cell | 1 |" in capsys.readouterr().out
    rows = list(csv.DictReader((output / "calibration.csv").open()))
    # 138 validation chromosomes are too few for an error rate of 0.5 %.
    assert [(row["mode"], row["error_rate"]) for row in rows] == [
        ("alone", "0.01"),
        ("cell", "0.01"),
    ]
    for row in rows:
        assert row["weights"] == label
        assert row["n_chromosomes"] == "92" and row["n_cells"] == "2"
        # The drawn cells are all alike, so what holds for validation holds here.
        assert float(row["covered"]) >= 1 - float(row["error_rate"])
        assert 1 <= float(row["set_size"]) <= 24

    # The copy has the thresholds, and is the same network.
    (copied,) = output.glob("*.safetensors")
    known = get_model("chromozoo_small", weights=copied)
    assert set(known.weights_entry.conformal["cell"]) == {"0.1", "0.05", "0.02", "0.01"}
    for key, value in known.network.state_dict().items():
        assert np.array_equal(value, model.network.state_dict()[key].half().float()) or (
            value.ndim < 2 and np.array_equal(value, model.network.state_dict()[key])
        )
    images = sorted((ROOT / "examples" / "cell_46XY").glob("*.png"))[:2]
    assert all(item.classes for item in known.classify(images, error_rate=0.01))

    # A file of a user has the tag of the packaged weights, and its thresholds are not theirs.
    assert main(["zoo", "calibrate", *words[1:]]) == 2
    assert "are not packaged weights" in capsys.readouterr().err


def test_the_zoo_stores_thresholds_with_packaged_weights(
    drawn_pki3: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written, published = [], []
    monkeypatch.setattr(zoo_calibrate, "write_entry", written.append)
    monkeypatch.setattr(publish, "add_rows", lambda kind, path, rows: published.append(kind.name))
    monkeypatch.setattr(publish, "update_tables", lambda kinds: None)
    words = ["zoo", "calibrate", "chromozoo_small", "--weights", "pki3", "--root", str(drawn_pki3)]
    assert main([*words, "--dry-run"]) == 0
    assert not written and not published
    assert "entry chromozoo_small_pki3.json: thresholds" in capsys.readouterr().out
    assert main(words) == 0
    (entry,) = written
    assert entry.tag == "pki3" and set(entry.conformal) == {"alone", "cell"}
    assert published == ["calibration"]
