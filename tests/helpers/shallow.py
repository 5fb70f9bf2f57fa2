"""Shallow networks that stand for deep ones where the depth does not count."""

from typing import Any

from torchvision.models.resnet import Bottleneck, ResNet


def shallow_resnet(weights: None = None, **options: Any) -> ResNet:
    """Return a ResNet with one block a stage, and the names and features of a ResNet-50."""
    return ResNet(Bottleneck, [1, 1, 1, 1], **options)
