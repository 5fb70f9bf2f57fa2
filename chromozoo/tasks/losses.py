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
