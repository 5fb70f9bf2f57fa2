"""CIR-Net: Inception-ResNet-v2 with a flattened head, and the Image Adaptive Interface (IAI).

Paper: C. Lin et al., "CIR-Net: Automatic Classification of Human Chromosome Based on
Inception-ResNet Architecture", IEEE/ACM TCBB 19(3):1285, 2022 (online 2020). Its augmentation CDA
is the ``rotate_step`` of :func:`chromozoo.images.augment.training_augmentation`. Our choices
for what the paper leaves open (kernel and place of the IAI) are stated where they are set.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import timm
from torch import Tensor, nn

from chromozoo.classes import CLASSES
from chromozoo.images.preset import ChromosomePreset
from chromozoo.models.layers.channels import to_three_channels
from chromozoo.models.layers.fixed_size import check_input_size, last_map_size
from chromozoo.models.registry import register_model
from chromozoo.tasks.classification import ChromosomeClassifier
from chromozoo.tasks.networks import ClassifierNetwork

SYSTEM = "CIR-Net"
MAP_CHANNELS = 1536
# Layers that shrink the map in Inception-ResNet-v2: stem, Mixed_6a, Mixed_7a.
LAYERS = ((3, 2), (3, 1), (3, 2), (3, 1), (3, 2), (3, 2), (3, 2))


def adapt(length: int, target: int, kernel: int = 3) -> tuple[int, int, int]:
    """Return kernel, stride and padding that bring ``length`` to ``target`` pixels (equation 9).

    ``target = floor((length + 2 padding - kernel) / stride + 1)``. Equal: 1, 1, 0. Smaller: no
    padding, the largest whole stride, and the kernel that then sees every pixel. Larger: stride 1
    and padding.

    Args:
        length: Pixels of the image along one axis.
        target: Pixels of the result.
        kernel: Kernel of the larger case, which the paper leaves open. Where no whole padding fits
            it, it is one larger.
    """
    if target == length:
        return 1, 1, 0
    if target < length:
        stride = length // target
        return length - (target - 1) * stride, stride, 0
    kernel += (target - length + kernel - 1) % 2
    return kernel, 1, (target - length + kernel - 1) // 2


class ImageAdaptiveInterface(nn.Module):
    """One convolution that brings images of one size to another (section 3.3 of the paper).

    ``(B, c_in, *size_in) -> (B, c_out, *size_out)``. Each axis is adapted separately, see
    :func:`adapt`. One layer, linear, is our reading: the paper gives neither depth nor activation.

    Args:
        c_in: Channels of the images.
        size_in: Height and width of the images in pixels.
        size_out: Height and width of the result.
        kernel: Kernel size along an axis that grows; 3 is our choice.
        c_out: Channels of the result.
    """

    def __init__(
        self,
        c_in: int,
        size_in: Sequence[int],
        size_out: Sequence[int],
        kernel: int = 3,
        c_out: int = 3,
    ) -> None:
        super().__init__()
        rows = adapt(size_in[0], size_out[0], kernel)
        columns = adapt(size_in[1], size_out[1], kernel)
        kernels, strides, paddings = zip(rows, columns, strict=True)
        self.conv = nn.Conv2d(c_in, c_out, kernels, strides, paddings)

    def forward(self, x: Tensor) -> Tensor:
        adapted: Tensor = self.conv(x)
        return adapted


class CIRNetNetwork(ClassifierNetwork):
    """The pure network: timm's Inception-ResNet-v2 up to its last map, flattened, one linear layer.

    Input ``(B, 1 or 3, H, W)`` float (with an interface: ``channels`` of them); H and W are those
    of ``input_size``. The input of the trunk must be 75x75 or larger. Output: logits
    ``(B, num_classes)``.

    Parameters at 224x224 (5x5 map): 55,228,088. The paper's 55,258,360 are Keras' count of the
    same network, which takes in 60,544 running statistics (in torch buffers) and has none of the
    30,272 scales of torch's BatchNorm.

    Args:
        input_size: Height and width of the images.
        interface: Height and width of the trunk's input, made by an
            :class:`ImageAdaptiveInterface`; None leaves it out, as the released code does.
        channels: Channels of the images, for the interface.
        num_classes: Number of classes.
    """

    def __init__(
        self,
        input_size: Sequence[int] = (224, 224),
        interface: Sequence[int] | None = None,
        channels: int = 1,
        num_classes: int = len(CLASSES),
    ) -> None:
        super().__init__()
        self.input_size = tuple(input_size)
        height, width = last_map_size(SYSTEM, interface or input_size, LAYERS)
        self.interface = (
            ImageAdaptiveInterface(channels, input_size, interface) if interface else None
        )
        self.trunk = timm.create_model(
            "inception_resnet_v2", pretrained=False, num_classes=0, global_pool=""
        )
        self.fc = nn.Linear(MAP_CHANNELS * height * width, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the flattened last map ``(B, features)``; ``features`` is 38,400 at 224x224.

        Raises:
            ValueError: The images are not of the size that the network was built for.
        """
        check_input_size(SYSTEM, x, self.input_size)
        x = self.interface(x) if self.interface is not None else to_three_channels(x)
        features: Tensor = self.trunk(x).flatten(1)
        return features

    def forward_head(self, features: Tensor) -> Tensor:
        """Return the logits ``(B, num_classes)`` of features ``(B, features)``."""
        logits: Tensor = self.fc(features)
        return logits


class CIRNet(ChromosomeClassifier):
    """CIR-Net with cross-entropy.

    The paper trains with RMSProp at 0.005, its released code with Adam at 5e-4, probably from
    ImageNet weights (the default of Keras; the paper does not say). AdamW with one cycle from
    random weights is our choice. Label smoothing is off, as in the paper.

    Args:
        preset: Preparation of the images: a :class:`ChromosomePreset` or some of its arguments;
            height and width are the network's input size. What is not given is as published:
            224x224, not turned upright.
        interface: Height and width of the trunk's input, see :class:`CIRNetNetwork`.
        label_smoothing: Share of the target that is spread over all classes.
        **recipe: See :class:`chromozoo.tasks.classification.ChromosomeClassifier`.
    """

    default_preset: ClassVar[dict[str, Any]] = {
        "height": 224,
        "width": 224,
        "rotate_crop": "none",
    }

    def __init__(
        self,
        preset: dict[str, Any] | ChromosomePreset | None = None,
        interface: list[int] | None = None,
        label_smoothing: float = 0.0,
        **recipe: Any,
    ) -> None:
        canvas = self.make_preset(preset)
        network = CIRNetNetwork((canvas.height, canvas.width), interface, canvas.channels)
        super().__init__(
            network,
            network.fc.in_features,
            preset=preset,
            label_smoothing=label_smoothing,
            **recipe,
        )


@register_model(task="classification", paper="Lin et al. 2020, IEEE/ACM TCBB 19(3):1285 (CIR-Net)")
def cir_net(**kwargs: Any) -> CIRNet:
    """CIR-Net (Lin et al. 2020), 55,228,088 parameters at 224x224; input ``(B, 1 or 3, H, W)``.

    The published 55,258,360 are Keras' count of the same network: with 60,544 running statistics
    of BatchNorm, without its 30,272 scales. The flattened head depends on the input size, which
    height and width of the preset set (75 or more): weights of another size have another count.
    The Image Adaptive Interface (``interface=[height, width]``) is off, because the published
    count has no parameters for it. Ours: random initialisation, AdamW with one cycle.
    """
    return CIRNet(**kwargs)
