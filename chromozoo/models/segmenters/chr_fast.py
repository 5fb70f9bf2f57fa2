"""ChrFast: one stage, one level, a small mask network written for each chromosome. Ours.

For few training images, long thin objects that cross, and two CPU cores. Where it comes from:
filters generated for each instance (Z. Tian et al., "Conditional convolutions for instance
segmentation", ECCV 2020, arXiv:2003.05664); soft dynamic assignment and quality focal loss
(C. Lyu et al., "RTMDet", arXiv:2212.07784; Z. Ge et al., "OTA", arXiv:2103.14259; X. Li et al.,
arXiv:2006.04388); the loss of overlap (F. Milletari et al., arXiv:1606.04797).

What is made for chromosomes:

* A location may answer for a chromosome only if it lies ON it and on no other: where two cross,
  their boxes cover each other, but most of each one's length is its own.
* All chromosomes have 12 to 110 pixels, so one level at stride 4 serves them all.
* The mask is drawn on a grid over the chromosome's box, from features at stride 2: a small
  chromosome gets as fine an outline as a long one, and the cost does not grow with the image.
* Duplicates are told by their masks alone (:func:`chromozoo.structures.instance.suppress`): two that
  cross in their middles have one box.
* Where it names what it finds, it looks at each chromosome along the long axis of its mask: a strip
  of fine features, as if the chromosome stood upright. Whether there is a chromosome and which one
  are two questions, so it can learn names from other data than outlines.
"""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import box_iou, generalized_box_iou_loss

from chromozoo.classes import CLASSES
from chromozoo.losses.box_supervision import box_mask_loss
from chromozoo.models.init_from import initialise_from
from chromozoo.models.layers.two_stage import mask_instances
from chromozoo.models.registry import register_model
from chromozoo.structures.instance import Instance
from chromozoo.structures.segmentation import CATEGORIES
from chromozoo.tasks.optimisation import OptimizerName
from chromozoo.tasks.segmentation import ChromosomeSegmenter, Target

STRIDE = 4
# Channels of the mask features, and of the two hidden layers that each chromosome's filters make.
MASK_CHANNELS = 8
# Channels of the layers that make the mask features.
MASK_WIDTH = 32
# Offsets in the mask network are in units of this many pixels, about the length of chromosome 8.
OFFSET_UNIT = 50.0
FILTERS = (
    (MASK_CHANNELS + 2, MASK_CHANNELS),
    (MASK_CHANNELS, MASK_CHANNELS),
    (MASK_CHANNELS, 1),
)
FILTER_COUNT = sum(inputs * outputs + outputs for inputs, outputs in FILTERS)

# The grid of a mask reaches beyond the box by this share of its sides: the box may be off.
MARGIN = 0.15
BOX_JITTER = 0.1
TRAINING_GRID = 40
INFERENCE_GRID = 64
# Chosen on validation, where 0.5 drew masks a little too large.
MASK_LEVEL = 0.53
# Masks of this many locations are drawn in a training step; more cost memory and teach no more.
MAX_TRAINING_MASKS = 192

# What names a chromosome sees of it: so many places along its axis and across it, in these steps of
# pixels.
STRIP = (72, 12)
STRIP_STEP = 1.6
NAME_WIDTHS = (64, 96, 160)
NAME_DROPOUT = 0.2

# Each chromosome is found from several locations; masks tell which belong together.
MAX_CANDIDATES = 500

