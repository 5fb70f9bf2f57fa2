"""Module that registers ``tiny_segmenter`` when it is imported, as a module of a user does."""

from chromozoo.models.registry import register_model
from helpers.tiny_segmenter import Tiny


@register_model(task="segmentation", paper="A. Uthor, 2026")
def tiny_segmenter() -> Tiny:
    """A tiny segmenter."""
    return Tiny()
