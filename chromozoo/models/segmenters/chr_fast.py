"""ChrFast: a one-stage segmenter whose mask filters are generated for each chromosome. Ours.

For few training images, long thin objects that cross, and two CPU cores. It builds on filters
generated for each instance (Z. Tian et al., "Conditional convolutions for instance segmentation",
ECCV 2020, arXiv:2003.05664), soft dynamic assignment and quality focal loss (C. Lyu et al.,
"RTMDet", arXiv:2212.07784; Z. Ge et al., "OTA", arXiv:2103.14259; X. Li et al., arXiv:2006.04388)
and the dice loss (F. Milletari et al., arXiv:1606.04797). The network is in
:mod:`chromozoo.models.layers.chr_fast`.

Adaptations to chromosomes:

* A location may predict a chromosome only if it lies ON it and on no other: where two cross,
  their boxes cover each other, but most of each one's length is its own.
* All chromosomes have 12 to 110 pixels, so one level at stride 4 serves them all.
* The mask is predicted on a grid over the chromosome's box, from features at stride 2: a small
  chromosome gets as fine a mask as a long one, and the cost does not grow with the image.
* Duplicates are removed by mask NMS alone (:func:`chromozoo.structures.instance.mask_nms`): two
  chromosomes that cross in their centres have one box.
* With 24 classes, a class head reads a strip of fine features along the long axis of each mask, as
  if the chromosome stood upright. Detection and classification are two outputs, so the classes can
  be learnt from other data than the masks.
"""

from typing import Any

from torch import Tensor

from chromozoo.classes import CLASSES
from chromozoo.models.init_from import initialise_from
from chromozoo.models.layers.chr_fast.network import ChrFastNetwork
from chromozoo.models.registry import register_model
from chromozoo.structures.instance import Instance
from chromozoo.structures.segmentation import CATEGORIES
from chromozoo.tasks.segmentation import ChromosomeSegmenter


class ChrFast(ChromosomeSegmenter):
    """ChrFast with its training.

    Args:
        backbone: Any timm backbone with features at strides 2 to 32.
        channels: Channels of the pyramid.
        num_classes: 1, or 24 to classify the instances.
        init_from: A checkpoint (``.ckpt``) of this model or ``"chromozoo/chr_fast"``, to tune
            further, with or without classes; None starts from random numbers.
        nms_iou_threshold: Mask IoU above which the less certain of two detections is left out.
        **recipe: See :class:`ChromosomeSegmenter`.
    """

    network: ChrFastNetwork

    def __init__(
        self,
        backbone: str = "resnet18",
        channels: int = 96,
        num_classes: int = 1,
        init_from: str | None = None,
        nms_iou_threshold: float = 0.7,
        **recipe: Any,
    ) -> None:
        super().__init__(
            ChrFastNetwork(backbone, channels, num_classes),
            nms_iou_threshold=nms_iou_threshold,
            **recipe,
        )
        self.num_classes = num_classes
        if init_from is not None:
            initialise_from(self.network, init_from)

    def detect(self, image: Tensor) -> list[Instance]:
        """Return the detections, see :class:`ChromosomeSegmenter`, classified with 24 classes."""
        return self.network.classify_instances(super().detect(image))

    @property
    def categories(self) -> tuple[str, ...]:
        """``("chromosome",)``, or the 24 classes."""
        return CLASSES if self.num_classes == len(CLASSES) else CATEGORIES


@register_model(
    task="segmentation",
    paper="ours, after CondInst (Tian et al. 2020)",
    default_weights="metaphase",
    stain_weights={"g": "cil"},
)
def chr_fast(**kwargs: Any) -> ChrFast:
    """ChrFast: one stage, amodal masks by generated filters; one grey channel, any size."""
    return ChrFast(**kwargs)
