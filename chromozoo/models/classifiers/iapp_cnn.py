"""IAPP-CNN: a CNN each for the whole image, the object and its most discriminative part.

Paper: H. Wei et al., "Classification of Giemsa staining chromosome using input-aware deep
convolutional neural network with integrated uncertainty estimates", Biomedical Signal Processing
and Control 71:103120, 2022. The paper publishes no parameter count and leaves open the reductions
of the two excitations, the depth of the DenseNet, how the excitations learn, and the heads of
AlexNet and VGG. Our choices are stated where they are made.
"""

import difflib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
import torchvision
from torch import Tensor, nn

from chromozoo.classes import CLASSES
from chromozoo.errors import UnknownNameError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.models.layers.channels import to_three_channels
from chromozoo.models.registry import register_model
from chromozoo.tasks.classification import FEATURE_LOSSES, ChromosomeClassifier
from chromozoo.tasks.networks import ClassifierNetwork
from chromozoo.tasks.optimisation import OptimizerName

SCALES = ("global", "object", "part")
# Reductions of the two excitations; the paper gives no values.
REDUCTIONS = (16, 8)

Vote = Literal["logits", "probabilities"]


# The three scales


def find_object_mask(signal: Tensor, literal: bool = False) -> Tensor:
    """Return the mask of the chromosome (equations 2 to 4).

    A pixel above the image's mean belongs to it; an erosion and a dilation (3x3, our size) remove
    specks. The paper's upper limit of 254 removes its white background. A signal image has a
    background of 0, which the lower limit removes already, and its brightest bands have 255, so
    there is no upper limit here. On the paper's own images the printed rule removes nearly all of
    the chromosome, because the mean of the image is near 252 and dark chromosomes are below it.

    Args:
        signal: ``(B, 1, H, W)``, 0..1, background 0.
        literal: The rule as printed, ``mean < pixel < 254``.

    Returns:
        ``(B, 1, H, W)`` bool.
    """
    above = signal > signal.mean(dim=(2, 3), keepdim=True)
    if literal:
        above &= signal < 254 / 255
    eroded = -nn.functional.max_pool2d(-above.float(), 3, stride=1, padding=1)
    return nn.functional.max_pool2d(eroded, 3, stride=1, padding=1) > 0


def find_part_mask(activation: Tensor) -> Tensor:
    """Return the largest region in which every activation map is above its mean (eq. 10-12).

    Args:
        activation: ``(B, maps, h, w)``, the channel sums of the re-weighted features.

    Returns:
        ``(B, 1, h, w)`` bool; empty where the maps have no such cell in common.
    """
    above = (activation > activation.mean(dim=(2, 3), keepdim=True)).all(dim=1, keepdim=True)
    cells = above[0].numel()
    numbers = torch.arange(1, cells + 1, device=above.device, dtype=torch.float32)
    labels = numbers.view(above.shape[1:]) * above
    # Every cell takes the highest number of its neighbours until each region has one number. No
    # path is longer than the number of cells, so a fixed number of steps needs no synchronisation.
    for _ in range(cells):
        labels = nn.functional.max_pool2d(labels, 3, stride=1, padding=1) * above
    flat = labels.flatten(1).long()
    size = torch.zeros(len(flat), cells + 1, device=above.device, dtype=torch.float32)
    size.scatter_add_(1, flat, (flat > 0).float())
    largest = size.argmax(dim=1).view(-1, 1, 1, 1)
    return above & (labels == largest)


def zoom(images: Tensor, mask: Tensor, fill: float) -> Tensor:
    """Return images cut to the box of a mask and enlarged to the size of the image.

    Args:
        images: ``(B, C, H, W)``.
        mask: ``(B, 1, H, W)`` bool; pixels outside are hidden. An empty mask hides none.
        fill: Value of hidden pixels.

    Returns:
        ``(B, C, H, W)``.
    """
    mask = mask | ~mask.flatten(1).any(dim=1).view(-1, 1, 1, 1)
    theta = torch.zeros(len(images), 2, 3, device=images.device, dtype=torch.float32)
    for axis, occupied in enumerate((mask.any(dim=2)[:, 0].int(), mask.any(dim=3)[:, 0].int())):
        length = occupied.shape[1]
        first = occupied.argmax(dim=1).float() / length
        end = 1 - occupied.flip(1).argmax(dim=1).float() / length
        theta[:, axis, axis] = end - first
        theta[:, axis, 2] = first + end - 1
    grid = nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    shown = torch.where(mask, images, fill).float()
    zoomed = nn.functional.grid_sample(shown, grid, padding_mode="border", align_corners=False)
    return zoomed.to(images.dtype)


