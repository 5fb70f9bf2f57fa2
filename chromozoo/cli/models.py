"""``chromozoo models``: the names, and which weights they have."""

import argparse

from chromozoo.registry import TASKS, list_models, model_info
from chromozoo.weights import weights_entries


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern, e.g. '*resnet*'")
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--pretrained", action="store_true", help="only models that have weights")


def run(arguments: argparse.Namespace) -> int:
    names = list_models(arguments.task, arguments.pretrained or None, arguments.pattern)
    for name in names:
        info = model_info(name)
        print(f"{name:<18} {info.task:<15} {info.paper}")
        for tag, entry in weights_entries(name).items():
            figures = "; ".join(
                f"{split}: {100 * metrics['accuracy']:.2f} % per chromosome, "
                f"{100 * metrics['assigned_accuracy']:.2f} % with cell assignment"
                for split, metrics in entry.metrics.items()
            )
            print(f"{'':<18} weights={tag!r} {entry.size_bytes / 1e6:.1f} MB  {figures}")
    return 0 if names else 1
