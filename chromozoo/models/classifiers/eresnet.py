"""EResNet: ResNet-50 with an extended block, whose features are matched to label feature vectors.

Paper: C. Wang et al., "Extended ResNet and Label Feature Vector Based Chromosome Classification",
IEEE Access 8:201098, 2020. The network is figure 3 of the paper; matching, label redistribution and
the matching of two images of a cell are in :mod:`chromozoo.karyotype.matching` and work for every
classifier. The paper leaves open: width of the extended block, dropout rate, input size, optimiser,
learning rate, batch size and pre-training; their values here are our choice.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from chromozoo.classes import CLASSES
from chromozoo.losses.embedding import CentreLossPreset
from chromozoo.models.init_from import initialise_from
from chromozoo.models.layers.channels import to_three_channels
from chromozoo.models.registry import register_model
from chromozoo.tasks.classification import ChromosomeClassifier
from chromozoo.tasks.networks import ClassifierNetwork

POOLED = 2048
MIN_SIDE = 32  # the trunk halves the image five times

# Decay of a label feature vector at each new image of its class: about the last 100 count.
# An epoch of BioImLab has 166 of each autosome.
MEMORY = 0.99


class EResNetNetwork(ClassifierNetwork):
    """The pure network.

    Input ``(B, 1, H, W)`` or ``(B, 3, H, W)`` float, H and W from 32 up; a grey image becomes
    three equal channels. Output: logits ``(B, num_classes)``.

    Args:
        units: Units of the extended block, X of the paper's uXcY; each is linear layer, ReLU and
            dropout. 0: no block.
        feature_unit: Y of uXcY, 0..units: the matching feature is the output of this unit, 0 is
            the pooled feature of ResNet-50, the input of the block.
        width: Outputs of each unit.
        dropout: Share of a unit's outputs that is left out in training.
        num_classes: Number of classes.

    Attributes:
        label_features: ``(num_classes, F)`` label feature vectors: running means of the matching
            features of the training images, see :meth:`update_label_features`.
        label_features_set: ``(num_classes,)`` bool, whether the class has had an image.

    Raises:
        ValueError: Arguments out of range.

    Example:
        >>> EResNetNetwork().forward_features(torch.zeros(2, 1, 112, 48)).shape
        torch.Size([2, 2048])
    """

    label_features: Tensor
    label_features_set: Tensor

    def __init__(
        self,
        units: int = 1,
        feature_unit: int = 0,
        width: int = 512,
        dropout: float = 0.5,
        num_classes: int = len(CLASSES),
    ) -> None:
        super().__init__()
        if units < 0 or width < 1:
            raise ValueError(
                f"units is {units} and width {width}: give units of 0 or more, width of 1 or more"
            )
        if not 0 <= feature_unit <= units:
            raise ValueError(
                f"feature_unit is {feature_unit}: give 0 (pooled feature) to {units} (last of the "
                f"{units} units)"
            )
        # Each residual block begins as its shortcut (Goyal et al. 2017): steadier first epochs.
        self.trunk = resnet50(weights=None, zero_init_residual=True)
        self.trunk.fc = nn.Identity()
        widths = [POOLED, *[width] * units]
        self.block = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(ins, outs), nn.ReLU(), nn.Dropout(dropout))
                for ins, outs in pairwise(widths)
            )
        )
        self.fc = nn.Linear(widths[-1], num_classes)
        self.feature_unit = feature_unit
        self.features = widths[feature_unit]
        self.register_buffer("label_features", torch.zeros(num_classes, self.features))
        self.register_buffer("label_features_set", torch.zeros(num_classes, dtype=torch.bool))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the matching features ``(B, F)``: 2048 for Y = 0, else ``width``."""
        if min(x.shape[-2:]) < MIN_SIDE:
            raise ValueError(
                f"an image of {x.shape[-2]}x{x.shape[-1]} pixels is too small for ResNet-50: give "
                f"{MIN_SIDE}x{MIN_SIDE} or more"
            )
        features: Tensor = self.block[: self.feature_unit](self.trunk(to_three_channels(x)))
        return features

    def forward_head(self, features: Tensor) -> Tensor:
        """Return the logits ``(B, num_classes)`` of matching features ``(B, F)``."""
        logits: Tensor = self.fc(self.block[self.feature_unit :](features))
        return logits

    @torch.no_grad()
    def update_label_features(self, features: Tensor, labels: Tensor) -> None:
        """Move the label feature vectors towards the features of a training batch.

        Args:
            features: ``(B, F)`` of :meth:`forward_features`.
            labels: ``(B,)`` class indices.
        """
        total = torch.zeros_like(self.label_features).index_add_(0, labels, features.float())
        count = torch.bincount(labels, minlength=len(total)).to(total)
        # Under DDP each process sees a part of the batch; the vectors must stay the same on all.
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
            torch.distributed.all_reduce(count)
        seen = count > 0
        rate = torch.where(self.label_features_set, 1 - MEMORY**count, seen.to(total))
        mean = total / count.clamp_min(1)[:, None]
        self.label_features.lerp_(mean, rate[:, None])
        self.label_features_set |= seen


