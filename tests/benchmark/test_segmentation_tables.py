"""Result rows and leaderboard of segmentation."""

from pathlib import Path
from typing import Any

import pytest

from chromozoo.benchmark.repository import RESULTS
from chromozoo.benchmark.results_file import ResultsError
from chromozoo.benchmark.tables.segmentation import append_row, leaderboard_markdown, read_results
from chromozoo.metrics.segmentation import METRICS

PUBLISHED = RESULTS / "published_segmentation.csv"


def result(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": "chr_fast",
        "weights": "bioimlab",
        "weights_sha256": "0123456789ab",
        "dataset": "bioimlab-segmentation",
        "split": "bioimlab_segmentation_v1/test",
        "split_sha256": "ba9876543210",
        "n_images": 16,
        "n_chromosomes": 728,
        "score_threshold": 0.5,
        "image_scale": "768x576",
        "max_detections": 100,
        "backend": "faster-coco-eval 1.8.0",
        "parameters": 4_500_000,
        "seconds_per_image": 0.41,
        "device": "cpu 2 cores",
        "threads": 2,
        "precision": "fp32, stored fp16",
        "chromozoo": "0.1.0",
        "torch": "2.15.0",
        "date": "2026-11-21",
        "source": "measured",
    }
    for metric in METRICS:
        row |= {metric: 0.75, f"{metric}_low": 0.7, f"{metric}_high": 0.8}
    return row | changes


def test_the_table_ranks_measured_and_published_rows_by_box_ap(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    assert read_results(path) == []
    append_row(
        path, result(model="better", box_ap=0.8213, count_bias=-1.5, relative_count_error=1.2)
    )
    append_row(path, result(model="worse", mask_ap_overlap=None))
    append_row(path, result(model="chosen on", split="bioimlab_segmentation_v1/val"))
    published = read_results(PUBLISHED)
    table = leaderboard_markdown([*read_results(path), *published], split=result()["split"])
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if "|" in line][2:]
    assert [(row[0], row[1]) for row in rows] == [
        ("1", "better"),
        ("–", "*ChrRender*"),
        ("–", "*Mask R-CNN R50-FPN*"),
        ("2", "worse"),
        ("–", "*Faster R-CNN R101-FPN*"),
    ]
    assert rows[0][3:7] == ["4.50", "0.41", "82.13 [70.0, 80.0]", "75.00"]
    assert rows[1][5:9] == ["*75.87*", "*96.65*", "*90.51*", "–"]
    assert rows[3][11] == "–"
    assert "728 chromosomes in 16 whole images of 768x576 pixels" in table
    with pytest.raises(ResultsError, match="No result for split 'x'"):
        leaderboard_markdown(published, split="x")
    append_row(path, result(model="old", split_sha256="000000000000"))
    with pytest.raises(ResultsError, match=r"different split files.*000000000000"):
        leaderboard_markdown(read_results(path), split=result()["split"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mask_ap": 75.0}, "mask_ap is '75.0' and must be a fraction"),
        ({"backend": ""}, "no value for backend"),
        ({"colour": "red"}, "unknown columns colour"),
        ({"max_detections": 1.5}, "max_detections.*whole number"),
    ],
)
def test_invalid_rows_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=said):
        append_row(tmp_path / "r.csv", result() | changes)
    assert not (tmp_path / "r.csv").exists()


def test_published_figures_are_cited() -> None:
    rows = read_results(PUBLISHED)
    assert [row["box_ap"] for row in rows] == ["0.75872", "0.75279", "0.73752"]
    for row in rows:
        assert row["citation"] and row["source"] == "paper" and not row["mask_ap"]
        assert row["image_scale"] == "768x576"
