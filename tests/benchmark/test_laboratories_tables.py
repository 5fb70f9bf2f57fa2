"""The README's tables of other laboratories and stains."""

from pathlib import Path

from chromozoo.benchmark.tables.laboratories import classification_table, karyotyping_table

ROOT = Path(__file__).parents[2]


def classified(model: str, weights: str, dataset: str, **changes: str) -> dict[str, str]:
    row = {
        "model": model,
        "weights": weights,
        "dataset": dataset,
        "split": f"{dataset}_v1/test",
        "accuracy": "0.9",
        "accuracy_low": "0.85",
        "accuracy_high": "0.95",
        "assigned_accuracy": "0.99",
        "polarity_accuracy": "",
    }
    return row | changes


def test_weights_measured_elsewhere_have_one_line_each() -> None:
    told = {
        "polarity_accuracy": "0.981",
        "polarity_accuracy_low": "0.97",
        "polarity_accuracy_high": "0.99",
    }
    table = classification_table(
        [
            classified("b", "bioimlab", "bioimlab"),
            classified("b", "bioimlab", "pki3", accuracy="0.5"),
            classified("a", "pki3", "pki3", **told),
            classified("c", "bioimlab", "bioimlab"),
            classified("a", "pki3", "bioimlab", split="bioimlab_v1/val"),
        ]
    )
    assert table.splitlines()[2:] == [
        "| a | pki3 | – | 90.00 [85.0, 95.0]; 99.00 | – | – | 98.10 [97.0, 99.0] |",
        "| b | bioimlab | 90.00 [85.0, 95.0]; 99.00 | 50.00 [85.0, 95.0]; 99.00 | – | – | – |",
    ]


def test_karyotypes_of_other_sets_are_sorted_by_set_and_fka() -> None:
    def row(dataset: str, fka: str, split: str = "test") -> dict[str, str]:
        figures = {
            f"{name}{end}": "0.5" for name in ("fka", "oca") for end in ("", "_low", "_high")
        }
        return figures | {
            "segmenter": "chr_fast",
            "segmenter_weights": "metaphase",
            "classifier": "chrnet4",
            "classifier_weights": "metaphase",
            "dataset": dataset,
            "split": f"{dataset}_v1/{split}",
            "n_images": "33",
            "fka": fka,
            "edits": "2.34",
            "review_share": "0.1",
            "review_recall": "0.8",
        }

    rows = [row("mfish", "0.6"), row("mfish", "0.7"), row("cil54816", "0.2")]
    rows += [row("mfish", "0.9", "val"), row("bioimlab-segmentation", "0.9")]
    lines = karyotyping_table(rows).splitlines()[2:]
    assert [line.split("|")[5].split()[0] for line in lines] == ["20.00", "70.00", "60.00"]
    assert lines[1].startswith("| M-FISH, DAPI | chr_fast (metaphase) | chrnet4 (metaphase) | 33 |")
