"""Masks learnt from boxes alone (Z. Tian et al., "BoxInst", CVPR 2021, arXiv:2012.02310).

Two things are known of a mask whose box is given: seen from the side and from above it fills the
box, and neighbouring pixels of like grey belong together, inside or outside. Ours: that nothing of
it lies outside is said of every pixel there, and not by the projections alone, which are content
with a mask that fills everything until its rows and columns are all but right.
"""

import torch
from torch import Tensor
from torch.nn import functional

# Neighbours are alike if their normalised grey values differ by less than this: background from
# chromosome differs by 2 or more, noise by a few tenths.
ALIKE = 0.6
# Neighbours on the grid: to the right, below, and on the two diagonals.
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


def box_mask_loss(logits: Tensor, inside: Tensor, known: Tensor, grey: Tensor) -> Tensor:
    """What masks get wrong of their boxes, ``(P,)``.

    Args:
        logits: Of the masks of P chromosomes, each on a grid over its box: ``(P, S, S)``.
        inside: Cells that lie in the true box, ``(P, S, S)`` bool.
        known: Cells that lie in the image, ``(P, S, S)`` bool.
        grey: Normalised grey value of the image in each cell, ``(P, S, S)``.
    """
    drawn = logits.sigmoid() * known
    box = (inside & known).float()
    projections = sum(_dice(drawn.amax(axis), box.amax(axis)) for axis in (1, 2))
    outside = known & ~inside
    beyond = (functional.softplus(logits) * outside).flatten(1).sum(1)
    beyond = beyond / outside.flatten(1).sum(1).clamp_min(1)
    return projections + beyond + _pairwise(logits, inside, known, grey)


def _dice(found: Tensor, wanted: Tensor) -> Tensor:
    common = (found * wanted).sum(1)
    return 1 - (2 * common + 1) / ((found**2).sum(1) + (wanted**2).sum(1) + 1)


def _pairwise(logits: Tensor, inside: Tensor, known: Tensor, grey: Tensor) -> Tensor:
    """Mean of -log P(both in or both out) over the pairs of like neighbours that touch the box."""
    total, count = logits.new_zeros(len(logits)), logits.new_zeros(len(logits))
    for down, right in STEPS:
        here, there = _pair(logits, down, right)
        together = torch.logaddexp(
            functional.logsigmoid(here) + functional.logsigmoid(there),
            functional.logsigmoid(-here) + functional.logsigmoid(-there),
        )
        counts = torch.stack(_pair(known, down, right)).all(0)
        counts &= torch.stack(_pair(inside, down, right)).any(0)
        one, other = _pair(grey, down, right)
        counts &= (one - other).abs() < ALIKE
        total = total - (together * counts).flatten(1).sum(1)
        count = count + counts.flatten(1).sum(1)
    return total / count.clamp_min(1)


def _pair(values: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """Each cell and its neighbour so many cells below and to the right."""
    side = values.shape[-1]
    first, stop = max(-right, 0), side - max(right, 0)
    return values[:, : side - down, first:stop], values[:, down:, first + right : stop + right]
