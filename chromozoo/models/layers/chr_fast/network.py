"""The network of ChrFast: class scores, boxes and mask filters at every fourth pixel."""

from dataclasses import replace
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from chromozoo.models.layers.chr_fast.assignment import assign
from chromozoo.models.layers.chr_fast.class_head import ClassHead, sample_strips
from chromozoo.models.layers.chr_fast.geometry import (
    STRIDE,
    fill_boxes,
    grid_points,
    grow,
    jitter,
    locations,
    pad_together,
)
from chromozoo.models.layers.chr_fast.losses import (
    box_supervised_loss,
    grid_mask_loss,
    quality_focal_loss,
)
from chromozoo.models.layers.two_stage import mask_instances
from chromozoo.structures.instance import Instance
from chromozoo.tasks.networks import SegmentationNetwork, Target

# Channels of the mask features, and of the two hidden layers that each chromosome's filters make.
MASK_CHANNELS = 8
# Channels of the layers that make the mask features.
MASK_WIDTH = 32
# Unit of the offsets in the mask network in pixels, about the length of chromosome 8.
OFFSET_UNIT = 50.0
FILTERS = (
    (MASK_CHANNELS + 2, MASK_CHANNELS),
    (MASK_CHANNELS, MASK_CHANNELS),
    (MASK_CHANNELS, 1),
)
FILTER_COUNT = sum(inputs * outputs + outputs for inputs, outputs in FILTERS)

