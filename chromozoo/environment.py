"""Versions of the installed libraries and the fastest training precision of this machine."""

import platform
from importlib.metadata import PackageNotFoundError, version

from chromozoo import __version__

LIBRARIES = (
    *("torch", "torchvision", "lightning", "timm", "torchmetrics", "albumentations"),
    *("opencv-python-headless", "numpy", "scipy", "safetensors", "jsonargparse"),
)


def library_versions() -> dict[str, str]:
    """Return the installed version of each library that can influence a result."""
    versions = {"python": platform.python_version(), "chromozoo": __version__}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def fast_precision() -> str:
    """Return the value of ``--trainer.precision`` that trains fastest on this machine.

    ``"bf16-mixed"`` where the processor has native bfloat16; otherwise ``"16-mixed"`` on a GPU and
    ``"32-true"`` on a CPU, where emulated bfloat16 takes twelve times as long as float32.
    """
    import torch

    if torch.cuda.is_available():
        native_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if native_bf16 else "16-mixed"
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bf16-mixed" if native is not None and native() else "32-true"
