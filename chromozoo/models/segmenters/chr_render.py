"""ChrRender: Mask R-CNN whose masks are rendered point by point (PointRend).

Papers: Wang et al. 2024, IEEE Access 12:46081 (ChrRender: Detectron2's PointRend, ResNet-50-FPN,
COCO weights, 256x256, 50,000 iterations); A. Kirillov et al., "PointRend: Image segmentation as
rendering", CVPR 2020, arXiv:1912.08193, whose hyperparameters are taken where Wang et al. give
none.

A coarse head predicts a 7x7 mask in each box. A point head, a small MLP, predicts single points
from the fine feature there (concatenated, as the prose of Wang et al. says; their equation 1 writes
a sum) and the coarse logit. Training takes 14x14 points of each box: of 3 times as many random ones
the 75 % that are least certain, and the rest at random. Inference doubles the 7x7 grid four times,
to 112x112, and replaces the 28x28 least certain points of each doubling by the point head's: a mask
at the resolution of the image, which the 28x28 grid of Mask R-CNN cannot give.
(Detectron2 doubles five times; the longest chromosomes have about 110 pixels.)

Ours: torchvision's detector from random weights, with the adaptations of
:mod:`chromozoo.models.layers.two_stage` to metaphases, at the images' own scale.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.ops import MultiScaleRoIAlign, roi_align

from chromozoo.models.layers.two_stage import (
    ANCHOR_RATIOS,
    ANCHOR_SIZES,
    TwoStageNetwork,
    load_segmenter_body,
    mask_instances,
)
from chromozoo.models.registry import register_model
from chromozoo.structures.instance import Instance
from chromozoo.tasks.networks import Target
from chromozoo.tasks.segmentation import ChromosomeSegmenter

COARSE_SIDE = 7
TRAINING_POINTS = 14 * 14
OVERSAMPLING = 3
IMPORTANT_SHARE = 0.75
INFERENCE_POINTS = 28 * 28
DOUBLINGS = 4
# Chosen on validation, where 0.5 made the masks too large.
MASK_LEVEL = 0.6
# The level of the pyramid that both mask heads read: stride 4.
FINE_LEVEL = "0"


class CoarseMaskHead(nn.Module):
    """Mask logits ``(P, 1, 7, 7)`` of the features ``(P, C, 14, 14)`` of P boxes."""

    def __init__(self, channels: int, width: int = 1024) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels, 2, stride=2)
        self.fc1 = nn.Linear(channels * COARSE_SIDE**2, width)
        self.fc2 = nn.Linear(width, width)
        self.predictor = nn.Linear(width, COARSE_SIDE**2)

    def forward(self, features: Tensor) -> Tensor:
        x = functional.relu(self.reduce(features)).flatten(1)
        x = functional.relu(self.fc2(functional.relu(self.fc1(x))))
        logits: Tensor = self.predictor(x).view(-1, 1, COARSE_SIDE, COARSE_SIDE)
        return logits


class PointHead(nn.Module):
    """Mask logits ``(P, 1, K)`` of K points from fine features ``(P, C, K)`` and coarse logits."""

    def __init__(self, channels: int, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(inputs + 1, width, 1) for inputs in (channels, width, width)
        )
        self.predictor = nn.Conv1d(width + 1, 1, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        x = fine
        for layer in self.layers:
            # The coarse logit enters every layer, as in PointRend.
            x = functional.relu(layer(torch.cat([x, coarse], dim=1)))
        logits: Tensor = self.predictor(torch.cat([x, coarse], dim=1))
        return logits


class RenderNetwork(TwoStageNetwork):
    """Faster R-CNN with the two mask heads of PointRend.

    Args:
        backbone, anchor_sizes, anchor_ratios, rois, channels: See :class:`TwoStageNetwork`.
        doublings: Doublings of the 7x7 grid at inference.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        anchor_sizes: Sequence[int] = ANCHOR_SIZES,
        anchor_ratios: Sequence[float] = ANCHOR_RATIOS,
        rois: int = 256,
        doublings: int = DOUBLINGS,
        channels: int = 256,
    ) -> None:
        super().__init__(
            backbone,
            masks=False,
            anchor_sizes=anchor_sizes,
            anchor_ratios=anchor_ratios,
            rois=rois,
            channels=channels,
        )
        self.coarse_pool = MultiScaleRoIAlign([FINE_LEVEL], 2 * COARSE_SIDE, sampling_ratio=2)
        self.coarse_head = CoarseMaskHead(channels)
        self.point_head = PointHead(channels)
        self.doublings = doublings

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Return the losses of both stages, of the coarse mask and of the points."""
        detector: Any = self.detector
        batch, targets = detector.transform(images, targets)
        features = detector.backbone(batch.tensors)
        proposals, losses = detector.rpn(batch, features, targets)
        heads: RoIHeads = detector.roi_heads
        rois, matched, labels, regression = heads.select_training_samples(proposals, targets)
        pooled = heads.box_head(heads.box_roi_pool(features, rois, batch.image_sizes))
        logits, deltas = heads.box_predictor(pooled)
        losses["loss_classifier"], losses["loss_box_reg"] = fastrcnn_loss(
            logits, deltas, labels, regression
        )
        objects = [label > 0 for label in labels]
        boxes = [roi[keep] for roi, keep in zip(rois, objects, strict=True)]
        masks = [
            target["masks"][index[keep]]
            for target, index, keep in zip(targets, matched, objects, strict=True)
        ]
        losses |= self._mask_losses(features, boxes, masks, batch.image_sizes)
        all_losses: dict[str, Tensor] = losses
        return all_losses

    def _mask_losses(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        masks: list[Tensor],
        sizes: list[tuple[int, int]],
    ) -> dict[str, Tensor]:
        if not any(len(of_image) for of_image in boxes):
            nothing = features[FINE_LEVEL].sum() * 0
            return {"loss_mask_coarse": nothing, "loss_mask_point": nothing}
        coarse = self.coarse_head(self.coarse_pool(features, boxes, sizes))
        coarse_target = torch.cat(
            [
                roi_align(mask[:, None].float(), number_boxes(box), COARSE_SIDE, aligned=True)
                for box, mask in zip(boxes, masks, strict=True)
            ]
        )
        coarse_loss = functional.binary_cross_entropy_with_logits(coarse.float(), coarse_target)
        with torch.no_grad():
            points = uncertain_points(coarse.float())
        of_image = torch.split(points, [len(box) for box in boxes])
        labels = torch.cat(
            [
                sample(mask[:, None].float(), to_image(box, uv), mask.shape[-2:])
                for box, mask, uv in zip(boxes, masks, of_image, strict=True)
            ]
        )
        logits = self.point_head(
            self._fine(features, boxes, list(of_image)), sample_grid(coarse, points)
        )
        point_loss = functional.binary_cross_entropy_with_logits(logits.float(), labels)
        return {"loss_mask_coarse": coarse_loss, "loss_mask_point": point_loss}

    def _fine(
        self, features: dict[str, Tensor], boxes: list[Tensor], points: list[Tensor]
    ) -> Tensor:
        """Return the fine features ``(P, C, K)`` at points of the boxes of each image."""
        level = features[FINE_LEVEL]
        stride = 4
        size = (level.shape[-2] * stride, level.shape[-1] * stride)
        sampled = []
        for index, (box, uv) in enumerate(zip(boxes, points, strict=True)):
            points_in_image = to_image(box, uv)
            # All points of an image as one row: its features are not copied for each box.
            flat = sample(level[index][None], points_in_image.reshape(1, -1, 2), size)
            sampled.append(flat.view(level.shape[1], len(box), -1).transpose(0, 1))
        return torch.cat(sampled)

    def detect(self, image: Tensor, min_score: float) -> list[Instance]:
        """Return the detections in one image, see :class:`SegmentationNetwork`."""
        found, features, sizes = self.detect_boxes(image, min_score)
        boxes, scores = found["boxes"], found["scores"].float().cpu().numpy()
        if not len(boxes):
            return []
        coarse = self.coarse_head(self.coarse_pool(features, [boxes], sizes))
        rendered = self.render(features, boxes, coarse.float()).sigmoid()[:, 0]
        return mask_instances(
            rendered.cpu().numpy(), boxes.float().cpu().numpy(), scores, MASK_LEVEL
        )

    def render(self, features: dict[str, Tensor], boxes: Tensor, logits: Tensor) -> Tensor:
        """Return mask logits ``(P, 1, S, S)``: double the grid, and refine its uncertain points.

        Args:
            features: Features of the pyramid by level, of one image.
            boxes: ``(P, 4)`` xyxy pixels.
            logits: Coarse masks ``(P, 1, s, s)``.
        """
        for doubling in range(self.doublings):
            logits = functional.interpolate(
                logits, scale_factor=2, mode="bilinear", align_corners=False
            )
            side = logits.shape[-1]
            last = doubling == self.doublings - 1
            if side**2 <= INFERENCE_POINTS and not last:
                # All points fit into the next doubling, which refines them.
                continue
            count = min(INFERENCE_POINTS, side**2)
            flat = logits.flatten(2)
            chosen = (-flat[:, 0].abs()).topk(count, dim=1).indices
            rows, columns = chosen // side, chosen % side
            uv = (torch.stack([columns, rows], dim=-1) + 0.5) / side
            refined = self.point_head(
                self._fine(features, [boxes], [uv]), flat.gather(2, chosen[:, None])
            )
            flat = flat.scatter(2, chosen[:, None], refined.float())
            logits = flat.view(-1, 1, side, side)
        return logits


def uncertain_points(logits: Tensor) -> Tensor:
    """Return training points ``(P, K, 2)`` in 0..1 (x, y) of each box, see the module's docstring.

    Args:
        logits: Coarse masks ``(P, 1, S, S)``.
    """
    boxes = len(logits)
    many = torch.rand(boxes, OVERSAMPLING * TRAINING_POINTS, 2, device=logits.device)
    uncertainty = -sample_grid(logits, many)[:, 0].abs()
    important = int(IMPORTANT_SHARE * TRAINING_POINTS)
    index = uncertainty.topk(important, dim=1).indices
    chosen = many.gather(1, index[..., None].expand(-1, -1, 2))
    random = torch.rand(boxes, TRAINING_POINTS - important, 2, device=logits.device)
    return torch.cat([chosen, random], dim=1)


def sample_grid(values: Tensor, points: Tensor) -> Tensor:
    """Return values ``(P, C, K)`` of maps ``(P, C, S, S)`` at points ``(P, K, 2)`` in 0..1."""
    return sample(values, points, (1, 1))


def sample(values: Tensor, points: Tensor, size: Sequence[int]) -> Tensor:
    """Return bilinear values ``(P, C, K)`` at points ``(P, K, 2)`` (x, y) of a plane.

    Args:
        values: ``(P, C, h, w)``; the pixels divide the plane evenly.
        points: In the plane's units.
        size: Height and width of the plane.
    """
    scale = points.new_tensor([2 / size[1], 2 / size[0]])
    grid = (points * scale - 1)[:, :, None]
    sampled: Tensor = functional.grid_sample(
        values.float(), grid.float(), mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[..., 0]


def to_image(boxes: Tensor, points: Tensor) -> Tensor:
    """Return points ``(P, K, 2)`` in 0..1 of boxes ``(P, 4)`` in pixels of the image."""
    corner, far = boxes[:, None, :2], boxes[:, None, 2:]
    return corner + points * (far - corner)


def number_boxes(boxes: Tensor) -> Tensor:
    """Return boxes ``(P, 4)`` as ``roi_align`` takes them, the p-th of the p-th map."""
    return torch.cat([torch.arange(len(boxes), device=boxes.device)[:, None], boxes], dim=1)


class ChrRender(ChromosomeSegmenter):
    """ChrRender with our training.

    Args:
        backbone: See :data:`chromozoo.models.layers.two_stage.BACKBONES`.
        anchor_sizes, anchor_ratios, channels: See :class:`TwoStageNetwork`.
        rois: Regions per image that the second stage is trained on.
        doublings: Doublings of the 7x7 grid at inference.
        init_from: Name of a segmenter whose published ResNet a training starts from, see
            :func:`chromozoo.models.layers.two_stage.load_segmenter_body`; no hyperparameter.
        **recipe: See :class:`ChromosomeSegmenter`.
    """

    training_arguments = ChromosomeSegmenter.training_arguments | {"rois"}

    def __init__(
        self,
        backbone: str = "resnet50",
        anchor_sizes: Sequence[int] = ANCHOR_SIZES,
        anchor_ratios: Sequence[float] = ANCHOR_RATIOS,
        rois: int = 256,
        doublings: int = DOUBLINGS,
        channels: int = 256,
        init_from: str | None = None,
        **recipe: Any,
    ) -> None:
        network = RenderNetwork(backbone, anchor_sizes, anchor_ratios, rois, doublings, channels)
        if init_from is not None:
            load_segmenter_body(network, init_from)
        super().__init__(network, **recipe)


@register_model(task="segmentation", paper="Wang et al. 2024, IEEE Access 12:46081")
def chr_render(backbone: str = "resnet50", **kwargs: Any) -> ChrRender:
    """ChrRender (Wang et al. 2024): Mask R-CNN with PointRend's heads; one grey channel, any size.

    Amodal masks of 112x112 points in each box.
    """
    return ChrRender(backbone=backbone, **kwargs)
