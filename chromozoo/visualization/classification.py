"""Figures of a classifier: confusion matrix, ROC, calibration, features, Grad-CAM and errors.

Each function draws one ``matplotlib`` figure of :class:`StoredPredictions`; ``chromozoo figures``
writes them all. Needs the extra ``figures``.
"""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from sklearn.metrics import roc_auc_score, roc_curve

from chromozoo.classes import CLASS_INDEX, CLASSES, DENVER_GROUPS
from chromozoo.errors import ChromozooError
from chromozoo.files import SOFTWARE, replace_file
from chromozoo.metrics.classification import (
    ECE_BINS,
    ClassificationReport,
    Misclassification,
    accuracy_at_coverage,
    calibration_bins,
    evaluate_classification,
)
from chromozoo.visualization.grad_cam import grad_cam

# With more points they overlap, and t-SNE takes minutes.
MAX_POINTS = 3000
DPI = 110
# Errors of a gallery; the most certain ones come first.
MAX_ERRORS = 40
# Colours of the Denver groups, safe for colour-blind readers (Okabe and Ito).
GROUP_COLOURS = dict(
    zip(
        DENVER_GROUPS,
        ("#000000", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"),
        strict=True,
    )
)
GROUP_OF = {name: group for group, names in DENVER_GROUPS.items() for name in names}


@dataclass(frozen=True, eq=False)
class StoredPredictions:
    """Predictions of a classifier on one stage of a data set, stored for quick redrawing.

    Attributes:
        origin: Model, tag, hashes of weights and split, data set and stage, as text: predictions of
            another origin are not drawn.
        probabilities: ``(N, 24)`` calibrated class probabilities.
        features: ``(N, F)`` penultimate features, without flips.
        labels: ``(N,)`` true class indices.
        cells: ``(N,)`` cell ids as text.
    """

    origin: str
    probabilities: NDArray[np.float64]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    cells: NDArray[np.str_]

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file without pickled objects."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **asdict(self))
        replace_file(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "StoredPredictions":
        """Read a file of :meth:`save`.

        Raises:
            ChromozooError: The file cannot be read.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                values: dict[str, Any] = {item.name: stored[item.name] for item in fields(cls)}
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ChromozooError(
                f"{path}: no stored predictions ({error}); remove it to compute them again"
            ) from error
        return cls(**values | {"origin": str(values["origin"])})

    def report(self) -> ClassificationReport:
        """Evaluate the predictions, alone and with the assignment of cells."""
        return evaluate_classification(self.probabilities, self.labels, self.cells)


def draw_confusion(stored: StoredPredictions, report: ClassificationReport) -> Figure:
    """Draw the confusion matrices, alone and with the assignment of cells."""
    figure = Figure(figsize=(17, 8.6), layout="constrained")
    figure.suptitle(stored.origin, fontsize=10)
    panels = {"alone": report.confusion, "with cell assignment": report.assigned_confusion}
    metrics = {"alone": "accuracy", "with cell assignment": "assigned_accuracy"}
    shares = None
    for axes, (title, counts) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        assert counts is not None
        total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        # The square root makes single errors visible.
        shares = axes.imshow(counts / total, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
        for true, predicted in zip(*np.nonzero(counts), strict=True):
            is_dark = counts[true, predicted] > 0.5 * total[true, 0]
            axes.text(
                predicted,
                true,
                int(counts[true, predicted]),
                ha="center",
                va="center",
                fontsize=6,
                color="white" if is_dark else "black",
            )
        axes.set_xticks(range(len(CLASSES)), CLASSES, fontsize=7)
        axes.set_yticks(range(len(CLASSES)), CLASSES, fontsize=7)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_title(f"{title}: {report.metrics[metrics[title]].value:.2%} correct")
    assert shares is not None
    figure.colorbar(shares, ax=figure.axes, label="share of the true class", shrink=0.8)
    return figure


def class_table(stored: StoredPredictions, report: ClassificationReport) -> list[dict[str, Any]]:
    """Return one row for each true class: number, precision, recall, F1, AUC, frequent error.

    Precision, recall and F1 are without the assignment of cells, ``assigned_recall`` is with it.
    The AUC is that of one class against the rest.
    """
    assigned = report.assigned_confusion
    assert assigned is not None
    rows = []
    for index, name in enumerate(CLASSES):
        true, predicted = report.confusion[index].sum(), report.confusion[:, index].sum()
        if not true:
            continue
        right = report.confusion[index, index]
        wrong = report.confusion[index].copy()
        wrong[index] = 0
        other = int(wrong.argmax())
        rows.append(
            {
                "class": name,
                "chromosomes": int(true),
                "precision": round(right / predicted, 4) if predicted else 0.0,
                "recall": round(right / true, 4),
                "f1": round(2 * right / (true + predicted), 4),
                "auc": round(_auc(stored, index), 5),
                "assigned_recall": round(assigned[index, index] / true, 4),
                "often_predicted": f"{CLASSES[other]} ({wrong[other]})" if wrong[other] else "",
            }
        )
    return rows


def draw_roc(stored: StoredPredictions) -> Figure:
    """Draw the ROC of each class against the rest, with a logarithmic false positive rate."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots()
    aucs = []
    for index, name in enumerate(CLASSES):
        if not (stored.labels == index).any():
            continue
        false, true, _ = roc_curve(stored.labels == index, stored.probabilities[:, index])
        aucs.append(_auc(stored, index))
        axes.step(
            np.maximum(false, 1e-4),
            true,
            where="post",
            lw=1,
            color=GROUP_COLOURS[GROUP_OF[name]],
            alpha=0.8,
            label=f"{name}: {aucs[-1]:.4f}",
        )
    axes.set_xscale("log")
    axes.set(
        xlim=(1e-4, 1),
        ylim=(0.5, 1.005),
        xlabel="false positive rate (left end: none)",
        ylabel="true positive rate",
        title=f"{stored.origin}\none class against the rest; mean AUC {np.mean(aucs):.4f}; "
        "colours: Denver groups",
    )
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3)
    axes.legend(title="class: AUC", fontsize=7, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw_reliability(stored: StoredPredictions, report: ClassificationReport) -> Figure:
    """Draw the reliability diagram, and the accuracy against the coverage."""
    confidence = stored.probabilities.max(axis=1)
    right = stored.probabilities.argmax(axis=1) == stored.labels
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    figure.suptitle(stored.origin, fontsize=10)
    left, other = figure.subplots(1, 2)
    bins = calibration_bins(confidence)
    number = np.bincount(bins, minlength=ECE_BINS)
    filled = number > 0
    middle = (np.arange(ECE_BINS) + 0.5) / ECE_BINS
    accuracy = np.bincount(bins, right, minlength=ECE_BINS)[filled] / number[filled]
    left.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--", label="perfectly calibrated")
    left.bar(middle[filled], accuracy, width=0.9 / ECE_BINS, color="#0072b2", label="measured")
    for x, y, n in zip(middle[filled], accuracy, number[filled], strict=True):
        left.text(x, y + 0.01, int(n), ha="center", fontsize=6)
    left.set(
        xlim=(0, 1), ylim=(0, 1.08), xlabel="probability of the predicted class", ylabel="accuracy"
    )
    left.set_title(
        f"ECE {report.metrics['ece'].value:.4f}; numbers of chromosomes above the bars", fontsize=10
    )
    left.legend(loc="upper left", fontsize=8)

    ranked = right[np.argsort(-confidence, kind="stable")]
    coverage = np.arange(1, len(ranked) + 1) / len(ranked)
    other.plot(coverage, np.cumsum(ranked) / np.arange(1, len(ranked) + 1), color="#0072b2")
    other.axvline(0.9, color="0.6", lw=1, ls="--")
    other.set(xlim=(0, 1), xlabel="coverage, most certain predictions first", ylabel="accuracy")
    at_90 = accuracy_at_coverage(stored.probabilities, stored.labels, 0.9)
    other.set_title(f"accuracy at 90 % coverage: {at_90:.2%}", fontsize=10)
    other.grid(alpha=0.3)
    return figure


def draw_features(stored: StoredPredictions, seed: int = 0) -> Figure:
    """Draw the t-SNE of the features, with the class at its median and a cross for each error."""
    rows = np.arange(len(stored.labels))
    if len(rows) > MAX_POINTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_POINTS, replace=False))
    features = stored.features[rows]
    perplexity = min(30.0, max(1.0, (len(rows) - 1) / 3))
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(features)
    labels = stored.labels[rows]
    wrong = stored.probabilities[rows].argmax(axis=1) != labels
    figure = Figure(figsize=(9, 8.5), layout="constrained")
    axes = figure.subplots()
    for group, names in DENVER_GROUPS.items():
        members = np.isin(labels, [CLASS_INDEX[name] for name in names])
        x, y = points[members].T
        axes.scatter(x, y, s=7, color=GROUP_COLOURS[group], alpha=0.6, label=group)
    x, y = points[wrong].T
    axes.scatter(x, y, s=35, marker="x", color="red", lw=1, label="wrong")
    for index, name in enumerate(CLASSES):
        if (labels == index).any():
            x, y = np.median(points[labels == index], axis=0)
            box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "0.6", "alpha": 0.85}
            axes.text(x, y, name, ha="center", va="center", fontsize=9, bbox=box)
    axes.set(xticks=[], yticks=[])
    axes.set_title(
        f"{stored.origin}\nt-SNE of the features of {len(rows)} chromosomes", fontsize=10
    )
    axes.legend(title="Denver group", fontsize=8, markerscale=1.5)
    return figure