def integrate(logits: Tensor, uncertainty: bool = True, vote: Vote = "logits") -> Tensor:
    """Return the joint prediction of the branches (equations 15 to 17).

    ``y = sum_b lambda_b y_b`` with ``lambda_b`` the highest softmax probability of branch b. We
    divide by the sum of the lambdas: no decision changes, and a single branch is unchanged.

    Args:
        logits: ``(B, branches, classes)``.
        uncertainty: Without it every lambda is 1, equation 15.
        vote: ``"logits"`` adds logits as the paper does. ``"probabilities"`` adds the branches'
            probabilities, and takes the logarithm of the sum.

    Returns:
        ``(B, classes)``; its softmax is the joint probability.
    """
    logits = logits.float()
    probabilities = logits.softmax(dim=-1)
    weight = probabilities.amax(dim=-1, keepdim=True)
    if not uncertainty:
        weight = torch.ones_like(weight)
    weight = weight / weight.sum(dim=1, keepdim=True)
    if vote == "logits":
        return (weight * logits).sum(dim=1)
    # A sum of probabilities that float32 rounds to 0 still has a logarithm this way.
    return torch.logsumexp(weight.log() + logits.log_softmax(dim=-1), dim=1)


# The network


@dataclass(frozen=True)
class Base:
    """A published CNN without its head.

    Attributes:
        trunk: Makes it: ``(B, 3, H, W)`` to the last feature map ``(B, channels, h, w)``.
        channels: Of that map.
        min_side: Minimum height and width of an image in pixels.
    """

    trunk: Callable[[], nn.Module]
    channels: int
    min_side: int


def _resnet50() -> nn.Module:
    network = torchvision.models.resnet50(weights=None)
    return nn.Sequential(OrderedDict(list(network.named_children())[:-2]))


def _densenet121() -> nn.Module:
    return nn.Sequential(torchvision.models.densenet121(weights=None).features, nn.ReLU())


def _vgg16_bn() -> nn.Module:
    trunk: nn.Module = torchvision.models.vgg16_bn(weights=None).features[:-1]
    return trunk


def _alexnet() -> nn.Module:
    trunk: nn.Module = torchvision.models.alexnet(weights=None).features[:-1]
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            # It has no norms: with torch's default its features begin a hundred times too small.
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return trunk


def _inception_v4() -> nn.Module:
    network: Any = timm.create_model("inception_v4", pretrained=False)
    return nn.Sequential(*network.features)


BASES: dict[str, Base] = {
    "alexnet": Base(_alexnet, 256, 31),
    "vgg16_bn": Base(_vgg16_bn, 512, 16),
    "densenet121": Base(_densenet121, 1024, 29),
    "inception_v4": Base(_inception_v4, 1536, 75),
    "resnet50": Base(_resnet50, 2048, 32),
}


