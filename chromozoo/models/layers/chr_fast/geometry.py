"""Locations, grids and boxes of ChrFast, in pixels of the image."""

import torch
from torch import Tensor
from torch.nn import functional

# Pixels between two locations, in both directions.
STRIDE = 4
# The grid of a mask reaches beyond the box by this share of its sides: the box may be off.
MARGIN = 0.15
BOX_JITTER = 0.1


def locations(height: int, width: int, device: torch.device) -> Tensor:
    """Return the centres ``(L, 2)`` (x, y) of the cells of 4x4 pixels, row by row."""
    rows = (torch.arange(height // STRIDE, device=device, dtype=torch.float32) + 0.5) * STRIDE
    columns = (torch.arange(width // STRIDE, device=device, dtype=torch.float32) + 0.5) * STRIDE
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)


def grid_points(boxes: Tensor, side: int) -> Tensor:
    """Return the cell centres ``(P, side * side, 2)`` (x, y) of a grid over each box ``(P, 4)``."""
    steps = (torch.arange(side, device=boxes.device, dtype=torch.float32) + 0.5) / side
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    shares = torch.stack([x.flatten(), y.flatten()], dim=-1)
    return boxes[:, None, :2] + shares * (boxes[:, None, 2:] - boxes[:, None, :2])


def jitter(boxes: Tensor) -> Tensor:
    """Return boxes ``(P, 4)`` with random errors like those of predicted boxes."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + (torch.rand_like(boxes) - 0.5) * 2 * BOX_JITTER * sides


def grow(boxes: Tensor) -> Tensor:
    """Return boxes ``(P, 4)`` with the margin added on each side."""
    margin = (boxes[:, 2:] - boxes[:, :2]) * MARGIN
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)


def pad_together(images: list[Tensor]) -> Tensor:
    """Return images ``(1, h, w)`` as one batch whose sides are multiples of 32.

    The padding has the darkest value of the image, the background.
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


def fill_boxes(boxes: Tensor, image: Tensor) -> Tensor:
    """Return boxes ``(N, 4)`` as masks ``(N, H, W)`` bool."""
    x = torch.arange(image.shape[-1], device=image.device) + 0.5
    y = torch.arange(image.shape[-2], device=image.device) + 0.5
    left, top, right, bottom = boxes[:, :, None].unbind(dim=1)
    return ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None]
