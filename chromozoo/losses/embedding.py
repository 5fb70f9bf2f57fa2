"""Losses on embeddings: centre loss and supervised contrastive loss."""

from typing import Literal

import torch
from torch import Tensor, nn

CentreLossPreset = Literal["wen", "paper-literal"]


class CentreLoss(nn.Module):
    """Centre loss: the distance between features and the moving centre of their class.

    Source: Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV
    2016. The loss is ``weight * reduction(||x_j - c_yj||^2)``. The centres follow the features of
    each batch at their own rate and have no gradient, so they are buffers and not parameters.

    There are two presets, because Wang et al. 2020 and 2024 give "the same value used in [Wen],
    0.5", while 0.5 is Wen's rate of the centres and 0.003 Wen's weight:

    * ``"wen"``: weight 0.003, half the mean over the batch, rate 0.5 (default);
    * ``"paper-literal"``: weight 0.5, sum over the batch. For 2048 features without normalisation
      this loss dominates the cross-entropy; the preset exists to reproduce that.

    Args:
        num_classes: Number of classes.
        features: Number of features.
        preset: ``"wen"`` or ``"paper-literal"``.

    Raises:
        ValueError: ``preset`` is unknown.
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
        """Return the loss of a batch, and in training mode update the centres.

        Args:
            features: ``(B, features)``.
            labels: ``(B,)`` class indices.
        """
        features = features.float()
        centres = self.centres[labels]
        squared = (features - centres).square().sum(dim=1)
        loss = self.weight * (squared.mean() / 2 if self.average else squared.sum())
        if self.training:
            self._update_centres((centres - features).detach(), labels)
        return loss

    @torch.no_grad()
    def _update_centres(self, offsets: Tensor, labels: Tensor) -> None:
        total = torch.zeros_like(self.centres).index_add_(0, labels, offsets)
        count = torch.bincount(labels, minlength=len(self.centres)).to(total)
        # Under DDP each process sees a part of the batch, but all need the same centres.
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
            torch.distributed.all_reduce(count)
        # Not in place: the backward pass needs the centres of the forward pass.
        self.centres = self.centres - self.rate * total / (1 + count)[:, None]


class SupervisedContrastiveLoss(nn.Module):
    """Supervised contrastive loss: attracts features of the same class and repels others.

    Source: Khosla et al., "Supervised Contrastive Learning", 2020, arXiv:2004.11362, equation 2
    ("out"). Features are normalised to unit length. Every sample that shares its class with another
    sample of the batch is an anchor. The paper sums over the anchors; this loss is their mean, as
    in the released code, so that its weight does not depend on the batch size. There is no
    projection head, because the cross-entropy loss uses the same features.

    Args:
        temperature: Divisor of the cosine similarities, > 0; the paper uses 0.1.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch; 0 if no two samples share a class.

        Args:
            features: ``(B, D)``.
            labels: ``(B,)`` class indices.
        """
        # bfloat16 rounds a cosine by up to 0.002, 2 % of its exponential at this temperature.
        with torch.autocast(features.device.type, enabled=False):
            directions = nn.functional.normalize(features.float(), dim=1)
            similarity = directions @ directions.T / self.temperature
        diagonal = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        positive = (labels[:, None] == labels) & ~diagonal
        log_p = similarity.masked_fill(diagonal, float("-inf")).log_softmax(dim=1)
        count = positive.sum(dim=1)
        # Not a product with the mask: 0 times -inf on the diagonal is NaN.
        per_anchor = -torch.where(positive, log_p, 0).sum(dim=1) / count.clamp_min(1)
        return per_anchor.sum() / (count > 0).sum().clamp_min(1)
