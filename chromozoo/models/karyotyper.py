"""Building of a karyotyper from the models of the zoo."""

from typing import Any, Literal

from chromozoo.classes import Stain
from chromozoo.karyotype.karyotyper import Assignment, Classifier, Karyotyper, Segmenter
from chromozoo.models.registry import get_classifier, get_segmenter, model_info

STAINS: tuple[Stain, ...] = ("q", "g")


def get_karyotyper(
    segmenter: str | Segmenter = "chr_fast",
    classifier: str | Classifier = "chrnet4",
    assignment: Assignment = "cell",
    *,
    segmenter_weights: str = "DEFAULT",
    classifier_weights: str = "DEFAULT",
    stain: Stain | Literal["auto"] = "auto",
    **options: Any,
) -> Karyotyper:
    """Build a karyotyper from a segmenter and a classifier.

    Args:
        segmenter: Name of a segmenter, or a model.
        classifier: Name of a classifier, or a model.
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
    stain_segmenters: dict[Stain, Any] = {}
    if isinstance(segmenter, str):
        name, segmenter = segmenter, get_segmenter(segmenter, segmenter_weights)
        if segmenter_weights == "DEFAULT":
            tags = model_info(name).stain_weights
            for own in STAINS:
                if own in tags and stain in ("auto", own):
                    stain_segmenters[own] = get_segmenter(name, tags[own])
    if isinstance(classifier, str):
        classifier = get_classifier(classifier, classifier_weights)
    karyotyper = Karyotyper(
        segmenter,
        classifier,
        assignment,
        stain=stain,
        stain_segmenters=stain_segmenters,
        **options,
    )
    return karyotyper.eval()
