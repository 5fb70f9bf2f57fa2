"""The small classifier: its size, its shapes, and that all of it learns."""

import pytest
import torch

from chromozoo.models.classifiers.chromozoo_small import ChromozooSmall, chromozoo_small

CANVAS = {"height": 48, "width": 40}


def test_it_is_small() -> None:
    count = sum(parameter.numel() for parameter in chromozoo_small().network.parameters())
    assert count == 3_996_438
    assert count < 6_000_000


@pytest.mark.parametrize("size", [(112, 48), (48, 40), (32, 32)])
def test_output_shape(size: tuple[int, int]) -> None:
    network = chromozoo_small(preset=CANVAS).network.eval()
    with torch.inference_mode():
        logits = network(torch.rand(2, 1, *size))
        colour = network(torch.rand(2, 1, *size).expand(2, 3, *size))
    assert logits.shape == colour.shape == (2, 24)
    assert logits.isfinite().all()


def test_too_small_a_canvas_is_refused() -> None:
    with pytest.raises(ValueError, match="16x16"):
        chromozoo_small(preset={"height": 16, "width": 16})


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = ChromozooSmall(preset=CANVAS, polarity=True, contrastive=0.1).train()
    batch = {
        "image": torch.randn(8, 1, 48, 40),
        "label": torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]),
        "upright": torch.tensor([True, False] * 4),
    }
    model.loss(batch).backward()
    lost = [
        name
        for name, parameter in model.network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not lost
