"""Annotated metaphases for training and evaluation: read when asked for, prepared, cropped, turned.

What the segmentation DataModules share, whatever the data set.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from chromozoo.classes import CLASS_INDEX
from chromozoo.data.io.archive import open_archive
from chromozoo.data.io.coco import FILE_NAME as COCO_NAME
from chromozoo.data.io.coco import CocoFiles
from chromozoo.data.io.labelme import LabelmeFiles, parse_json
from chromozoo.data.io.result_files import is_result
from chromozoo.errors import DatasetError
from chromozoo.images.metaphase import MetaphasePreset
from chromozoo.structures.metaphase import Metaphase, MetaphaseFiles, check_metaphase
from chromozoo.structures.polygons import mask_box, polygon_area, polygon_mask
from chromozoo.synthetic.cut_and_paste import RADIUS, Bank, compose

# All 150 prepared images of BioImLab take 66 MB, the masks of its 8 validation images 160 MB; the
# 1,074 training images of three sets, 520 MB.
IMAGE_CACHE_BYTES = 768 << 20
MASK_CACHE_BYTES = 256 << 20
# What shows less than this of itself in a crop is no target.
MIN_VISIBLE_SHARE = 0.25
MIN_VISIBLE_PIXELS = 12
CHROMOSOME = 1


T = TypeVar("T")


@dataclass(frozen=True)
class MetaphaseAugmentation:
    """What another cell, another slide and another exposure would have changed.

    Grey values are multiplied or bent only, so the background of a signal image stays 0.

    Args:
        rotate: Largest turn left or right in degrees.
        flips: Mirror one half of the crops.
        scale: Smallest and largest magnification.
        shear: Largest shear in degrees.
        brightness: Largest relative change of brightness.
        contrast: Largest relative change of contrast: of bright against dim.
        gamma: Largest exponent; the smallest is its inverse.
        blur: Largest standard deviation in pixels of the blur that a third of the crops get.
        noise: Largest standard deviation of the noise, of the full signal where that is 1; it
            follows the square root of the signal, as the noise of light does.
    """

    rotate: float = 180.0
    flips: bool = True
    scale: Sequence[float] = (0.8, 1.25)
    shear: float = 5.0
    brightness: float = 0.25
    contrast: float = 0.3
    gamma: float = 1.35
    blur: float = 1.2
    noise: float = 0.06

    def matrix(self, rng: np.random.Generator, boxes_only: bool = False) -> NDArray[np.float64]:
        """A random affine map ``(2, 2)`` of xy.

        Args:
            rng: Draws it.
            boxes_only: Keep upright boxes tight: quarter turns, unless ``rotate`` is 0, and no
                shear.
        """
        if boxes_only:
            return self._upright(rng)
        angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate))
        shear = np.tan(np.deg2rad(rng.uniform(-self.shear, self.shear)))
        flip = -1.0 if self.flips and rng.random() < 0.5 else 1.0
        zoom = np.exp(rng.uniform(*np.log(self.scale)))
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        matrix: NDArray[np.float64] = turn @ [[1, shear], [0, 1]] @ np.diag([zoom * flip, zoom])
        return matrix

    def _upright(self, rng: np.random.Generator) -> NDArray[np.float64]:
        turns = int(rng.integers(4)) if self.rotate else 0
        flip = -1.0 if self.flips and rng.random() < 0.5 else 1.0
        zoom = np.exp(rng.uniform(*np.log(self.scale)))
        turn = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), turns)
        matrix: NDArray[np.float64] = turn @ np.diag([zoom * flip, zoom])
        return matrix

    def expose(self, rng: np.random.Generator, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Changes the grey values of a signal image ``(H, W)``."""
        values = np.linspace(0, 1, 256)
        values **= np.exp(rng.uniform(-1, 1) * np.log(self.gamma))
        values *= 1 + rng.uniform(-self.contrast, self.contrast) * (values - 0.5)
        values *= 1 + rng.uniform(-self.brightness, self.brightness)
        changed = np.clip(values * 255, 0, 255).astype(np.float32)[canvas]
        if self.blur and rng.random() < 1 / 3:
            deviation = rng.uniform(0.3, max(self.blur, 0.3))
            changed = np.asarray(cv2.GaussianBlur(changed, (0, 0), deviation), np.float32)
        if self.noise and rng.random() < 0.5:
            amplitude = np.float32(255 * rng.uniform(0, self.noise))
            grain = rng.standard_normal(canvas.shape, np.float32)
            changed = changed + amplitude * grain * np.sqrt(changed / 255)
        return np.clip(np.round(changed), 0, 255).astype(np.uint8)


IDENTITY = MetaphaseAugmentation(
    rotate=0, flips=False, scale=(1, 1), shear=0, brightness=0, contrast=0, gamma=1, blur=0, noise=0
)


