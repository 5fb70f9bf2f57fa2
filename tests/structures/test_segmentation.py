"""Segmentations, mask NMS, and the ``segment`` method of all segmenters."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from chromozoo.errors import ImageError
from chromozoo.structures.instance import Instance, mask_iou, mask_nms
from chromozoo.structures.segmentation import Segmentation, merge_instances
from chromozoo.tasks.segmentation import ChromosomeSegmenter


def bar(top: int, left: int, height: int, width: int, score: float = 0.9) -> Instance:
    return Instance(np.ones((height, width), bool), (top, left), None, score)


def merged(*instances: Instance) -> list[Instance]:
    found = merge_instances(instances, (100, 100))
    return [
        Instance(crop, (int(row), int(column)), box, float(score))
        for crop, (row, column), box, score in zip(
            found.crops, found.corners, found.boxes, found.scores, strict=True
        )
    ]


def test_masks_boxes_and_order() -> None:
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 2:5, 3:9] = True
    masks[1, 10:20, 0:2] = True  # the third stays empty
    found = Segmentation.from_masks(masks, scores=[0.5, 0.9, 0.7])
    assert len(found) == 2
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])
    assert (found.masks == masks[[1, 0]]).all()
    assert found.boxes.tolist() == [[0, 10, 2, 20], [3, 2, 9, 5]]
    assert found.labels.tolist() == [0, 0]


def test_empty_segmentation_has_all_shapes() -> None:
    empty = Segmentation.empty((20, 30), ["dark.png: black"])
    assert (len(empty), empty.masks.shape, empty.boxes.shape) == (0, (0, 20, 30), (0, 4))
    assert empty.warnings == ("dark.png: black",)


def test_instances_are_cut_to_the_image() -> None:
    found = merge_instances(
        [bar(-3, -2, 10, 10), bar(95, 95, 20, 20), bar(200, 0, 5, 5)], (100, 100)
    )
    assert len(found) == 2
    assert found.boxes.tolist() == [[0, 0, 8, 7], [95, 95, 100, 100]]
    assert found.masks.sum() == 7 * 8 + 5 * 5


def test_mask_iou() -> None:
    a, b = merged(bar(0, 0, 10, 10), bar(5, 0, 10, 10, 0.8))
    assert mask_iou(a, b) == pytest.approx(50 / 150)
    c, d = merged(bar(0, 0, 10, 10), bar(10, 0, 10, 10, 0.8))
    assert mask_iou(c, d) == 0


def test_mask_nms_keeps_crossing_chromosomes() -> None:
    """Two diagonals have one box and share a few pixels; a shifted copy shares nearly all."""
    rising = np.eye(40, dtype=bool) | np.eye(40, k=1, dtype=bool) | np.eye(40, k=-1, dtype=bool)
    crossing = merged(
        Instance(rising, (10, 10), None, 0.9),
        Instance(rising[:, ::-1], (10, 10), None, 0.8),
        Instance(rising, (10, 11), None, 0.7),
    )
    kept = mask_nms(crossing, 0.4)
    assert [instance.score for instance in kept] == pytest.approx([0.9, 0.8])


class Thresholder(nn.Module):
    """Network that detects the bright columns of an image, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.was_training: list[bool] = []

    def losses(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {"loss": self.weight.sum()}

    def detect(self, image: Tensor, min_score: float) -> list[Instance]:
        self.was_training.append(self.training)
        mask = (image[0] > 2).numpy()
        return [Instance(mask, (0, 0), None, 0.9), Instance(mask, (0, 0), None, 0.6)]


@pytest.fixture
def segmenter() -> ChromosomeSegmenter:
    return ChromosomeSegmenter(Thresholder(), preset={"typical_width": 0})


def image(height: int = 120, width: int = 160) -> Any:
    grey = np.zeros((height, width), np.uint8)
    grey[30:80, 40:54] = 200
    return grey


def test_masks_have_the_pixels_of_the_image(segmenter: ChromosomeSegmenter) -> None:
    found = segmenter.segment(image())
    assert len(found) == 1  # the duplicate is suppressed
    assert found.boxes.tolist() == [[40, 30, 54, 80]]
    assert (found.masks[0] == (image() > 0)).all()


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_working_scale_does_not_move_masks(scale: float) -> None:
    segmenter = ChromosomeSegmenter(Thresholder(), preset={"typical_width": 0, "scale": scale})
    found = segmenter.segment(image())
    assert found.masks.shape == (1, 120, 160)
    assert found.boxes[0] == pytest.approx([40, 30, 54, 80], abs=1)
    shared = (found.masks[0] & (image() > 0)).sum() / (found.masks[0] | (image() > 0)).sum()
    assert shared > 0.9


def test_segment_uses_evaluation_mode(segmenter: ChromosomeSegmenter) -> None:
    segmenter.train()
    segmenter.segment(image())
    assert segmenter.network.was_training == [False]
    assert segmenter.training


def test_low_scores_are_not_returned() -> None:
    strict = ChromosomeSegmenter(Thresholder(), min_score=0.95, preset={"typical_width": 0})
    assert len(strict.segment(image())) == 0


@pytest.mark.parametrize("level", [0, 255])
def test_a_uniform_image_is_empty_with_a_warning(
    segmenter: ChromosomeSegmenter, level: int
) -> None:
    found = segmenter.segment(np.full((50, 60), level, np.uint8), "blank.png")
    assert len(found) == 0
    assert found.shape == (50, 60)
    assert "blank.png: nothing stands out" in found.warnings[0]
    assert segmenter.network.was_training == []


def test_errors_name_unreadable_images(segmenter: ChromosomeSegmenter, tmp_path) -> None:
    with pytest.raises(ImageError, match=r"missing\.png: no such image file"):
        segmenter.segment(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="array: the image holds NaN"):
        segmenter.segment(np.full((50, 50), np.nan))


class ScaleSensitive(nn.Module):
    """Network that detects all bright rods of about 20 pixels, and half of any other length."""

    def detect(self, image: Tensor, min_score: float) -> list[Instance]:
        count, components = cv2.connectedComponents((image[0] > 0.5).numpy().astype(np.uint8))
        masks = [components == index for index in range(1, count)]
        usual = 15 < np.median([np.ptp(np.nonzero(mask)[0]) for mask in masks]) < 27
        return [Instance(mask, (0, 0), None, 0.8) for mask in masks[:: 1 if usual else 2]]


@pytest.mark.parametrize("enlarged", [1, 2, 3])
@pytest.mark.parametrize("typical_length", [0.0, 20.6])  # 20 by 5 pixels
def test_images_of_another_pixel_size_are_segmented_again_at_the_typical_scale(
    typical_length: float, enlarged: int
) -> None:
    preset = {"typical_width": 0, "typical_length": typical_length, "mean": 0.0, "std": 1.0}
    model = ChromosomeSegmenter(ScaleSensitive(), preset=preset)
    image = np.zeros((100, 400), np.float32)
    for x in range(10, 390, 15):
        image[40:60, x : x + 5] = 200
    image = np.kron(image, np.ones((enlarged, enlarged), np.float32))
    found = model.segment(image)
    is_usual_scale = typical_length or enlarged == 1
    assert len(found) == (26 if is_usual_scale else 13)
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    np.testing.assert_allclose(np.median(sides, axis=0), (5 * enlarged, 20 * enlarged), atol=2)


def test_second_pass_with_fewer_instances_is_discarded() -> None:
    """Short chromosomes at their usual scale: the network detects fewer of them enlarged."""
    preset = {"typical_width": 0, "typical_length": 60.0, "mean": 0.0, "std": 1.0}
    model = ChromosomeSegmenter(ScaleSensitive(), preset=preset)
    image = np.zeros((100, 400), np.float32)
    for x in range(10, 390, 15):
        image[40:60, x : x + 5] = 200
    found = model.segment(image)
    assert len(found) == 26
    assert found.shape == image.shape
