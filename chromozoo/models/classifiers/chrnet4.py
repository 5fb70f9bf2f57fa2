"""ChrNet4: residual blocks with grouped convolutions and channel attention.

Paper: C. Wang et al., "Fully Automatic Karyotyping via Deep Convolutional Neural Networks"
(Render-Attention-Architecture), IEEE Access 12:46081, 2024. The network is figure 3 of the paper
and has 16,355,160 parameters (62.39 MiB), as published. Our choices for what the paper leaves
open (optimiser, schedule, LeakyReLU slope, loss reduction) are stated where they are set.
"""

from typing import Any

from torch import Tensor, nn

from chromozoo.classes import CLASSES
from chromozoo.losses.embedding import CentreLossPreset
from chromozoo.models.init_from import initialise_from
from chromozoo.models.registry import register_model
from chromozoo.tasks.classification import ChromosomeClassifier
from chromozoo.tasks.networks import ClassifierNetwork

BLOCKS_PER_STAGE = (2, 3, 3, 2)
STAGE_WIDTHS = (64, 128, 256, 512)
GROUPS = 32
EXPANSION = 4
ATTENTION_REDUCTION = 16
FEATURES = STAGE_WIDTHS[-1] * EXPANSION


class ChannelAttention(nn.Module):
    """Channel attention: weights of the channels from their means (figure 3a of the paper).

    ``(B, C, H, W) -> (B, C, H, W)``. The linear layers have no bias, as the parameter count of
    the paper demands.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // ATTENTION_REDUCTION, bias=False),
            nn.LeakyReLU(inplace=True),
            nn.Linear(channels // ATTENTION_REDUCTION, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.fc(x.mean(dim=(2, 3)))
        return x * weight[:, :, None, None]


class ChrBlock(nn.Module):
    """1x1 - grouped 3x3 - 1x1 bottleneck, channel attention, shortcut.

    ``(B, in_channels, H, W) -> (B, 4 * width, H / stride, W / stride)``. The layers have the
    names of torchvision's and timm's ResNeXt, so ImageNet tensors of a ResNeXt-50 32x4d fit.
    """

    def __init__(self, in_channels: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        inner, out_channels = 2 * width, EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=GROUPS, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.attention = ChannelAttention(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
            if project
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.attention(self.bn3(self.conv3(y)))
        result: Tensor = self.relu(y + self.downsample(x))
        return result


class ChrNet4Network(ClassifierNetwork):
    """The pure network.

    Input ``(B, 1, H, W)`` or ``(B, 3, H, W)`` float, any H and W from 32 up (the paper: 224x224;
    a chromosome is tall and narrow, and 128x64 costs a sixth of that). Output: logits
    ``(B, num_classes)``. A grey input gives the same logits as three equal channels, at a
    third of the stem's cost.

    Example:
        >>> ChrNet4Network()(torch.zeros(2, 1, 128, 64)).shape
        torch.Size([2, 24])
    """

    def __init__(self, num_classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        in_channels = 64
        for stage, (blocks, width) in enumerate(
            zip(BLOCKS_PER_STAGE, STAGE_WIDTHS, strict=True), start=1
        ):
            layer = nn.Sequential()
            for block in range(blocks):
                stride = 2 if block == 0 and stage > 1 else 1
                layer.append(ChrBlock(in_channels, width, stride, project=block == 0))
                in_channels = EXPANSION * width
            self.add_module(f"layer{stage}", layer)
        self.fc = nn.Linear(FEATURES, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, ChrBlock):
                # Each block begins as its shortcut (Goyal et al. 2017): steadier first epochs.
                nn.init.zeros_(module.bn3.weight)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the pooled features ``(B, 2048)``, which the centre loss pulls together."""
        stem = self.conv1.weight.sum(1, keepdim=True) if x.shape[1] == 1 else self.conv1.weight
        x = nn.functional.conv2d(x, stem, stride=2, padding=3)
        x = self.maxpool(self.relu(self.bn1(x)))
        for stage in range(1, len(BLOCKS_PER_STAGE) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return x.mean(dim=(2, 3))

    def forward_head(self, features: Tensor) -> Tensor:
        """Return the logits ``(B, num_classes)`` of pooled features ``(B, 2048)``."""
        logits: Tensor = self.fc(features)
        return logits


class ChrNet4(ChromosomeClassifier):
    """ChrNet4 with the recipe of the paper: cross-entropy + centre loss, rotate & crop.

    The paper gives neither optimiser nor schedule; AdamW with one cycle is our choice. Its
    flipped copies of the training images are the vertical flips of our augmentation.

    Args:
        centre_loss: ``"wen"``, ``"paper-literal"`` or None, see
            :class:`chromozoo.losses.embedding.CentreLoss`.
        lr: Highest learning rate.
        init_from: Name of a timm model with ImageNet weights whose tensors are taken over where
            name and shape agree (``"resnext50_32x4d.tv_in1k"``: all but attention and head), for
            strategies (b) to (d) of table II; a checkpoint (``.ckpt``) of this model, or
            ``"chromozoo/chrnet4"``, to tune further; None starts from random numbers, strategy (e).
        **recipe: See :class:`chromozoo.tasks.classification.ChromosomeClassifier`.
    """

    network: ChrNet4Network

    def __init__(
        self,
        centre_loss: CentreLossPreset | None = "wen",
        lr: float = 2e-3,
        init_from: str | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(ChrNet4Network(), FEATURES, centre_loss=centre_loss, lr=lr, **recipe)
        if init_from is not None:
            initialise_from(self.network, init_from)


@register_model(
    task="classification",
    paper="Wang et al. 2024, IEEE Access 12:46081 (Render-Attention-Architecture)",
    default_weights="metaphase",
)
def chrnet4(**kwargs: Any) -> ChrNet4:
    """ChrNet4 (Wang et al. 2024), 16,355,160 parameters; input ``(B, 1 or 3, H, W)``."""
    return ChrNet4(**kwargs)