# Of the assignment: candidates whose IoU is summed for the number of locations of a chromosome,
# and the weights of position and box beside the score.
TOP_CANDIDATES = 10
POSITION_WEIGHT = 3.0
BOX_COST_WEIGHT = 3.0
BOX_LOSS_WEIGHT = 2.0


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class ChrFastNetwork(nn.Module):
    """``(B, 1, H, W)`` float to class scores, boxes and filters at every fourth pixel.

    Args:
        backbone: Any timm backbone with features at strides 2 to 32.
        channels: Of the pyramid.
        num_classes: 1, or 24 where it names what it finds.
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
        self.names = NameHead(MASK_WIDTH + 2, num_classes) if num_classes > 1 else None
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
        """The dense outputs.

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

    def draw(
        self, tower: Tensor, points: Tensor, features: Tensor, boxes: Tensor, side: int
    ) -> Tensor:
        """Mask logits ``(P, side, side)`` of P locations of one image, on grids over their boxes.

        Args:
            tower: ``(P, channels)``, of the locations.
            points: ``(P, 2)`` of the locations, pixels.
            features: Mask features ``(8, H/2, W/2)`` of the image.
            boxes: ``(P, 4)`` xyxy pixels.
            side: Cells of the grid along each side of the box.
        """
        filters = self.controller(tower).float()
        places = grid_points(boxes, side)
        size = features.new_tensor([features.shape[-1] * 2, features.shape[-2] * 2]).float()
        flat = (places / size * 2 - 1).view(1, 1, -1, 2)
        sampled = functional.grid_sample(
            features[None].float(), flat, padding_mode="border", align_corners=False
        )
        values = sampled.view(MASK_CHANNELS, len(boxes), -1).transpose(0, 1)
        offsets = ((places - points[:, None]) / OFFSET_UNIT).transpose(1, 2)
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
        """Losses of class, box and mask, see :class:`SegmentationNetwork`.

        From targets without masks they are learnt by their boxes
        (:mod:`chromozoo.losses.box_supervision`).
        """
        batch = pad_together(images)
        found = self(batch)
        points = locations(batch.shape[-2], batch.shape[-1], batch.device)
        score_loss, box_loss, weight_sum = [], [], []
        mask_loss: list[Tensor] = []
        names: list[Tensor] = []
        labels: list[Tensor] = []
        budget = max(MAX_TRAINING_MASKS // len(images), 1)
        for index, given in enumerate(targets):
            # Where boxes alone are known, a chromosome may be anywhere in its box.
            target = given if "masks" in given else given | {"masks": _filled(given, images[index])}
            scores, boxes = found["scores"][index], found["boxes"][index]
            place, owner, quality = assign(points, scores.detach(), boxes.detach(), target)
            wanted = torch.zeros_like(scores)
            wanted[place, 0] = quality
            score_loss.append(quality_focal_loss(scores, wanted).sum())
            weight_sum.append(quality.sum())
            true_boxes = target["boxes"][owner]
            box_loss.append((generalized_box_iou_loss(boxes[place], true_boxes) * quality).sum())
            if not len(place):
                continue
            some = torch.randperm(len(place), device=place.device)[:budget]
            grown = grow(_jittered(true_boxes[some]))
            logits = self.draw(
                found["tower"][index, place[some]],
                points[place[some]],
                found["mask_features"][index],
                grown,
                TRAINING_GRID,
            )
            mask_loss.append(
                _mask_loss(logits, grown, target["masks"], owner[some])
                if "masks" in given
                else _box_mask_loss(logits, grown, true_boxes[some], images[index])
            )
            if self.names is not None:
                strips = self._strips(found["fine"][index], batch[index], logits.detach(), grown)
                names.append(self.names(strips))
                labels.append(target["labels"][owner[some]] - 1)
        weights = torch.stack(weight_sum).sum().clamp_min(1.0)
        masks = torch.cat(mask_loss).mean() if mask_loss else found["mask_features"].sum() * 0
        losses = {
            "loss_score": torch.stack(score_loss).sum() / weights,
            "loss_box": BOX_LOSS_WEIGHT * torch.stack(box_loss).sum() / weights,
            "loss_mask": masks,
        }
        if names:
            losses["loss_name"] = functional.cross_entropy(torch.cat(names), torch.cat(labels))
        return losses

    def _strips(self, fine: Tensor, image: Tensor, logits: Tensor, boxes: Tensor) -> Tensor:
        """What P chromosomes look like along their axes: ``(P, 34, rows, columns)``.

        Fine features, grey values, and the chromosome's own mask: neighbours lie in the strip, too.

        Args:
            fine: Features ``(32, H/2, W/2)`` of the image.
            image: ``(1, H, W)``, normalised.
            logits: Of the masks, ``(P, S, S)`` on grids over ``boxes``.
            boxes: ``(P, 4)`` xyxy pixels.
        """
        places = strip_points(logits, boxes)
        flat = places / places.new_tensor([image.shape[-1], image.shape[-2]]) * 2 - 1
        sampled = [
            functional.grid_sample(
                values[None].float(),
                flat.flatten(1, 2)[None],
                padding_mode="border",
                align_corners=False,
            )[0]
            for values in (fine, image)
        ]
        seen = torch.cat(sampled).transpose(0, 1).reshape(len(boxes), -1, *STRIP)
        corner, sides = boxes[:, None, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None, None]
        drawn = logits.float().sigmoid()[:, None]
        masks = functional.grid_sample(
            drawn, (places - corner) / sides * 2 - 1, align_corners=False
        )
        return torch.cat([seen, masks], dim=1)

    # Use

    def detect(self, image: Tensor, min_score: float) -> list[Instance]:
        """See :class:`chromozoo.tasks.segmentation.SegmentationNetwork`."""
        batch = pad_together([image])
        found = self(batch)
        points = locations(batch.shape[-2], batch.shape[-1], batch.device)
        scores = found["scores"][0, :, 0].sigmoid()
        kept = scores.topk(min(MAX_CANDIDATES, len(scores))).indices
        kept = kept[scores[kept] >= min_score]
        if not len(kept):
            return []
        grown = grow(found["boxes"][0, kept])
        logits = self.draw(
            found["tower"][0, kept],
            points[kept],
            found["mask_features"][0],
            grown,
            INFERENCE_GRID,
        )
        pieces = mask_instances(
            logits.float().sigmoid().cpu().numpy(),
            grown.cpu().numpy(),
            scores[kept].cpu().numpy(),
            MASK_LEVEL,
        )
        # The mask's own box is the truer one: the other only said where to draw.
        pieces = [replace(piece, box=None) for piece in pieces]
        if self.names is None:
            return pieces
        strips = self._strips(found["fine"][0], batch[0], logits, grown).cpu().numpy()
        return [replace(piece, strip=own) for piece, own in zip(pieces, strips, strict=True)]

    def named(self, pieces: list[Instance]) -> list[Instance]:
        """Names what :meth:`detect` found, or what is left of it: one costs as much as finding ten.

        Args:
            pieces: With their strips.

        Returns:
            The same with names and labels, without strips.
        """
        if self.names is None or not pieces:
            return pieces
        seen = np.stack([piece.strip for piece in pieces if piece.strip is not None])
        strips = torch.from_numpy(seen).to(self.classify.weight.device)
        # Which end is up, and which side is left, nobody knows.
        turned = [strips.flip(axes) if axes else strips for axes in ((), (-1,), (-2,), (-2, -1))]
        found = torch.stack([self.names(strip).float().softmax(-1) for strip in turned]).mean(0)
        return [
            replace(piece, strip=None, class_probabilities=own, label=int(own.argmax()))
            for piece, own in zip(pieces, found.float().cpu().numpy(), strict=True)
        ]


class NameHead(nn.Module):
    """Names strips ``(P, inputs, rows, columns)``: logits ``(P, classes)``."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        layers = []
        for width, stride in zip(NAME_WIDTHS, ((2, 1), (2, 1), (2, 2)), strict=True):
            layers += [
                nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            inputs = width
        self.layers = nn.Sequential(*layers)
        # Where along the axis a band lies is what names a chromosome: the rows are kept.
        rows = STRIP[0] // 8
        self.dropout = nn.Dropout(NAME_DROPOUT)
        self.fc = nn.Linear(inputs * rows, num_classes)

    def forward(self, strips: Tensor) -> Tensor:
        x = self.layers(strips.to(self.fc.weight.dtype)).mean(dim=-1).flatten(1)
        logits: Tensor = self.fc(self.dropout(x))
        return logits


@torch.no_grad()
def strip_points(logits: Tensor, boxes: Tensor) -> Tensor:
    """Places ``(P, rows, columns, 2)`` (x, y) in pixels of strips along the long axes of P masks.

    Row by row they follow the axis, from either end: which one is up is not known.

    Args:
        logits: Of the masks, ``(P, S, S)``, on grids over the boxes.
        boxes: ``(P, 4)`` xyxy pixels.
    """
    # Autocast would give the spread in half precision, which no decomposition takes.
    with torch.autocast(boxes.device.type, enabled=False):
        inside = logits.float().sigmoid().flatten(1)
        places = grid_points(boxes.float(), logits.shape[-1])
        # A mask that covers nothing has the axis of its box.
        share = (inside + 1e-4) / (inside + 1e-4).sum(1, keepdim=True)
        middle = (places * share[..., None]).sum(1)
        off = places - middle[:, None]
        spread = torch.einsum("pn,pni,pnj->pij", share, off, off)
        along = torch.linalg.eigh(spread).eigenvectors[..., 1]
    across = torch.stack([-along[:, 1], along[:, 0]], dim=-1)
    rows, columns = (
        (torch.arange(count, device=boxes.device, dtype=torch.float32) - (count - 1) / 2)
        * STRIP_STEP
        for count in STRIP
    )
    lengthwise = rows[None, :, None, None] * along[:, None, None]
    crosswise = columns[None, None, :, None] * across[:, None, None]
    points: Tensor = middle[:, None, None] + lengthwise + crosswise
    return points


def _mask_loss(logits: Tensor, grown: Tensor, masks: Tensor, owner: Tensor) -> Tensor:
    """Dice loss and cross-entropy ``(P,)`` of masks ``(P, S, S)`` drawn over boxes ``(P, 4)``."""
    drawn_on = logits.shape[-1]
    logits = logits.flatten(1)
    height, width = masks.shape[-2:]
    places = grid_points(grown, drawn_on)
    flat = places / places.new_tensor([width, height]) * 2 - 1
    wanted = functional.grid_sample(
        masks[owner][:, None].float(),
        flat[:, None],
        padding_mode="zeros",
        align_corners=False,
    ).flatten(1)
    # Beyond the crop nothing is known of the mask.
    known = (flat.abs() <= 1).all(dim=-1).float()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    cross_entropy = (cross_entropy * known).sum(1) / known.sum(1).clamp_min(1)
    drawn = logits.sigmoid() * known
    common = (drawn * wanted).sum(1)
    dice = 1 - (2 * common + 1) / ((drawn**2).sum(1) + (wanted**2).sum(1) + 1)
    return dice + cross_entropy


def _box_mask_loss(logits: Tensor, grown: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    """Loss ``(P,)`` of masks ``(P, S, S)`` of which the true boxes ``(P, 4)`` alone are known."""
    places = grid_points(grown, logits.shape[-1])
    flat = places / places.new_tensor([image.shape[-1], image.shape[-2]]) * 2 - 1
    grey = functional.grid_sample(image[None].float(), flat[None], align_corners=False)[0, 0]
    inside = (places >= boxes[:, None, :2]) & (places < boxes[:, None, 2:])
    inside, known = inside.all(dim=-1), (flat.abs() <= 1).all(dim=-1)
    return box_mask_loss(
        logits, inside.view_as(logits), known.view_as(logits), grey.view_as(logits)
    )


def locations(height: int, width: int, device: torch.device) -> Tensor:
    """Points ``(L, 2)`` (x, y) in pixels: the middles of the cells of 4x4 pixels, row by row."""
    rows = (torch.arange(height // STRIDE, device=device, dtype=torch.float32) + 0.5) * STRIDE
    columns = (torch.arange(width // STRIDE, device=device, dtype=torch.float32) + 0.5) * STRIDE
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)


def grid_points(boxes: Tensor, side: int) -> Tensor:
    """Middles ``(P, side * side, 2)`` (x, y) of the cells that part each box ``(P, 4)`` evenly."""
    steps = (torch.arange(side, device=boxes.device, dtype=torch.float32) + 0.5) / side
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    shares = torch.stack([x.flatten(), y.flatten()], dim=-1)
    return boxes[:, None, :2] + shares * (boxes[:, None, 2:] - boxes[:, None, :2])


def _jittered(boxes: Tensor) -> Tensor:
    """Boxes ``(P, 4)`` off by a little, as those will be that the network finds."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + (torch.rand_like(boxes) - 0.5) * 2 * BOX_JITTER * sides


def _filled(target: Target, image: Tensor) -> Tensor:
    """The boxes of a target as masks ``(N, H, W)`` bool."""
    x = torch.arange(image.shape[-1], device=image.device) + 0.5
    y = torch.arange(image.shape[-2], device=image.device) + 0.5
    left, top, right, bottom = target["boxes"][:, :, None].unbind(dim=1)
    return ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None]


