"""Assignment of locations to chromosomes in the training of ChrFast.

Soft dynamic assignment as in OTA (Z. Ge et al., arXiv:2103.14259) and RTMDet (C. Lyu et al.,
arXiv:2212.07784), restricted to locations on one chromosome alone.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou

from chromozoo.tasks.networks import Target

# Candidates whose IoU is summed for the number of locations of a chromosome, and the weights of
# position and box relative to the score.
TOP_CANDIDATES = 10
POSITION_WEIGHT = 3.0
BOX_COST_WEIGHT = 3.0


@torch.no_grad()
def assign(
    points: Tensor, scores: Tensor, boxes: Tensor, target: Target
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the locations that learn to predict each chromosome.

    A location is a candidate for the chromosome that it lies on, unless it lies on several. Its
    cost is the error of its score and box, and its distance from the centre of the chromosome.
    Each chromosome takes its cheapest candidates; their number is the sum of the IoU of its ten
    best boxes, at least one.

    Args:
        points: ``(L, 2)`` of the locations, pixels.
        scores: Logits ``(L, 1)``.
        boxes: ``(L, 4)`` xyxy pixels.
        target: The chromosomes of the image, with masks.

    Returns:
        Indices of the chosen locations, the chromosome of each and the IoU of its box; ``(K,)``
        each.
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
    # A crossing belongs to both chromosomes; only one without another location keeps it.
    alone = inside & (inside.sum(0) == 1)
    inside = torch.where(alone.any(dim=1, keepdim=True), alone, inside)
    # Padding belongs to no chromosome.
    inside &= (points[:, 0] < masks.shape[-1]) & (points[:, 1] < masks.shape[-2])
    dense = masks.float()
    columns, rows = dense.sum(1), dense.sum(2)
    area = rows.sum(1).clamp_min(1)
    x = torch.arange(masks.shape[-1], device=device, dtype=torch.float32) + 0.5
    y = torch.arange(masks.shape[-2], device=device, dtype=torch.float32) + 0.5
    centre = torch.stack([(columns * x).sum(1) / area, (rows * y).sum(1) / area], dim=-1)
    distance = torch.cdist(centre, points)
    # A chromosome too thin to hold a location takes the nearest.
    lost = ~inside.any(dim=1)
    inside[lost, distance[lost].argmin(dim=1)] = True

    sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
    half = 0.5 * sides.norm(dim=1, keepdim=True).clamp_min(1)
    overlap = box_iou(target["boxes"], boxes)
    own = scores[:, 0].expand_as(overlap)
    score_cost = functional.binary_cross_entropy_with_logits(own, overlap, reduction="none")
    score_cost = score_cost * (overlap - own.sigmoid()) ** 2
    cost = (
        score_cost
        - BOX_COST_WEIGHT * overlap.clamp_min(1e-7).log()
        + POSITION_WEIGHT * (distance / half) ** 2
    )
    cost[~inside] = torch.inf
    best = torch.where(inside, overlap, 0.0).topk(min(TOP_CANDIDATES, len(points)), dim=1).values
    number = best.sum(1).round().clamp_min(1).long()
    number = torch.minimum(number, inside.sum(1))
    chosen = torch.zeros_like(inside)
    for index in range(count):
        chosen[index, cost[index].topk(int(number[index]), largest=False).indices] = True
    # A location chosen by two chromosomes goes to the one with the lower cost.
    owner = torch.where(chosen, cost, torch.inf).argmin(dim=0)
    place = chosen.any(dim=0).nonzero()[:, 0]
    owner = owner[place]
    return place, owner, overlap[owner, place].clamp(0, 1)
