"""IAPP-CNN: its three scales, its vote, and the branches that it is made of."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from chromozoo.errors import UnknownNameError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.images.signal import foreground
from chromozoo.models.classifiers.iapp_cnn import (
    SCALES,
    IappCnn,
    IappCnnNetwork,
    find_object_mask,
    find_part_mask,
    iapp_cnn,
    integrate,
    zoom,
)
from chromozoo.synthetic import Appearance, draw_chromosome

SMALL = {"height": 80, "width": 40, "scale": 0.8}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def canvases() -> Tensor:
    """Signal images ``(4, 1, 112, 48)``, 0..1, of four drawn chromosomes."""
    rng = np.random.default_rng(0)
    preset = ChromosomePreset(height=112, width=48)
    drawn = [draw_chromosome(name, Appearance(), rng).image for name in ("1", "9", "21", "X")]
    return torch.from_numpy(np.stack([preset.prepare(image) for image in drawn]))[:, None] / 255


@pytest.fixture(scope="module")
def model() -> IappCnn:
    torch.manual_seed(0)
    return IappCnn(preset=SMALL, base="alexnet").eval()


@pytest.fixture(scope="module")
def network(model: IappCnn) -> IappCnnNetwork:
    return model.network


# Object scale


def test_object_mask_covers_the_chromosome_and_little_else(canvases: Tensor) -> None:
    masks = find_object_mask(canvases)
    assert masks.shape == canvases.shape and masks.dtype == torch.bool
    for canvas, mask in zip(canvases[:, 0].numpy(), masks[:, 0].numpy(), strict=True):
        chromosome = foreground(canvas)
        assert (mask & chromosome).sum() > 0.97 * chromosome.sum()
        # What shines beyond its edge is a rim of three pixels at most.
        rim = cv2.dilate(chromosome.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        assert not (mask & ~rim).any()


def test_object_mask_leaves_specks_out(canvases: Tensor) -> None:
    speck = canvases.clone()
    speck[:, :, 2:4, 2:4] = 1
    assert not find_object_mask(speck)[:, :, :6, :6].any()


def test_literal_rule_keeps_next_to_nothing_on_a_white_background(canvases: Tensor) -> None:
    """The paper's own images: white background of 255, dark chromosome, mean near 252."""
    white = 1 - canvases / 2
    padded = nn.functional.pad(white, (88, 88, 56, 56), value=1.0)
    kept = find_object_mask(padded, literal=True)[:, :, 56:-56, 88:-88]
    for canvas, mask in zip(canvases[:, 0].numpy(), kept[:, 0].numpy(), strict=True):
        chromosome = foreground(canvas)
        assert (mask & chromosome).sum() < 0.02 * chromosome.sum()


def test_literal_rule_loses_only_the_brightest_bands_of_a_signal_image(canvases: Tensor) -> None:
    ours, literal = find_object_mask(canvases), find_object_mask(canvases, literal=True)
    assert not (literal & ~ours).any()
    assert 0 < (ours & ~literal).sum() < 0.2 * ours.sum()


def test_zoom_fills_the_canvas_with_the_box_of_the_mask() -> None:
    image = torch.zeros(1, 1, 8, 6)
    image[..., 2:6, 1:4] = 5.0
    image[..., 7, 5] = 9.0  # outside the mask
    mask = torch.zeros(1, 1, 8, 6, dtype=torch.bool)
    mask[..., 2:6, 1:4] = True
    shown = zoom(image, mask, -0.5)
    assert shown.shape == image.shape and shown.max() == 5
    assert (shown[..., 1:-1, 1:-1] == 5).all()  # its edge fades into the background


def test_zoom_shows_the_hidden_as_background_and_keeps_places() -> None:
    image = torch.arange(48.0).view(1, 1, 6, 8)
    mask = torch.ones(1, 1, 6, 8, dtype=torch.bool)
    mask[..., 2:4, 3] = False
    shown = zoom(image, mask, -0.5)
    torch.testing.assert_close(shown, torch.where(mask, image, -0.5))


