"""Networks of torchvision and timm as chromosome classifiers: the baselines of the papers."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from chromozoo.classes import CLASSES
from chromozoo.models.init_from import initialise_from
from chromozoo.models.layers.channels import to_three_channels
from chromozoo.tasks.classification import ChromosomeClassifier
from chromozoo.tasks.networks import ClassifierNetwork

# Parameters with this prefix carry the names that torchvision and timm give them.
BODY = "body."


def remove_head(body: nn.Module, head: str) -> nn.Module:
    """Replace the last linear layer of a network by the identity, so that it gives features.

    Args:
        body: Is changed, and returned.
        head: Dotted name of the layer, such as ``"fc"`` or ``"classifier.6"``.
    """
    body.set_submodule(head, nn.Identity())
    return body


def resize_pool(body: nn.Module, pool: tuple[int, int], first: str) -> None:
    """Change the grid to which a torchvision VGG or AlexNet averages its last map.

    Their published grid (7x7, 6x6) is the whole map of a 224x224 image. On the small canvas of a
    chromosome the map has fewer cells, the grid repeats them, and the first linear layer, most of
    the network, multiplies the same numbers many times. With a grid of the map's own size each
    cell gets the sum of those weights: the very same function of far fewer parameters.

    Args:
        body: Is changed.
        pool: Height and width of the grid.
        first: Dotted name of the linear layer after it.
    """
    published, linear = body.get_submodule("avgpool"), body.get_submodule(first)
    assert isinstance(linear, nn.Linear)
    cells = pool[0] * pool[1]
    # Share of each cell of the new grid (rows) in each cell of the published one (columns).
    shares = published(torch.eye(cells).reshape(cells, 1, *pool)).flatten(1)
    weight = linear.weight.detach().reshape(len(linear.weight), -1, shares.shape[1]) @ shares.T
    linear.weight = nn.Parameter(weight.flatten(1))
    linear.in_features = linear.weight.shape[1]
    body.set_submodule("avgpool", nn.AdaptiveAvgPool2d(pool))


class Backbone(ClassifierNetwork):
    """A network of torchvision or timm, split into features and head.

    Input ``(B, 1 or 3, H, W)`` float. Output: logits ``(B, num_classes)``.

    Args:
        body: Network from ``(B, channels, H, W)`` to pooled features ``(B, features)``.
        features: Length of a feature vector.
        min_side: Minimum height and width in pixels.
        channels: Input channels of the body. 3: a grey image is expanded to three equal channels.
            1: three channels are averaged.
        num_classes: Number of classes.
    """

    def __init__(
        self,
        body: nn.Module,
        features: int,
        min_side: int = 32,
        channels: Literal[1, 3] = 3,
        num_classes: int = len(CLASSES),
    ) -> None:
        super().__init__()
        self.body = body
        self.fc = nn.Linear(features, num_classes)
        self.min_side = min_side
        self.channels = channels

    def check_size(self, height: int, width: int) -> None:
        """Refuse images that are too small.

        Raises:
            ValueError: The message says the minimum size.
        """
        if min(height, width) < self.min_side:
            raise ValueError(
                f"{height}x{width} pixels are too small for this network; it needs "
                f"{self.min_side}x{self.min_side} or more: raise height and width of the preset, "
                "and its scale with them"
            )

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the pooled features ``(B, features)``.

        Raises:
            ValueError: The images are too small.
        """
        self.check_size(*x.shape[-2:])
        x = to_three_channels(x) if self.channels == 3 else x.mean(dim=1, keepdim=True)
        features: Tensor = self.body(x)
        return features

    def forward_head(self, features: Tensor) -> Tensor:
        """Return the logits ``(B, num_classes)`` of pooled features ``(B, features)``."""
        logits: Tensor = self.fc(features)
        return logits


class BackboneClassifier(ChromosomeClassifier):
    """A backbone with the recipe that all baselines share.

    The papers say little of how their baselines were trained. AdamW with one cycle, and the
    learning rates of the configs, are our choice; without ImageNet weights it is strategy (e) of
    Wang et al. 2024 where the centre loss is on.

    Args:
        network: The backbone.
        features: Length of its feature vectors.
        init_from: Name of a timm model with ImageNet weights whose tensors are taken over where
            name and shape agree; or a checkpoint (``.ckpt``) of this model to tune further; None
            starts from random numbers.
        **recipe: See :class:`chromozoo.tasks.classification.ChromosomeClassifier`.

    Raises:
        ValueError: The canvas of the preset is smaller than the network takes.
    """

    network: Backbone

    def __init__(
        self, network: Backbone, features: int, init_from: str | None = None, **recipe: Any
    ) -> None:
        super().__init__(network, features, **recipe)
        network.check_size(self.transforms.height, self.transforms.width)
        if init_from is not None:
            initialise_from(network, init_from, prefix=BODY)