class EResNet(ChromosomeClassifier):
    """EResNet with the joint loss of the paper: cross-entropy + centre loss of the same feature.

    The centre loss pulls at the matching feature (equation 2 speaks of "the feature vector"),
    because that feature is matched. The label feature vectors follow the features of the training
    batches as the running statistics of BatchNorm do, so every checkpoint and every weights file
    holds them at no cost. They are approximate (augmented images, the network of some steps ago);
    ``chromozoo feature-matching`` computes exact ones, and measures both.

    Args:
        units, feature_unit, width, dropout: See :class:`EResNetNetwork`.
        centre_loss: ``"wen"``, ``"paper-literal"`` or None, see
            :class:`chromozoo.losses.embedding.CentreLoss`.
        init_from: Name of a timm ResNet-50 with ImageNet weights for the trunk
            (``"resnet50.tv_in1k"``); or a checkpoint (``.ckpt``) of this model to tune further;
            None starts from random numbers.
        **recipe: See :class:`chromozoo.tasks.classification.ChromosomeClassifier`.
    """

    network: EResNetNetwork

    def __init__(
        self,
        units: int = 1,
        feature_unit: int = 0,
        width: int = 512,
        dropout: float = 0.5,
        centre_loss: CentreLossPreset | None = "wen",
        init_from: str | None = None,
        **recipe: Any,
    ) -> None:
        network = EResNetNetwork(units, feature_unit, width, dropout)
        super().__init__(network, network.features, centre_loss=centre_loss, **recipe)
        if init_from is not None:
            initialise_from(self.network, init_from, prefix="trunk.")

    def class_loss(self, features: Tensor, label: Tensor) -> Tensor:
        loss = super().class_loss(features, label)
        if self.training:
            self.network.update_label_features(features.detach(), label)
        return loss


@register_model(
    task="classification",
    paper="Wang et al. 2020, IEEE Access 8:201098 (EResNet, label feature vectors)",
)
def eresnet(
    units: int = 1,
    feature_unit: int = 0,
    width: int = 512,
    dropout: float = 0.5,
    **kwargs: Any,
) -> EResNet:
    """EResNet u1c0 (Wang et al. 2020), 24,569,432 parameters; input ``(B, 1 or 3, H, W)``.

    The paper's variants uXcY have ``units`` X and ``feature_unit`` Y. Differences from the paper:

    - It gives neither the width of the extended block nor its dropout: 512 and 0.5 are ours. Width
      1024 has 25,630,808 parameters, width 2048 has 27,753,560.
    - Its weight of the centre loss, 0.5 "as Wen et al.", is Wen's rate of the centres; the weight
      here is Wen's, 0.003 (`centre_loss: paper-literal` is the other).
    - Its label feature vectors are means over validation images. Ours are means over training
      images, because validation serves model selection. `chromozoo feature-matching` measures
      them, with the label redistribution and with the exact assignment of a cell.
    - Its label redistribution is taken as written: where homologues are divided between head and
      tail, the one in the head must leave its true class. It lowers the accuracy of good
      predictions.
    - Its cosine "distance" (equation 7) is the similarity; ours is 1 - cos.
    - Flipped copies of the training images are the vertical flips of our augmentation, and
      features and probabilities are averaged over the four mirror images.
    - Optimiser, schedule, input size and initialisation (random) are ours, see the config.
    """
    return EResNet(units=units, feature_unit=feature_unit, width=width, dropout=dropout, **kwargs)
