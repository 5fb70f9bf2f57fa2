"""Result rows of karyotyping, and the table made of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chromozoo.benchmark.results_file import ResultsError
from chromozoo.benchmark.tables.karyotyping import (
    KEY_COLUMNS,
    OPTIONAL_COLUMNS,
    RESULT_COLUMNS,
    append_row,
    leaderboard_markdown,
    read_results,
)
from chromozoo.benchmark.tables.markdown import CITATION, replace_table, table_is_current
from chromozoo.metrics.karyotyping import evaluate_karyotyping
from chromozoo.structures.karyotyped_cell import Boxes, PredictedCell, TrueCell

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "results" / "published_karyotyping.csv"
SPLIT = "bioimlab_segmentation_v1/test"


def measured(**changes: Any) -> dict[str, Any]:
    """A complete row, with the figures of two boxes of which one is named wrongly."""
    boxes = Boxes((50, 50), np.array([[0, 0, 9, 9], [20, 20, 30, 30]], np.float32))
    cells = [TrueCell(name, boxes, np.array([0, 1])) for name in "ab"]
    found = [
        PredictedCell(
            cell.name, boxes, np.array([0, wrong]), np.array([0, wrong]), np.array([False, True])
        )
        for cell, wrong in zip(cells, (1, 2), strict=True)
    ]
    row = {
        "segmenter": "chr_fast",
        "segmenter_weights": "bioimlab",
        "segmenter_sha256": "0123456789ab",
        "classifier": "chrnet4",
        "classifier_weights": "bioimlab",
        "classifier_sha256": "ba9876543210",
        "assignment": "optimal",
        "dataset": "bioimlab-segmentation",
        "split": SPLIT,
        "split_sha256": "00112233aabb",
        "parameters": 20_000_000,
        "seconds_per_image": 2.5,
        "device": "cpu 2 cores",
        "threads": 2,
        "torch": "2.15.0",
        "chromozoo": "0.1.0",
        "date": "2026-11-21",
        "source": "measured",
    }
    return row | evaluate_karyotyping(found, cells, n_bootstrap=50).to_row() | changes


def rows_of(tmp_path: Path, *rows: dict[str, Any]) -> list[dict[str, str]]:
    for row in rows:
        append_row(tmp_path / "karyotyping.csv", row)
    return [*read_results(tmp_path / "karyotyping.csv"), *read_results(PUBLISHED)]


def lines_of(table: str) -> list[list[str]]:
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_a_report_is_a_row(tmp_path: Path) -> None:
    row = rows_of(tmp_path, measured())[0]
    assert (row["fka"], row["n_certain"], row["geometry"]) == ("0.75", "4", "box")
    assert (row["fka_46"], row["cases_42"], row["cases_fewer"]) == ("", "1", "1")
    header = (tmp_path / "karyotyping.csv").read_text().splitlines()[0]
    assert tuple(header.split(",")) == RESULT_COLUMNS


def test_measuring_again_replaces_and_another_pair_is_another_row(tmp_path: Path) -> None:
    path = tmp_path / "karyotyping.csv"
    append_row(path, measured())
    append_row(path, measured(fka=0.5))
    assert [row["fka"] for row in read_results(path)] == ["0.5"]
    for column in KEY_COLUMNS:
        append_row(path, measured(**{column: "abcdefabcdef"}))
    assert len(read_results(path)) == 1 + len(KEY_COLUMNS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fka": 93.1}, "fka is '93.1' and must be a fraction"),
        ({"unassigned_oca_low": -0.5}, "unassigned_oca_low is '-0.5'"),
        ({"segmenter_sha256": "0123"}, "segmenter_sha256.*12 hex"),
        ({"assignment": ""}, "no value for assignment"),
        ({"cases_41": 3}, "unknown columns cases_41"),
    ],
)
def test_a_bad_row_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "karyotyping.csv"
    with pytest.raises(ResultsError, match=message):
        append_row(path, measured(**changes))
    assert not path.exists()


def test_edits_and_counts_are_no_fractions(tmp_path: Path) -> None:
    row = rows_of(tmp_path, measured(edits=7.2, count_error=3.0, count_bias=-2.0))[0]
    assert (row["edits"], row["count_error"], row["count_bias"]) == ("7.2", "3.0", "-2.0")


def test_every_required_column_is_required(tmp_path: Path) -> None:
    complete = measured()
    for column in set(RESULT_COLUMNS) - OPTIONAL_COLUMNS:
        row = {name: value for name, value in complete.items() if name != column}
        with pytest.raises(ResultsError, match=f"no value for {column}"):
            append_row(tmp_path / "karyotyping.csv", row)


def test_published_figures_are_those_of_the_paper() -> None:
    (row,) = read_results(PUBLISHED)
    assert (row["fka"], row["oca"], row["macro_precision_found"]) == ("0.8370", "0.8565", "0.8975")
    assert float(row["fka"]) == pytest.approx(616 / 736, abs=5e-5)
    assert sum(int(row[f"cases_{cases}"]) for cases in ("42", "37", "33", "fewer")) == 16
    assert row["source"] == "paper" and "Wang et al. 2024" in row[CITATION]


def test_the_table_ranks_by_full_karyotyping_accuracy(tmp_path: Path) -> None:
    rows = rows_of(
        tmp_path,
        measured(fka=0.81, fka_low=0.7, fka_high=0.9, segmenter="mask_rcnn_r50_fpn"),
        measured(fka=0.95, fka_low=0.9, fka_high=0.98, edits=2.345),
        measured(split="bioimlab_segmentation_v1/val", fka=1),
    )
    table = leaderboard_markdown(rows, split=SPLIT)
    first, paper, second = lines_of(table)
    assert first[:8] == [
        "1",
        "chr_fast (bioimlab)",
        "chrnet4 (bioimlab)",
        "optimal",
        "2.5",
        "95.00 [90.0, 98.0]",
        "75.00",
        "75.00 [50.0, 100.0]",
    ]
    assert first[11] == "2.3" and first[-1] == "measured"
    assert paper[:7] == ["–", "*ChrRender*", "*ChrNet4*", "*none*", "–", "*83.70*", "–"]
    assert paper[8:11] == ["*89.75*", "*83.85*", "*0.00*"]
    assert paper[-1].startswith("*Wang et al. 2024")
    assert second[:2] == ["2", "mask_rcnn_r50_fpn (bioimlab)"]
    assert "4 chromosomes with a certain class in 2 of 2 images" in table
    assert "judged by hand" in table
    readme = tmp_path / "README.md"
    readme.write_text(
        "<!-- leaderboard:karyotyping:begin -->\n<!-- leaderboard:karyotyping:end -->"
    )
    replace_table(readme, "karyotyping", table)
    assert table_is_current(readme, "karyotyping", table)


def test_the_table_refuses_an_unmeasured_split_and_mixed_split_files(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, measured())
    with pytest.raises(ResultsError, match="No result for split 'x/test'"):
        leaderboard_markdown(rows, split="x/test")
    rows = rows_of(tmp_path, measured(split_sha256="000000000000"))
    with pytest.raises(ResultsError, match=r"different split files.*000000000000"):
        leaderboard_markdown(rows, split=SPLIT)
