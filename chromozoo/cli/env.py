"""``chromozoo env``: what a bug report should say of the machine."""

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version

from chromozoo import __version__

LIBRARIES = (
    *("torch", "torchvision", "lightning", "timm", "torchmetrics", "albumentations"),
    *("opencv-python-headless", "numpy", "scipy", "safetensors", "jsonargparse"),
)


def library_versions() -> dict[str, str]:
    """Installed version of each library that a result can depend on."""
    found = {"python": platform.python_version(), "chromozoo": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes no arguments."""


def run(arguments: argparse.Namespace) -> int:
    import torch

    for name, text in library_versions().items():
        print(f"{name:<24} {text}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(f"{'accelerator':<24} {device}")
    print(f"{'system':<24} {platform.platform()}, {os.cpu_count()} cores")
    return 0
