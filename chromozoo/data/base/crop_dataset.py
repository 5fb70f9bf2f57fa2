"""Prepared crops of single chromosomes: preparation, cache and data set."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from chromozoo.data.base.content_index import crops_folder
from chromozoo.images import augment
from chromozoo.images.preset import ChromosomePreset


def prepared_crops(
    label: str,
    content_sha256: str,
    preset: ChromosomePreset,
    read: Callable[[], Iterable[tuple[str, NDArray[np.generic]]]],
    folder: Path | None = None,
    cells: Sequence[Any] | NDArray[Any] | None = None,
) -> NDArray[np.uint8]:
    """Return the prepared crops of a data set from the cache, and prepare them on a miss.

    Args:
        label: Name of the data set, the beginning of the cache file's name.
        content_sha256: Hash of the content of the data set. It names the cache file together with
            the key of the preset, so a changed file or another preparation never meets an old
            cache.
        preset: Prepares each crop.
        read: Yields the images as ``(name, array)`` in order; called only on a miss.
        folder: Folder of the cache; the user's cache folder where None.
        cells: ``(N,)`` cells of the images. Successive images of one cell are brought to the
            typical length of the preset together (:meth:`ChromosomePreset.cell_zoom`), as in
            prediction; None keeps the scale of all.

    Returns:
        Read-only memory map ``(N, height, width)`` uint8, or ``(N, height, width, views)``.
    """
    folder = folder or crops_folder()
    path = folder / f"{label}-{content_sha256[:12]}-{preset.key}.npy"
    if not path.exists():
        crops = np.stack(list(_prepare(preset, read(), cells)))
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".npy.part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, crops)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    mapped: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _prepare(
    preset: ChromosomePreset,
    images: Iterable[tuple[str, NDArray[np.generic]]],
    cells: Sequence[Any] | NDArray[Any] | None,
) -> Iterator[NDArray[np.uint8]]:
    if cells is None or not preset.typical_length:
        yield from (preset.prepare(image, name) for name, image in images)
        return
    for _, group in groupby(zip(cells, images, strict=True), key=lambda pair: pair[0]):
        cell = [named for _, named in group]
        zoom = preset.cell_zoom([preset.length(image, name) for name, image in cell])
        yield from (preset.prepare(image, name, zoom=zoom) for name, image in cell)


def sha256_of(parts: Iterable[bytes]) -> str:
    """Return a hash of several byte strings that also depends on where each of them ends."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


class CropDataset(Dataset[dict[str, Tensor]]):
    """Prepared crops with labels.

    An item holds ``image`` (channels, H, W) float32 normalised, ``label`` and ``index`` (its place
    in this data set) as int64 scalars, ``cell``, the number of its cell in this data set, and
    ``upright``, whether the p arm is known to be up, as bool scalar. All views of a chromosome are
    augmented alike.

    Args:
        crops: ``(N, H, W)`` or ``(N, H, W, views)`` uint8.
        labels: ``(N,)`` class indices.
        cells: ``(N,)`` ids of the cells, numbers or names.
        preset: Normalises the crops.
        augmentation: albumentations pipeline for training, or None.
        upright: ``(N,)`` bool: the p arm is known to be up, also in the augmented image; None
            where it is unknown for all.
    """

    def __init__(
        self,
        crops: NDArray[np.uint8],
        labels: NDArray[np.int64],
        cells: NDArray[Any],
        preset: ChromosomePreset,
        augmentation: A.Compose | None = None,
        upright: NDArray[np.bool_] | None = None,
    ) -> None:
        self.crops = crops
        self.labels = labels
        self.cells = cells
        self.preset = preset
        self.augmentation = augmentation
        self.upright = np.zeros(len(crops), bool) if upright is None else upright
        self.cell_numbers = np.unique(cells, return_inverse=True)[1]
        self.seed: int | None = None

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        # A copy: the memory map is read-only, and torch warns of tensors on such memory.
        crop = np.array(self.crops[index])
        if self.augmentation is not None:
            crop = augment.apply(self.augmentation, crop)
        return {
            "image": self.preset.tensor(crop),
            "label": torch.tensor(int(self.labels[index])),
            "index": torch.tensor(index),
            "cell": torch.tensor(int(self.cell_numbers[index])),
            "upright": torch.tensor(bool(self.upright[index])),
        }
