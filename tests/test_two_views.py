"""Two views of a chromosome for a network that sees one at a time."""

from typing import Any

import pytest
import torch
from torch import Tensor

from chromozoo.classifiers.chromozoo_large import ChromozooLarge
from chromozoo.classifiers.karyoset import Karyoset
from chromozoo.classifiers.timm_backbone import TimmBackbone
from chromozoo.tasks.classification import P_ARM_UP

PRESET: dict[str, Any] = {"height": 48, "width": 32, "views": ["straight", "upright"]}


@pytest.fixture
def model() -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone("resnet10t", preset=PRESET, polarity=True).eval()


@pytest.fixture
def views() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(6, 2, 48, 32)


def test_each_view_is_seen_in_both_directions(model: TimmBackbone, views: Tensor) -> None:
    straight, upright = views[:, :1], views[:, 1:]
    expected = [straight, upright.flip(-2), upright.flip(-1), straight.flip((-2, -1))]
    for look, image in zip(model.looks(views), expected, strict=True):
        torch.testing.assert_close(look, image)
    model.flip_average = False
    (look,) = model.looks(views)
    torch.testing.assert_close(look, straight)


def test_prediction_averages_over_the_looks(model: TimmBackbone, views: Tensor) -> None:
    with torch.inference_mode():
        probabilities, up = model.predict_arms(views)
        passes = [model.one_pass(look) for look in model.looks(views)]
        one, one_up = model.predict_arms(views[:1])
    expected = torch.stack([logits.softmax(dim=1) for logits, _ in passes]).mean(dim=0)
    torch.testing.assert_close(probabilities, expected)
    arms = torch.stack(
        [sign * arm for sign, (_, arm) in zip(P_ARM_UP, passes, strict=True) if arm is not None]
    )
    assert up is not None and one_up is not None
    torch.testing.assert_close(up, arms.mean(dim=0).sigmoid())
    torch.testing.assert_close(one, probabilities[:1], atol=1e-5, rtol=0)
    torch.testing.assert_close(one_up, up[:1], atol=1e-5, rtol=0)


def test_called_it_sees_the_first_view(model: TimmBackbone, views: Tensor) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(model(views), model.network(views[:, :1]))


def test_training_shows_one_of_them_by_chance(model: TimmBackbone) -> None:
    views = torch.stack([torch.zeros(200, 48, 32), torch.ones(200, 48, 32)], dim=1)
    torch.manual_seed(0)
    chosen = model.one_view(views)
    assert chosen.shape == (200, 1, 48, 32)
    shown = chosen.mean(dim=(1, 2, 3))
    assert ((shown == 0) | (shown == 1)).all()
    assert 60 < shown.sum() < 140
    batch = {"image": views[:8], "label": torch.arange(8), "upright": torch.ones(8).bool()}
    model.train().loss(batch).backward()
    assert model.network.fc.weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_those_that_join_views_see_both(views: Tensor) -> None:
    model = ChromozooLarge(preset=PRESET).eval()
    assert model.one_view(views) is views
    torch.testing.assert_close(model.looks(views)[1], views.flip(-2))


def test_a_set_sees_what_its_backbone_sees(views: Tensor) -> None:
    small: dict[str, Any] = {"preset": PRESET, "width": 16, "layers": 1, "heads": 2}
    joined = Karyoset(backbone="chromozoo_large", **small).eval()
    chosen = Karyoset(backbone="chromozoo_small", **small).eval()
    for model, channels in ((joined, 2), (chosen, 1)):
        assert model.looks(views)[1].shape == (6, channels, 48, 32)
        with torch.inference_mode():
            probabilities = model.predict_probabilities(views)
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(6))


def test_more_than_two_views_are_refused() -> None:
    with pytest.raises(ValueError, match="one or two views"):
        TimmBackbone("resnet10t", preset={"views": ["upright", "straight", "crop"]})
