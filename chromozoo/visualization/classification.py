"""Images of what a classifier does: confusion, ROC, calibration, features, attention, errors.

Each function draws one ``matplotlib`` figure of :class:`StoredPredictions`; `chromozoo figures`
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

# More points than this hide each other, and t-SNE takes minutes.
MAX_POINTS = 3000
# Of a gallery; the most certain errors come first.
MAX_ERRORS = 40
# Okabe and Ito's colours, which the colour-blind can tell apart, for the Denver groups.
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
    """What a classifier said of one part of a data set, kept so that drawing again is quick.

    Attributes:
        origin: Model, tag, hashes of weights and split, data set and part, as text: predictions of
            another origin are not drawn.
        probabilities: ``(N, 24)`` calibrated, 0..1.
        features: ``(N, F)`` of the network's last layer but one, images as they are.
        labels: ``(N,)`` true class indices.
        cells: ``(N,)`` ids of the cells as text.
    """

    origin: str
    probabilities: NDArray[np.float64]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    cells: NDArray[np.str_]

    def save(self, path: Path) -> None:
        """Writes an ``.npz`` without any pickled object."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **asdict(self))
        replace_file(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "StoredPredictions":
        """Reads what :meth:`save` wrote.

        Raises:
            ChromozooError: The file is none of these.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                values: dict[str, Any] = {item.name: stored[item.name] for item in fields(cls)}
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ChromozooError(
                f"{path}: no stored predictions ({error}); remove it, and they are made anew"
            ) from error
        return cls(**values | {"origin": str(values["origin"])})

    def report(self) -> ClassificationReport:
        """Metrics, confusion and errors, alone and with assignment."""
        return evaluate_classification(self.probabilities, self.labels, self.cells)


def draw_confusion(stored: StoredPredictions, report: ClassificationReport) -> Figure:
    """Confusion matrices, alone and with assignment: rows are true, columns are named."""
    figure = Figure(figsize=(17, 8.6), layout="constrained")
    figure.suptitle(stored.origin, fontsize=10)
    panels = {"alone": report.confusion, "with cell assignment": report.assigned_confusion}
    metrics = {"alone": "accuracy", "with cell assignment": "assigned_accuracy"}
    shares = None
    for axes, (title, counts) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        assert counts is not None
        total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        # The root makes a single error among many visible.
        shares = axes.imshow(counts / total, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
        for true, named in zip(*np.nonzero(counts), strict=True):
            light = counts[true, named] > 0.5 * total[true, 0]
            axes.text(
                named,
                true,
                int(counts[true, named]),
                ha="center",
                va="center",
                fontsize=6,
                color="white" if light else "black",
            )
        axes.set_xticks(range(len(CLASSES)), CLASSES, fontsize=7)
        axes.set_yticks(range(len(CLASSES)), CLASSES, fontsize=7)
        axes.set(xlabel="named", ylabel="true")
        axes.set_title(f"{title}: {report.metrics[metrics[title]].value:.2%} right")
    assert shares is not None
    figure.colorbar(shares, ax=figure.axes, label="share of the true class", shrink=0.8)
    return figure


def class_table(stored: StoredPredictions, report: ClassificationReport) -> list[dict[str, Any]]:
    """For each class that is there: number, precision, recall, AUC, and what it is mistaken for.

    Precision, recall and F1 are of the names given to each chromosome alone; ``assigned_recall``
    is of those given to the cell. AUC is that of one class against the rest.
    """
    assigned = report.assigned_confusion
    assert assigned is not None
    rows = []
    for index, name in enumerate(CLASSES):
        true, named = report.confusion[index].sum(), report.confusion[:, index].sum()
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
                "precision": round(right / named, 4) if named else 0.0,
                "recall": round(right / true, 4),
                "f1": round(2 * right / (true + named), 4),
                "auc": round(_auc(stored, index), 5),
                "assigned_recall": round(assigned[index, index] / true, 4),
                "often_predicted": f"{CLASSES[other]} ({wrong[other]})" if wrong[other] else "",
            }
        )
    return rows


def draw_roc(stored: StoredPredictions) -> Figure:
    """ROC of each class against the rest, and AUC; the false positive rate in logarithms."""
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
    """How often the probability is right, and how accuracy falls with the share that is kept."""
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
    left.set(xlim=(0, 1), ylim=(0, 1.08), xlabel="probability of the name", ylabel="share right")
    left.set_title(f"ECE {report.metrics['ece'].value:.4f}; numbers: chromosomes", fontsize=10)
    left.legend(loc="upper left", fontsize=8)

    kept = right[np.argsort(-confidence, kind="stable")]
    coverage = np.arange(1, len(kept) + 1) / len(kept)
    other.plot(coverage, np.cumsum(kept) / np.arange(1, len(kept) + 1), color="#0072b2")
    other.axvline(0.9, color="0.6", lw=1, ls="--")
    other.set(xlim=(0, 1), xlabel="share kept, the most probable names first", ylabel="accuracy")
    at_90 = accuracy_at_coverage(stored.probabilities, stored.labels, 0.9)
    other.set_title(f"at 90 % coverage {at_90:.2%} are right", fontsize=10)
    other.grid(alpha=0.3)
    return figure


def draw_features(stored: StoredPredictions, seed: int = 0) -> Figure:
    """t-SNE of the features; each class carries its name at its median, wrong names a cross."""
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


def draw_attention(model: Any, stored: StoredPredictions, crops: Any) -> Figure:
    """Grad-CAM (Selvaraju et al. 2017) of one rightly named chromosome of each class.

    Of each class the one whose probability is the median of its rightly named ones.

    Args:
        model: The classifier.
        stored: Its predictions.
        crops: The :class:`chromozoo.data.base.crop_dataset.CropDataset` that they are of.
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


def grad_cam(model: Any, images: Sequence[Any], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Heat maps ``(N, H, W)`` in 0..1, each scaled to its own maximum, by ``captum``.

    Args:
        model: A classifier.
        images: N normalised tensors ``(channels, H, W)``.
        labels: ``(N,)`` the classes whose evidence is asked for.
    """
    import torch
    from captum.attr import LayerAttribution, LayerGradCam

    model.eval()
    batch = torch.stack(list(images)).to(model.device)
    layer = last_map(model, batch[:1])
    target = torch.from_numpy(np.asarray(labels)).to(model.device)
    heat = LayerGradCam(model, layer).attribute(
        batch.requires_grad_(), target=target, relu_attributions=True
    )
    heat = LayerAttribution.interpolate(heat, tuple(batch.shape[-2:]), "bilinear")
    heat = heat.detach().sum(dim=1).float()
    scaled: NDArray[np.float32] = (
        (heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)).cpu().numpy()
    )
    return scaled


def last_map(model: Any, batch: Any) -> Any:
    """The last layer that still gives an image ``(B, C, h, w)``, found by running the network."""
    import torch

    found: list[Any] = []

    def remember(layer: Any, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[-2:]) > 1:
            found.append(layer)

    layers = [layer for layer in model.network.modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(remember) for layer in layers]
    try:
        with torch.no_grad():
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ChromozooError(
            f"{type(model).__name__} has no layer that gives an image, so there is no Grad-CAM"
        )
    return found[-1]


def draw_errors(
    stored: StoredPredictions, errors: Sequence[Misclassification], crops: Any
) -> Figure:
    """The errors, each beside the cell's other chromosome of its class, and one it was taken for.

    Args:
        stored: The predictions.
        errors: Of a report; the most certain ones are drawn.
        crops: The :class:`chromozoo.data.base.crop_dataset.CropDataset` that they are of.
    """
    shown = sorted(errors, key=lambda error: -error.probability)[:MAX_ERRORS]
    columns = 4
    lines = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(15, 0.6 + 2.7 * lines), layout="constrained")
    figure.suptitle(
        f"{stored.origin}: {len(shown)} of {len(errors)} errors.\nIn each frame: the chromosome; "
        "the cell's other one of its true class; one of the class that it was named",
        fontsize=10,
    )
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, error in zip(grid, shown, strict=False):
        in_cell = stored.cells == error.cell
        rows: list[tuple[str, int]] = [(error.true, error.index)]
        for name in (error.true, error.predicted):
            others = np.flatnonzero(in_cell & (stored.labels == CLASS_INDEX[name]))
            rows += [(name, int(row)) for row in others[others != error.index][:1]]
        _side_by_side(axes, [(name, first_view(crops.crops[row])) for name, row in rows])
        axes.set_title(
            f"cell {error.cell}: {error.true} named {error.predicted} ({error.probability:.0%})",
            fontsize=8,
        )
    for axes in grid:
        axes.axis("off")
    return figure


def first_view(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``(H, W)`` of a prepared crop ``(H, W)`` or ``(H, W, views)``."""
    return crop if crop.ndim == 2 else crop[..., 0]


def _side_by_side(axes: Axes, images: Sequence[tuple[str, NDArray[np.uint8]]]) -> None:
    height, width = images[0][1].shape
    gap = width // 6
    canvas = np.zeros((height, len(images) * (width + gap) - gap), np.uint8)
    for number, (name, image) in enumerate(images):
        left = number * (width + gap)
        canvas[:, left : left + width] = image
        axes.text(left + width / 2, height + 2, name, ha="center", va="top", fontsize=8)
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=255)


def _auc(stored: StoredPredictions, index: int) -> float:
    """Of one class against the rest; NaN where there is no rest."""
    is_class = stored.labels == index
    if is_class.all():
        return float("nan")
    return float(roc_auc_score(is_class, stored.probabilities[:, index]))


def write_figure(path: Path, figure: Figure) -> None:
    """Writes a PNG; the file is replaced as a whole, and equal figures give equal bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": SOFTWARE})
    replace_file(path, buffer.getvalue())


def drawings(
    model: Any, stored: StoredPredictions, report: ClassificationReport, crops: Any
) -> Mapping[str, Callable[[], Figure]]:
    """All figures by the name of their file, each drawn when it is called."""
    return {
        "confusion": lambda: draw_confusion(stored, report),
        "roc": lambda: draw_roc(stored),
        "reliability": lambda: draw_reliability(stored, report),
        "features": lambda: draw_features(stored),
        "grad-cam": lambda: draw_attention(model, stored, crops),
        "errors": lambda: draw_errors(stored, report.errors, crops),
        "errors-assigned": lambda: draw_errors(stored, report.assigned_errors, crops),
    }