TRAINING_GRID = 40
INFERENCE_GRID = 64
# Chosen on validation, where 0.5 made the masks a little too large.
MASK_LEVEL = 0.53
# Masks of at most this many locations are computed in a training step; more cost memory and teach
# no more.
MAX_TRAINING_MASKS = 192
# Each chromosome is found from several locations; mask NMS keeps the best.
MAX_CANDIDATES = 500
BOX_LOSS_WEIGHT = 2.0


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class ChrFastNetwork(SegmentationNetwork):
    """The pure network, from ``(B, 1, H, W)`` float to scores, boxes and mask filters.

    Args:
        backbone: Any timm backbone with features at strides 2 to 32.
        channels: Channels of the pyramid.
        num_classes: 1, or 24 to classify the instances.
    """

    # Boxes, masks and strips are computed in float32, whatever the weights are.
    any_precision = True

    def __init__(
        self, backbone: str = "resnet18", channels: int = 96, num_classes: int = 1
    ) -> None:
        super().__init__()
        self.backbone = timm.create_model(
            backbone, pretrained=False, in_chans=1, features_only=True
        )
        info: Any = self.backbone.feature_info
        stem, *levels = info.channels()
        self.lateral = nn.ModuleList(ConvNorm(width, channels, 1) for width in levels)
        self.smooth = nn.ModuleList(ConvNorm(channels, channels) for _ in levels)
        self.tower = nn.Sequential(ConvNorm(channels, channels), ConvNorm(channels, channels))
        self.classify = nn.Conv2d(channels, 1, 3, padding=1)
        self.regress = nn.Conv2d(channels, 4, 3, padding=1)
        self.controller = nn.Linear(channels, FILTER_COUNT)
        # Narrowed before it is enlarged: at stride 2 every channel costs four times as much.
        self.fine_lateral = ConvNorm(stem, MASK_WIDTH, 1)
        self.coarse_lateral = ConvNorm(channels, MASK_WIDTH, 1)
        self.mask_features = nn.Sequential(
            ConvNorm(MASK_WIDTH, MASK_WIDTH),
            ConvNorm(MASK_WIDTH, MASK_WIDTH),
            nn.Conv2d(MASK_WIDTH, MASK_CHANNELS, 1),
        )
        self.names = ClassHead(MASK_WIDTH + 2, num_classes) if num_classes > 1 else None
        self._initialise()

    def _initialise(self) -> None:
        # Nearly all locations are background: begin there, or the first steps are spent on it.
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.constant_(self.classify.bias, -4.6)  # type: ignore[arg-type]
        nn.init.normal_(self.regress.weight, std=0.01)
        # e^1.6 = 5 strides to each side: a chromosome of 40 pixels.
        nn.init.constant_(self.regress.bias, 1.6)  # type: ignore[arg-type]
        nn.init.normal_(self.controller.weight, std=0.02)
        nn.init.normal_(self.controller.bias, std=0.1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the dense outputs.

        Args:
            x: ``(B, 1, H, W)`` normalised; H and W multiples of 32.

        Returns:
            ``scores`` (B, L, 1) logits, ``boxes`` (B, L, 4) xyxy pixels and ``tower``
            (B, L, channels) of the L = H/4 x W/4 locations, row by row; ``mask_features``
            (B, 8, H/2, W/2) and ``fine`` (B, 32, H/2, W/2).
        """
        stem, *levels = self.backbone(x)
        merged = self.lateral[-1](levels[-1])
        for level in reversed(range(len(levels))):
            if level < len(levels) - 1:
                merged = self.lateral[level](levels[level]) + functional.interpolate(
                    merged, scale_factor=2.0, mode="nearest"
                )
            merged = self.smooth[level](merged)
        tower = self.tower(merged)
        distances = self.regress(tower).float().clamp(max=5).exp() * STRIDE
        points = locations(x.shape[-2], x.shape[-1], x.device)
        sides = distances.flatten(2).transpose(1, 2)
        boxes = torch.cat([points - sides[..., :2], points + sides[..., 2:]], dim=-1)
        fine = self.fine_lateral(stem) + functional.interpolate(
            self.coarse_lateral(merged), scale_factor=2.0, mode="bilinear"
        )
        return {
            "scores": self.classify(tower).flatten(2).transpose(1, 2).float(),
            "boxes": boxes,
            "tower": tower.flatten(2).transpose(1, 2),
            "mask_features": self.mask_features(fine),
            "fine": fine,
        }

    def predict_masks(
        self, tower: Tensor, points: Tensor, features: Tensor, boxes: Tensor, side: int
    ) -> Tensor:
        """Return the mask logits ``(P, side, side)`` of P locations, on grids over their boxes.

        Args:
            tower: Features ``(P, channels)`` of locations of one image.
            points: ``(P, 2)`` of the locations, pixels.
            features: Mask features ``(8, H/2, W/2)`` of the image.
            boxes: ``(P, 4)`` xyxy pixels.
            side: Cells of the grid along each side of the box.
        """
        filters = self.controller(tower).float()
        grid = grid_points(boxes, side)
        size = features.new_tensor([features.shape[-1] * 2, features.shape[-2] * 2]).float()
        flat = (grid / size * 2 - 1).view(1, 1, -1, 2)
        sampled = functional.grid_sample(
            features[None].float(), flat, padding_mode="border", align_corners=False
        )
        values = sampled.view(MASK_CHANNELS, len(boxes), -1).transpose(0, 1)
        offsets = ((grid - points[:, None]) / OFFSET_UNIT).transpose(1, 2)
        x = torch.cat([values, offsets], dim=1)
        start = 0
        for number, (inputs, outputs) in enumerate(FILTERS):
            weight = filters[:, start : start + inputs * outputs].view(-1, outputs, inputs)
            start += inputs * outputs
            bias = filters[:, start : start + outputs, None]
            start += outputs
            x = torch.baddbmm(bias, weight, x)
            if number < len(FILTERS) - 1:
                x = functional.relu(x)
        return x.view(-1, side, side)

    # Training

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Return the losses of score, box, mask and class, see :class:`SegmentationNetwork`.

        Masks of targets without masks are learnt from their boxes
        (:mod:`chromozoo.losses.box_supervision`).
        """
        batch = pad_together(images)
        found = self(batch)
        points = locations(batch.shape[-2], batch.shape[-1], batch.device)
        score_loss, box_loss, weight_sum = [], [], []
        mask_loss: list[Tensor] = []
        class_logits: list[Tensor] = []
        labels: list[Tensor] = []
        budget = max(MAX_TRAINING_MASKS // len(images), 1)
        for index, given in enumerate(targets):
            # Where boxes alone are known, a chromosome may be anywhere in its box.
            target = given
            if "masks" not in given:
                target = given | {"masks": fill_boxes(given["boxes"], images[index])}
            scores, boxes = found["scores"][index], found["boxes"][index]
            place, owner, quality = assign(points, scores.detach(), boxes.detach(), target)
            true_scores = torch.zeros_like(scores)
            true_scores[place, 0] = quality
            score_loss.append(quality_focal_loss(scores, true_scores).sum())
            weight_sum.append(quality.sum())
            true_boxes = target["boxes"][owner]
            box_loss.append((generalized_box_iou_loss(boxes[place], true_boxes) * quality).sum())
            if not len(place):
                continue
            drawn = torch.randperm(len(place), device=place.device)[:budget]
            grown = grow(jitter(true_boxes[drawn]))
            logits = self.predict_masks(
                found["tower"][index, place[drawn]],
                points[place[drawn]],
                found["mask_features"][index],
                grown,
                TRAINING_GRID,
            )
            mask_loss.append(
                grid_mask_loss(logits, grown, target["masks"], owner[drawn])
                if "masks" in given
                else box_supervised_loss(logits, grown, true_boxes[drawn], images[index])
            )
            if self.names is not None:
                strips = sample_strips(found["fine"][index], batch[index], logits.detach(), grown)
                class_logits.append(self.names(strips))
                labels.append(target["labels"][owner[drawn]] - 1)
        weights = torch.stack(weight_sum).sum().clamp_min(1.0)
        masks = torch.cat(mask_loss).mean() if mask_loss else found["mask_features"].sum() * 0
        losses = {
            "loss_score": torch.stack(score_loss).sum() / weights,
            "loss_box": BOX_LOSS_WEIGHT * torch.stack(box_loss).sum() / weights,
            "loss_mask": masks,
        }
        if class_logits:
            losses["loss_class"] = functional.cross_entropy(
                torch.cat(class_logits), torch.cat(labels)
            )
        return losses

    # Use

    def detect(self, image: Tensor, min_score: float) -> list[Instance]:
        """Return the detections in one image, see :class:`SegmentationNetwork`."""
        batch = pad_together([image])
        found = self(batch)
        points = locations(batch.shape[-2], batch.shape[-1], batch.device)
        scores = found["scores"][0, :, 0].sigmoid()
        kept = scores.topk(min(MAX_CANDIDATES, len(scores))).indices
        kept = kept[scores[kept] >= min_score]
        if not len(kept):
            return []
        grown = grow(found["boxes"][0, kept])
        logits = self.predict_masks(
            found["tower"][0, kept],
            points[kept],
            found["mask_features"][0],
            grown,
            INFERENCE_GRID,
        )
        instances = mask_instances(
            logits.float().sigmoid().cpu().numpy(),
            grown.cpu().numpy(),
            scores[kept].cpu().numpy(),
            MASK_LEVEL,
        )
        # The box of the mask is more exact than the predicted one, over which the grid lies.
        instances = [replace(instance, box=None) for instance in instances]
        if self.names is None:
            return instances
        strips = sample_strips(found["fine"][0], batch[0], logits, grown).cpu().numpy()
        return [
            replace(instance, strip=strip)
            for instance, strip in zip(instances, strips, strict=True)
        ]

    def classify_instances(self, instances: list[Instance]) -> list[Instance]:
        """Return instances with class probabilities and labels.

        It is called after mask NMS: classifying an instance costs as much as detecting ten.

        Args:
            instances: With their strips.

        Returns:
            The same without strips; unchanged where the network has no classes.
        """
        if self.names is None or not instances:
            return instances
        stacked = np.stack([one.strip for one in instances if one.strip is not None])
        strips = torch.from_numpy(stacked).to(self.classify.weight.device)
        # Neither end of the axis is known to be up, so all mirror images are averaged.
        turned = [strips.flip(axes) if axes else strips for axes in ((), (-1,), (-2,), (-2, -1))]
        averaged = torch.stack([self.names(strip).float().softmax(-1) for strip in turned]).mean(0)
        return [
            replace(
                instance,
                strip=None,
                class_probabilities=probabilities,
                label=int(probabilities.argmax()),
            )
            for instance, probabilities in zip(
                instances, averaged.float().cpu().numpy(), strict=True
            )
        ]
