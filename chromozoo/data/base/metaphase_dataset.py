"""Data sets of annotated metaphases: whole images, random crops, and one split of a data set."""

import os
from collections.abc import Iterable, Sequence
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from chromozoo.data.base.arguments import as_dataclass
from chromozoo.data.base.metaphase_augmentation import IDENTITY, MetaphaseAugmentation
from chromozoo.data.base.metaphase_store import MemoryCache, MetaphaseStore, StoredMetaphase
from chromozoo.data.base.metaphase_targets import drop_unknown_masks, make_targets
from chromozoo.data.splits import Split, load_split
from chromozoo.errors import DatasetError
from chromozoo.images.metaphase import MetaphasePreset
from chromozoo.structures.metaphase import Metaphase, MetaphaseFiles, check_metaphase
from chromozoo.synthetic.cut_and_paste import RADIUS, Bank, compose

# The masks of the 8 validation images of BioImLab take 160 MB.
MASK_CACHE_BYTES = 256 << 20


class MetaphaseDataset(Dataset[dict[str, Tensor]]):
    """Whole metaphases, not augmented.

    An item holds ``image`` (1, h, w) float32 normalised, ``boxes`` (N, 4) float32 xyxy, ``labels``
    (N,) int64 as in :class:`StoredMetaphase`, ``masks`` (N, h, w) uint8 unless only boxes are
    known, and ``index``, the place in this data set, as int64 scalar; all in pixels of the prepared
    canvas, which at scale 1 are those of the image.

    Args:
        keys: Names of the metaphases.
        images: Reads and prepares them.
    """

    def __init__(self, keys: Sequence[str], images: MetaphaseStore) -> None:
        self.keys = list(keys)
        self.images = images
        self._targets: MemoryCache[dict[str, Tensor]] = MemoryCache(MASK_CACHE_BYTES)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        stored = self.images[self.keys[index]]
        height, width = stored.canvas.shape
        target = self._targets.get(
            stored.key,
            lambda: drop_unknown_masks(
                make_targets(stored.polygons, height, width, 0, 1, stored.labels),
                stored.boxes_only,
            ),
            lambda target: sum(tensor.nbytes for tensor in target.values()),
        )
        image = self.images.preset.tensor(stored.canvas)
        return {"image": image, **target, "index": torch.tensor(index)}

    def metaphase(self, index: int) -> Metaphase:
        """Read the image and its outlines as in the file, for evaluation at full size.

        Raises:
            DatasetError: The image or an outline is damaged; the message names it.
        """
        return check_metaphase(self.images.files.read(self.keys[index]))


class SplitMetaphaseDataset(MetaphaseDataset):
    """Whole metaphases of one split of a data set; usable without Lightning.

    Images are decoded on first use. Each data set is a subclass with a name and a method that
    opens its files.

    Attributes:
        dataset_name: Its name in the catalogue.
        split_name: Name of its committed split.
        with_classes: Instances are labelled 1 to 24 by class; else all are 1.

    Args:
        root: Folder that holds the zip file or the unpacked folder, or one of these itself; None
            looks in ``CHROMOZOO_DATA`` and in the data folders of
            :func:`chromozoo.folders.data_folders`.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        preset: Prepares the images, a :class:`MetaphasePreset` or a dict of its fields; None for
            the default preset.

    Raises:
        DatasetNotFoundError: The data set is not on this machine.
        DatasetError: It is another data set, or the list of its files is damaged.
        UnknownNameError: No such split.
    """

    dataset_name: ClassVar[str]
    split_name: ClassVar[str]
    with_classes: ClassVar[bool] = False

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str = "train",
        preset: MetaphasePreset | None = None,
    ) -> None:
        canvas = as_dataclass(MetaphasePreset, preset, "preset") or MetaphasePreset()
        store = MetaphaseStore(self.open_files(root), canvas, self.with_classes)
        self.split = load_split(self.split_name)
        super().__init__(select_keys(self.dataset_name, store.files, self.split, split), store)

    @classmethod
    def open_files(cls, root: str | os.PathLike[str] | None = None) -> MetaphaseFiles:
        """Find the data set and list its images; none is decoded.

        Raises:
            DatasetNotFoundError: The data set is not on this machine.
            DatasetError: It is another data set, or the list of its files is damaged.
        """
        raise NotImplementedError


