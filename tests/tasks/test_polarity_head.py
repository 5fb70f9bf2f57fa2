"""Classifiers that also tell which end is the p arm, learnt from upright images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from chromozoo.metrics.classification import evaluate_classification
from chromozoo.models.classifiers.timm_backbone import TimmBackbone
from chromozoo.models.classifiers.vanilla_cnn import VanillaCNN
from chromozoo.tasks.classification import mirrored

PRESET = {"height": 48, "width": 32}


@pytest.fixture
def model() -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone("test_resnet", preset=PRESET, polarity=True)


def batch(upright: bool) -> dict[str, Tensor]:
    """Bars, bright at the upper end."""
    image = torch.full((8, 1, 48, 32), -0.5)
    image[:, :, 8:40, 12:20] = 1.0
    image[:, :, 8:20, 12:20] = 3.0
    label = torch.zeros(8, dtype=torch.int64)
    return {"image": image, "label": label, "upright": torch.full((8,), upright)}


def test_mirrors_follow_one_another() -> None:
    images = torch.arange(5 * 4.0).view(5, 1, 2, 2)
    turned = mirrored(images)
    for row, axes in enumerate(((), (-2,), (-1,), (-2, -1), ())):
        assert torch.equal(turned[row], images[row].flip(axes))


def test_it_learns_which_end_is_up(model: TimmBackbone) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(batch(upright=True)).backward()
        optimizer.step()
    model.eval()
    images = batch(upright=True)["image"]
    with torch.inference_mode():
        probabilities, up = model.predict_with_polarity(images)
        turned_probabilities, turned_up = model.predict_with_polarity(images.flip(-2))
    assert up is not None and turned_up is not None
    assert (up[:, 0] > 0.9).all()
    # Upside down the same is said of the other end, and of the class.
    torch.testing.assert_close(turned_up, 1 - up, atol=1e-4, rtol=0)
    torch.testing.assert_close(turned_probabilities, probabilities, atol=1e-4, rtol=0)


def test_images_of_unknown_polarity_teach_none(model: TimmBackbone) -> None:
    model.loss(batch(upright=False)).backward()
    head: Any = model.network.polarity
    assert not head.weight.grad.any()
    other: Any = model.network
    assert other.fc.weight.grad.any()


def test_classify_says_it_of_every_class(model: TimmBackbone) -> None:
    image = np.zeros((60, 40), np.uint8)
    image[10:50, 14:26] = 200
    (named,) = model.classify(image)
    assert named.p_arm_up is not None and named.p_arm_up.shape == (24,)
    assert ((named.p_arm_up > 0) & (named.p_arm_up < 1)).all()
    (without,) = VanillaCNN().classify(image)
    assert without.p_arm_up is None


def test_weights_without_polarity_may_begin_it(tmp_path: Path) -> None:
    from chromozoo.models.init_from import initialise_from

    plain = TimmBackbone("test_resnet", preset=PRESET)
    path = tmp_path / "plain.ckpt"
    torch.save(
        {
            "state_dict": plain.state_dict(),
            "hyper_parameters": dict(plain.hparams),
            "pytorch-lightning_version": "2.6.0",
        },
        path,
    )
    told = TimmBackbone("test_resnet", preset=PRESET, polarity=True)
    initialise_from(told.network, str(path))
    wanted, got = plain.network.state_dict(), told.network.state_dict()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    assert got.keys() - wanted.keys() == {"polarity.weight", "polarity.bias"}
    # And the other way round: weights that tell polarity may go on without it.
    torch.save(
        {
            "state_dict": told.state_dict(),
            "hyper_parameters": dict(told.hparams),
            "pytorch-lightning_version": "2.6.0",
        },
        path,
    )
    without = TimmBackbone("test_resnet", preset=PRESET)
    initialise_from(without.network, str(path))
    assert all(torch.equal(without.network.state_dict()[name], wanted[name]) for name in wanted)


def test_polarity_is_judged_by_the_class_that_is_named() -> None:
    probabilities = np.eye(24)[[0, 1, 2, 2]]
    up = np.full((4, 24), 0.9)
    up[1, 1] = up[3, 3] = 0.2  # the last is named 2, so what is said of 3 does not count
    report = evaluate_classification(
        probabilities, [0, 1, 2, 3], ["a", "a", "b", "b"], n_bootstrap=5, prob_p_arm_up=up
    )
    assert report.metrics["polarity_accuracy"].value == 0.75
    report = evaluate_classification(probabilities, [0, 1, 2, 3], ["a", "a", "b", "b"])
    assert "polarity_accuracy" not in report.metrics
