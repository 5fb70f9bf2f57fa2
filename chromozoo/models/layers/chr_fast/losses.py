"""Training losses of ChrFast.

Quality focal loss (X. Li et al., arXiv:2006.04388), and the dice loss (F. Milletari et al.,
arXiv:1606.04797) with cross-entropy on grids over the boxes.
"""

from torch import Tensor
from torch.nn import functional

from chromozoo.losses.box_supervision import box_mask_loss
from chromozoo.models.layers.chr_fast.geometry import grid_points


def quality_focal_loss(scores: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy with the box's IoU as target, weighted by the squared error.

    Args:
        scores: Logits of any shape.
        target: 0..1, the same shape.
    """
    weight = (target - scores.sigmoid()).abs() ** 2
    return weight * functional.binary_cross_entropy_with_logits(scores, target, reduction="none")


def grid_mask_loss(logits: Tensor, boxes: Tensor, masks: Tensor, owner: Tensor) -> Tensor:
    """Return the dice loss and cross-entropy ``(P,)`` of masks on grids over boxes.

    Args:
        logits: Predicted masks ``(P, S, S)``.
        boxes: ``(P, 4)`` xyxy pixels, over which the grids lie.
        masks: True masks ``(N, H, W)``.
        owner: ``(P,)`` index of the true mask of each.
    """
    side = logits.shape[-1]
    logits = logits.flatten(1)
    height, width = masks.shape[-2:]
    places = grid_points(boxes, side)
    flat = places / places.new_tensor([width, height]) * 2 - 1
    target = functional.grid_sample(
        masks[owner][:, None].float(),
        flat[:, None],
        padding_mode="zeros",
        align_corners=False,
    ).flatten(1)
    # The mask is unknown beyond the crop.
    known = (flat.abs() <= 1).all(dim=-1).float()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    cross_entropy = (cross_entropy * known).sum(1) / known.sum(1).clamp_min(1)
    probability = logits.sigmoid() * known
    common = (probability * target).sum(1)
    dice = 1 - (2 * common + 1) / ((probability**2).sum(1) + (target**2).sum(1) + 1)
    return dice + cross_entropy


def box_supervised_loss(logits: Tensor, grid_boxes: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    """Return the loss ``(P,)`` of masks whose true boxes alone are known.

    Args:
        logits: Predicted masks ``(P, S, S)``.
        grid_boxes: ``(P, 4)`` xyxy pixels, over which the grids lie.
        boxes: True boxes ``(P, 4)``.
        image: ``(1, H, W)`` normalised.
    """
    places = grid_points(grid_boxes, logits.shape[-1])
    flat = places / places.new_tensor([image.shape[-1], image.shape[-2]]) * 2 - 1
    grey = functional.grid_sample(image[None].float(), flat[None], align_corners=False)[0, 0]
    inside = (places >= boxes[:, None, :2]) & (places < boxes[:, None, 2:])
    inside, known = inside.all(dim=-1), (flat.abs() <= 1).all(dim=-1)
    return box_mask_loss(
        logits, inside.view_as(logits), known.view_as(logits), grey.view_as(logits)
    )