def select_keys(name: str, files: MetaphaseFiles, split: Split, stage: str) -> list[str]:
    """Return the images of one stage of a split, in the order of the files.

    Args:
        name: Name of the data set.
        files: All images of the data set.
        split: Division of the images.
        stage: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.

    Raises:
        DatasetError: The data set has none of them.
    """
    ids = set(split.ids(stage))
    keys: Iterable[str] = files.keys()
    selected = [key for key in keys if key in ids]
    if not selected:
        raise DatasetError(
            f"none of the {stage} images of {split.name} is in the data set; "
            f"run `chromozoo data verify {name}`"
        )
    return selected


class MetaphaseCropDataset(Dataset[dict[str, Tensor]]):
    """Square crops of rotated metaphases and of composed ones.

    A sample depends on the seed, the epoch and its number, and not on the worker that makes it. The
    outlines are rotated with the image and become masks at the size of the crop, so no mask is
    interpolated. Items are those of :class:`MetaphaseDataset`. Instances that lie mostly outside
    the crop are dropped, so an item may have no instance.

    Args:
        keys: Names of the metaphases.
        images: Reads and prepares them; they are decoded here, once for all workers.
        size: Side of the crops in pixels.
        samples: Number of crops in one epoch.
        augmentation: Rotates the crops and changes their grey values.
        seed, epoch: Seed of everything that is drawn.
        synthetic: Fraction of the crops, 0..1, that are composed by cut-and-paste.
        bank: Chromosomes and backgrounds for composed crops; None where ``synthetic`` is 0.
        overlap: Fraction of the chromosomes of a composed crop that cross or touch another, see
            :func:`chromozoo.synthetic.cut_and_paste.compose`.
    """

    def __init__(
        self,
        keys: Sequence[str],
        images: MetaphaseStore,
        size: int,
        samples: int,
        augmentation: MetaphaseAugmentation = IDENTITY,
        seed: int = 0,
        epoch: int = 0,
        synthetic: float = 0.0,
        bank: Bank | None = None,
        overlap: float = 0.4,
    ) -> None:
        self.images = images
        self.size = size
        self.samples = samples
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = epoch
        self.synthetic = synthetic if bank is not None else 0.0
        self.bank = bank
        self.overlap = overlap
        # Every chromosome is equally likely to be near the middle of a crop.
        chromosomes = [(key, number) for key in keys for number in range(len(images[key].polygons))]
        order = np.random.default_rng((seed, epoch)).permutation(len(chromosomes))
        self.middles = [chromosomes[number] for number in np.resize(order, samples)]

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        labels, boxes_only = None, False
        if rng.random() < self.synthetic:
            assert self.bank is not None
            zoom = self.images.preset.scale
            low, high = self.augmentation.scale
            canvas, polygons = compose(
                rng,
                self.bank,
                self.size,
                self.size,
                chromosomes=int(rng.integers(40, 53)),
                overlap=self.overlap,
                radius=(RADIUS[0] * zoom, RADIUS[1] * zoom),
                scale=(low, high),
                whole=False,
            )
        else:
            key, number = self.middles[index]
            stored = self.images[key]
            labels, boxes_only = stored.labels, stored.boxes_only
            canvas, polygons = self._draw_crop(rng, stored, number)
        canvas = self.augmentation.expose(rng, canvas)
        target = make_targets(polygons, self.size, self.size, labels=labels)
        image = self.images.preset.tensor(canvas)
        known = drop_unknown_masks(target, boxes_only)
        return {"image": image, **known, "index": torch.tensor(index)}

    def _draw_crop(
        self, rng: np.random.Generator, image: StoredMetaphase, number: int
    ) -> tuple[NDArray[np.uint8], list[NDArray[np.float64]]]:
        """Draw a rotated crop with one chromosome away from its edges.

        Returns:
            Canvas ``(size, size)`` and the outlines of all chromosomes in pixels of the crop.
        """
        matrix = self.augmentation.draw_matrix(rng, image.boxes_only)
        middle = matrix @ image.polygons[number].mean(axis=0)
        # Whole pixels: a crop that is not rotated is not interpolated either.
        shift = np.round(self.size * rng.uniform(0.15, 0.85, size=2) - middle)
        warp = np.hstack([matrix, shift[:, None]])
        # OpenCV puts the origin into the middle of the first pixel.
        warp[:, 2] += matrix @ (0.5, 0.5) - 0.5
        crop = cv2.warpAffine(
            image.canvas, warp, (self.size, self.size), flags=cv2.INTER_LINEAR, borderValue=0
        )
        return np.asarray(crop, np.uint8), [p @ matrix.T + shift for p in image.polygons]
