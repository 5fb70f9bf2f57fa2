"""Box supervision of masks."""

import torch
from torch import nn

from chromozoo.losses.box_supervision import box_mask_loss
from chromozoo.models.registry import get_model

SIDE = 24


def scene() -> tuple[torch.Tensor, ...]:
    """Return a bright L in a box: inside, valid, grey, and the mask of the L."""
    shape = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    shape[:, 4:20, 4:9] = True
    shape[:, 15:20, 4:18] = True
    inside = torch.zeros_like(shape)
    inside[:, 4:20, 4:18] = True
    generator = torch.Generator().manual_seed(0)
    grey = shape.float() * 4 + 0.1 * torch.randn(shape.shape, generator=generator)
    return inside, torch.ones_like(shape), grey, shape


def test_a_mask_is_learnt_from_its_box_and_the_grey_values() -> None:
    inside, valid, grey, shape = scene()
    torch.manual_seed(0)
    # Instead of a network: logits as a linear function of the grey value.
    weight = nn.Parameter(torch.tensor([0.1, 0.0]))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    for _ in range(100):
        loss = box_mask_loss(weight[0] * grey + weight[1], inside, valid, grey).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mask = (weight[0] * grey + weight[1] > 0) & inside
    assert (mask & shape).sum() / (mask | shape).sum() > 0.9


def test_the_right_mask_has_the_smallest_loss() -> None:
    inside, valid, grey, shape = scene()

    def cost(mask: torch.Tensor) -> float:
        return float(box_mask_loss(mask.float() * 20 - 10, inside, valid, grey))

    right = cost(shape)
    assert right < 0.05
    assert cost(torch.zeros_like(shape)) > right + 1  # does not fill the box
    assert cost(torch.ones_like(shape)) > right + 0.2  # exceeds the box
    cut = shape.clone()
    cut[:, 10:12] = False
    assert cost(cut) > right + 0.005  # separates similar neighbours
    nothing_valid = torch.zeros_like(valid)
    assert float(box_mask_loss(torch.zeros(1, SIDE, SIDE), inside, nothing_valid, grey)) == 0


def test_a_segmenter_trains_on_boxes_alone() -> None:
    torch.manual_seed(0)
    model = get_model("chr_fast", weights=None, num_classes=24).train()
    image = torch.randn(1, 96, 96)
    target = {
        "boxes": torch.tensor([[8.0, 10, 40, 60], [30, 40, 90, 70]]),
        "labels": torch.tensor([3, 24]),
    }
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = model.network.losses([image, image], [target, empty])
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    assert model.network.controller.weight.grad.abs().sum() > 0
