"""Segmentation metrics against COCOeval of faster-coco-eval, and by hand."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as coco_mask
from torchmetrics.detection import MeanAveragePrecision

from chromozoo.metrics import segmentation as segmentation_metrics
from chromozoo.metrics.bootstrap import EvaluationError
from chromozoo.metrics.segmentation import (
    AREAS,
    CLASS_METRICS,
    COUNT_METRICS,
    METRICS,
    PRECISION_METRICS,
    TrueChromosomes,
    evaluate_segmentation,
    image_errors,
)


@dataclass
class Found:
    """The fields of a Segmentation that the metrics use."""

    masks: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray | None = None
    class_probabilities: np.ndarray | None = None


def found(masks: np.ndarray, scores: Any = None, boxes: Any = None) -> Found:
    if boxes is None:
        boxes = [coco_mask.toBbox(run) for run in runs(masks)]
        boxes = np.array(boxes, float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
    scores = np.ones(len(masks)) if scores is None else np.asarray(scores)
    return Found(masks, boxes.astype(np.float32), scores.astype(np.float32))


def runs(masks: np.ndarray) -> list[Any]:
    return [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


def bars(*places: tuple[int, int, int, int], size: tuple[int, int] = (60, 60)) -> np.ndarray:
    """Return masks of rectangles given as y0, x0, y1, x1."""
    masks = np.zeros((len(places), *size), bool)
    for mask, (y0, x0, y1, x1) in zip(masks, places, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


def nothing(size: tuple[int, int] = (60, 60)) -> np.ndarray:
    return np.zeros((0, *size), bool)


def random_image(rng: np.random.Generator, n: int, size: int = 160) -> tuple[Found, np.ndarray]:
    """Return predictions and masks of chromosomes of 20 to 3,000 pixels, many of them crossed."""
    places = []
    for _ in range(n):
        y, x = rng.integers(0, size - 8, 2)
        length, width = rng.integers(8, 75), rng.integers(4, 45)
        if rng.random() < 0.5:
            length, width = width, length
        places.append((y, x, min(y + length, size), min(x + width, size)))
    predicted = []
    for place in places:
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            moved = np.array(place) + rng.integers(-4, 5, 4)
            predicted.append(np.clip(moved, 0, size))
    for _ in range(rng.integers(0, 5)):
        y, x = rng.integers(0, size - 20, 2)
        predicted.append(np.array([y, x, y + 12, x + 20]))
    predicted = [tuple(p) for p in predicted if p[2] > p[0] and p[3] > p[1]]
    masks = bars(*predicted, size=(size, size))
    # Coarse scores with many ties; boxes that differ slightly from those of the masks.
    scores = rng.integers(1, 30, len(masks)) / 30
    boxes = np.array(predicted, float).reshape(-1, 4)[:, [1, 0, 3, 2]]
    boxes += rng.normal(scale=0.7, size=boxes.shape)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return found(masks, scores, boxes), bars(*places, size=(size, size))


def backend(
    predictions: list[Found], targets: list[np.ndarray], max_detections: int = 100
) -> dict[str, float]:
    """Return the average precision of the library, as pycocotools computes it by default."""
    images = [
        {"id": i, "height": masks.shape[1], "width": masks.shape[2]}
        for i, masks in enumerate(targets, 1)
    ]
    true: list[dict[str, Any]] = []
    overlapping = []
    for i, masks in enumerate(targets, 1):
        for number, (mask, run) in enumerate(zip(masks, runs(masks), strict=True)):
            shared = [(mask & other).sum() for k, other in enumerate(masks) if k != number]
            overlapping.append(max(shared, default=0) >= 0.01 * mask.sum())
            true.append(
                {
                    "id": len(true) + 1,
                    "image_id": i,
                    "category_id": 1,
                    "segmentation": run,
                    "bbox": list(coco_mask.toBbox(run)),
                    "area": float(mask.sum()),
                    "iscrowd": 0,
                }
            )
    figures = {}
    for kind, geometry in (("bbox", "box"), ("segm", "mask")):
        for which in ("all", "overlapping") if geometry == "mask" else ("all",):
            annotations = [dict(row) for row in true]
            if which == "overlapping":
                # A true chromosome with an area out of every range is ignored.
                for row, counts in zip(annotations, overlapping, strict=True):
                    row["area"] = row["area"] if counts else 1e12
            truth = COCO(
                {
                    "images": images,
                    "categories": [{"id": 1, "name": "chromosome"}],
                    "annotations": annotations,
                }
            )
            results = []
            for i, prediction in enumerate(predictions, 1):
                for run, box, score in zip(
                    runs(prediction.masks), prediction.boxes, prediction.scores, strict=True
                ):
                    x0, y0, x1, y1 = (float(value) for value in box)
                    # A result with a box would have the area of the box for masks, too.
                    shape = (
                        {"bbox": [x0, y0, x1 - x0, y1 - y0]}
                        if geometry == "box"
                        else {"segmentation": run}
                    )
                    results.append(
                        {"image_id": i, "category_id": 1, "score": float(score), **shape}
                    )
            evaluation = COCOeval_faster(truth, truth.loadRes(results), kind)
            evaluation.params.maxDets = [1, 10, max_detections]
            evaluation.run()
            # (IoU, recall, category, area, detections); `stats` requires exactly 100 of them.
            precision = evaluation.eval["precision"][:, :, 0, :, -1]
            if which == "overlapping":
                figures["mask_ap_overlap"] = precision[..., 0].mean()
                figures["mask_ap50_overlap"] = precision[0, :, 0].mean()
                continue
            if max_detections == 100:
                np.testing.assert_allclose(evaluation.stats[0], precision[..., 0].mean())
            figures[f"{geometry}_ap"] = precision[..., 0].mean()
            figures[f"{geometry}_ap50"] = precision[0, :, 0].mean()
            figures[f"{geometry}_ap75"] = precision[5, :, 0].mean()
            figures[f"{geometry}_aps"] = precision[..., 1].mean()
            figures[f"{geometry}_apm"] = precision[..., 2].mean()
    return {name: np.nan if value < 0 else value for name, value in figures.items()}


def values(report: segmentation_metrics.SegmentationReport, names: tuple[str, ...]) -> np.ndarray:
    return np.array([report.metrics[name].value for name in names])


@pytest.mark.parametrize("seed", range(3))
def test_precision_is_that_of_the_backend(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predictions, targets = zip(*(random_image(rng, n) for n in rng.integers(0, 40, 7)), strict=True)
    report = evaluate_segmentation(predictions, targets, n_bootstrap=0)
    expected = backend(list(predictions), list(targets))
    assert report.max_detections == 100
    assert 0.05 < expected["mask_ap"] < 0.95 and expected["mask_ap_overlap"] < 0.95
    for name in PRECISION_METRICS:
        assert report.metrics[name].value == pytest.approx(expected[name], abs=1e-9), name


def test_the_limit_of_detections_is_that_of_coco() -> None:
    """150 predictions and 50 chromosomes: the 50 worst predictions do not count."""
    rng = np.random.default_rng(0)
    prediction, target = random_image(rng, 50)
    noise = bars(*((y, y, y + 9, y + 5) for y in range(150)), size=(160, 160))
    masks = np.concatenate([prediction.masks, noise])
    scores = np.concatenate([prediction.scores, rng.random(len(noise))])
    more = found(masks, scores)
    assert len(masks) > 150
    report = evaluate_segmentation([more], [target], n_bootstrap=0)
    expected = backend([more], [target])
    np.testing.assert_allclose(
        values(report, PRECISION_METRICS), [expected[name] for name in PRECISION_METRICS], atol=1e-9
    )
    other = evaluate_segmentation([more], [target], n_bootstrap=0, max_detections=len(masks))
    assert other.metrics["mask_ap"].value != report.metrics["mask_ap"].value


def test_more_than_100_chromosomes_are_all_counted() -> None:
    places = [(y, x, y + 8, x + 4) for y in range(0, 150, 10) for x in range(0, 100, 10)]
    masks = bars(*places, size=(160, 160))
    perfect = found(masks, np.linspace(1, 0.6, len(masks)))
    other = bars((2, 2, 40, 9), size=(160, 160))
    images = [perfect, found(nothing((160, 160)))], [masks, other]
    report = evaluate_segmentation(*images, n_bootstrap=0)
    assert report.max_detections == 300
    one_image = evaluate_segmentation([perfect], [masks], n_bootstrap=0)
    assert one_image.metrics["mask_ap"].value == pytest.approx(1, abs=1e-9)
    assert one_image.metrics["box_ap"].value == pytest.approx(1, abs=1e-9)
    assert backend([perfect], [masks])["mask_ap"] < 0.67  # with the limit of COCO
    expected = backend(*images, max_detections=300)
    assert report.metrics["mask_ap"].value == pytest.approx(expected["mask_ap"], abs=1e-9)


def test_a_resample_is_the_backends_precision_of_these_images() -> None:
    rng = np.random.default_rng(3)
    images = [random_image(rng, 12) for _ in range(4)]
    for prediction, _ in images:
        # Without ties: for equal scores COCO takes those of the first copy first.
        prediction.scores += rng.random(len(prediction.scores)).astype(np.float32) / 100
    compared = [segmentation_metrics.compare_image(*image, 0) for image in images]
    chosen = [2, 0, 2, 3, 3, 3]
    weights = np.bincount(chosen, minlength=4).astype(float)
    predictions, targets = zip(*(images[k] for k in sorted(chosen)), strict=True)
    expected = backend(list(predictions), list(targets))
    for geometry in ("box", "mask"):
        curve = segmentation_metrics.PrecisionCurve.of(compared, geometry, "all", 100)
        assert curve.precision(weights).mean() == pytest.approx(
            expected[f"{geometry}_ap"], abs=1e-9
        )


def test_intervals_contain_the_value_and_are_reproducible() -> None:
    rng = np.random.default_rng(1)
    predictions, targets = zip(*(random_image(rng, 10) for _ in range(12)), strict=True)
    report = evaluate_segmentation(predictions, targets, n_bootstrap=100)
    for name in (*PRECISION_METRICS, *COUNT_METRICS):
        interval = report.metrics[name]
        assert interval.low <= interval.value <= interval.high, name
    assert report.metrics["mask_ap"].high - report.metrics["mask_ap"].low > 0.02
    again = evaluate_segmentation(predictions, targets, n_bootstrap=100)
    assert repr(again.metrics) == repr(report.metrics)  # NaN is not equal to itself
    # Generators give the same result.
    lazily = evaluate_segmentation(iter(predictions), (t for t in targets), n_bootstrap=100)
    assert repr(lazily.metrics) == repr(report.metrics)
    one = evaluate_segmentation(predictions[:1], targets[:1], n_bootstrap=100)
    assert np.isnan(one.metrics["mask_ap"].low) and np.isnan(one.metrics["count_error"].high)


def test_counts_by_hand() -> None:
    true = bars((0, 0, 20, 6), (0, 10, 20, 16), (0, 20, 20, 26))
    shifted = bars((12, 30, 32, 36))
    predictions = [
        found(true, [0.9, 0.8, 0.7]),  # exact
        found(true, [0.9, 0.8, 0.4]),  # one below the threshold: missed
        found(np.concatenate([true, shifted]), [0.9, 0.8, 0.7, 0.6]),  # one too many
        found(np.concatenate([true[:2], true[:1]]), [0.9, 0.8, 0.7]),  # one twice, one missed
    ]
    report = evaluate_segmentation(predictions, [true] * 4, n_bootstrap=50)
    assert report.metrics["exact_match_rate"].value == 0.25
    assert report.metrics["relative_count_error"].value == pytest.approx(
        (0 + 1 / 3 + 1 / 3 + 2 / 3) / 4
    )
    assert report.metrics["count_error"].value == pytest.approx((0 + 1 + 1 + 0) / 4)
    assert report.metrics["count_bias"].value == pytest.approx((0 - 1 + 1 + 0) / 4)
    lower = evaluate_segmentation(predictions, [true] * 4, score_threshold=0.4, n_bootstrap=0)
    assert lower.metrics["exact_match_rate"].value == 0.5
    row = report.to_row()
    assert (row["n_images"], row["n_chromosomes"], row["score_threshold"]) == (4, 12, 0.5)
    assert row["exact_match_rate"] == 0.25 and row["exact_match_rate_high"] > 0.25
    assert all(type(value) in (int, float) for value in row.values())

    errors = image_errors(predictions[3], true)
    assert errors.missed.tolist() == [2] and errors.extra.tolist() == [2]
    errors = image_errors(found(np.concatenate([shifted, true[:2]]), [0.6, 0.7, 0.8]), true)
    assert errors.missed.tolist() == [2] and errors.extra.tolist() == [0]
    assert image_errors(predictions[0], true).missed.size == 0


def test_overlap_metrics_count_only_overlapping_chromosomes() -> None:
    """Two crossed chromosomes and one alone, which does not count."""
    cross = bars((0, 20, 50, 27), (20, 0, 27, 50))
    lone = bars((52, 2, 59, 40))
    true = np.concatenate([cross, lone])
    both = evaluate_segmentation([found(cross)], [true], n_bootstrap=0).metrics
    assert both["mask_ap_overlap"].value == pytest.approx(1)
    assert both["mask_ap"].value < 0.7
    all_but_one = found(np.concatenate([cross[:1], lone]))
    one = evaluate_segmentation([all_but_one], [true], n_bootstrap=0).metrics
    assert one["mask_ap50_overlap"].value == pytest.approx(51 / 101)
    assert one["mask_ap_overlap"].value == pytest.approx(51 / 101)
    # The limit is 1 % of a chromosome's pixels: 3 of 350 are less, 4 are more.
    for shared, counted in ((3, False), (4, True)):
        touching = bars((0, 0, 50, 7), (50, 0, 58, 40))
        touching[1, 49, :shared] = True
        found_all = evaluate_segmentation([found(touching)], [touching], n_bootstrap=0).metrics
        assert np.isnan(found_all["mask_ap_overlap"].value) is not counted


def test_classes_are_averaged_as_the_backend_does() -> None:
    rng = np.random.default_rng(5)
    predictions, targets = [], []
    metric = MeanAveragePrecision(iou_type="bbox", backend="faster_coco_eval")
    for _ in range(4):
        one, masks = random_image(rng, 8)
        classes = rng.integers(0, 3, len(masks))
        # Random labels, so that many are wrong.
        labels = rng.integers(0, 3, len(one.scores))
        predictions.append(replace(one, labels=labels))
        targets.append(TrueChromosomes(masks, classes))
        metric.update(
            [
                {
                    "boxes": torch.from_numpy(one.boxes),
                    "scores": torch.from_numpy(one.scores),
                    "labels": torch.from_numpy(labels),
                }
            ],
            [
                {
                    "boxes": torch.from_numpy(found(masks).boxes),
                    "labels": torch.from_numpy(classes),
                }
            ],
        )
    report = evaluate_segmentation(predictions, targets, n_bootstrap=5)
    expected = metric.compute()
    ends = ("map", "map_50", "map_75")
    np.testing.assert_allclose(
        values(report, CLASS_METRICS), [float(expected[end]) for end in ends], atol=1e-5
    )
    assert report.metrics["class_box_ap"].value < report.metrics["box_ap"].value


def test_a_prediction_counts_for_every_class_by_its_probability() -> None:
    rng = np.random.default_rng(6)
    one, masks = random_image(rng, 8)
    labels = rng.integers(0, 3, len(one.scores))
    truth = [TrueChromosomes(masks, rng.integers(0, 3, len(masks)))]
    sure = replace(one, labels=labels, class_probabilities=np.eye(3)[labels])
    metrics = [
        values(evaluate_segmentation([each], truth, n_bootstrap=0), CLASS_METRICS)
        for each in (replace(one, labels=labels), sure)
    ]
    np.testing.assert_allclose(*metrics)
    # Wrong, with the true class second.
    two = bars((0, 0, 20, 6), (0, 30, 20, 36))
    swapped = replace(
        found(two), labels=np.array([1, 0]), class_probabilities=np.array([[0.4, 0.6], [0.6, 0.4]])
    )
    report = evaluate_segmentation([swapped], [TrueChromosomes(two, np.array([0, 1]))])
    # For each class the wrong prediction is first: precision 1/2 at every recall.
    assert report.metrics["class_box_ap50"].value == pytest.approx(0.5)


def test_true_boxes_give_no_mask_metrics() -> None:
    true = bars((0, 0, 40, 10), (20, 20, 50, 40))
    thin = bars((0, 4, 40, 6), (20, 29, 50, 31))  # masks within the boxes
    one = found(thin, boxes=found(true).boxes)
    report = evaluate_segmentation([one], [TrueChromosomes(true, boxes_only=True)], n_bootstrap=0)
    assert report.metrics["box_ap"].value == pytest.approx(1)
    assert np.isnan(report.metrics["mask_ap"].value)
    assert report.metrics["exact_match_rate"].value == 1
    assert (
        evaluate_segmentation([one], [true], n_bootstrap=0).metrics["exact_match_rate"].value == 0
    )


def test_images_without_predictions_or_chromosomes() -> None:
    true = bars((0, 0, 20, 6))
    empty = found(nothing())
    nan = np.full(len(METRICS), np.nan)
    np.testing.assert_array_equal(values(evaluate_segmentation([], []), METRICS), nan)

    missed = evaluate_segmentation([empty, empty], [true, true], n_bootstrap=20)
    figures = {name: missed.metrics[name].value for name in METRICS}
    undefined = {name for name, value in figures.items() if np.isnan(value)}
    # The chromosome is small and does not overlap.
    sizes = {"box_apm", "mask_apm", "mask_ap_overlap", "mask_ap50_overlap"}
    assert undefined == sizes | set(CLASS_METRICS)  # the truth has no classes
    assert figures["mask_ap"] == figures["box_ap50"] == figures["exact_match_rate"] == 0
    assert (figures["relative_count_error"], figures["count_error"], figures["count_bias"]) == (
        1,
        1,
        -1,
    )
    assert missed.metrics["mask_ap"].high == 0

    right = evaluate_segmentation([empty], [nothing()], n_bootstrap=20)
    assert np.isnan(values(right, PRECISION_METRICS)).all()
    np.testing.assert_array_equal(values(right, COUNT_METRICS), [1, np.nan, 0, 0])
    wrong = evaluate_segmentation([found(true), empty], [nothing(), nothing()], n_bootstrap=20)
    assert np.isnan(values(wrong, PRECISION_METRICS)).all()
    np.testing.assert_array_equal(values(wrong, COUNT_METRICS), [0.5, np.nan, 0.5, 0.5])
    # An image without chromosomes has no relative count error, but its predictions cost precision.
    mixed = evaluate_segmentation(
        [found(true, [0.6]), found(true, [0.9])], [true, nothing()], n_bootstrap=20
    )
    assert mixed.metrics["relative_count_error"].value == 0
    assert mixed.metrics["mask_ap"].value == pytest.approx(0.5)
    for report in (missed, right, wrong, mixed):
        assert not any(value < 0 for name, value in report.to_row().items() if "bias" not in name)


def test_area_ranges_are_those_of_coco() -> None:
    from faster_coco_eval.core.cocoeval import Params

    params = Params("segm", ranges={"small": AREAS["small"], "medium": AREAS["medium"]})
    np.testing.assert_array_equal(params.iouThrs, segmentation_metrics.IOU_THRESHOLDS)
    np.testing.assert_array_equal(params.recThrs, segmentation_metrics.RECALLS)
    # A mask of exactly 32 x 32 pixels is small and medium.
    square = bars((0, 0, 32, 32))
    metrics = evaluate_segmentation([found(square)], [square], n_bootstrap=0).metrics
    assert metrics["mask_aps"].value == metrics["mask_apm"].value > 0.999


TRUE = bars((0, 0, 20, 6))


@pytest.mark.parametrize(
    ("prediction", "target", "said"),
    [
        (found(TRUE), TRUE[:, :50], r"Image 0: predicted masks bool \(1, 60, 60\)"),
        (found(TRUE), TRUE[0], r"true masks bool \(60, 60\)"),
        (found(TRUE), TRUE.astype(np.uint8), "true masks uint8"),
        (Found(TRUE.astype(float), np.ones((1, 4)), np.ones(1)), TRUE, "masks float64"),
        (Found(TRUE, np.ones((2, 4)), np.ones(1)), TRUE, r"boxes \(2, 4\)"),
        (Found(TRUE, np.ones((1, 4)), np.ones(2)), TRUE, r"scores \(2,\)"),
        (found(TRUE, [np.nan]), TRUE, "NaN or infinity"),
        (found(TRUE), np.concatenate([TRUE, TRUE & False]), "true mask 1 has no pixels"),
    ],
)
def test_bad_arrays_are_refused(prediction: Found, target: np.ndarray, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        evaluate_segmentation([prediction], [target])


def test_a_missing_prediction_is_an_error() -> None:
    with pytest.raises(ValueError, match="longer"):
        evaluate_segmentation([found(TRUE)], [TRUE, TRUE])
