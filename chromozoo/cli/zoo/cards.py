"""``chromozoo zoo cards``: generate the model cards anew from docstrings and entries."""

import argparse

from chromozoo.benchmark.cards import card_markdown, card_path, write_card
from chromozoo.benchmark.repository import require_checkout
from chromozoo.models.registry import list_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern of model names")
    parser.add_argument("--dry-run", action="store_true", help="only list what would change")


def run(arguments: argparse.Namespace) -> int:
    require_checkout()
    for name in list_models(pattern=arguments.pattern):
        path = card_path(name)
        if path.is_file() and path.read_text(encoding="utf-8") == card_markdown(name):
            continue
        print(path)
        if not arguments.dry_run:
            write_card(name)
    return 0
