"""Result files that lose nothing, and tables that say what the files say."""

import csv
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from chromozoo.benchmark.results_file import ResultsError
from chromozoo.benchmark.tables.classification import (
    KEY_COLUMNS,
    OPTIONAL_COLUMNS,
    RESULT_COLUMNS,
    append_row,
    leaderboard_markdown,
    read_results,
)
from chromozoo.benchmark.tables.markdown import CITATION, replace_table, table_is_current
from chromozoo.metrics.classification import METRICS, evaluate_classification

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "results" / "published.csv"


def result(**changes):
    """A complete measured row."""
    row = {
        "task": "classification",
        "model": "chrnet4",
        "weights": "bioimlab",
        "weights_sha256": "0123456789ab",
        "dataset": "bioimlab",
        "split": "bioimlab_v1/test",
        "split_sha256": "ba9876543210",
        "n_chromosomes": 644,
        "n_cells": 14,
        "tta": "none",
        "input_size": "128x64",
        "parameters": 16_355_160,
        "device": "cpu",
        "precision": "32",
        "torch": "2.15.0",
        "chromozoo": "0.1.0",
        "date": "2026-11-21",
        "source": "measured",
    }
    for metric in METRICS:
        row |= {metric: 0.95, f"{metric}_low": 0.93, f"{metric}_high": 0.97}
    return row | changes


def as_read(**changes):
    """The same row as read_results gives it."""
    values = dict.fromkeys((*RESULT_COLUMNS, CITATION), "")
    return values | {name: str(value) for name, value in result(**changes).items()}


def test_row_survives_the_file_in_column_order(tmp_path):
    path = tmp_path / "results" / "classification.csv"
    append_row(path, result(note='says "hello", twice', training=None, ece_low=float("nan")))
    assert read_results(path) == [as_read(note='says "hello", twice', ece_low="")]
    with path.open(newline="", encoding="utf-8") as file:
        assert tuple(next(csv.reader(file))) == RESULT_COLUMNS


def test_report_fits_the_columns(tmp_path):
    report = evaluate_classification(np.eye(24)[:4], [0, 1, 2, 4], list("aabb"), assignment=False)
    identity = {name: value for name, value in result().items() if name not in METRICS}
    identity = {k: v for k, v in identity.items() if not k.endswith(("_low", "_high"))}
    append_row(tmp_path / "r.csv", identity | report.to_row())
    (row,) = read_results(tmp_path / "r.csv")
    assert (row["accuracy"], row["n_cells"], row["assigned_accuracy"]) == ("0.75", "2", "")


def test_what_sees_whole_cells_is_told_from_what_does_not():
    explanation = "knowing the others of its cell"
    assert explanation not in leaderboard_markdown([as_read()], split="bioimlab_v1/test")
    rows = [as_read(), as_read(model="set", tta="4 flips, whole cells")]
    table = leaderboard_markdown(rows, split="bioimlab_v1/test")
    assert "4 flips, whole cells" in table
    assert explanation in table


def test_measuring_again_replaces_the_row_in_its_place(tmp_path):
    path = tmp_path / "r.csv"
    append_row(path, result(model="a", accuracy=0.1))
    append_row(path, result(model="b"))
    append_row(path, result(model="a", accuracy=0.2, date="2026-11-22"))
    assert [(row["model"], row["accuracy"]) for row in read_results(path)] == [
        ("a", "0.2"),
        ("b", "0.95"),
    ]


@pytest.mark.parametrize("column", KEY_COLUMNS)
def test_what_differs_in_one_key_column_is_another_row(tmp_path, column):
    path = tmp_path / "r.csv"
    append_row(path, result())
    append_row(path, result(**{column: "abcdefabcdef"}))
    assert len(read_results(path)) == 2


def append_twenty(path, name, start):
    start.wait(timeout=60)
    for number in range(20):
        append_row(path, result(model=f"{name}{number}"))


def test_two_processes_lose_nothing(tmp_path):
    path = tmp_path / "r.csv"
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(2)
    writers = [spawn.Process(target=append_twenty, args=(path, name, start)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
        assert writer.exitcode == 0
    models = {row["model"] for row in read_results(path)}
    assert models == {f"{name}{number}" for name in "ab" for number in range(20)}
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"acuracy": 0.9, "zoo": 1}, "unknown columns acuracy, zoo"),
        ({"model": "", "torch": None}, "no value for model, torch"),
        ({"accuracy": float("nan")}, "no value for accuracy"),
        ({"accuracy": 97.5}, "accuracy is '97.5' and must be a fraction"),
        ({"ece_low": "small"}, "ece_low"),
        ({"weights_sha256": "0123"}, "weights_sha256.*12 hex"),
        ({"parameters": 1.5}, "parameters.*whole number"),
        ({"source": "hearsay"}, "source.*measured, paper"),
        ({"note": "two\nlines"}, "note.*one line"),
    ],
)
def test_bad_row_is_refused_and_the_file_untouched(tmp_path, changes, message):
    path = tmp_path / "r.csv"
    append_row(path, result())
    before = path.read_bytes()
    with pytest.raises(ResultsError, match=message) as refusal:
        append_row(path, result(model="other") | changes)
    assert str(path) in str(refusal.value)
    assert path.read_bytes() == before


