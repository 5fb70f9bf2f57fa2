"""Losses that torch does not have."""

from typing import Literal

import torch
from torch import Tensor, nn

CentreLossPreset = Literal["wen", "paper-literal"]


class CentreLoss(nn.Module):
    """Pulls the features of each class to a moving centre (Wen et al., ECCV 2016).

    ``weight * reduction(||x_j - c_yj||^2)``; the centres follow the features of each batch at
    their own rate and take no gradient, so they are buffers and not parameters.

    Two presets, because Wang et al. 2020 and 2024 give "the same value used in [Wen], 0.5", while
    0.5 is Wen's rate of the centres and 0.003 Wen's weight:

    * ``"wen"``: weight 0.003, half the mean over the batch, centres at rate 0.5 (default);
    * ``"paper-literal"``: weight 0.5, sum over the batch. On 2048 un-normalised features this
      swamps the cross-entropy; kept to show just that.

    Args:
        num_classes: Number of classes.
        features: Length of a feature vector.
        preset: See above.
    """

    centres: Tensor

    def __init__(self, num_classes: int, features: int, preset: CentreLossPreset = "wen") -> None:
        super().__init__()
        if preset not in ("wen", "paper-literal"):
            raise ValueError(f"unknown preset {preset!r}; use 'wen' or 'paper-literal'")
        self.weight = 0.003 if preset == "wen" else 0.5
        self.average = preset == "wen"
        self.rate = 0.5
        self.register_buffer("centres", torch.zeros(num_classes, features))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Loss of ``(B, features)`` with labels ``(B,)``; moves the centres when in training."""
        features = features.float()
        own = self.centres[labels]
        squared = (features - own).square().sum(dim=1)
        loss = self.weight * (squared.mean() / 2 if self.average else squared.sum())
        if self.training:
            self._follow((own - features).detach(), labels)
        return loss

    @torch.no_grad()
    def _follow(self, offsets: Tensor, labels: Tensor) -> None:
        total = torch.zeros_like(self.centres).index_add_(0, labels, offsets)
        count = torch.bincount(labels, minlength=len(self.centres)).to(total)
        # Under DDP each process sees a part of the batch; the centres must stay the same on all.
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
            torch.distributed.all_reduce(count)
        # Not in place: the backward pass still needs the centres that the loss was taken from.
        self.centres = self.centres - self.rate * total / (1 + count)[:, None]


class SupervisedContrastiveLoss(nn.Module):
    """Pulls the features of a class together and pushes other classes away (Khosla et al. 2020).

    Source: "Supervised Contrastive Learning", arXiv:2004.11362, equation 2 ("out"). Features are
    brought to unit length first. An anchor is every sample that shares its class with another one
    of the batch; the paper sums over the anchors, here, as in its released code, it is their mean,
    so that the weight of the loss does not depend on the size of the batch. The paper's projection
    head is left out: the cross-entropy beside it needs the same features.

    Args:
        temperature: Divides the cosines, -1..1; the paper takes 0.1.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Loss of ``(B, D)`` with labels ``(B,)``, 0 or more; 0 where no two share a class."""
        # bfloat16 rounds a cosine by up to 0.002, 2 % of its exponential at this temperature.
        with torch.autocast(features.device.type, enabled=False):
            directions = nn.functional.normalize(features.float(), dim=1)
            alike = directions @ directions.T / self.temperature
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        positive = (labels[:, None] == labels) & ~itself
        log_share = alike.masked_fill(itself, float("-inf")).log_softmax(dim=1)
        count = positive.sum(dim=1)
        # Not a product with the mask: 0 times minus infinity, of itself, is NaN.
        per_anchor = -torch.where(positive, log_share, 0).sum(dim=1) / count.clamp_min(1)
        return per_anchor.sum() / (count > 0).sum().clamp_min(1)
