"""SiameseNet: learns whether two chromosomes are of one class, classifies by prototypes.

Paper: C. Lin et al., "CIR-Net: Automatic Classification of Human Chromosome Based on
Inception-ResNet Architecture", IEEE/ACM TCBB 19(3):1285, 2022 (online 2020), after S. Jindal
(Swati) et al., "Siamese Networks for Chromosome Classification", ICCVW 2017.

The network is a stand-in: neither paper describes the layers, and more than a thousand plain
networks have the 1,416,281 parameters of table 1. The number is odd, so it counts the pair
network, which ends in a single unit. Ours is one of the plainest that match it. Jindal et al.
classify a chromosome by an MLP on the shared layers; the pair network has no such part, so
classification by prototypes is our choice, as are activations, loss weights and optimiser.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from chromozoo.classes import CLASSES
from chromozoo.images.preset import ChromosomePreset
from chromozoo.models.layers.channels import to_three_channels
from chromozoo.models.layers.fixed_size import check_input_size, last_map_size
from chromozoo.models.registry import register_model
from chromozoo.tasks.classification import FEATURE_LOSSES, ChromosomeClassifier
from chromozoo.tasks.networks import ClassifierNetwork

SYSTEM = "SiameseNet"
LAYERS = ((5, 1), (2, 2)) * 3
FEATURES = 100
# Images of a class in the mean of its prototype: half an epoch of BioImLab.
MEMORY = 100


class SiameseNetNetwork(ClassifierNetwork):
    """The pure network: an embedding, and a head that compares two of them.

    Input ``(B, 1 or 3, H, W)`` float; H and W are those of ``input_size``, 36 or more. Output:
    logits ``(B, num_classes)``, those of the pair head for the image and the prototype of each
    class. 1,416,281 parameters at 224x224.

    The prototypes are buffers, ``(num_classes, 100)``, and travel with the weights;
    :meth:`update_prototypes` moves them. The sigmoid on the embedding is that of Koch et al. 2015,
    whom the paper cites for siamese networks; the initialisation of He et al. 2015 is our choice.
    """

    prototypes: Tensor
    seen: Tensor

    def __init__(
        self, input_size: Sequence[int] = (224, 224), num_classes: int = len(CLASSES)
    ) -> None:
        super().__init__()
        height, width = last_map_size(SYSTEM, input_size, LAYERS)
        self.input_size = tuple(input_size)
        self.embed = nn.Sequential()
        for in_channels in (3, 20, 20):
            self.embed.append(nn.Conv2d(in_channels, 20, 5))
            self.embed.append(nn.ReLU(inplace=True))
            self.embed.append(nn.MaxPool2d(2))
        self.embed.append(nn.Flatten())
        self.embed.append(nn.Linear(20 * height * width, 120))
        self.embed.append(nn.ReLU(inplace=True))
        self.embed.append(nn.Linear(120, FEATURES))
        self.embed.append(nn.Sigmoid())
        self.pair = nn.Linear(FEATURES, 1)
        self.register_buffer("prototypes", torch.zeros(num_classes, FEATURES))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.int64))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward_features(self, x: Tensor) -> Tensor:
        """Return embeddings ``(B, 100)``, 0..1.

        Raises:
            ValueError: The images are not of the size that the network was built for.
        """
        check_input_size(SYSTEM, x, self.input_size)
        features: Tensor = self.embed(to_three_channels(x))
        return features

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the logit ``(...)`` that two embeddings ``(..., 100)`` are of one class."""
        logits: Tensor = self.pair((first - second).abs())
        return logits.squeeze(-1)

    def forward_head(self, features: Tensor) -> Tensor:
        """Return the logits ``(B, num_classes)`` of embeddings ``(B, 100)``."""
        # A class without training images has no prototype and must not win.
        return self.compare(features[:, None], self.prototypes) - 100.0 * (self.seen == 0)

    @torch.no_grad()
    def update_prototypes(self, features: Tensor, labels: Tensor) -> None:
        """Move the prototypes to embeddings ``(B, 100)`` with labels ``(B,)``.

        A prototype is the mean of its class for the first 100 images, then an exponential mean, so
        that embeddings of an earlier network no longer count. Under DDP all processes get the same
        prototypes.
        """
        total = torch.zeros_like(self.prototypes).index_add_(0, labels, features.float())
        count = torch.bincount(labels, minlength=len(total))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
            torch.distributed.all_reduce(count)
        self.seen += count
        rate = (count / self.seen.clamp(1, MEMORY)).clamp(max=1)
        self.prototypes.lerp_(total / count.clamp(min=1)[:, None], rate[:, None])


class SiameseNet(ChromosomeClassifier):
    """SiameseNet, trained on all pairs of a batch.

    Binary cross-entropy on the pair head; same-class and other-class pairs have half the weight
    each, whatever their number. A batch of 64 chromosomes has some 85 same-class pairs of 2,016.
    Prototypes follow the embeddings of each training batch. Averaging of weights
    (``EMAWeightAveraging``) would average buffers, too, and lag behind: leave it out.

    Args:
        preset: Preparation of the images: a :class:`ChromosomePreset` or some of its arguments;
            height and width are the network's input size, 224x224 where they are not given.
        **recipe: ``optimizer``, ``lr``, ``weight_decay``, ``flip_average``; see
            :class:`chromozoo.tasks.classification.ChromosomeClassifier`. AdamW is our choice.
    """

    default_preset: ClassVar[dict[str, Any]] = {"height": 224, "width": 224}
    fixed_arguments = FEATURE_LOSSES | {"label_smoothing"}

    network: SiameseNetNetwork

    def __init__(
        self, preset: dict[str, Any] | ChromosomePreset | None = None, **recipe: Any
    ) -> None:
        canvas = self.make_preset(preset)
        super().__init__(
            SiameseNetNetwork((canvas.height, canvas.width)),
            FEATURES,
            preset=preset,
            label_smoothing=0.0,
            centre_loss=None,
            contrastive=0.0,
            polarity=False,
            **recipe,
        )

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of all pairs of the batch; in training also update the prototypes."""
        labels = batch["label"]
        features = self.network.forward_features(batch["image"])
        if self.training:
            self.network.update_prototypes(features, labels)
        first, second = torch.triu_indices(
            len(labels), len(labels), offset=1, device=labels.device
        ).unbind()
        same = (labels[first] == labels[second]).float()
        other = 1 - same
        weight = (same / same.sum().clamp(min=1) + other / other.sum().clamp(min=1)) / 2
        return nn.functional.binary_cross_entropy_with_logits(
            self.network.compare(features[first], features[second]).float(),
            same,
            weight=weight,
            reduction="sum",
        )


@register_model(
    task="classification",
    paper="Lin et al. 2020, IEEE/ACM TCBB 19(3):1285 (SiameseNet, after Jindal et al. 2017)",
)
def siamese_net(**kwargs: Any) -> SiameseNet:
    """SiameseNet (after Jindal et al. 2017), a stand-in with the 1,416,281 parameters of the paper.

    The count is that of the pair network at 224x224x3. The flattened layer depends on the input
    size, which height and width of the preset set (36 or more): weights of another size have
    another count. The original network is not identifiable: no paper gives its layers, and more
    than a thousand plain ones match the count. Ours: layers, sigmoid embedding, all pairs of a
    batch with equal weight of same and other, and classification by one prototype a class (a
    buffer, the exponential mean of the training embeddings) instead of the MLP of Jindal et al.
    """
    return SiameseNet(**kwargs)
