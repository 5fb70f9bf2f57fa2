"""Vanilla-CNN: four convolutions and one linear layer, the plain baseline of Lin et al. 2020.

Paper: C. Lin et al., "CIR-Net: Automatic Classification of Human Chromosome Based on
Inception-ResNet Architecture", IEEE/ACM TCBB 19(3):1285, 2022 (online 2020), after W. Zhang et
al., CISP-BMEI 2018. The network follows from the 2,246,680 parameters of table 1. Our
choices for what the paper leaves open (activations, optimiser, schedule, initialisation) are stated
where they are set.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from chromozoo.classes import CLASSES
from chromozoo.images.preset import ChromosomePreset
from chromozoo.models.layers.fixed_size import check_input_size, last_map_size
from chromozoo.models.registry import register_model
from chromozoo.tasks.classification import ChromosomeClassifier
from chromozoo.tasks.networks import ClassifierNetwork

SYSTEM = "Vanilla-CNN"
LAYERS = ((5, 1), (3, 1), (3, 3), (3, 1), (3, 3), (3, 1))


class VanillaCNNNetwork(ClassifierNetwork):
    """The pure network: two blocks of convolutions, flattened, one linear layer.

    Input ``(B, 1, H, W)`` float, or three channels, which are averaged (the network of the paper
    is grey); H and W are those of ``input_size``, 39 or more. Output: logits
    ``(B, num_classes)``. 2,246,680 parameters at 224x224.

    ReLU after each convolution is our choice, and so is the initialisation of He et al. 2015: there
    is no norm, and with the default initialisations of torch and Keras an image hardly moves the
    logits.
    """

    def __init__(
        self, input_size: Sequence[int] = (224, 224), num_classes: int = len(CLASSES)
    ) -> None:
        super().__init__()
        height, width = last_map_size(SYSTEM, input_size, LAYERS)
        self.input_size = tuple(input_size)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 256, 5),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 128, 3),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3),
            nn.Dropout(0.5),
            nn.Conv2d(128, 256, 3),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3),
            nn.Conv2d(256, 128, 3),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Flatten(),
        )
        self.fc = nn.Linear(128 * height * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the flattened last map ``(B, features)``; ``features`` is 56,448 at 224x224.

        Raises:
            ValueError: The images are not of the size that the network was built for.
        """
        check_input_size(SYSTEM, x, self.input_size)
        features: Tensor = self.layers(x.mean(dim=1, keepdim=True))
        return features

    def forward_head(self, features: Tensor) -> Tensor:
        """Return the logits ``(B, num_classes)`` of features ``(B, features)``."""
        logits: Tensor = self.fc(features)
        return logits


class VanillaCNN(ChromosomeClassifier):
    """Vanilla-CNN with cross-entropy.

    The paper trains with RMSProp at 0.005, its released code with Adam at 5e-4; AdamW with one
    cycle is our choice. Label smoothing is off, as in the paper.

    Args:
        preset: Preparation of the images: a :class:`ChromosomePreset` or some of its arguments;
            height and width are the network's input size, 224x224 where they are not given.
        label_smoothing: Share of the target that is spread over all classes.
        **recipe: See :class:`chromozoo.tasks.classification.ChromosomeClassifier`.
    """

    default_preset: ClassVar[dict[str, Any]] = {"height": 224, "width": 224}

    def __init__(
        self,
        preset: dict[str, Any] | ChromosomePreset | None = None,
        label_smoothing: float = 0.0,
        **recipe: Any,
    ) -> None:
        canvas = self.make_preset(preset)
        network = VanillaCNNNetwork((canvas.height, canvas.width))
        super().__init__(
            network,
            network.fc.in_features,
            preset=preset,
            label_smoothing=label_smoothing,
            **recipe,
        )


@register_model(
    task="classification",
    paper="Lin et al. 2020, IEEE/ACM TCBB 19(3):1285 (Vanilla-CNN, after Zhang et al. 2018)",
)
def vanilla_cnn(**kwargs: Any) -> VanillaCNN:
    """Vanilla-CNN (Lin et al. 2020 after Zhang et al. 2018), 2,246,680 parameters at 224x224x1.

    The flattened head depends on the input size, which height and width of the preset set: weights
    of another size have another count. No convolution is padded, so height and width must be 39
    or more. Unlike that of Zhang et al. 2018, the version of Lin et al. has no hidden linear layer
    (as its count demands) and takes 224x224 pixels. Ours: ReLU, the initialisation of He et al.
    2015, AdamW with one cycle.
    """
    return VanillaCNN(**kwargs)
