"""``chromozoo models``: the names, and which weights they have."""

import argparse

from chromozoo.models.registry import TASKS, list_models, model_info
from chromozoo.models.weights.index import weights_entries

FIGURES = {
    "classification": {
        "accuracy": "per chromosome",
        "assigned_accuracy": "with cell assignment",
    },
    "segmentation": {"box_ap": "box AP", "mask_ap": "mask AP"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern, e.g. '*resnet*'")
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--pretrained", action="store_true", help="only models that have weights")


def run(arguments: argparse.Namespace) -> int:
    names = list_models(arguments.task, arguments.pretrained or None, arguments.pattern)
    for name in names:
        info = model_info(name)
        print(f"{name:<18} {info.task:<15} {info.paper}")
        shown = FIGURES[info.task]
        entries = weights_entries(name)
        for tag, entry in entries.items():
            figures = "; ".join(
                f"{split}: "
                + ", ".join(
                    f"{100 * metrics[key]:.2f} % {word}"
                    for key, word in shown.items()
                    if key in metrics  # a set of boxes has no masks to judge
                )
                for split, metrics in entry.metrics.items()
            )
            chosen = len(entries) > 1 and tag == info.default_weights
            words = f"{tag!r}{' (default)' if chosen else ''} {entry.size_bytes / 1e6:.1f} MB"
            print(f"{'':<18} weights={words}  {figures}")
    return 0 if names else 1