@dataclass(frozen=True, eq=False)
class StoredMetaphase:
    """A prepared metaphase.

    Attributes:
        key: Its name in the split.
        canvas: ``(h, w)`` uint8 signal image at the preset's scale.
        polygons: Outlines ``(K, 2)`` in pixels of the canvas.
        labels: ``(N,)`` int64 of the outlines: all 1, or 1 to 24 by class.
        boxes_only: The outlines are boxes: nothing is known of the masks.
    """

    key: str
    canvas: NDArray[np.uint8]
    polygons: list[NDArray[np.float64]]
    labels: NDArray[np.int64]
    boxes_only: bool = False


class MetaphaseStore:
    """Reads and prepares metaphases when they are asked for, and keeps them while there is room.

    Args:
        files: Where they come from.
        preset: Prepares each.
        with_classes: Label outlines 1 to 24, in the order of
            :data:`chromozoo.classes.CLASSES`, by the names that the files give; else all 1.
    """

    def __init__(
        self, files: MetaphaseFiles, preset: MetaphasePreset, with_classes: bool = False
    ) -> None:
        self.files = files
        self.preset = preset
        self.with_classes = with_classes
        self._cache: _Cache[StoredMetaphase] = _Cache(IMAGE_CACHE_BYTES)

    def __getitem__(self, key: str) -> StoredMetaphase:
        """One metaphase.

        Raises:
            DatasetError: It is damaged, or an outline is; the message names file and shape.
        """
        return self._cache.get(key, lambda: self._prepare(key), lambda made: made.canvas.nbytes)

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


class MetaphaseDataset(Dataset[dict[str, Tensor]]):
    """Metaphases as they are, for evaluation.

    An item holds ``image`` (1, h, w) float32 normalised, ``boxes`` (N, 4) float32 xyxy, ``labels``
    (N,) int64 as in :class:`Image`, ``masks`` (N, h, w) uint8 unless boxes alone are known, and
    ``index``, the place in this data set, as int64 scalar; all in pixels of the prepared canvas,
    which at scale 1 are those of the image.

    Args:
        keys: Of the metaphases.
        images: Gives them.
    """

    def __init__(self, keys: Sequence[str], images: MetaphaseStore) -> None:
        self.keys = list(keys)
        self.images = images
        self._targets: _Cache[dict[str, Tensor]] = _Cache(MASK_CACHE_BYTES)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        stored = self.images[self.keys[index]]
        target = self._targets.get(
            stored.key,
            lambda: _known(
                targets(stored.polygons, *_sides(stored.canvas), 0, 1, stored.labels),
                stored.boxes_only,
            ),
            lambda made: sum(tensor.nbytes for tensor in made.values()),
        )
        image = self.images.preset.tensor(stored.canvas)
        return {"image": image, **target, "index": torch.tensor(index)}

    def metaphase(self, index: int) -> Metaphase:
        """The image and its outlines as in the file, for evaluation at full size."""
        return check_metaphase(self.images.files.read(self.keys[index]))