def grow(boxes: Tensor) -> Tensor:
    """Boxes ``(P, 4)`` with the margin on each side."""
    margin = (boxes[:, 2:] - boxes[:, :2]) * MARGIN
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)


def pad_together(images: list[Tensor]) -> Tensor:
    """Images ``(1, h, w)`` as one batch whose sides are multiples of 32.

    What is added is background: the darkest value of the image.
    """
    height = -(-max(image.shape[-2] for image in images) // 32) * 32
    width = -(-max(image.shape[-1] for image in images) // 32) * 32
    batch = torch.stack(
        [
            functional.pad(
                image,
                (0, width - image.shape[-1], 0, height - image.shape[-2]),
                value=float(image.min()),
            )
            for image in images
        ]
    )
    return batch.contiguous(memory_format=torch.channels_last)


def quality_focal_loss(scores: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy with the box's IoU as target, weighted by the squared error (arXiv:2006.04388).

    Args:
        scores: Logits of any shape.
        wanted: 0..1, the same shape.
    """
    weight = (wanted - scores.sigmoid()).abs() ** 2
    return weight * functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")


@torch.no_grad()
def assign(
    points: Tensor, scores: Tensor, boxes: Tensor, target: Target
) -> tuple[Tensor, Tensor, Tensor]:
    """Which locations answer for which chromosome, by what they say of it already.

    A location is a candidate for the chromosome that it lies on, unless it lies on several. It
    costs what it gets wrong in score and box, and its distance from the middle. Each chromosome
    takes as many of the cheapest as its ten best boxes overlap it together, at least one.

    Args:
        points: ``(L, 2)``.
        scores: Logits ``(L, 1)``.
        boxes: ``(L, 4)``.
        target: Of the image.

    Returns:
        For each of the chosen: location, chromosome and IoU of its box; ``(K,)`` each.
    """
    count = len(target["boxes"])
    device = points.device
    nothing = torch.zeros(0, dtype=torch.int64, device=device)
    if not count:
        return nothing, nothing, torch.zeros(0, device=device)
    masks = target["masks"]
    column = (points[:, 0].long()).clamp(max=masks.shape[-1] - 1)
    row = (points[:, 1].long()).clamp(max=masks.shape[-2] - 1)
    inside = masks[:, row, column] > 0
    # A crossing says nothing of which of the two is meant; one that has no other place keeps it.
    alone = inside & (inside.sum(0) == 1)
    inside = torch.where(alone.any(dim=1, keepdim=True), alone, inside)
    # Padding belongs to nobody.
    inside &= (points[:, 0] < masks.shape[-1]) & (points[:, 1] < masks.shape[-2])
    dense = masks.float()
    columns, rows = dense.sum(1), dense.sum(2)
    area = rows.sum(1).clamp_min(1)
    x = torch.arange(masks.shape[-1], device=device, dtype=torch.float32) + 0.5
    y = torch.arange(masks.shape[-2], device=device, dtype=torch.float32) + 0.5
    middle = torch.stack([(columns * x).sum(1) / area, (rows * y).sum(1) / area], dim=-1)
    far = torch.cdist(middle, points)
    # One so thin that no location lies on it takes the nearest.
    lost = ~inside.any(dim=1)
    inside[lost, far[lost].argmin(dim=1)] = True

    sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
    half = 0.5 * sides.norm(dim=1, keepdim=True).clamp_min(1)
    overlap = box_iou(target["boxes"], boxes)
    own = scores[:, 0].expand_as(overlap)
    score_cost = functional.binary_cross_entropy_with_logits(own, overlap, reduction="none")
    score_cost = score_cost * (overlap - own.sigmoid()) ** 2
    cost = (
        score_cost
        - BOX_COST_WEIGHT * overlap.clamp_min(1e-7).log()
        + POSITION_WEIGHT * (far / half) ** 2
    )
    cost[~inside] = torch.inf
    best = torch.where(inside, overlap, 0.0).topk(min(TOP_CANDIDATES, len(points)), dim=1).values
    takes = best.sum(1).round().clamp_min(1).long()
    takes = torch.minimum(takes, inside.sum(1))
    chosen = torch.zeros_like(inside)
    for index in range(count):
        chosen[index, cost[index].topk(int(takes[index]), largest=False).indices] = True
    # A location that two chromosomes chose, having no other, goes to the one that it fits better.
    owner = torch.where(chosen, cost, torch.inf).argmin(dim=0)
    place = chosen.any(dim=0).nonzero()[:, 0]
    owner = owner[place]
    return place, owner, overlap[owner, place].clamp(0, 1)


class ChrFast(ChromosomeSegmenter):
    """ChrFast with its training.

    Args:
        backbone: Any timm backbone with features at strides 2 to 32.
        channels: Of the pyramid.
        num_classes: 1, or 24 where it names what it finds.
        init_from: A checkpoint (``.ckpt``) of this model or ``"chromozoo/chr_fast"``, to tune
            further, with or without names; None starts from random numbers.
        preset, optimizer, lr, weight_decay, min_score, nms_iou_threshold: See
            :class:`ChromosomeSegmenter`.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        channels: int = 96,
        num_classes: int = 1,
        init_from: str | None = None,
        preset: dict[str, Any] | None = None,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        min_score: float = 0.05,
        nms_iou_threshold: float = 0.7,
    ) -> None:
        self.save_hyperparameters(ignore=["init_from"])
        super().__init__(
            ChrFastNetwork(backbone, channels, num_classes),
            preset=preset,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            min_score=min_score,
            nms_iou_threshold=nms_iou_threshold,
        )
        self.num_classes = num_classes
        if init_from is not None:
            initialise_from(self.network, init_from)

    def detect(self, image: Tensor) -> list[Instance]:
        """See :class:`ChromosomeSegmenter`; with names, where the network has them."""
        network = cast("ChrFastNetwork", self.network)
        return network.named(super().detect(image))

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
