"""The segmenters: parameter counts, losses that teach, and images that are not metaphases."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
from lightning import Trainer
from numpy.typing import NDArray
from torch import Tensor

from chromozoo.classes import CLASSES
from chromozoo.errors import UnknownNameError
from chromozoo.models.layers.chr_fast import class_head
from chromozoo.models.layers.chr_fast.assignment import assign
from chromozoo.models.layers.chr_fast.geometry import locations
from chromozoo.models.layers.chr_fast.network import ChrFastNetwork
from chromozoo.models.layers.two_stage import mask_instances
from chromozoo.models.registry import get_model
from chromozoo.models.segmenters import chr_render
from chromozoo.structures.segmentation import merge_instances

TWO_STAGE = {"backbone": "resnet18", "rois": 16}
SMALL: dict[str, dict[str, Any]] = {
    "chr_fast": {"backbone": "test_resnet", "channels": 32},
    "chr_render": TWO_STAGE | {"channels": 64},
    "faster_rcnn_r101_fpn": TWO_STAGE,
    "mask_rcnn_r50_fpn": TWO_STAGE,
}

# The Mask R-CNNs differ in their backbone alone.
ONE_OF_EACH = ["chr_fast", "chr_render", "faster_rcnn_r101_fpn", "mask_rcnn_r50_fpn"]


def scene(side: int = 128, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Two rods that cross, one that touches, one alone: normalised image and target."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((4, side, side), np.uint8)
    lines = [
        ((20, 20), (80, 80)),
        ((80, 20), (20, 80)),
        ((84, 84), (84, 118)),
        ((20, 108), (56, 108)),
    ]
    for mask, (start, end) in zip(masks, lines, strict=True):
        cv2.line(mask, start, end, 1, 11)
    signal = np.clip(masks.sum(0) * 0.5 + rng.normal(0, 0.02, (side, side)), 0, 1)
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    image = torch.from_numpy((signal[None] - 0.05) / 0.15).float()
    return image, {
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "labels": torch.ones(4, dtype=torch.int64),
        "masks": torch.from_numpy(masks),
    }


def draw_image(seed: int = 0) -> NDArray[np.uint8]:
    image, _ = scene(seed=seed)
    return np.clip((image[0].numpy() * 0.15 + 0.05) * 255, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "reference", "norms"),
    [
        ("mask_rcnn_r50_fpn", torchvision.models.detection.maskrcnn_resnet50_fpn, 0),
        ("faster_rcnn_r101_fpn", None, 105_344),
    ],
)
def test_parameter_counts_are_torchvision_s(name: str, reference: Any, norms: int) -> None:
    """But for one channel in place of three (2 x 64 x 49).

    The batch norm of torchvision's backbone builder is frozen, and counts no parameters.
    """
    with torch.device("meta"):
        model = get_model(name, weights=None, anchor_ratios=[0.5, 1.0, 2.0])
        theirs = torchvision_detector(reference)
    wanted = sum(p.numel() for p in theirs.parameters()) + norms - 2 * 64 * 49
    assert sum(p.numel() for p in model.parameters()) == wanted


def torchvision_detector(reference: Any) -> torch.nn.Module:
    if reference is None:
        backbone = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(
            backbone_name="resnet101", weights=None, trainable_layers=5
        )
        return torchvision.models.detection.FasterRCNN(backbone, num_classes=2)
    detector: torch.nn.Module = reference(
        weights=None, weights_backbone=None, num_classes=2, trainable_backbone_layers=5
    )
    return detector


def test_xie_s_anchors() -> None:
    model: Any = get_model(
        "mask_rcnn_r101_fpn", weights=None, backbone="resnet18", xie_anchors=True
    )
    anchors = model.network.detector.rpn.anchor_generator
    assert anchors.sizes == ((8,), (16,), (32,), (64,), (128,))
    assert anchors.aspect_ratios == ((0.5, 1.0, 2.0),) * 5


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_crop_without_chromosomes_trains_too(name: str) -> None:
    torch.manual_seed(0)
    model: Any = get_model(name, weights=None, **SMALL[name]).train()
    image, _ = scene()
    nothing = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 128, 128, dtype=torch.uint8),
    }
    losses = model.network.losses([image, image], [nothing, nothing])
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)


KINDS = ["tiny", "white", "noise", "photograph", "sixteen bit", "rgba"]


# What is done to an image before and after the network is the same for all.
@pytest.mark.parametrize(
    ("name", "kind"),
    [("chr_fast", kind) for kind in KINDS]
    + [(name, kind) for name in ONE_OF_EACH[1:] for kind in ("tiny",)],
)
def test_any_image_gives_a_bounded_result(name: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    images: dict[str, NDArray[Any]] = {
        "tiny": rng.integers(0, 255, (20, 20), np.uint8),
        "white": np.full((90, 110), 255, np.uint8),
        "noise": rng.integers(0, 255, (90, 110), np.uint8),
        "photograph": cv2.GaussianBlur(rng.integers(0, 255, (96, 128, 3), np.uint8), (0, 0), 9),
        "sixteen bit": draw_image().astype(np.uint16) * 250,
        "rgba": np.dstack([draw_image()] * 3 + [np.full_like(draw_image(), 255)]),
    }
    model: Any = get_model(name, weights=None, **SMALL[name])
    if name != "chr_fast":
        model.network.detector.roi_heads.detections_per_img = 20
    found = model.segment(images[kind], f"{kind}.png")
    assert found.masks.shape == (len(found), *images[kind].shape[:2])
    assert len(found) <= 500
    assert (found.boxes[:, 2:] <= np.array(images[kind].shape[1::-1]) + 1e-3).all()
    if kind == "white":
        assert "white.png" in found.warnings[0]


def test_a_whole_slide_is_bounded_in_memory() -> None:
    slide = np.zeros((9_000, 12_000), np.uint8)
    slide[:128, :128] = draw_image()
    model: Any = get_model("chr_fast", weights=None, **SMALL["chr_fast"])
    model.transforms = type(model.transforms)(max_pixels=200_000)
    found = model.segment(slide, "slide.tif")
    assert "slide.tif: 12000x9000 pixels" in found.warnings[0]
    assert sum(crop.size for crop in found.crops) < 2 * slide.size


def test_unknown_backbone() -> None:
    with pytest.raises(UnknownNameError, match="unknown backbone 'resnet19': known are resnet18"):
        get_model("chr_render", weights=None, backbone="resnet19")


@pytest.mark.slow
def test_chr_fast_learns_crossing_chromosomes() -> None:
    """In 60 steps on one scene it must draw all four, the crossing ones included."""
    torch.manual_seed(0)
    model: Any = get_model("chr_fast", weights=None, **SMALL["chr_fast"]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scenes = [scene(seed=seed) for seed in range(2)]
    for _ in range(60):
        losses = model.network.losses([i for i, _ in scenes], [t for _, t in scenes])
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    model.eval()
    image, target = scenes[0]
    with torch.inference_mode():
        found = merge_instances(model.detect(image), (128, 128))
    overlaps = [
        max(
            float((mask & true).sum() / (mask | true).sum())
            for mask in found.masks
        )
        for true in target["masks"].numpy().astype(bool)
    ]  # fmt: skip
    assert min(overlaps) > 0.6


def test_chr_fast_assigns_only_what_lies_on_a_chromosome() -> None:
    _, target = scene()
    points = locations(128, 128, torch.device("cpu"))
    boxes = torch.cat([points - 20, points + 20], dim=1)
    place, owner, quality = assign(points, torch.zeros(len(points), 1), boxes, target)
    assert set(owner.tolist()) == {0, 1, 2, 3}
    assert len(set(place.tolist())) == len(place)
    x, y = points[place].long().T
    assert (target["masks"][owner, y, x] == 1).all()
    assert (target["masks"][:, y, x].sum(0) == 1).all()  # none at the crossing
    assert ((quality >= 0) & (quality <= 1)).all()


def test_chr_fast_gives_a_thin_one_its_nearest_location() -> None:
    """A mask of one pixel lies on no location."""
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[0, 17, 17] = 1
    target = {
        "boxes": torch.tensor([[17.0, 17.0, 18.0, 18.0]]),
        "labels": torch.tensor([1]),
        "masks": mask,
    }
    points = locations(64, 64, torch.device("cpu"))
    boxes = torch.cat([points - 5, points + 5], dim=1)
    place, owner, _ = assign(points, torch.zeros(len(points), 1), boxes, target)
    assert points[place].tolist() == [[18.0, 18.0]]
    assert owner.tolist() == [0]


def test_chr_fast_names_24_classes_where_told() -> None:
    model: Any = get_model("chr_fast", weights=None, num_classes=24, **SMALL["chr_fast"])
    assert model.categories == CLASSES
    image, target = scene()
    target = target | {"labels": torch.tensor([1, 5, 23, 24])}
    losses = model.train().network.losses([image], [target])
    assert torch.isfinite(torch.stack(list(losses.values()))).all()
    assert losses["loss_class"].item() == pytest.approx(np.log(24), abs=0.7)
    sum(losses.values()).backward()
    assert all(one.grad.any() for one in model.network.names.parameters())


def test_chr_fast_gives_every_finding_probabilities_of_the_classes() -> None:
    torch.manual_seed(0)
    model: Any = get_model("chr_fast", weights=None, num_classes=24, **SMALL["chr_fast"]).eval()
    torch.nn.init.constant_(model.network.classify.bias, 2.0)
    torch.nn.init.constant_(model.network.controller.bias, 0.5)
    with torch.inference_mode():
        pieces = model.detect(scene()[0])
    assert pieces
    for piece in pieces:
        assert piece.class_probabilities.shape == (24,)
        assert piece.class_probabilities.sum() == pytest.approx(1, abs=1e-4)
        assert piece.label == piece.class_probabilities.argmax()


@pytest.mark.parametrize("degrees", [0, 30, 90, 160])
def test_the_strip_of_a_name_follows_the_mask(degrees: float) -> None:
    """A rod that is longer than wide, in a square box, at any angle."""
    side, angle = 64, np.deg2rad(degrees)
    y, x = np.mgrid[0:side, 0:side] - 31.5
    along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    rod = (abs(along) < 25) & (abs(across) < 6)
    logits = torch.from_numpy(np.where(rod, 10.0, -10.0))[None]
    places = class_head.strip_points(logits, torch.tensor([[100.0, 40.0, 164.0, 104.0]]))
    assert places.shape == (1, *class_head.STRIP, 2)
    middle = places.mean(dim=(1, 2))[0]
    np.testing.assert_allclose(middle, (132, 72), atol=0.5)
    step = places[0, 1:, 0] - places[0, :-1, 0]
    np.testing.assert_allclose(step.norm(dim=1), class_head.STRIP_STEP, rtol=1e-4)
    direction = step.mean(dim=0) / class_head.STRIP_STEP
    assert abs(direction @ torch.tensor([np.cos(angle), np.sin(angle)]).float()) > 0.999


def test_names_may_be_added_to_weights_without(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain: Any = get_model("chr_fast", weights=None, **SMALL["chr_fast"])
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(plain)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    naming: Any = get_model(
        "chr_fast",
        weights=None,
        num_classes=24,
        init_from=str(tmp_path / "plain.ckpt"),
        **SMALL["chr_fast"],
    )
    own = naming.network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in plain.network.state_dict().items())
    assert any(name.startswith("names.") for name in own)


def test_points_of_chr_render_are_the_uncertain_ones() -> None:
    torch.manual_seed(0)
    logits = torch.full((1, 1, 7, 7), 10.0)
    logits[..., 3] = 0.0  # the middle column is in doubt
    points = chr_render.uncertain_points(logits)
    assert points.shape == (1, chr_render.TRAINING_POINTS, 2)
    near = ((points[0, :, 0] - 0.5).abs() < 1 / 7).float()
    assert near[:147].mean() > 0.95  # 75 % are chosen
    assert near[147:].mean() < 0.6  # the rest lies anywhere


def test_rendering_sharpens_the_outline() -> None:
    """A point head that knows the truth moves the coarse outline to it."""
    torch.manual_seed(0)
    network: Any = get_model("chr_render", weights=None, backbone="resnet18").network

    class Truth(torch.nn.Module):
        def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
            return fine

    network.point_head = Truth()
    # Fine features that are the logits of a disc of radius 40 in the box 0..128.
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    disc = (10 - ((x - 16) ** 2 + (y - 16) ** 2).sqrt())[None, None]
    features = {"0": disc}
    coarse = torch.nn.functional.interpolate(disc, (7, 7), mode="area")
    boxes = torch.tensor([[0.0, 0.0, 128.0, 128.0]])
    logits = network.render(features, boxes, coarse)
    assert logits.shape == (1, 1, 112, 112)
    v, u = torch.meshgrid(torch.arange(112) + 0.5, torch.arange(112) + 0.5, indexing="ij")
    truth = ((u - 56) ** 2 + (v - 56) ** 2).sqrt() < 35
    wrong = ((logits[0, 0] > 0) != truth).float().mean()
    blurred = torch.nn.functional.interpolate(coarse, (112, 112), mode="bilinear")
    assert wrong < 0.01
    assert wrong < 0.5 * ((blurred[0, 0] > 0) != truth).float().mean()


@pytest.mark.parametrize("training", [True, False])
def test_two_stages_see_an_image_at_its_size(training: bool) -> None:
    network: Any = get_model("mask_rcnn_r50_fpn", weights=None, backbone="resnet18").network
    image = torch.rand(1, 70, 96)
    (seen, _) = network.train(training).detector.transform([image])
    assert seen.tensors.shape == (1, 1, 96, 96)  # padded to multiples of 32
    assert torch.equal(seen.tensors[0, :, :70], image)
    assert seen.image_sizes == [(70, 96)]


def test_grids_are_brought_to_pixels() -> None:
    grid = np.zeros((1, 28, 28), np.float32)
    grid[0, 7:21, 7:21] = 1
    (piece,) = mask_instances(
        grid, np.array([[10, 20, 38, 48]], np.float32), np.array([0.9], np.float32)
    )
    assert piece.corner == (20, 10)
    rows, columns = piece.crop.nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (7, 20, 7, 20)
    (enlarged,) = mask_instances(
        grid, np.array([[0, 0, 56, 112]], np.float32), np.array([0.9], np.float32)
    )
    assert enlarged.crop.shape == (112, 56)
    assert enlarged.crop.sum() == pytest.approx(28 * 56, rel=0.05)


def test_faster_rcnn_s_masks_are_the_light_in_the_box() -> None:
    from chromozoo.models.layers.two_stage import box_instances

    image, target = scene()
    pieces = box_instances(image, target["boxes"][3:].numpy(), np.array([0.9], np.float32))
    found = merge_instances(pieces, (128, 128))
    true = target["masks"][3].numpy().astype(bool)
    assert (found.masks[0] & true).sum() / (found.masks[0] | true).sum() > 0.8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_no_decomposition_in_half_precision(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CPUs autocast casts back what it gives to `eigh`, on GPUs it does not: look before it."""
    seen, eigh = [], torch.linalg.eigh

    def recorded(matrices: Tensor, *arguments: Any) -> Any:
        seen.append(matrices.dtype)
        return eigh(matrices, *arguments)

    monkeypatch.setattr(torch.linalg, "eigh", recorded)
    # A mask along the diagonal of its box.
    logits = 20 * torch.eye(40)[None] - 10
    boxes = torch.tensor([[10.0, 20.0, 50.0, 60.0]])
    wanted = class_head.strip_points(logits, boxes)
    with torch.autocast("cpu", dtype):
        # What the network gives under autocast.
        points = class_head.strip_points(logits.to(dtype), boxes)
    assert seen == [torch.float32] * 2
    ends = points[0, [0, -1]].mean(dim=1)
    assert (ends[1] - ends[0]).abs().tolist() == pytest.approx([80.3, 80.3], abs=0.5)
    assert points.dtype == torch.float32
    assert torch.minimum((points - wanted).abs(), (points - wanted.flip(1)).abs()).max() < 0.1

    if dtype == torch.float16:
        return  # CPUs take a minute for its convolutions
    network = ChrFastNetwork("test_resnet", 16, num_classes=24)
    seen.clear()
    image = torch.randn(1, 64, 64)
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[:, 10:50, 20:32] = 1
    box = torch.tensor([[20.0, 10.0, 32.0, 50.0]])
    target = {"boxes": box, "labels": torch.tensor([3]), "masks": mask}
    with torch.no_grad(), torch.autocast("cpu", dtype):
        losses = network.losses([image], [target])
        network.eval().classify_instances(network.detect(image, 0.0))
    assert set(seen) == {torch.float32} and len(seen) == 2
    assert losses["loss_class"].isfinite()