def test_zoom_of_an_empty_mask_is_the_whole_image(canvases: Tensor) -> None:
    empty = torch.zeros_like(canvases, dtype=torch.bool)
    torch.testing.assert_close(zoom(canvases, empty, -0.5), canvases)


# Part scale


def test_part_mask_is_the_largest_common_region() -> None:
    first, second = torch.zeros(2, 5, 6)
    first[0, 0:2] = 1  # 2 cells, in both
    first[2:5, 3:6] = 1  # 9 cells
    second[0, 0:2] = 1
    second[3:5, 2:6] = 1
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[3:5, 3:6] = True
    found = find_part_mask(torch.stack([first, second])[None])
    assert torch.equal(found[0, 0], expected)


def test_part_mask_is_one_component_for_any_map() -> None:
    maps = torch.rand(50, 2, 7, 5, generator=torch.Generator().manual_seed(0))
    for mask, activation in zip(find_part_mask(maps)[:, 0], maps, strict=True):
        above = (activation > activation.mean(dim=(1, 2), keepdim=True)).all(dim=0)
        assert not (mask & ~above).any()
        count, _, stats, _ = cv2.connectedComponentsWithStats(above.numpy().astype(np.uint8))
        sizes = stats[1:, cv2.CC_STAT_AREA]
        assert cv2.connectedComponents(mask.numpy().astype(np.uint8))[0] == 2 and count >= 2
        assert mask.sum() == sizes.max()


def test_part_mask_follows_a_winding_region() -> None:
    snake = torch.zeros(7, 7)
    snake[::2] = 1
    snake[1, -1] = snake[3, 0] = snake[5, -1] = 1
    assert torch.equal(find_part_mask(snake.expand(1, 2, 7, 7))[0, 0], snake > 0)


def test_part_mask_may_be_empty() -> None:
    maps = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # above the mean in different cells
    assert not find_part_mask(maps).any()
    assert not find_part_mask(torch.ones(1, 2, 1, 1)).any()  # a single cell never exceeds its mean


