"""TODO docstring."""

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


def fast_precision() -> str:
    """Value of ``--trainer.precision`` that trains fastest on this machine.

    ``"bf16-mixed"`` where the processor computes bfloat16 itself; else ``"16-mixed"`` on a GPU and
    ``"32-true"`` on a CPU: one that only imitates bfloat16 takes twelve times as long with it as
    without.
    """
    import torch

    if torch.cuda.is_available():
        native_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if native_bf16 else "16-mixed"
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bf16-mixed" if native is not None and native() else "32-true"
