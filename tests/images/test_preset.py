"""Signal image, rotate & crop, preset and augmentation."""

import dataclasses
import hashlib
import itertools
import json
import re
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from chromozoo.data.base.crop_dataset import CropDataset, prepared_crops
from chromozoo.errors import ImageError
from chromozoo.images import augment
from chromozoo.images.preset import PREPARATION_VERSION, ChromosomePreset
from chromozoo.images.rotate_crop import Method, RotateCrop
from chromozoo.images.signal import foreground, signal_image
from chromozoo.synthetic import Appearance, draw_chromosome

STRAIGHT = Appearance(bend=0.0, noise=0.0, photons=1e9, length_spread=0.0, overlap=0.0)
METHODS: tuple[Method, ...] = ("pca", "hough", "minarearect")


def drawn(name: str, angle: float = 0.0, look: Appearance = STRAIGHT) -> np.ndarray:
    image = draw_chromosome(name, look, np.random.default_rng(0), angle=angle).image
    return image.astype(np.float32)


def tilt_of(mask: np.ndarray) -> float:
    """Angle between the long axis and the vertical, 0..90 degrees, by second moments."""
    moments = cv2.moments(mask.astype(np.uint8), binaryImage=True)
    axis = 0.5 * np.degrees(
        np.arctan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"])
    )  # of the long axis, from the horizontal
    return float(abs(90 - abs(axis)))


# The signal image


def test_signal_does_not_depend_on_the_background() -> None:
    plain = drawn("2")
    signal = signal_image(plain)
    assert signal.dtype == np.float32
    assert signal.min() == 0 and signal.max() == 1
    # On grey 128 the chromosome has half the range, and half a grey value of rounding.
    for other in (255 - plain, 128 + np.round(plain / 2), 128 - np.round(plain / 2), plain - 400):
        np.testing.assert_allclose(signal_image(other), signal, atol=0.015)


@pytest.mark.parametrize("exposure", [1e-4, 1 / 255, 0.3, 257, 1e6])
def test_signal_does_not_depend_on_exposure_and_depth(exposure: float) -> None:
    plain = drawn("2")
    np.testing.assert_allclose(signal_image(plain * exposure), signal_image(plain), atol=1e-5)


def test_signal_without_stretching_keeps_the_exposure() -> None:
    plain = drawn("2")
    for other in (plain, 255 - plain):
        np.testing.assert_allclose(signal_image(other, stretch=False), plain / 255, atol=1e-6)
    dim = ChromosomePreset(stretch=False).prepare(plain * 0.3)
    bright = ChromosomePreset(stretch=False).prepare(plain)
    assert dim.max() == pytest.approx(0.3 * bright.max(), abs=2)
    assert signal_image(plain * 257, stretch=False).max() == 1  # 16 bits are cut, not scaled


def test_a_hot_pixel_does_not_dim_the_chromosome() -> None:
    plain = drawn("2")
    hot = plain.copy()
    hot[hot.shape[0] // 2, hot.shape[1] // 2] = 4000
    around = np.ones(plain.shape, bool)
    around[hot == 4000] = False
    apart = np.abs(signal_image(hot) - signal_image(plain))[around]
    assert float(apart.mean()) < 0.05


@pytest.mark.parametrize("value", [0.0, 0.5, 128.0, -3.0])
def test_a_uniform_image_is_refused(value: float) -> None:
    with pytest.raises(ImageError, match=r"^a\.png: .*uniform"):
        signal_image(np.full((40, 20), value, np.float32), "a.png")


def test_a_neighbours_arm_at_the_edge_is_dropped() -> None:
    plain = np.pad(drawn("2"), 12)
    with_neighbour = plain.copy()
    with_neighbour[:20, :7] = 150
    mask = foreground(signal_image(plain))
    assert not mask[:20, :7].any()
    assert not foreground(signal_image(with_neighbour))[:20, :7].any()
    crop, crop_with_neighbour = (RotateCrop()(signal_image(g)) for g in (plain, with_neighbour))
    # The neighbour changes Otsu's threshold, so the outline may move by a pixel.
    assert np.abs(np.subtract(crop.shape, crop_with_neighbour.shape)).max() <= 1
    assert crop_with_neighbour.sum() == pytest.approx(crop.sum(), rel=0.02)


def test_a_satellite_on_a_pale_stalk_is_kept() -> None:
    image = np.zeros((60, 30), np.float32)
    image[20:50, 10:20] = 200
    image[12:17, 12:18] = 200  # three pixels of gap
    assert foreground(signal_image(image))[12:17, 12:18].all()


# Rotate & crop


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["1", "4"])
def test_rotate_crop_from_every_angle_keeps_the_scale(name: str, method: Method) -> None:
    lengths = []
    for angle in range(0, 360, 20):
        upright = RotateCrop(method)(signal_image(drawn(name, angle)))
        assert upright.dtype == np.float32
        assert upright.min() >= 0
        assert upright.max() <= 1.001
        assert tilt_of(foreground(upright)) < 10, angle
        lengths.append(upright.shape[0])
    true_length = RotateCrop("none")(signal_image(drawn(name))).shape[0]
    assert np.abs(np.array(lengths) - true_length).max() <= max(2, 0.05 * true_length)


