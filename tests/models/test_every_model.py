"""The checks of ModelTester for every registered model, in a variant that is quick to run."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.shallow import shallow_resnet
from models.model_tester import Case, ModelTester
from torch import Tensor

from chromozoo.classes import CLASSES
from chromozoo.models.classifiers import mcnn_go
from chromozoo.models.registry import get_model, list_models
from chromozoo.synthetic import Appearance, draw_chromosome

SMALL = {"height": 64, "width": 32, "scale": 0.6}
SQUARE = {"height": 75, "width": 75}
# A grid of one cell spares the tests the large linear layers.
POOL = {"pool": (1, 1)}
TWO_STAGE = {"backbone": "resnet18", "rois": 16}

CLASSIFIERS = [
    Case("alexnet", 57_102_168, POOL, ((63, 63), (80, 96))),
    Case("chrnet4", 16_355_160, {"preset": SMALL, "polarity": True}, steps=2),
    Case(
        "chromozoo_large",
        16_404_312,
        {"preset": SMALL | {"views": ["upright", "straight"]}, "contrastive": 0.1},
        channels=2,
        steps=2,
    ),
    Case("chromozoo_small", 3_996_438, {"preset": SMALL, "polarity": True, "contrastive": 0.1}),
    Case(
        "cir_net",
        55_228_088,
        {"preset": {"height": 40, "width": 90}, "interface": [75, 75]},
        ((40, 90),),
        # The last block has no ReLU, so the norm that follows takes this shift out.
        idle=frozenset({"trunk.block8.conv2d.bias"}),
    ),
    Case("densenet121", 6_978_456, {"preset": SMALL}, ((29, 29), (64, 32))),
    Case(
        "eresnet",
        24_569_432,
        {"preset": SMALL, "units": 2, "feature_unit": 1, "width": 64},
        steps=2,
    ),
    Case("iapp_cnn", 72_244_488, {"preset": SMALL, "base": "alexnet"}),
    Case("inception_v4", 41_179_704, {"preset": SQUARE}, ((75, 75), (80, 96))),
    Case(
        "karyoset",
        4_871_344,
        {"preset": SMALL, "backbone": "timm/test_resnet", "width": 16, "layers": 1, "heads": 2},
        # So many in one cell that an untrained backbone exceeds the capacity of its classes.
        batch=138,
        steps=2,
        settings={"hidden": 0.3},
    ),
    Case(
        "mcnn_go",
        100_963_712,
        {"merge": "sum", "preset": SQUARE},
        ((64, 64), (96, 64)),
        channels=3,
        steps=2,
    ),
    Case("resnet50", 23_557_208, {"preset": SMALL}, ((32, 32), (64, 48))),
    Case("resnext50", 23_029_080, {"preset": SMALL}, ((32, 32), (64, 48))),
    Case("senet50", 26_072_152, {"preset": SMALL}, ((32, 32), (64, 48))),
    Case("siamese_net", 1_416_281, {"preset": {"height": 44, "width": 40}}, ((44, 40),)),
    Case("timm_backbone", 11_182_552, {"preset": SMALL, "backbone": "test_resnet"}, steps=2),
    Case("vanilla_cnn", 2_246_680, {"preset": {"height": 48, "width": 40}}, ((48, 40),)),
    Case("vgg16", 134_358_872, {"preset": SMALL} | POOL),
    Case("vgg16_bn", 134_367_320, {"preset": SMALL} | POOL),
]
SEGMENTERS = [
    Case(
        "chr_fast",
        11_806_774,
        {"backbone": "test_resnet", "channels": 32, "num_classes": 24},
        steps=2,
    ),
    Case("chr_render", 55_755_286, TWO_STAGE | {"channels": 64}),
    Case("faster_rcnn_r101_fpn", 60_340_707, TWO_STAGE),
    Case("mask_rcnn_r50_fpn", 43_971_813, TWO_STAGE),
    Case("mask_rcnn_r101_fpn", 62_963_941, TWO_STAGE),
]


def build(case: Case) -> Any:
    torch.manual_seed(0)
    model: Any = get_model(case.name, weights=None, **case.arguments)
    for key, value in case.settings.items():
        setattr(model, key, value)
    return model


def test_every_model_is_tested() -> None:
    assert [case.name for case in CLASSIFIERS] == list_models("classification")
    assert [case.name for case in SEGMENTERS] == list_models("segmentation")


class TestClassifier(ModelTester):
    @pytest.fixture(scope="class", params=CLASSIFIERS, ids=lambda case: case.name)
    @classmethod
    def case(cls, request: pytest.FixtureRequest) -> Case:
        case: Case = request.param
        return case

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, case: Case) -> Iterator[Any]:
        with pytest.MonkeyPatch.context() as patch:
            if case.name == "mcnn_go":
                # All of it learns in the third stage, which follows from the trainer's epoch.
                patch.setattr(mcnn_go.McnnGo, "stage", 3)
                patch.setattr(mcnn_go, "resnet50", shallow_resnet)
            yield build(case)

    def batch_of(self, case: Case) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0)
        label = torch.arange(case.batch) // 2 % len(CLASSES)
        image = torch.rand(case.batch, case.channels, *case.sizes[-1], generator=generator)
        for number, one in enumerate(image):
            one[:, : number % 8] = -0.5  # background: chromosomes of several lengths
        return {
            "image": image,
            "label": label,
            "cell": torch.zeros_like(label),
            "upright": label % 2 == 0,
        }

    def outputs_of(self, model: Any, case: Case, size: tuple[int, int]) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        x = torch.rand(2, case.channels, *size, generator=generator)
        with torch.inference_mode():
            features = model.network.forward_features(x)
            logits: Tensor = model(x)
            torch.testing.assert_close(model.network.forward_head(features), logits)
        assert features.ndim == 2 and logits.shape == (2, len(CLASSES))
        return logits

    def predict(self, model: Any) -> np.ndarray:
        image = draw_chromosome("1", Appearance(), np.random.default_rng(0)).image
        (found,) = model.classify(image)
        assert found.label in CLASSES
        assert found.probabilities.sum() == pytest.approx(1, abs=1e-12)
        assert (found.p_arm_up is not None) == model.polarity
        return found.probabilities

    def test_three_equal_channels_are_grey(self, case: Case, model: Any) -> None:
        if case.channels > 1:
            with pytest.raises(ValueError, match=rf"{case.channels} views .*not at 1"):
                model(torch.rand(2, 1, *case.sizes[-1]))
            return
        x = torch.rand(2, 1, *case.sizes[-1], generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            expected = model(x)
            if case.name != "cir_net":  # its interface is built for one number of channels
                x = x.expand(-1, 3, -1, -1)
            torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-4)


def draw_scene(side: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a normalised image of rods, two of which cross, and its target."""
    rng = np.random.default_rng(0)
    masks = np.zeros((3, side, side), np.uint8)
    far, near = side - 12, 12
    lines = [((near, near), (far, far)), ((far, near), (near, far)), ((side // 2, 4), (far, 4))]
    for mask, (start, end) in zip(masks, lines, strict=True):
        cv2.line(mask, start, end, 1, 7)
    signal = np.clip(masks.sum(0) * 0.5 + rng.normal(0, 0.02, (side, side)), 0, 1)
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return torch.from_numpy((signal[None] - 0.05) / 0.15).float(), {
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "labels": torch.tensor([1, 5, 24]),
        "masks": torch.from_numpy(masks),
    }


class TestSegmenter(ModelTester):
    rebuilt_on = "cpu"  # torchvision's anchors are no buffers

    @pytest.fixture(scope="class", params=SEGMENTERS, ids=lambda case: case.name)
    @classmethod
    def case(cls, request: pytest.FixtureRequest) -> Case:
        case: Case = request.param
        return case

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, case: Case) -> Any:
        model = build(case)
        cls().prepare(model)
        return model

    def prepare(self, model: Any) -> None:
        model.log = lambda *_, **__: None  # no trainer
        if hasattr(model.network, "detector"):
            # An untrained detector finds as many objects as it may.
            model.network.detector.roi_heads.detections_per_img = 4
            model.network.detector.rpn._pre_nms_top_n = dict.fromkeys(("training", "testing"), 50)
            model.network.detector.rpn._post_nms_top_n = dict.fromkeys(("training", "testing"), 20)

    def batch_of(self, case: Case) -> dict[str, Any]:
        image, target = draw_scene(64)
        return {"image": [image, image], "target": [target, target]}

    def outputs_of(self, model: Any, case: Case, size: tuple[int, int]) -> Tensor:
        image = torch.rand(1, *size, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            found = model.network.detect(image, 0.0)
        assert found
        boxes = [one.crop.shape + one.corner for one in found]
        scores = torch.tensor([one.score for one in found])
        return torch.cat([torch.tensor(boxes, dtype=torch.float32), scores[:, None]], dim=1)

    def predict(self, model: Any) -> np.ndarray:
        image = draw_scene(64)[0][0].numpy()
        found = model.segment(np.clip((image * 0.15 + 0.05) * 255, 0, 255).astype(np.uint8))
        assert found.masks.shape == (len(found), 64, 64)
        # Untrained scores are all alike, and how many pass the limit is chance.
        return np.array([found.masks.mean() if len(found) else 0.0])