def draw_grad_cam(model: Any, stored: StoredPredictions, crops: Any) -> Figure:
    """Draw the Grad-CAM of one correctly classified chromosome of each class.

    It is the one with the median probability among the correctly classified ones.

    Args:
        model: The classifier.
        stored: Its predictions.
        crops: Their :class:`chromozoo.data.base.crops.CropDataset`.
    """
    chosen = []
    predicted = stored.probabilities.argmax(axis=1)
    for index in range(len(CLASSES)):
        right = np.flatnonzero((stored.labels == index) & (predicted == index))
        if len(right):
            order = right[np.argsort(stored.probabilities[right, index], kind="stable")]
            chosen.append(int(order[len(order) // 2]))
    figure = Figure(figsize=(15, 7), layout="constrained")
    figure.suptitle(f"{stored.origin}: Grad-CAM of the true class", fontsize=10)
    grid = figure.subplots(2, 12, squeeze=False).ravel()
    heats = grad_cam(model, [crops[row]["image"] for row in chosen], stored.labels[chosen])
    for axes, row, heat in zip(grid, chosen, heats, strict=False):
        image = first_view(crops.crops[row])
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=255)
        axes.imshow(heat, cmap="autumn", alpha=0.6 * heat, vmin=0, vmax=1)
        label = stored.labels[row]
        axes.set_title(f"{CLASSES[label]} ({stored.probabilities[row, label]:.0%})", fontsize=9)
    for axes in grid:
        axes.axis("off")
    return figure


def draw_errors(
    stored: StoredPredictions, errors: Sequence[Misclassification], crops: Any
) -> Figure:
    """Draw the errors, each next to its homologue and to a chromosome of the predicted class.

    Args:
        stored: The predictions.
        errors: Errors of a report; the most certain ones are drawn.
        crops: The :class:`chromozoo.data.base.crops.CropDataset` of the predictions.
    """
    shown = sorted(errors, key=lambda error: -error.probability)[:MAX_ERRORS]
    columns = 4
    rows_of_grid = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(15, 0.6 + 2.7 * rows_of_grid), layout="constrained")
    figure.suptitle(
        f"{stored.origin}: {len(shown)} of {len(errors)} errors.\nIn each frame: the "
        "chromosome; its homologue in the cell; a chromosome of the predicted class in the cell",
        fontsize=10,
    )
    grid = figure.subplots(rows_of_grid, columns, squeeze=False).ravel()
    for axes, error in zip(grid, shown, strict=False):
        in_cell = stored.cells == error.cell
        rows: list[tuple[str, int]] = [(error.true, error.index)]
        for name in (error.true, error.predicted):
            others = np.flatnonzero(in_cell & (stored.labels == CLASS_INDEX[name]))
            rows += [(name, int(row)) for row in others[others != error.index][:1]]
        _show_side_by_side(axes, [(name, first_view(crops.crops[row])) for name, row in rows])
        axes.set_title(
            f"cell {error.cell}: {error.true} classified as {error.predicted} "
            f"({error.probability:.0%})",
            fontsize=8,
        )
    for axes in grid:
        axes.axis("off")
    return figure


def first_view(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the first view ``(H, W)`` of a prepared crop ``(H, W)`` or ``(H, W, views)``."""
    return crop if crop.ndim == 2 else crop[..., 0]


def _show_side_by_side(axes: Axes, images: Sequence[tuple[str, NDArray[np.uint8]]]) -> None:
    """Show images of one size in a row, with a text below each."""
    height, width = images[0][1].shape
    gap = width // 6
    canvas = np.zeros((height, len(images) * (width + gap) - gap), np.uint8)
    for number, (name, image) in enumerate(images):
        left = number * (width + gap)
        canvas[:, left : left + width] = image
        axes.text(left + width / 2, height + 2, name, ha="center", va="top", fontsize=8)
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=255)


def _auc(stored: StoredPredictions, index: int) -> float:
    """Return the AUC of one class against the rest; NaN without a rest."""
    is_class = stored.labels == index
    if is_class.all():
        return float("nan")
    return float(roc_auc_score(is_class, stored.probabilities[:, index]))


def write_figure(path: Path, figure: Figure) -> None:
    """Write a PNG file atomically; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": SOFTWARE})
    replace_file(path, buffer.getvalue())


def figure_functions(
    model: Any, stored: StoredPredictions, report: ClassificationReport, crops: Any
) -> Mapping[str, Callable[[], Figure]]:
    """Return the function that draws each figure, by the stem of its file."""
    return {
        "confusion": lambda: draw_confusion(stored, report),
        "roc": lambda: draw_roc(stored),
        "reliability": lambda: draw_reliability(stored, report),
        "features": lambda: draw_features(stored),
        "grad-cam": lambda: draw_grad_cam(model, stored, crops),
        "errors": lambda: draw_errors(stored, report.errors, crops),
        "errors-assigned": lambda: draw_errors(stored, report.assigned_errors, crops),
    }