class MetaphaseCropDataset(Dataset[dict[str, Tensor]]):
    """Square crops of turned metaphases, and of composed ones.

    A sample follows from the seed, the epoch and its number, whichever worker makes it. Outlines
    are turned with the image and become masks at the size of the crop, so no mask is interpolated.
    Items are those of :class:`MetaphaseDataset`; what is mostly outside the crop is no target, so there
    may be none.

    Args:
        keys: Of the metaphases.
        images: Gives them; decoded here, once for all workers.
        size: Side of the crops in pixels.
        samples: Number of the crops of one epoch.
        augmentation: Turns the crops and changes their grey values.
        seed, epoch: All that is drawn follows from them.
        synthetic: Share of the crops that are composed by cut-and-paste.
        bank: What they are composed of; None where ``synthetic`` is 0.
        overlap: See :func:`chromozoo.synthetic.cut_and_paste.compose`.
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
        # Every chromosome is as likely as another to be near the middle of a crop.
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
            canvas, polygons = self._turned(rng, stored, number)
        canvas = self.augmentation.expose(rng, canvas)
        target = _known(targets(polygons, self.size, self.size, labels=labels), boxes_only)
        image = self.images.preset.tensor(canvas)
        return {"image": image, **target, "index": torch.tensor(index)}

    def _turned(
        self, rng: np.random.Generator, image: StoredMetaphase, number: int
    ) -> tuple[NDArray[np.uint8], list[NDArray[np.float64]]]:
        """The crop around one chromosome, which may lie anywhere but at the edge of it."""
        matrix = self.augmentation.matrix(rng, image.boxes_only)
        middle = matrix @ image.polygons[number].mean(axis=0)
        # Whole pixels: a crop that is not turned is not interpolated either.
        shift = np.round(self.size * rng.uniform(0.15, 0.85, size=2) - middle)
        warp = np.hstack([matrix, shift[:, None]])
        # OpenCV puts the origin into the middle of the first pixel.
        warp[:, 2] += matrix @ (0.5, 0.5) - 0.5
        crop = cv2.warpAffine(
            image.canvas, warp, (self.size, self.size), flags=cv2.INTER_LINEAR, borderValue=0
        )
        return np.asarray(crop, np.uint8), [p @ matrix.T + shift for p in image.polygons]


def targets(
    polygons: Sequence[NDArray[np.float64]],
    height: int,
    width: int,
    min_visible_share: float = MIN_VISIBLE_SHARE,
    min_visible_pixels: int = MIN_VISIBLE_PIXELS,
    labels: NDArray[np.int64] | None = None,
) -> dict[str, Tensor]:
    """Masks and boxes of what an image shows of the outlines.

    Args:
        polygons: Outlines ``(K, 2)``, in or out of the image.
        height: Of the image.
        width: Of the image.
        min_visible_share: An outline with less than this share of its area inside is left out.
        min_visible_pixels: And one with fewer pixels inside.
        labels: ``(K,)`` of the outlines; all 1 where None.

    Returns:
        ``boxes`` (N, 4) float32 xyxy, ``labels`` (N,) int64, ``masks`` (N, height, width) uint8;
        N may be 0.
    """
    masks: list[NDArray[np.bool_]] = []
    kept: list[int] = []
    for number, polygon in enumerate(polygons):
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        if (high <= 0).any() or (low >= (width, height)).any():
            continue
        mask = polygon_mask(polygon, height, width)
        if np.count_nonzero(mask) >= max(
            min_visible_pixels, min_visible_share * polygon_area(polygon)
        ):
            masks.append(mask)
            kept.append(CHROMOSOME if labels is None else int(labels[number]))
    stacked = np.stack(masks) if masks else np.zeros((0, height, width), np.bool_)
    boxes = np.stack([mask_box(mask) for mask in masks]) if masks else np.zeros((0, 4), np.float32)
    return {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.tensor(kept, dtype=torch.int64),
        "masks": torch.from_numpy(stacked.view(np.uint8)),
    }


def collate(items: Sequence[dict[str, Tensor]]) -> dict[str, Any]:
    """A batch of images of any sizes.

    Returns:
        ``image``: list of (1, h, w); ``target``: list of ``{boxes, labels, masks}``, without masks
        where boxes alone are known; ``index`` (B,) int64.
    """
    return {
        "image": [item["image"] for item in items],
        "target": [
            {name: item[name] for name in ("boxes", "labels", "masks") if name in item}
            for item in items
        ],
        "index": torch.stack([item["index"] for item in items]),
    }


def metaphase_files(path: Path) -> CocoFiles | LabelmeFiles:
    """Opens labelme files or a COCO JSON, in a folder or zip file, or a JSON itself.

    Results of ``chromozoo segment`` and ``chromozoo karyotype`` are read, too: the file about all
    images is one of COCO, those about one image are read like those of labelme.

    Raises:
        DatasetError: There is neither, or there are several COCO files.
    """
    if path.suffix.lower() == ".json":
        if _is_coco(path):
            return CocoFiles(path.parent, path.name)
        return LabelmeFiles(path.parent, path.name)
    with open_archive(path) as archive:
        names = [PurePosixPath(name) for name in archive.names()]
    coco = [name for name in names if _is_called_coco(name)]
    if len(coco) > 1:
        raise DatasetError(
            f"{path}: holds several COCO files ({', '.join(map(str, coco))}); name one of them"
        )
    return CocoFiles(path, str(coco[0])) if coco else LabelmeFiles(path)


def _is_called_coco(name: PurePath) -> bool:
    return name.name == COCO_NAME or (
        name.name.startswith("instances") and name.suffix.lower() == ".json"
    )


def _is_coco(path: Path) -> bool:
    """Whether a JSON file is one of COCO, or else one about a single image."""
    if _is_called_coco(path):
        return True
    with open_archive(path.parent) as archive:
        data = parse_json(archive.read(path.name), str(path))
    return "images" in data or not ("shapes" in data or is_result(data))


def _known(target: dict[str, Tensor], boxes_only: bool) -> dict[str, Tensor]:
    """A target without its masks where these are but filled boxes."""
    return {name: target[name] for name in target if not (boxes_only and name == "masks")}


def _sides(canvas: NDArray[np.uint8]) -> tuple[int, int]:
    return canvas.shape[0], canvas.shape[1]


class _Cache(Generic[T]):
    """Keeps what was used last, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.kept: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self.size = 0

    def get(self, key: str, make: Callable[[], T], size: Callable[[T], int]) -> T:
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key][0]
        made = make()
        self.kept[key] = made, size(made)
        self.size += size(made)
        while self.size > self.limit:
            _, (_, freed) = self.kept.popitem(last=False)
            self.size -= freed
        return made
