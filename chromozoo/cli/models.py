"""``chromozoo models``: models and their weights."""

import argparse

from chromozoo.models.registry import TASKS, list_models, model_info
from chromozoo.models.weights.index import weights_entries

METRIC_NAMES = {
    "classification": {
        "accuracy": "per chromosome",
        "assigned_accuracy": "with cell assignment",
    },
    "segmentation": {"box_ap": "box AP", "mask_ap": "mask AP"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern, e.g. '*resnet*'")
    parser.add_argument("--task", choices=TASKS, help="only models for this task")
    parser.add_argument("--pretrained", action="store_true", help="only models with weights")


def run(arguments: argparse.Namespace) -> int:
    names = list_models(arguments.task, arguments.pretrained or None, arguments.pattern)
    for name in names:
        info = model_info(name)
        print(f"{name:<18} {info.task:<15} {info.paper}")
        metric_names = METRIC_NAMES[info.task]
        entries = weights_entries(name)
        for tag, entry in entries.items():
            metrics_text = "; ".join(
                f"{split}: "
                + ", ".join(
                    f"{100 * metrics[key]:.2f} % {label}"
                    for key, label in metric_names.items()
                    if key in metrics  # data sets with boxes alone have no mask AP
                )
                for split, metrics in entry.metrics.items()
            )
            is_default = len(entries) > 1 and tag == info.default_weights
            weights = f"{tag!r}{' (default)' if is_default else ''} {entry.size_bytes / 1e6:.1f} MB"
            print(f"{'':<18} weights={weights}  {metrics_text}")
    return 0 if names else 1
