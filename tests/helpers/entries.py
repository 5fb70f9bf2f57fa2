"""A weights entry with every field filled in."""

import dataclasses

from chromozoo.structures.weights_entry import WeightsEntry


def make_entry(**changes: object) -> WeightsEntry:
    entry = WeightsEntry(
        model="tiny",
        tag="toy",
        classes=["1", "2"],
        input_size=[8, 4],
        init_args={"width": 4},
        preprocessing={"height": 8},
        dataset="toy_v1",
        split="toy_v1",
        split_sha256="0" * 64,
        config="configs/tiny.yaml",
        seed=0,
        training="none",
        versions={"torch": "2"},
        licence_code="Apache-2.0",
        licence_data="CC0",
        licence_weights="CC0",
        created="2026-01-01",
    )
    return dataclasses.replace(entry, **changes)  # type: ignore[arg-type]
