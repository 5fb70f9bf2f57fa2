"""``chromozoo env``: versions of libraries and hardware for a bug report."""

import argparse
import os
import platform

from chromozoo.environment import fast_precision, library_versions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments."""


def run(arguments: argparse.Namespace) -> int:
    import torch

    for name, text in library_versions().items():
        print(f"{name:<24} {text}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(f"{'accelerator':<24} {device}")
    print(f"{'fastest precision':<24} {fast_precision()}")
    print(f"{'system':<24} {platform.platform()}, {os.cpu_count()} cores")
    return 0
