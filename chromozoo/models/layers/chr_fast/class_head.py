"""The class head of ChrFast: strips along the chromosomes, and their classification."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from chromozoo.models.layers.chr_fast.geometry import grid_points

# Strip sampled along the axis of a chromosome: (length, width) samples, STRIP_STEP pixels apart.
STRIP = (72, 12)
STRIP_STEP = 1.6
CLASS_HEAD_WIDTHS = (64, 96, 160)
CLASS_HEAD_DROPOUT = 0.2


class ClassHead(nn.Module):
    """Class logits ``(P, classes)`` of strips ``(P, inputs, rows, columns)``."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        layers = []
        for width, stride in zip(CLASS_HEAD_WIDTHS, ((2, 1), (2, 1), (2, 2)), strict=True):
            layers += [
                nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            inputs = width
        self.layers = nn.Sequential(*layers)
        # The position of a band along the axis tells the class, so the rows are kept.
        rows = STRIP[0] // 8
        self.dropout = nn.Dropout(CLASS_HEAD_DROPOUT)
        self.fc = nn.Linear(inputs * rows, num_classes)

    def forward(self, strips: Tensor) -> Tensor:
        x = self.layers(strips.to(self.fc.weight.dtype)).mean(dim=-1).flatten(1)
        logits: Tensor = self.fc(self.dropout(x))
        return logits


@torch.no_grad()
def strip_points(logits: Tensor, boxes: Tensor) -> Tensor:
    """Return the points ``(P, rows, columns, 2)`` (x, y) of strips along the long axes of P masks.

    The rows follow the axis from one of its ends; the polarity is not known.

    Args:
        logits: Masks ``(P, S, S)`` on grids over the boxes.
        boxes: ``(P, 4)`` xyxy pixels.
    """
    # Under autocast the covariance would be of half precision, which `eigh` does not accept.
    with torch.autocast(boxes.device.type, enabled=False):
        inside = logits.float().sigmoid().flatten(1)
        grid = grid_points(boxes.float(), logits.shape[-1])
        # An empty mask has the axis of its box.
        share = (inside + 1e-4) / (inside + 1e-4).sum(1, keepdim=True)
        centre = (grid * share[..., None]).sum(1)
        offset = grid - centre[:, None]
        covariance = torch.einsum("pn,pni,pnj->pij", share, offset, offset)
        along = torch.linalg.eigh(covariance).eigenvectors[..., 1]
    across = torch.stack([-along[:, 1], along[:, 0]], dim=-1)
    rows, columns = (
        (torch.arange(count, device=boxes.device, dtype=torch.float32) - (count - 1) / 2)
        * STRIP_STEP
        for count in STRIP
    )
    lengthwise = rows[None, :, None, None] * along[:, None, None]
    crosswise = columns[None, None, :, None] * across[:, None, None]
    points: Tensor = centre[:, None, None] + lengthwise + crosswise
    return points


def sample_strips(fine: Tensor, image: Tensor, logits: Tensor, boxes: Tensor) -> Tensor:
    """Return the strips ``(P, 34, rows, columns)`` along the axes of P chromosomes.

    Their channels are fine features, grey values, and the chromosome's own mask, because neighbours
    lie in the strip, too.

    Args:
        fine: Features ``(32, H/2, W/2)`` of the image.
        image: ``(1, H, W)``, normalised.
        logits: Masks ``(P, S, S)`` on grids over ``boxes``.
        boxes: ``(P, 4)`` xyxy pixels.
    """
    points = strip_points(logits, boxes)
    flat = points / points.new_tensor([image.shape[-1], image.shape[-2]]) * 2 - 1
    sampled = [
        functional.grid_sample(
            values[None].float(),
            flat.flatten(1, 2)[None],
            padding_mode="border",
            align_corners=False,
        )[0]
        for values in (fine, image)
    ]
    along_axis = torch.cat(sampled).transpose(0, 1).reshape(len(boxes), -1, *STRIP)
    corner, sides = boxes[:, None, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None, None]
    probability = logits.float().sigmoid()[:, None]
    masks = functional.grid_sample(
        probability, (points - corner) / sides * 2 - 1, align_corners=False
    )
    return torch.cat([along_axis, masks], dim=1)