class Branch(nn.Module):
    """One CNN: the trunk gives the last feature map, ``fc`` the logits of its mean."""

    def __init__(self, base: Base, num_classes: int) -> None:
        super().__init__()
        self.trunk = base.trunk()
        self.fc = nn.Linear(base.channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return pooled features ``(B, channels)``."""
        pooled: Tensor = self.trunk(to_three_channels(x)).mean(dim=(2, 3))
        return pooled


class Excitation(nn.Module):
    """Weights ``(B, C)``, 0..1, of the channels from their means (equation 7), without biases."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, means: Tensor) -> Tensor:
        weight: Tensor = self.fc(means)
        return weight


class IappCnnNetwork(ClassifierNetwork):
    """The pure network.

    Input ``(B, 1 or 3, H, W)`` float, a signal image (background 0, chromosome up to 1) less
    ``mean``, over ``std``. Output: ``(B, num_classes)``, the integrated prediction of
    :func:`integrate`; its softmax is the joint probability.

    The paper resizes object and part to the input size: they are enlarged to fill the canvas, both
    ways, so the object loses its length, which the global branch still sees. Masks have no
    gradient. The excitations learn because the mean of the two re-weighted maps, not the bare map,
    makes the object's logits; the paper does not say how they learn.

    Args:
        base: One of ``BASES``. All have random weights. AlexNet and VGG end before their last
            pooling, for a finer map, and like the others in a global mean and one linear layer, as
            section 3.3 has it: their two layers of 4096 units fall away.
        scales: Which branches vote, ``"global"`` among them (table 4). With ``"part"`` but no
            ``"object"`` the object's branch is there and learns, because the part is found on
            its feature map, but it has no vote.
        reductions: Of the excitations, one for each map that is intersected.
        uncertainty: Whether each vote counts by its own highest probability.
        vote: What is added, see :func:`integrate`.
        literal_mask: Object mask as printed in the paper, see :func:`find_object_mask`.
        mean, std: Normalisation of the input.
        num_classes: Length of the output.

    Raises:
        UnknownNameError: No such base or scale; the message lists the close ones.
        ValueError: No global scale, a scale twice, or a reduction that leaves no channel.

    Example:
        >>> IappCnnNetwork("alexnet")(torch.zeros(2, 1, 112, 64)).shape
        torch.Size([2, 24])
    """

    def __init__(
        self,
        base: str = "resnet50",
        scales: Sequence[str] = SCALES,
        reductions: Sequence[int] = REDUCTIONS,
        uncertainty: bool = True,
        vote: Vote = "logits",
        literal_mask: bool = False,
        mean: float = 0.15,
        std: float = 0.30,
        num_classes: int = len(CLASSES),
    ) -> None:
        super().__init__()
        _check_known("base", [base], tuple(BASES))
        _check_known("scale", scales, SCALES)
        _check_known("vote", [vote], ("logits", "probabilities"))
        if "global" not in scales or len(set(scales)) < len(scales):
            raise ValueError(
                f"scales are {list(scales)}: name 'global', and each further one of {SCALES} once"
            )
        chosen = BASES[base]
        if not reductions or not all(1 <= r <= chosen.channels for r in reductions):
            raise ValueError(
                f"reductions are {list(reductions)}: give one or more, from 1 to the "
                f"{chosen.channels} channels of {base}"
            )
        self.base = base
        self.scales = tuple(scale for scale in SCALES if scale in scales)
        self.uncertainty = uncertainty
        self.vote: Vote = vote
        self.literal_mask = literal_mask
        self.mean, self.std = mean, std
        built = SCALES if "part" in scales else self.scales
        self.branches = nn.ModuleDict({scale: Branch(chosen, num_classes) for scale in built})
        self.excitations = nn.ModuleList(
            Excitation(chosen.channels, r) for r in (reductions if "part" in scales else ())
        )

    @property
    def features(self) -> int:
        """Length of the feature vectors."""
        return BASES[self.base].channels * len(self.scales)

    def branch_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the pooled features ``(B, channels)`` of every branch by its scale.

        Raises:
            ValueError: The image is smaller than the base can take.
        """
        min_side = BASES[self.base].min_side
        if min(x.shape[-2:]) < min_side:
            raise ValueError(
                f"{self.base} takes images of {min_side}x{min_side} pixels or more, not "
                f"{x.shape[-2]}x{x.shape[-1]}; set height and width of the preset"
            )
        features = {"global": self.branches["global"](x)}
        if "object" not in self.branches:
            return features
        fill = -self.mean / self.std
        signal = x.mean(dim=1, keepdim=True) * self.std + self.mean
        objects = zoom(x, find_object_mask(signal, self.literal_mask), fill)
        if "part" not in self.branches:
            features["object"] = self.branches["object"](objects)
            return features
        branch: Any = self.branches["object"]
        last_map: Tensor = branch.trunk(to_three_channels(objects))
        means = last_map.mean(dim=(2, 3))
        weights = torch.stack([excitation(means) for excitation in self.excitations], dim=1)
        # The mean over space of a re-weighted map is the re-weighted mean.
        features["object"] = means * weights.mean(dim=1)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            activation = torch.einsum("bmc,bchw->bmhw", weights.float(), last_map.float())
            region = nn.functional.interpolate(
                find_part_mask(activation).float(), objects.shape[-2:], mode="nearest"
            )
            inside = objects.mean(dim=1, keepdim=True) > fill
            # Where there is no common region, or no chromosome in it, the part is the object.
            parts = zoom(objects, (region > 0) & inside, fill)
        features["part"] = self.branches["part"](parts)
        return features

    def branch_logits(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the logits ``(B, num_classes)`` of the features of every branch."""
        branches: Any = self.branches
        return {scale: branches[scale].fc(pooled) for scale, pooled in features.items()}

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the concatenated pooled features of the voting branches, in order of scales."""
        features = self.branch_features(x)
        return torch.cat([features[scale] for scale in self.scales], dim=1)

    def forward_head(self, features: Tensor) -> Tensor:
        """Return the integrated prediction ``(B, num_classes)`` of :meth:`forward_features`."""
        apart = dict(zip(self.scales, features.chunk(len(self.scales), dim=1), strict=True))
        logits = list(self.branch_logits(apart).values())
        return integrate(torch.stack(logits, dim=1), self.uncertainty, self.vote)


def _check_known(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known)
            hint = f"did you mean {', '.join(close)}?" if close else f"use {', '.join(known)}"
            raise UnknownNameError(f"unknown {kind} {name!r}: {hint}")


class IappCnn(ChromosomeClassifier):
    """IAPP-CNN with the recipe of the paper: summed cross-entropies, SGD, uncertainty at the end.

    The paper starts from ImageNet weights and keeps the learning rate at 0.02 (batches of 26, 50
    epochs); the one-cycle schedule of the base class is ours.

    Args:
        preset: Preparation of the images: a :class:`ChromosomePreset` or some of its arguments. At
            112x48 pixels the last map of ResNet-50 has 4x2 cells and the part is coarse; the
            paper's 224x224 give 7x7.
        base, uncertainty, vote, literal_mask: See :class:`IappCnnNetwork`.
        scales: Branches that vote; None: all three.
        reductions: Of the excitations; None: 16 and 8.
        optimizer, lr, weight_decay, label_smoothing: See ``recipe``; the defaults are the paper's.
        **recipe: See :class:`chromozoo.tasks.classification.ChromosomeClassifier`.
    """

    fixed_arguments = FEATURE_LOSSES

    network: IappCnnNetwork

    def __init__(
        self,
        preset: dict[str, Any] | ChromosomePreset | None = None,
        base: str = "resnet50",
        scales: list[str] | None = None,
        uncertainty: bool = True,
        vote: Vote = "logits",
        literal_mask: bool = False,
        reductions: list[int] | None = None,
        optimizer: OptimizerName = "sgd",
        lr: float = 0.02,
        weight_decay: float = 1e-5,
        label_smoothing: float = 0.0,
        **recipe: Any,
    ) -> None:
        normalisation = self.make_preset(preset)
        network = IappCnnNetwork(
            base,
            SCALES if scales is None else scales,
            REDUCTIONS if reductions is None else reductions,
            uncertainty=uncertainty,
            vote=vote,
            literal_mask=literal_mask,
            mean=normalisation.mean,
            std=normalisation.std,
        )
        super().__init__(
            network,
            network.features,
            preset=preset,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            label_smoothing=label_smoothing,
            centre_loss=None,
            contrastive=0.0,
            polarity=False,
            **recipe,
        )

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the sum of the branches' cross-entropies (equation 14)."""
        logits = self.network.branch_logits(self.network.branch_features(batch["image"]))
        losses = [self.cross_entropy(found, batch["label"]) for found in logits.values()]
        return torch.stack(losses).sum()


@register_model(
    task="classification",
    paper="Wei et al. 2022, Biomedical Signal Processing and Control 71:103120 (IAPP-CNN)",
)
def iapp_cnn(**kwargs: Any) -> IappCnn:
    """IAPP-CNN (Wei et al. 2022), 72,244,488 parameters with ResNet-50; ``(B, 1 or 3, H, W)``.

    ``base`` is ``resnet50``, ``alexnet``, ``vgg16_bn``, ``densenet121`` or ``inception_v4``, with
    random weights (the paper: from ImageNet). Where this differs from the paper:

    - The object mask has no upper limit of 254: signal images have a background of 0, and the
      brightest bands lie at 255. On the white background of the paper the printed rule keeps next
      to nothing of a chromosome; ``literal_mask`` is that rule.
    - The reductions of the two excitations are 16 and 8; the paper gives none. They learn because
      the mean of the two re-weighted maps makes the object's logits.
    - Object and part are cut to their boxes and enlarged to the whole canvas, both ways. The part
      is the largest common region of the two maps, within the object; without one it is the object
      itself. The last map of ResNet-50 has 7x7 cells at 224x224 and 4x2 at 112x48: a coarse part.
    - ``scales`` names the branches that vote (table 4). With part but no object the object's branch
      still learns, because the part is found on its map.
    - All bases end in a global mean and one linear layer, also AlexNet and VGG, which here end
      before their last pooling. The DenseNet is DenseNet-121.
    - The weighted sum of the branches is divided by the sum of its weights. No decision changes.
    """
    return IappCnn(**kwargs)
