"""The large classifier: ChrNet4's trunk on two views of a chromosome, upright and straightened.

Ours. One trunk reads both views, so it has ChrNet4's size and starts from ChrNet4's weights. The
straightened view shows the bands of a bent chromosome, the upright view those of a chromosome whose
axis is hard to trace. Experiments: ``benchmarks/README.md``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from chromozoo.classes import CLASSES
from chromozoo.losses.embedding import CentreLossPreset
from chromozoo.models.classifiers.chrnet4 import FEATURES, ChrNet4Network
from chromozoo.models.init_from import ZOO, initialise_from, load_published
from chromozoo.models.registry import register_model
from chromozoo.models.weights.checkpoint import load_checkpoint
from chromozoo.models.weights.storage import load_tensors
from chromozoo.tasks.classification import ChromosomeClassifier

VIEWS = ("upright", "straight")


class ChromozooLargeNetwork(ChrNet4Network):
    """The pure network: one trunk for both views, and one layer on their concatenated features.

    Input ``(B, 2, H, W)`` float, H and W from 32 up; channel 0 is the upright chromosome, 1 the
    straightened. Output: logits ``(B, num_classes)``.

    Example:
        >>> ChromozooLargeNetwork()(torch.zeros(2, 2, 144, 60)).shape
        torch.Size([2, 24])
    """

    def __init__(self, num_classes: int = len(CLASSES)) -> None:
        super().__init__(num_classes)
        self.fc = nn.Linear(len(VIEWS) * FEATURES, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return pooled features ``(B, 4096)``: 2048 of the upright, then of the straightened view.

        Raises:
            ValueError: Not two views.
        """
        if x.shape[1] != len(VIEWS):
            raise ValueError(
                f"chromozoo_large looks at 2 views of a chromosome, not at {x.shape[1]}; let its "
                "preset prepare the images (model.transforms)"
            )
        # The views of one chromosome are neighbours in the batch.
        images = x.flatten(0, 1)[:, None].contiguous(memory_format=torch.channels_last)
        return super().forward_features(images).reshape(len(x), -1)

    def load_chrnet4(self, chrnet4: Mapping[str, Tensor], path: Path) -> None:
        """Initialise as a trained ChrNet4 that averages its logits over both views.

        Args:
            chrnet4: Tensors of the ChrNet4.
            path: Their source, named in an error.

        Raises:
            WeightsError: They are not those of a ChrNet4.
        """
        tensors = {k: v for k, v in chrnet4.items() if k in self.state_dict()}
        tensors["fc.weight"] = torch.cat([tensors["fc.weight"] / len(VIEWS)] * len(VIEWS), dim=1)
        load_tensors(self, tensors, path)


class ChromozooLarge(ChromosomeClassifier):
    """The large classifier with its training.

    Args:
        centre_loss: ``"wen"``, ``"paper-literal"`` or None, see
            :class:`chromozoo.losses.embedding.CentreLoss`.
        lr: Highest learning rate.
        init_from: ``"chromozoo/chrnet4:<tag>"`` or a checkpoint (``.ckpt``) of ChrNet4, for the
            trunk; ``"chromozoo/chromozoo_large:<tag>"`` or a checkpoint of this model, to tune it
            further; None starts from random numbers.
        **recipe: See :class:`chromozoo.tasks.classification.ChromosomeClassifier`. The preset is
            144x60 at scale 1.5, views upright and straight, by default.

    Raises:
        ValueError: The preset does not give two views.
    """

    default_preset: ClassVar[dict[str, Any]] = {
        "height": 144,
        "width": 60,
        "scale": 1.5,
        "views": list(VIEWS),
    }

    network: ChromozooLargeNetwork

    def __init__(
        self,
        centre_loss: CentreLossPreset | None = "wen",
        lr: float = 5e-4,
        init_from: str | None = None,
        **recipe: Any,
    ) -> None:
        network = ChromozooLargeNetwork()
        super().__init__(network, len(VIEWS) * FEATURES, centre_loss=centre_loss, lr=lr, **recipe)
        if len(self.transforms.views) != len(VIEWS):
            raise ValueError(
                f"chromozoo_large looks at 2 views of a chromosome, the preset gives "
                f"{list(self.transforms.views)}; give for example {list(VIEWS)}"
            )
        if init_from is not None and init_from.startswith(f"{ZOO}chrnet4"):
            tensors = load_published(init_from.removeprefix(ZOO)).state_dict()
            network.load_chrnet4(tensors, Path(init_from))
        elif init_from is not None and _is_chrnet4_checkpoint(init_from):
            network.load_chrnet4(load_checkpoint(init_from)[1], Path(init_from))
        elif init_from is not None:
            initialise_from(network, init_from)


def _is_chrnet4_checkpoint(path: str) -> bool:
    """Return whether a path is that of a checkpoint whose last layer takes one view."""
    head = load_checkpoint(path)[1].get("fc.weight") if path.endswith(".ckpt") else None
    return head is not None and head.shape[1] == FEATURES


@register_model(
    task="classification",
    paper="ours: ChrNet4's trunk on the upright and the straightened chromosome",
    default_weights="bioimlab",
)
def chromozoo_large(**kwargs: Any) -> ChromozooLarge:
    """Large, two views of a chromosome, 16,404,312 parameters; input ``(B, 2, H, W)``.

    One trunk, that of ChrNet4, reads the upright and the straightened chromosome. The preset makes
    both views from one image; they are the channels of the input, 32x32 or larger.
    """
    return ChromozooLarge(**kwargs)
