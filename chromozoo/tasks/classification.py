"""Training of classifiers: losses and steps. Inference is in :mod:`chromozoo.tasks.classify`."""

from typing import Any, ClassVar

import torch
import torchmetrics
from torch import Tensor, nn

from chromozoo.classes import CLASSES
from chromozoo.images.preset import ChromosomePreset
from chromozoo.losses.embedding import CentreLoss, CentreLossPreset, SupervisedContrastiveLoss
from chromozoo.tasks.base import BaseTask
from chromozoo.tasks.classify import FLIPS, P_ARM_UP, ClassifierInference
from chromozoo.tasks.networks import ClassifierNetwork
from chromozoo.tasks.onednn_bf16 import fix_narrow_maps

# A network that computes its loss from something else than single features fixes these arguments.
FEATURE_LOSSES = frozenset({"centre_loss", "contrastive", "polarity"})


class ChromosomeClassifier(ClassifierInference):
    """A LightningModule around a network with ``forward_features`` and ``forward_head``.

    Called as ``model(x)`` it gives logits ``(B, 24)`` for normalised tensors
    ``(B, channels, H, W)``, the output of ``model.transforms``.

    Args:
        network: The pure network, see :class:`chromozoo.tasks.networks.ClassifierNetwork`.
        features: Length of the network's feature vectors.
        preset: Preparation of the images: a :class:`ChromosomePreset` or some of its arguments.
        label_smoothing: Share of the target that is spread over all classes.
        centre_loss: Preset of :class:`CentreLoss`, or None.
        contrastive: Weight of :class:`SupervisedContrastiveLoss` on the features; 0 leaves it out.
        flip_average: Average the probabilities over the four mirror images when predicting.
        polarity: Predict also which end is the p arm. The network then has a second head, trained
            on the images that the data call upright. Training images are mirrored here, so the
            augmentation must leave flips out.
        **optimisation: ``optimizer``, ``lr``, ``weight_decay``; see
            :class:`chromozoo.tasks.base.BaseTask`.
    """

    training_arguments: ClassVar[frozenset[str]] = BaseTask.training_arguments | {
        "label_smoothing",
        "centre_loss",
        "contrastive",
    }

    def __init__(
        self,
        network: ClassifierNetwork,
        features: int,
        preset: dict[str, Any] | ChromosomePreset | None = None,
        label_smoothing: float = 0.1,
        centre_loss: CentreLossPreset | None = None,
        contrastive: float = 0.0,
        flip_average: bool = True,
        polarity: bool = False,
        **optimisation: Any,
    ) -> None:
        if polarity:
            # A logit for each class: where the centromere and the bands are depends on it.
            network.polarity = nn.Linear(features, len(CLASSES))
        super().__init__(network, preset, **optimisation)
        fix_narrow_maps(self.network)
        self.cross_entropy = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.centre_loss = CentreLoss(len(CLASSES), features, centre_loss) if centre_loss else None
        self.contrastive = contrastive
        self.contrastive_loss = SupervisedContrastiveLoss()
        self.flip_average = flip_average
        self.polarity = polarity
        self.val_accuracy = torchmetrics.classification.MulticlassAccuracy(
            len(CLASSES), average="micro"
        )
        self.test_accuracy = self.val_accuracy.clone()

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the scalar that the training minimises; systems with another loss override it.

        Args:
            batch: ``image`` (B, channels, H, W) normalised and ``label`` (B,); for polarity also
                ``upright`` (B,) bool.
        """
        image, label = batch["image"], batch["label"]
        if self.polarity:
            image = mirrored(image)
        features = self.network.forward_features(image)
        loss = self.class_loss(features, label)
        if self.polarity:
            up = self.network.polarity(features).gather(1, label[:, None])[:, 0]
            sign = torch.tensor(P_ARM_UP, device=up.device).repeat(len(up) // len(FLIPS) + 1)
            known = batch["upright"].float()
            polarity_loss = nn.functional.softplus(-up * sign[: len(up)]) * known
            loss = loss + polarity_loss.sum() / known.sum().clamp_min(1)
        return loss

    def class_loss(self, features: Tensor, label: Tensor) -> Tensor:
        """Return the cross-entropy, and the losses that draw the features of a class together.

        Args:
            features: ``(B, features)`` of ``forward_features``.
            label: ``(B,)`` class indices.
        """
        loss: Tensor = self.cross_entropy(self.network.forward_head(features), label)
        if self.centre_loss is not None:
            loss = loss + self.centre_loss(features, label)
        if self.contrastive:
            loss = loss + self.contrastive * self.contrastive_loss(features, label)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        probabilities = self.predict_with_polarity(batch["image"], batch.get("cell"))[0]
        self.val_accuracy(probabilities, batch["label"])
        loss = nn.functional.nll_loss(probabilities.clamp_min(1e-12).log(), batch["label"])
        self.log("val/loss", loss, sync_dist=True)
        self.log("val/accuracy", self.val_accuracy, prog_bar=True)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        probabilities, _ = self.predict_with_polarity(batch["image"], batch.get("cell"))
        self.test_accuracy(probabilities, batch["label"])
        self.log("test/accuracy", self.test_accuracy)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return ``index (B,)`` of the items in the data set, and ``probabilities (B, 24)``.

        A model with ``polarity`` adds ``p_arm_up (B, 24)``, see :meth:`predict_with_polarity`.
        """
        probabilities, up = self.predict_with_polarity(batch["image"], batch.get("cell"))
        predicted = {"index": batch["index"], "probabilities": probabilities}
        return predicted if up is None else predicted | {"p_arm_up": up}


def mirrored(images: Tensor) -> Tensor:
    """Return a batch ``(B, channels, H, W)`` whose images take the orientations FLIPS in turn."""
    result = images.clone()
    for number, axes in enumerate(FLIPS):
        if axes:
            result[number :: len(FLIPS)] = images[number :: len(FLIPS)].flip(axes)
    return result
