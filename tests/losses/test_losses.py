"""Centre loss and supervised contrastive loss against values computed by hand."""

import math

import pytest
import torch

from chromozoo.losses.embedding import CentreLoss, SupervisedContrastiveLoss
from chromozoo.models.classifiers.timm_backbone import TimmBackbone

FEATURES = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])
LABELS = torch.tensor([0, 0, 2])


def test_wen_by_hand() -> None:
    # Centres at 0: squared distances 25, 1, 4; mean 10; half of it; weight 0.003.
    assert CentreLoss(3, 2).eval()(FEATURES, LABELS) == pytest.approx(0.003 * 10 / 2)


def test_paper_literal_is_far_larger() -> None:
    literal = CentreLoss(3, 2, "paper-literal").eval()(FEATURES, LABELS)
    assert literal == pytest.approx(0.5 * 30)
    assert literal > 100 * CentreLoss(3, 2).eval()(FEATURES, LABELS)


@pytest.mark.parametrize("preset", ["wen", "paper-literal"])
def test_centres_follow_the_rule_of_wen(preset: str) -> None:
    """c_j -= 0.5 * sum(c_j - x_i) / (1 + n_j), the sum over the n_j samples of class j."""
    loss = CentreLoss(3, 2, preset).train()  # type: ignore[arg-type]
    loss(FEATURES, LABELS)
    # Class 0: sum of offsets (-4, -4), n = 2; class 2: (0, -2), n = 1; class 1 is absent.
    expected = torch.tensor([[4 / 6, 4 / 6], [0.0, 0.0], [0.0, 0.5]])
    torch.testing.assert_close(loss.centres, expected)
    loss(FEATURES[:1], LABELS[:1])
    torch.testing.assert_close(loss.centres[0], expected[0] + 0.5 * (FEATURES[0] - expected[0]) / 2)
    torch.testing.assert_close(loss.centres[1:], expected[1:])


def test_the_loss_is_taken_from_the_centres_before_they_move() -> None:
    moving, still = CentreLoss(3, 2).train(), CentreLoss(3, 2).eval()
    assert moving(FEATURES, LABELS) == still(FEATURES, LABELS)


def test_the_gradient_pulls_to_the_centre() -> None:
    features = FEATURES.clone().requires_grad_()
    CentreLoss(3, 2).train()(features, LABELS).backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad, 0.003 * FEATURES / 3)


def test_centres_settle_at_the_mean_of_their_class() -> None:
    loss = CentreLoss(3, 2).train()
    for _ in range(60):
        loss(FEATURES, LABELS)
    torch.testing.assert_close(loss.centres[0], FEATURES[:2].mean(dim=0), atol=1e-4, rtol=0)


def test_eval_does_not_move_the_centres() -> None:
    loss = CentreLoss(3, 2).eval()
    loss(FEATURES, LABELS)
    assert not loss.centres.any()


def test_centres_are_stored_but_take_no_gradient() -> None:
    loss = CentreLoss(3, 2)
    assert not list(loss.parameters())
    assert list(loss.state_dict()) == ["centres"]
    loss.train()(FEATURES.clone().requires_grad_(), LABELS).backward()
    assert not loss.centres.requires_grad


def test_half_precision_features_are_summed_in_float32() -> None:
    features = torch.full((1, 2048), 20.0, dtype=torch.float16)  # the sum is beyond float16
    value = CentreLoss(3, 2048).train()(features, torch.tensor([1]))
    assert value.dtype == torch.float32
    assert value == pytest.approx(0.003 * 2048 * 400 / 2)


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match="'wenn'"):
        CentreLoss(3, 2, "wenn")  # type: ignore[arg-type]


# Supervised contrastive loss

# Two of class 0 at right angles, one of class 2 half-way between them.
SPREAD = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def test_contrastive_by_hand() -> None:
    # Cosine 0 to the other sample of the class and sqrt(1/2) to the sample of another class, for
    # both anchors; the latter sample is alone in its class and no anchor.
    negative = math.exp(math.sqrt(0.5) / 0.1)
    expected = -math.log(1 / (1 + negative))
    assert SupervisedContrastiveLoss()(SPREAD, LABELS) == pytest.approx(expected, rel=1e-5)
    # Three of one class: the mean over the two others stands outside the logarithm (L_out).
    other = math.exp(math.sqrt(0.5))
    anchors = [
        -(math.log(1 / (1 + other)) + math.log(other / (1 + other))) / 2,  # the two at the sides
        -math.log(1 / 2),  # the middle one, with equal cosines to both
    ]
    of_one_class = SupervisedContrastiveLoss(temperature=1.0)(SPREAD, torch.zeros(3).long())
    assert of_one_class == pytest.approx((2 * anchors[0] + anchors[1]) / 3, rel=1e-5)


def test_contrastive_depends_on_directions_only() -> None:
    loss = SupervisedContrastiveLoss()
    scaled = SPREAD * torch.tensor([[3.0], [0.01], [200.0]])
    torch.testing.assert_close(loss(scaled, LABELS), loss(SPREAD, LABELS))


@pytest.mark.parametrize("size", [1, 3])
def test_contrastive_without_any_positive_is_zero_and_can_be_trained(size: int) -> None:
    features = SPREAD[:size].clone().requires_grad_()
    loss = SupervisedContrastiveLoss()(features, torch.arange(size))
    loss.backward()
    assert loss == 0
    assert features.grad is not None and not features.grad.any()


def test_contrastive_gradient_pulls_a_class_together_and_others_away() -> None:
    # The sample of another class is near the first and orthogonal to the second.
    before = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.0, 0.8]], requires_grad=True)
    SupervisedContrastiveLoss()(before, LABELS).backward()
    assert before.grad is not None and before.grad.isfinite().all()
    moved = torch.nn.functional.normalize(before.detach() - 0.01 * before.grad)
    assert moved[0] @ moved[1] > 0.01
    assert moved[0] @ moved[2] < 0.59


def test_contrastive_is_taken_in_float32_under_autocast() -> None:
    features = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(32) % 4
    expected = SupervisedContrastiveLoss()(features, labels)
    with torch.autocast("cpu", torch.bfloat16):
        value = SupervisedContrastiveLoss()(features, labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)


def test_a_classifier_adds_it_by_its_weight() -> None:
    torch.manual_seed(0)
    model = TimmBackbone("resnet10t", preset={"height": 48, "width": 32}, contrastive=0.5).eval()
    features, label = torch.randn(6, 512), torch.tensor([0, 0, 1, 1, 2, 3])
    both = model.class_loss(features, label)
    model.contrastive = 0.0
    contrastive = SupervisedContrastiveLoss()(features, label)
    torch.testing.assert_close(both, model.class_loss(features, label) + 0.5 * contrastive)