def what_branches_see(network: IappCnnNetwork, x: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    hooks = [
        branch.trunk.register_forward_hook(  # type: ignore[union-attr]
            lambda _module, inputs, _output, scale=scale: seen.update({scale: inputs[0]})
        )
        for scale, branch in network.branches.items()
    ]
    with torch.inference_mode():
        network.eval()(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_each_branch_sees_its_scale(network: IappCnnNetwork, canvases: Tensor) -> None:
    x = (canvases - 0.15) / 0.30
    seen = what_branches_see(network, x)
    assert list(seen) == list(SCALES)
    assert all(image.shape == (4, 3, 112, 48) for image in seen.values())
    torch.testing.assert_close(seen["global"], x.expand(-1, 3, -1, -1))
    objects = zoom(x, find_object_mask(canvases), -0.5)
    torch.testing.assert_close(seen["object"], objects.expand(-1, 3, -1, -1))
    # The object fills the canvas: it touches all four sides.
    bright = seen["object"][:, 0] > -0.5
    for side in (bright[:, 0], bright[:, -1], bright[:, :, 0], bright[:, :, -1]):
        assert side.any(dim=1).all()


def test_the_part_lies_within_the_object(
    network: IappCnnNetwork, canvases: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The branch is given what the mask shows of the object; hidden pixels are background."""
    x = (canvases - 0.15) / 0.30
    lower_right = torch.zeros(4, 1, 6, 2, dtype=torch.bool)
    lower_right[..., 4:, 1:] = True
    monkeypatch.setattr(
        "chromozoo.models.classifiers.iapp_cnn.find_part_mask", lambda _: lower_right
    )
    seen = what_branches_see(network, x)
    objects = seen["object"][:, :1]
    corner = torch.zeros_like(objects, dtype=torch.bool)
    corner[..., 75:, 24:] = True  # two of six rows of cells, one of two columns
    expected = zoom(objects, corner & (objects > -0.5), -0.5)
    torch.testing.assert_close(seen["part"][:, :1], expected)
    assert not torch.allclose(seen["part"], seen["object"], atol=0.1)


@pytest.mark.parametrize("why", ["no common region", "nothing of the object in it"])
def test_without_a_part_the_object_stands_in(
    network: IappCnnNetwork, canvases: Tensor, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.full((1, 1, 112, 48), -0.5) if "nothing" in why else (canvases - 0.15) / 0.30
    if why == "no common region":
        monkeypatch.setattr(
            "chromozoo.models.classifiers.iapp_cnn.find_part_mask",
            lambda a: torch.zeros_like(a[:, :1]) > 0,
        )
    seen = what_branches_see(network, x)
    torch.testing.assert_close(seen["part"], seen["object"])


# The vote


def by_hand(logits: Tensor, weigh: bool, vote: str) -> Tensor:
    total, weights = torch.zeros(logits.shape[-1]), 0.0
    for y in logits:
        p = y.exp() / y.exp().sum()
        weight = float(p.max()) if weigh else 1.0
        total = total + weight * (y if vote == "logits" else p)
        weights += weight
    if vote == "logits":
        return (total / weights).softmax(dim=0)
    return total / weights


@pytest.mark.parametrize("weigh", [True, False])
@pytest.mark.parametrize("vote", ["logits", "probabilities"])
def test_integrated_prediction_by_hand(weigh: bool, vote: Any) -> None:
    logits = 3 * torch.randn(5, 3, 24, generator=torch.Generator().manual_seed(0))
    found = integrate(logits, uncertainty=weigh, vote=vote).softmax(dim=-1)
    expected = torch.stack([by_hand(image, weigh, vote) for image in logits])
    torch.testing.assert_close(found, expected)


def test_the_division_changes_no_decision() -> None:
    """Equation 16 as printed, without the division by the sum of the lambdas."""
    logits = 3 * torch.randn(200, 3, 24, generator=torch.Generator().manual_seed(1))
    weight = logits.softmax(dim=-1).amax(dim=-1, keepdim=True)
    printed = (weight * logits).sum(dim=1)
    assert torch.equal(integrate(logits).argmax(dim=1), printed.argmax(dim=1))


def test_a_sure_branch_outvotes_two_unsure_ones() -> None:
    logits = torch.zeros(1, 3, 24)
    logits[0, 0, 3] = 3.0
    logits[0, 1:, 5] = 1.6
    assert integrate(logits, uncertainty=False).argmax() == 5
    assert integrate(logits).argmax() == 3


@pytest.mark.parametrize("vote", ["logits", "probabilities"])
def test_one_branch_gives_what_it_says(vote: Any) -> None:
    logits = 3 * torch.randn(5, 1, 24, generator=torch.Generator().manual_seed(0))
    expected = logits[:, 0].softmax(dim=-1)
    for weigh in (True, False):
        torch.testing.assert_close(integrate(logits, weigh, vote).softmax(dim=-1), expected)


def test_improbable_classes_stay_finite() -> None:
    logits = torch.zeros(1, 3, 24)
    logits[..., 0] = 400.0
    for vote in ("logits", "probabilities"):
        assert integrate(logits, vote=vote).isfinite().all()


# The network


def test_parameter_count_with_resnet50() -> None:
    with torch.device("meta"):
        network = IappCnnNetwork()
    assert network.base == "resnet50" and parameters(network) == 72_244_488
    trunk_and_head = 23_557_208
    assert [parameters(branch) for branch in network.branches.values()] == 3 * [trunk_and_head]
    assert [parameters(m) for m in network.excitations] == [2 * 2048 * 128, 2 * 2048 * 256]


@pytest.mark.parametrize(
    ("base", "count", "least"),
    [
        ("alexnet", 7_452_168, 31),
        ("vgg16_bn", 44_304_648, 16),
        ("densenet121", 21_328_584, 29),
        ("inception_v4", 124_423_848, 75),
        ("resnet50", 72_244_488, 32),
    ],
)
def test_every_base(base: str, count: int, least: int) -> None:
    with torch.device("meta"):  # counts and shapes without computing
        network = IappCnnNetwork(base)
        assert parameters(network) == count
        branch = network.branches["global"]
        assert branch(torch.rand(2, 1, least, least + 6)).shape == (2, branch.fc.in_features)
        with pytest.raises(ValueError, match=rf"{base} takes images of {least}x{least} pixels"):
            network(torch.rand(2, 1, least - 1, 100))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown base 'resnet5': did you mean resnet50"):
        IappCnnNetwork("resnet5")
    with pytest.raises(UnknownNameError, match=r"unknown scale 'objekt': did you mean object"):
        IappCnnNetwork("alexnet", scales=["global", "objekt"])
    with pytest.raises(UnknownNameError, match="unknown vote 'majority'"):
        IappCnnNetwork("alexnet", vote="majority")  # type: ignore[arg-type]


@pytest.mark.parametrize("scales", [["object"], ["global", "global"], []])
def test_scales_that_make_no_network(scales: list[str]) -> None:
    with pytest.raises(ValueError, match="name 'global'"):
        IappCnnNetwork("alexnet", scales=scales)


@pytest.mark.parametrize("reductions", [[], [0], [512]])
def test_reductions_that_leave_nothing(reductions: list[int]) -> None:
    with pytest.raises(ValueError, match="from 1 to the 256 channels"):
        IappCnnNetwork("alexnet", reductions=reductions)


@pytest.mark.parametrize(
    ("scales", "built"),
    [
        (["global"], ["global"]),
        (["global", "object"], ["global", "object"]),
        (["part", "global"], ["global", "object", "part"]),
        (["global", "object", "part"], ["global", "object", "part"]),
    ],
)
def test_rows_of_the_ablation(scales: list[str], built: list[str]) -> None:
    model = IappCnn(preset=SMALL, base="alexnet", scales=scales).eval()
    network: Any = model.network
    assert list(network.branches) == built
    assert len(network.excitations) == (2 if "part" in scales else 0)
    x = torch.rand(2, 1, 80, 40)
    with torch.inference_mode():
        features = network.forward_features(x)
        logits = network.forward_head(features)
        apart = network.branch_logits(network.branch_features(x))
        torch.testing.assert_close(model(x), logits)
    assert features.shape == (2, 256 * len(scales)) and network.features == features.shape[1]
    votes = torch.stack([apart[scale] for scale in SCALES if scale in scales], dim=1)
    torch.testing.assert_close(logits, integrate(votes))


def test_losses_of_all_branches_are_summed(model: IappCnn) -> None:
    network: Any = model.network
    batch = {"image": torch.rand(3, 1, 80, 40), "label": torch.tensor([0, 7, 23])}
    with torch.inference_mode():
        logits = network.branch_logits(network.branch_features(batch["image"]))
        expected = sum(
            -logits[scale].log_softmax(dim=1)[torch.arange(3), batch["label"]].mean()
            for scale in SCALES
        )
        torch.testing.assert_close(model.loss(batch), expected)


def test_recipe_of_the_paper_is_the_default() -> None:
    model = iapp_cnn(base="alexnet")
    assert (model.optimizer, model.lr, model.weight_decay) == ("sgd", 0.02, 1e-5)
    assert model.cross_entropy.label_smoothing == 0 and model.centre_loss is None


def test_background_follows_the_preset() -> None:
    model = IappCnn(preset={**SMALL, "mean": 0.2, "std": 0.4}, base="alexnet").eval()
    network: Any = model.network
    black = model.transforms.normalise(torch.zeros(1, 1, 80, 40, dtype=torch.uint8))
    white_spot = black.clone()
    white_spot[..., 20:60, 10:30] = 2.0
    seen = what_branches_see(network, white_spot)
    assert (black == -0.5).all()
    assert (seen["object"][..., 1:-1, 1:-1] == 2).all()