@pytest.mark.parametrize("name", ["9", "13", "18"])
def test_the_principal_axis_of_short_chromosomes(name: str) -> None:
    for angle in range(0, 180, 20):
        upright = RotateCrop("pca")(signal_image(drawn(name, angle)))
        assert tilt_of(foreground(upright)) < 10, angle


@pytest.mark.parametrize("method", METHODS)
def test_tilt_is_clockwise_positive(method: Method) -> None:
    for angle in (-60, -30, 0, 30, 60):  # drawn counter-clockwise
        signal = signal_image(drawn("1", angle))
        assert RotateCrop(method).tilt(signal, foreground(signal)) == pytest.approx(-angle, abs=5)


def test_rotate_crop_keeps_the_order_of_the_ends() -> None:
    """The image is rotated, not mirrored, and the upper end stays up."""
    image = np.zeros((90, 40), np.float32)
    image[10:80, 15:25] = 100
    image[10:25, 15:25] = 250  # bright top
    image[60:75, 15:20] = 200  # bright left side near the bottom
    turn = cv2.getRotationMatrix2D((19.5, 44.5), 35, 1)
    leaning = cv2.warpAffine(image, turn, (40, 90))
    for method in METHODS:
        upright = RotateCrop(method)(signal_image(leaning))
        height, width = upright.shape
        assert upright[: height // 4].mean() > upright[-height // 4 :].mean()
        lower = upright[height // 2 :]
        assert lower[:, : width // 2].mean() > 1.1 * lower[:, -(width // 2) :].mean()


def test_hough_falls_back_to_the_principal_axis() -> None:
    y, x = np.mgrid[-60:61, -60:61].astype(np.float32)
    along, across = (x + y) / np.sqrt(2), (x - y) / np.sqrt(2)
    soft = np.exp(-((along / 30) ** 2) - (across / 15) ** 2).astype(np.float32)
    mask = foreground(soft)
    assert RotateCrop("hough").tilt(soft, mask) == RotateCrop("pca").tilt(soft, mask)
    assert RotateCrop("hough").tilt(soft, mask) == pytest.approx(-45, abs=1)
    assert tilt_of(foreground(RotateCrop("hough")(soft))) < 2


def test_method_none_only_crops() -> None:
    signal = signal_image(drawn("1", 40))
    rows, columns = np.nonzero(foreground(signal))
    cut = RotateCrop("none", margin=0)(signal)
    inside = signal[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert cut.shape == inside.shape
    mask = foreground(signal)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    np.testing.assert_allclose(cut[mask], inside[mask], atol=1e-5)


def test_margin_is_background_on_each_side() -> None:
    signal = signal_image(drawn("1", 40))
    tight, wide = RotateCrop("pca", margin=0)(signal), RotateCrop("pca", margin=6)(signal)
    assert np.array(wide.shape).tolist() == (np.array(tight.shape) + 12).tolist()
    np.testing.assert_allclose(wide[6:-6, 6:-6], tight, atol=1e-4)
    assert wide[:3].max() == wide[-3:].max() == wide[:, :3].max() == wide[:, -3:].max() == 0


def test_scale_multiplies_the_length() -> None:
    signal = signal_image(drawn("1", 40))
    once, twice, half = (RotateCrop("pca", margin=0)(signal, scale) for scale in (1, 2, 0.5))
    assert twice.shape[0] == pytest.approx(2 * once.shape[0], abs=3)
    assert half.shape[0] == pytest.approx(once.shape[0] / 2, abs=2)
    assert twice.sum() == pytest.approx(4 * once.sum(), rel=0.05)
    assert half.sum() == pytest.approx(once.sum() / 4, rel=0.05)


def test_rotate_crop_refuses_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"'sobel'.*pca, hough, minarearect or none"):
        RotateCrop("sobel")  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="no chromosome"):
        RotateCrop()(np.zeros((40, 20), np.float32))


# The preset


def test_the_chromosome_is_centred_at_its_own_scale() -> None:
    image = drawn("4", 30)
    canvas = ChromosomePreset(height=96, width=40).prepare(image)
    assert canvas.shape == (96, 40) and canvas.dtype == np.uint8
    rows, columns = np.nonzero(foreground(canvas / np.float32(255)))
    upright = RotateCrop("pca")(signal_image(image))
    assert rows.max() - rows.min() + 1 == pytest.approx(upright.shape[0] - 2, abs=2)
    assert (rows.max() + rows.min()) / 2 == pytest.approx(47.5, abs=1.5)
    assert (columns.max() + columns.min()) / 2 == pytest.approx(19.5, abs=1.5)


@pytest.mark.parametrize("magnification", [1, 2, 4, 9])
@pytest.mark.parametrize("canvas", [(112, 48), (96, 40), (48, 24), (40, 96)])
def test_a_chromosome_larger_than_the_canvas_is_reduced(
    magnification: int, canvas: tuple[int, int]
) -> None:
    image = cv2.resize(drawn("1", 20), None, fx=magnification, fy=magnification)
    crop = ChromosomePreset(*canvas).prepare(image)
    rows, _ = np.nonzero(crop > 90)
    above, below = rows.min(), canvas[0] - 1 - rows.max()
    assert abs(above - below) <= 2  # a cut takes the lower end away
    aspect = np.divide(*RotateCrop("pca", margin=0)(signal_image(image)).shape)
    mask = foreground(crop / np.float32(255))
    seen = np.divide(*(np.ptp(axis) + 1.0 for axis in np.nonzero(mask)))
    assert seen == pytest.approx(aspect, rel=0.25)


def test_zoom_multiplies_the_scale() -> None:
    image = drawn("4", 30)
    twice = ChromosomePreset(height=160, width=80, scale=2.0).prepare(image)
    zoomed = ChromosomePreset(height=160, width=80).prepare(image, zoom=2.0)
    np.testing.assert_array_equal(twice, zoomed)


def test_three_channels_are_equal_and_normalised() -> None:
    image = drawn("4", 30)
    one = ChromosomePreset()(image)
    three = ChromosomePreset(channels=3)(image)
    assert one.shape == (1, 112, 48) and three.shape == (3, 112, 48)
    assert one.dtype == three.dtype == torch.float32
    for channel in three:
        torch.testing.assert_close(channel, one[0])
    assert one.min() == pytest.approx((0 - 0.15) / 0.30)
    assert one.max() == pytest.approx((1 - 0.15) / 0.30, abs=0.05)
    batch = torch.zeros(5, 1, 8, 8, dtype=torch.uint8)
    assert ChromosomePreset(channels=3).normalise(batch).shape == (5, 3, 8, 8)


def test_the_key_depends_on_the_arguments_of_prepare_only() -> None:
    key = ChromosomePreset().key
    same = [ChromosomePreset(), ChromosomePreset(mean=0.5, std=1.0), ChromosomePreset(channels=3)]
    assert {preset.key for preset in same} == {key}
    others = [
        ChromosomePreset(height=96),
        ChromosomePreset(width=40),
        ChromosomePreset(scale=2.0),
        ChromosomePreset(rotate_crop="hough"),
        ChromosomePreset(height=48, width=112),
        ChromosomePreset(views=["straight"]),
        ChromosomePreset(views=["upright", "straight"]),
        ChromosomePreset(views=["straight", "upright"]),
        ChromosomePreset(stretch=False),
        ChromosomePreset(stretch=False, views=["straight"]),
        ChromosomePreset(stretch=False, typical_length=63),
    ]
    assert len({key, *(preset.key for preset in others)}) == 12


def test_equal_numbers_give_equal_presets() -> None:
    """Otherwise the crops of a data set would be cached twice."""
    written = [
        {"height": 112, "scale": 1, "typical_length": 63, "zoom_range": 1},
        {"height": 112.0, "scale": 1.0, "typical_length": 63.0, "zoom_range": 1.0},
        {"height": np.int64(112), "scale": np.float32(1), "typical_length": np.float64(63)}
        | {"zoom_range": np.int32(1)},
    ]
    presets = [ChromosomePreset(**one) for one in written]
    assert len(set(presets)) == len({preset.key for preset in presets}) == 1
    assert {json.dumps(preset.to_dict()) for preset in presets} == {
        json.dumps(presets[0].to_dict())
    }
    assert ChromosomePreset(typical_length=63.5).key != presets[0].key


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"height": 112.5}, "height is 112.5; give an integer"),
        ({"scale": "large"}, "scale is 'large'; give a number"),
        ({"width": None}, "width is None; give a number"),
        ({"scale": 0}, "scale is 0, which is out of range"),
        ({"scale": -1.0}, "scale is -1.0, which is out of range"),
        ({"scale": 1e9}, "scale is 1000000000.0, which is out of range"),
        ({"std": 0.0}, "std is 0.0, which is out of range"),
        ({"mean": float("nan")}, "mean is nan, which is out of range"),
        ({"typical_length": float("inf")}, "typical_length is inf, which is out of range"),
        ({"typical_length": -63}, "typical_length is -63, which is out of range"),
        ({"height": 10**9}, "height is 1000000000, which is out of range"),
        ({"channels": 2}, "channels is 2; give 1 or 3"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        ChromosomePreset(**arguments)


def test_to_dict_round_trip() -> None:
    preset = ChromosomePreset(96, 40, 0.5, "minarearect", 3, 0.2, 0.4, stretch=False)
    assert ChromosomePreset(**preset.to_dict()) == preset
    assert {type(value) for value in preset.to_dict().values()} <= {int, float, str, list, bool}


def test_a_tiny_canvas_is_refused() -> None:
    with pytest.raises(ValueError, match="8"):
        ChromosomePreset(height=4, width=4)


# Views

VIEWS = ["upright", "straight", "straight-xie", "crop"]
BENT = draw_chromosome(
    "2", Appearance(bend=1.0, overlap=0.0), np.random.default_rng(6), angle=30
).image.astype(np.float32)


def test_several_views_are_stacked() -> None:
    size = {"height": 112, "width": 64}
    together = ChromosomePreset(**size, views=VIEWS).prepare(BENT)
    assert together.shape == (112, 64, 4) and together.dtype == np.uint8
    for view, canvas in zip(VIEWS, np.moveaxis(together, -1, 0), strict=True):
        alone = ChromosomePreset(**size, views=[view]).prepare(BENT)
        assert alone.shape == (112, 64)
        np.testing.assert_array_equal(alone, canvas)
    np.testing.assert_array_equal(together[..., 0], ChromosomePreset(**size).prepare(BENT))
    backwards = ChromosomePreset(**size, views=VIEWS[::-1])
    np.testing.assert_array_equal(backwards.prepare(BENT), together[..., ::-1])
    # As channels, in the same order.
    tensor = backwards(BENT)
    assert tensor.shape == (4, 112, 64) and tensor.dtype == torch.float32
    signal = (tensor * backwards.std + backwards.mean).numpy()
    np.testing.assert_allclose(np.moveaxis(signal, 0, -1), together[..., ::-1] / 255, atol=1e-6)


def test_views() -> None:
    upright, straight, by_xie, crop = np.moveaxis(
        ChromosomePreset(height=112, width=64, views=VIEWS).prepare(BENT), -1, 0
    )

    def box(canvas: np.ndarray) -> np.ndarray:
        return np.array([np.ptp(axis) + 1 for axis in np.nonzero(canvas > 40)])

    for view in (straight, by_xie):
        assert box(view)[0] > box(upright)[0] + 4
        assert box(view)[1] < box(upright)[1] - 8
    # The chromosome is centred and has its own scale.
    rows, columns = np.nonzero(straight > 40)
    assert (rows.max() + rows.min()) / 2 == pytest.approx(55.5, abs=1.5)
    assert (columns.max() + columns.min()) / 2 == pytest.approx(31.5, abs=1.5)
    assert straight.sum() == pytest.approx(upright.sum(), rel=0.05)
    # The crop is the upright chromosome resized to the canvas.
    assert min(box(crop) - [112, 64]) >= -6
    rows, columns = np.nonzero(upright > 10)
    inside = upright[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    stretched = cv2.resize(inside, (64, 112), interpolation=cv2.INTER_LINEAR)
    assert np.corrcoef(stretched.ravel(), crop.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("magnification", [0.3, 1, 5])
def test_views_fit_the_canvas(view: str, magnification: float) -> None:
    image = cv2.resize(BENT, None, fx=magnification, fy=magnification)
    canvas = ChromosomePreset(height=64, width=40, views=[view]).prepare(image)
    assert canvas.shape == (64, 40) and canvas.max() > 200
    if view != "crop":  # nothing is cut: the upper and the lower rim are background
        assert max(int(canvas[0].max()), int(canvas[-1].max())) < 110


def test_presets_from_json() -> None:
    preset = ChromosomePreset(views=("upright", "crop"))
    again = ChromosomePreset(**json.loads(json.dumps(preset.to_dict())))
    assert again == preset and hash(again) == hash(preset) and again.key == preset.key
    assert preset.to_dict()["views"] == ["upright", "crop"]
    assert ChromosomePreset(views="crop") == ChromosomePreset(views=["crop"])
    # Weights from before `views` and `stretch` existed are still valid.
    later = ("views", "stretch")
    before = {k: v for k, v in ChromosomePreset().to_dict().items() if k not in later}
    assert ChromosomePreset(**before) == ChromosomePreset()
    # So are the crops that were cached then.
    parts = [PREPARATION_VERSION, cv2.__version__.split(".")[0], 96, 40, 1.0, "pca"]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    assert ChromosomePreset(height=96, width=40).key == key
    assert dataclasses.replace(preset, views=["straight"]).views == ("straight",)


@pytest.mark.parametrize("views", [[], ["upright", "side"], ["crop", "crop"], "profile"])
def test_unknown_views_are_refused(views: object) -> None:
    with pytest.raises(ValueError, match=r"upright, straight, straight-xie, crop, each once"):
        ChromosomePreset(views=views)  # type: ignore[arg-type]


def test_several_views_allow_one_channel_only() -> None:
    with pytest.raises(ValueError, match=r"channels is 3 with 2 views.*set channels to 1"):
        ChromosomePreset(channels=3, views=["upright", "crop"])
    assert ChromosomePreset(channels=3, views=["straight"])(BENT).shape == (3, 112, 48)


def test_all_views_are_augmented_alike() -> None:
    preset = ChromosomePreset(height=96, width=40, views=["upright", "straight", "crop"])
    canvas = np.repeat(ChromosomePreset(height=96, width=40).prepare(BENT)[..., None], 3, axis=-1)
    labels = np.zeros(1, np.int64)
    pipeline = augment.training_augmentation()
    dataset = CropDataset(canvas[None], labels, labels, preset, pipeline)
    augment.seed_pipeline(dataset, 0)
    plain = CropDataset(canvas[None], labels, labels, preset)[0]["image"]
    draws = [dataset[0]["image"] for _ in range(40)]  # each step of the pipeline comes and goes
    assert sum(torch.equal(image, plain) for image in draws) < 10
    for image in draws:
        assert image.shape == (3, 96, 40) and image.is_contiguous()
        # Only the noise of single pixels may differ between the views.
        for other in image[1:]:
            assert np.corrcoef(image[0].ravel(), other.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("count", [2, 4])
def test_augmentation_of_several_views(count: int) -> None:
    preset = ChromosomePreset(height=64, width=32, scale=0.6, views=VIEWS[:count])
    crops = np.stack([preset.prepare(BENT)] * 2)
    labels = np.zeros(2, np.int64)
    dataset = CropDataset(crops, labels, labels, preset, augment.training_augmentation())
    augment.seed_pipeline(dataset, 0)
    for _ in range(40):
        image = dataset[1]["image"]
        assert image.shape == (count, 64, 32) and image.isfinite().all()


# Augmentation

CROP = ChromosomePreset(height=96, width=40).prepare(drawn("4", 30))


def augmented_epochs(seed: int, workers: int, epochs: int = 2) -> list[list[torch.Tensor]]:
    """Batches of 3 by epoch of one repeated crop, whose differences come from the augmentation."""
    dataset = CropDataset(
        np.stack([CROP] * 12),
        np.zeros(12, np.int64),
        np.zeros(12, np.int64),
        ChromosomePreset(height=96, width=40),
        augment.training_augmentation(),
    )
    augment.seed_pipeline(dataset, seed)
    loader = DataLoader(
        dataset,
        3,
        num_workers=workers,
        worker_init_fn=augment.seed_worker,
        generator=torch.Generator().manual_seed(seed),
    )
    return [[batch["image"] for batch in loader] for _ in range(epochs)]


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_differs_between_workers_and_epochs_and_is_reproducible(workers: int) -> None:
    epochs = augmented_epochs(1, workers)
    # With two workers, the first batch comes from one and the second from the other.
    batches = [batch for epoch in epochs for batch in epoch]
    images = [image for batch in batches for image in batch]
    for one, other in itertools.combinations(images, 2):
        assert not torch.equal(one, other)
    again = [batch for epoch in augmented_epochs(1, workers) for batch in epoch]
    assert all(torch.equal(one, other) for one, other in zip(batches, again, strict=True))
    other_seed = [batch for epoch in augmented_epochs(2, workers) for batch in epoch]
    assert not any(torch.equal(one, other) for one, other in zip(batches, other_seed, strict=True))


def test_an_augmented_copy_keeps_shape_and_type() -> None:
    before = CROP.copy()
    pipeline = augment.training_augmentation()
    pipeline.set_random_seed(0)
    copies = [augment.apply(pipeline, CROP) for _ in range(30)]
    assert all(copy.dtype == np.uint8 and copy.shape == CROP.shape for copy in copies)
    np.testing.assert_array_equal(CROP, before)
    # The copy still shows a chromosome of about that length.
    rows = [np.ptp(np.nonzero(copy > 120)[0]) for copy in copies]
    assert np.median(rows) == pytest.approx(np.ptp(np.nonzero(CROP > 120)[0]), rel=0.15)


def test_augmentation_adds_only_background() -> None:
    small = np.zeros((96, 40), np.uint8)
    small[35:60, 14:26] = 255
    pipeline = augment.training_augmentation(brightness=0.0, noise=0.0)
    pipeline.set_random_seed(0)
    for _ in range(50):
        copy = augment.apply(pipeline, small)
        corners = [copy[:10, :5], copy[:10, -5:], copy[-10:, :5], copy[-10:, -5:]]
        assert max(int(corner.max()) for corner in corners) == 0


def test_augmentation_without_flips() -> None:
    def flips(pipeline: A.Compose) -> int:
        kinds = (A.HorizontalFlip, A.VerticalFlip)
        return sum(isinstance(step, kinds) for step in pipeline.transforms)

    assert flips(augment.training_augmentation()) == 2
    assert flips(augment.training_augmentation(flips=False)) == 0


def test_seed_pipeline_without_augmentation() -> None:
    labels = np.array([5])
    dataset = CropDataset(CROP[None], labels, labels, ChromosomePreset(96, 40))
    augment.seed_pipeline(dataset, 3)
    item = dataset[0]
    torch.testing.assert_close(item["image"], dataset[0]["image"])
    assert item["label"] == 5 and item["index"] == 0


def test_cells_of_another_pixel_size_give_the_same_crops(tmp_path: Path) -> None:
    """With a zoom range of 1 every cell is rescaled to the typical length."""
    small = [np.zeros((70, 40), np.uint8) for _ in range(24)]
    for number, image in enumerate(small):
        image[10 : 34 + number, 14:24] = 200
    images = [*small, *(cv2.resize(one, None, fx=1.3, fy=1.3) for one in small)]  # type: ignore[call-overload]
    read = lambda: ((f"image {k}", one) for k, one in enumerate(images))  # noqa: E731
    cells = ["a"] * 24 + ["b"] * 24

    def lengths(name: str, **arguments: float) -> NDArray[np.int64]:
        preset = ChromosomePreset(height=96, width=48, **arguments)  # type: ignore[arg-type]
        crops = prepared_crops(name, "0" * 64, preset, read, tmp_path, cells)
        return np.asarray((crops > 30).any(axis=2).sum(axis=1))

    kept = lengths("kept", typical_length=35)
    assert np.abs(kept[24:] - 1.3 * kept[:24]).max() <= 2
    same = lengths("same", typical_length=35, zoom_range=1)
    assert np.abs(same[24:] - same[:24]).max() <= 2
    assert abs(np.median(same) - 35) <= 2
