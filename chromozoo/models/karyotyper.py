"""Building a karyotyper from the models of the zoo."""

from typing import Any, Literal

from chromozoo.classes import Stain
from chromozoo.errors import UnknownNameError
from chromozoo.karyotype.karyotyper import Assignment, Karyotyper
from chromozoo.models.registry import get_model, model_info

STAINS: tuple[Stain, ...] = ("q", "g")


def get_karyotyper(
    segmenter: Any = "chr_fast",
    classifier: Any = "chrnet4",
    assignment: Assignment = "cell",
    *,
    segmenter_weights: str = "DEFAULT",
    classifier_weights: str = "DEFAULT",
    stain: Stain | Literal["auto"] = "auto",
    **options: Any,
) -> Karyotyper:
    """Builds a karyotyper from a segmenter and a classifier.

    Args:
        segmenter: Name of a segmenter, or one that is built already.
        classifier: Name of a classifier, or one that is built already.
        assignment: See :class:`Karyotyper`.
        segmenter_weights: Tag or path, if ``segmenter`` is a name. With ``"DEFAULT"``, the
            segmenter may declare other weights for one stain (``ModelInfo.stain_weights``).
        classifier_weights: Tag or path, if ``classifier`` is a name.
        stain: See :class:`Karyotyper`.
        **options: Further arguments of :class:`Karyotyper`, such as ``score``.

    Returns:
        The karyotyper in evaluation mode.

    Raises:
        UnknownNameError: A model is unknown or of the other task.
        WeightsError: Weights are missing, altered or do not fit.
    """
    models: dict[str, Any] = {}
    for model, weights, task in (
        (segmenter, segmenter_weights, "segmentation"),
        (classifier, classifier_weights, "classification"),
    ):
        if isinstance(model, str) and model_info(model).task != task:
            raise UnknownNameError(
                f"{model} is no model for {task}; `chromozoo models` lists those that are"
            )
        models[task] = get_model(model, weights=weights) if isinstance(model, str) else model
    stain_segmenters: dict[Stain, Any] = {}
    if isinstance(segmenter, str) and segmenter_weights == "DEFAULT":
        tags = model_info(segmenter).stain_weights
        for own in STAINS:
            if own in tags and stain in ("auto", own):
                stain_segmenters[own] = get_model(segmenter, weights=tags[own])
    karyotyper = Karyotyper(
        models["segmentation"],
        models["classification"],
        assignment,
        stain=stain,
        stain_segmenters=stain_segmenters,
        **options,
    )
    return karyotyper.eval()