def test_every_required_column_is_required(tmp_path):
    for column in set(RESULT_COLUMNS) - OPTIONAL_COLUMNS:
        row = result()
        del row[column]
        with pytest.raises(ResultsError, match=f"no value for {column}"):
            append_row(tmp_path / "r.csv", row)
    assert not (tmp_path / "r.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns are not those of"),
        ("model,colour\na,red\n", "unknown columns: colour"),
        ("model,model\na,b\n", "columns are not those of"),
        ("model,accuracy\na\n", "line 2 does not have 2 values"),
        ("model,accuracy\na,0.9\nb,0.9,0.9\n", "line 3"),
    ],
)
def test_damaged_file_is_named(tmp_path, text, message):
    path = tmp_path / "r.csv"
    path.write_text(text)
    with pytest.raises(ResultsError, match=message):
        read_results(path)
    if "colour" in text:
        with pytest.raises(ResultsError, match=message):
            append_row(path, result())
        assert path.read_text() == text


def test_published_figures_are_not_overwritten(tmp_path):
    path = tmp_path / "published.csv"
    path.write_bytes(PUBLISHED.read_bytes())
    with pytest.raises(ResultsError, match="unknown columns: citation"):
        append_row(path, result())
    assert path.read_bytes() == PUBLISHED.read_bytes()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ResultsError, match=r"nowhere\.csv: no such file"):
        read_results(tmp_path / "nowhere.csv")


def lines_of(table):
    """The cells of each line of a table, without header and caption."""
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def paper(**changes):
    known = {"model": "Theirs", "dataset": "bioimlab", "source": "paper", CITATION: "They 2020"}
    return dict.fromkeys((*RESULT_COLUMNS, CITATION), "") | known | changes


def test_table_is_sorted_by_assigned_then_plain_accuracy():
    rows = [
        as_read(model="worst", accuracy=0.99, assigned_accuracy=0.96),
        as_read(model="second", accuracy=0.97, assigned_accuracy=0.99),
        as_read(model="first", accuracy=0.98, assigned_accuracy=0.99),
        paper(accuracy="0.9701"),
        as_read(model="validation", split="bioimlab_v1/val"),
        paper(model="Another data set", dataset="cir", accuracy="0.9598"),
    ]
    table = leaderboard_markdown(rows, split="bioimlab_v1/test")
    ranked = [(cells[0], cells[1]) for cells in lines_of(table)]
    assert ranked == [("1", "first"), ("2", "second"), ("–", "*Theirs*"), ("3", "worst")]


def test_table_shows_percent_with_interval_and_dashes():
    rows = [
        as_read(
            accuracy=0.9752,
            accuracy_low=0.9612,
            accuracy_high=0.986,
            assigned_cells_without_error=0.7143,
            ece=0.0123,
            tta="flips",
        ),
        paper(assigned_accuracy="0.94"),
    ]
    table = leaderboard_markdown(rows, split="bioimlab_v1/test")
    ours, theirs = lines_of(table)
    assert ours == [
        "1",
        "chrnet4",
        "bioimlab",
        "16.36",
        "128x64, flips",
        "97.52 [96.1, 98.6]",
        "95.00 [93.0, 97.0]",
        "71.43 [93.0, 97.0]",
        "0.012",
        "measured",
    ]
    assert theirs == ["–", "*Theirs*", "–", "–", "–", "–", "*94.00*", "–", "–", "*They 2020*"]
    assert "644 chromosomes of 14 cells" in table
    assert "not directly comparable" in table


def test_table_refuses_an_unmeasured_split_and_mixed_split_files():
    with pytest.raises(ResultsError, match=r"'x/test'.*bioimlab_v1/test"):
        leaderboard_markdown([as_read()], split="x/test")
    mixed = [as_read(), as_read(model="old", split_sha256="000000000000")]
    with pytest.raises(ResultsError, match=r"different split files.*000000000000"):
        leaderboard_markdown(mixed, split="bioimlab_v1/test")


def test_published_figures_are_readable_and_cited():
    rows = read_results(PUBLISHED)
    by_model = {row["model"]: row for row in rows}
    assert by_model["ChrNet4 (strategy e)"]["accuracy"] == "0.9524"
    for row in rows:
        assert row["source"] == "paper"
        assert row[CITATION]
        assert 0.5 < float(row["accuracy"] or row["assigned_accuracy"]) <= 1
    shown = leaderboard_markdown([as_read(), *rows], split="bioimlab_v1/test")
    assert len(lines_of(shown)) == 1 + len(rows)


def test_readme_table_is_replaced_and_nothing_else(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        "# Zoo – ä\n<!-- leaderboard:test:begin -->\nold\n<!-- leaderboard:test:end -->\n"
        "<!-- leaderboard:folds:begin -->\nkept\n<!-- leaderboard:folds:end -->\nend\n",
        encoding="utf-8",
    )
    table = leaderboard_markdown([as_read()], split="bioimlab_v1/test")
    assert not table_is_current(readme, "test", table)
    replace_table(readme, "test", table)
    once = readme.read_text(encoding="utf-8")
    assert once == (
        f"# Zoo – ä\n<!-- leaderboard:test:begin -->\n{table.strip()}\n"
        "<!-- leaderboard:test:end -->\n"
        "<!-- leaderboard:folds:begin -->\nkept\n<!-- leaderboard:folds:end -->\nend\n"
    )
    assert table_is_current(readme, "test", table)
    replace_table(readme, "test", table)
    assert readme.read_text(encoding="utf-8") == once
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        "<!-- leaderboard:test:begin -->",
        "<!-- leaderboard:test:end --><!-- leaderboard:test:begin -->",
        "<!-- leaderboard:test:begin --><!-- leaderboard:test:end -->" * 2,
    ],
)
def test_readme_without_a_pair_of_markers_is_refused(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ResultsError, match="leaderboard:test:begin"):
        replace_table(readme, "test", "| a |")
    with pytest.raises(ResultsError, match="leaderboard:test:begin"):
        table_is_current(readme, "test", "| a |")
    assert readme.read_text() == text
    with pytest.raises(ResultsError, match="no such file"):
        replace_table(tmp_path / "absent.md", "test", "| a |")
