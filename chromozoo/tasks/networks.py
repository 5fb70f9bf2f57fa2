"""The interfaces of pure networks, which the tasks wrap.

They are classes and not protocols, because a task also needs its network to be an ``nn.Module``,
and Python has no type for both at once. At run time any ``nn.Module`` with these methods will do.
"""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from chromozoo.structures.instance import Instance

# A dict of boxes (N, 4) float32 xyxy, labels (N,) int64 from 1 and, where they are known, masks
# (N, H, W) uint8, as torchvision's detectors take it.
Target = dict[str, Tensor]


class ClassifierNetwork(nn.Module):
    """A network in two halves: features of an image, and logits of its features.

    Attributes:
        polarity: Logits ``(B, 24)`` of the p arm being up, given each class, from features. Only
            networks of a task with ``polarity=True`` have it, and the task adds it.
    """

    polarity: Callable[[Tensor], Tensor]

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the features ``(B, F)`` of normalised images ``(B, channels, H, W)``."""
        raise NotImplementedError

    def forward_head(self, features: Tensor) -> Tensor:
        """Return the logits ``(B, num_classes)`` of features ``(B, F)``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``(B, num_classes)`` of normalised images ``(B, channels, H, W)``."""
        return self.forward_head(self.forward_features(x))


class SegmentationNetwork(nn.Module):
    """A network that is trained on targets and detects the chromosomes of one image.

    Attributes:
        any_precision: Whether boxes and masks are right in any precision of the weights. In other
            networks, weights of another precision are used as float32.
    """

    any_precision: ClassVar[bool] = False

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Return the named scalars whose sum is minimised.

        Args:
            images: ``(1, h, w)`` normalised.
            targets: One for each image.
        """
        raise NotImplementedError

    def detect(self, image: Tensor, min_score: float) -> list[Instance]:
        """Return the detections in one image ``(1, h, w)``, before mask NMS.

        Args:
            image: Normalised.
            min_score: Detections with a lower score may be left out.
        """
        raise NotImplementedError
