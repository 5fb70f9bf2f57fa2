"""Prepared metaphases, kept in memory while there is room."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from chromozoo.classes import CLASS_INDEX
from chromozoo.data.base.metaphase_targets import CHROMOSOME
from chromozoo.images.metaphase import MetaphasePreset
from chromozoo.structures.metaphase import MetaphaseFiles, check_metaphase

# All 150 prepared images of BioImLab take 66 MB, and the 1,074 training images of three data sets
# take 520 MB.
IMAGE_CACHE_BYTES = 768 << 20

T = TypeVar("T")


class MemoryCache(Generic[T]):
    """Cache of the items used last, up to a number of bytes.

    Args:
        limit: Largest total size in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.items: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self.size = 0

    def get(self, key: str, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """Return an item, and make it on a miss.

        Args:
            key: Name of the item.
            make: Makes the item.
            size: Returns its size in bytes.
        """
        if key in self.items:
            self.items.move_to_end(key)
            return self.items[key][0]
        item = make()
        self.items[key] = item, size(item)
        self.size += size(item)
        while self.size > self.limit:
            _, (_, freed) = self.items.popitem(last=False)
            self.size -= freed
        return item


@dataclass(frozen=True, eq=False)
class StoredMetaphase:
    """A prepared metaphase.

    Attributes:
        key: Name of the image in the split.
        canvas: ``(h, w)`` uint8 signal image at the preset's scale.
        polygons: Outlines ``(K, 2)`` of the instances in pixels of the canvas.
        labels: ``(N,)`` int64 of the instances: all 1, or 1 to 24 by class.
        boxes_only: The polygons are boxes, and the masks are unknown.
    """

    key: str
    canvas: NDArray[np.uint8]
    polygons: list[NDArray[np.float64]]
    labels: NDArray[np.int64]
    boxes_only: bool = False


class MetaphaseStore:
    """Metaphases that are read and prepared on first use, with a cache in memory.

    Args:
        files: Reads the metaphases.
        preset: Prepares each metaphase.
        with_classes: Label instances 1 to 24, in the order of
            :data:`chromozoo.classes.CLASSES`, by their class in the files; else all 1.
    """

    def __init__(
        self, files: MetaphaseFiles, preset: MetaphasePreset, with_classes: bool = False
    ) -> None:
        self.files = files
        self.preset = preset
        self.with_classes = with_classes
        self._cache: MemoryCache[StoredMetaphase] = MemoryCache(IMAGE_CACHE_BYTES)

    def __getitem__(self, key: str) -> StoredMetaphase:
        """Return one metaphase.

        Raises:
            DatasetError: The image or an outline is damaged; the message names file and shape.
        """
        return self._cache.get(key, lambda: self._prepare(key), lambda item: item.canvas.nbytes)

    def _prepare(self, key: str) -> StoredMetaphase:
        metaphase = check_metaphase(self.files.read(key))
        canvas = self.preset(metaphase.image, metaphase.source).canvas
        zoom = np.array(canvas.shape[::-1]) / metaphase.image.shape[::-1]
        labels = (
            np.array([1 + CLASS_INDEX[name] for name in metaphase.labels], np.int64)
            if self.with_classes
            else np.full(len(metaphase.polygons), CHROMOSOME, np.int64)
        )
        polygons = [polygon * zoom for polygon in metaphase.polygons]
        return StoredMetaphase(key, canvas, polygons, labels, metaphase.boxes_only)
