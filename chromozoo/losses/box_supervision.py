"""Mask loss for box supervision (Z. Tian et al., "BoxInst", CVPR 2021, arXiv:2012.02310).

A box constrains its mask in two ways: the projections of the mask on both axes fill the box, and
neighbouring pixels of similar grey value are either both inside or both outside. Ours: every pixel
outside the box is penalised. The projections alone accept a mask that fills everything until its
rows and columns are nearly right.
"""

import torch
from torch import Tensor
from torch.nn import functional

# Neighbours are similar if their normalised grey values differ by less than this: background and
# chromosome differ by 2 or more, noise by a few tenths.
MAX_GREY_DIFFERENCE = 0.6
# Offsets (down, right) of the neighbours: right, below, and the two diagonals.
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def box_mask_loss(logits: Tensor, inside: Tensor, valid: Tensor, grey: Tensor) -> Tensor:
    """Return the mask loss of P chromosomes with known boxes.

    Args:
        logits: ``(P, S, S)`` mask logits on a grid over each box.
        inside: ``(P, S, S)`` bool, grid cells inside the true box.
        valid: ``(P, S, S)`` bool, grid cells inside the image.
        grey: ``(P, S, S)`` normalised grey values.

    Returns:
        ``(P,)``, 0 or more.
    """
    mask = logits.sigmoid() * valid
    box = (inside & valid).float()
    projection_loss = sum(_dice_loss(mask.amax(axis), box.amax(axis)) for axis in (1, 2))
    outside = valid & ~inside
    outside_loss = (functional.softplus(logits) * outside).flatten(1).sum(1)
    outside_loss = outside_loss / outside.flatten(1).sum(1).clamp_min(1)
    return projection_loss + outside_loss + _pairwise_loss(logits, inside, valid, grey)


def _dice_loss(predicted: Tensor, target: Tensor) -> Tensor:
    overlap = (predicted * target).sum(1)
    return 1 - (2 * overlap + 1) / ((predicted**2).sum(1) + (target**2).sum(1) + 1)


def _pairwise_loss(logits: Tensor, inside: Tensor, valid: Tensor, grey: Tensor) -> Tensor:
    """Return the mean of -log P(both inside or both outside) over similar neighbours.

    Pairs count if at least one of the two lies in the box.
    """
    total, count = logits.new_zeros(len(logits)), logits.new_zeros(len(logits))
    for down, right in NEIGHBOURS:
        first, second = _neighbour_pairs(logits, down, right)
        log_same = torch.logaddexp(
            functional.logsigmoid(first) + functional.logsigmoid(second),
            functional.logsigmoid(-first) + functional.logsigmoid(-second),
        )
        counts = torch.stack(_neighbour_pairs(valid, down, right)).all(0)
        counts &= torch.stack(_neighbour_pairs(inside, down, right)).any(0)
        first_grey, second_grey = _neighbour_pairs(grey, down, right)
        counts &= (first_grey - second_grey).abs() < MAX_GREY_DIFFERENCE
        total = total - (log_same * counts).flatten(1).sum(1)
        count = count + counts.flatten(1).sum(1)
    return total / count.clamp_min(1)


def _neighbour_pairs(values: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """Return each grid cell, and its neighbour at the offset ``(down, right)``."""
    side = values.shape[-1]
    start, stop = max(-right, 0), side - max(right, 0)
    return values[:, : side - down, start:stop], values[:, down:, start + right : stop + right]
