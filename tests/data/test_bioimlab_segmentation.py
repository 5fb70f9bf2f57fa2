"""The BioImLab segmentation DataModule on a tiny set in the published layout."""

import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.drawn_metaphases import TEST, TRAIN, VAL, draw, write, write_all

from chromozoo.cli.main import main
from chromozoo.data.base import metaphase_store
from chromozoo.data.base.metaphase_augmentation import IDENTITY, MetaphaseAugmentation
from chromozoo.data.base.metaphase_dataset import MetaphaseCropDataset
from chromozoo.data.base.metaphase_store import MetaphaseStore
from chromozoo.data.base.metaphase_targets import collate_metaphases, make_targets
from chromozoo.data.bioimlab_segmentation import BioImLabSegmentationDataModule, verify
from chromozoo.data.catalogue import DATASETS, datasets
from chromozoo.data.io.coco import write_coco
from chromozoo.data.io.labelme import LabelmeFiles
from chromozoo.data.io.metaphase_files import open_metaphases
from chromozoo.errors import DatasetError, DatasetNotFoundError
from chromozoo.images.metaphase import MetaphasePreset
from chromozoo.structures.polygons import polygon_mask

CROP = 96


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the unpacked set; read-only."""
    root = tmp_path_factory.mktemp("data")
    write_all(root / "bioimlab-segmentation")
    return root


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    shutil.copytree(published, tmp_path / "data")
    return tmp_path / "data"


def module(root: Path, **arguments: Any) -> BioImLabSegmentationDataModule:
    """A module without zoom, whose canvas is the image."""
    given: dict[str, Any] = {
        "preset": {"typical_width": 0},
        "crop": CROP,
        "samples_per_epoch": 12,
        "num_workers": 0,
    }
    return BioImLabSegmentationDataModule(root=root, **(given | arguments))


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("decoded, although nobody asked for it")

    monkeypatch.setattr(LabelmeFiles, "read", read)


# Layout and split


def test_listing_decodes_nothing(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_reading(monkeypatch)
    data = module(published)
    data.setup("fit")
    assert [data.keys(stage) for stage in ("train", "val", "test")] == [
        list(TRAIN),
        list(VAL),
        list(TEST),
    ]
    assert len(data.dataset("all")) == 7, "51 is in no part"
    with pytest.raises(AssertionError, match="nobody asked"):
        data.dataset("val")[0]


@pytest.mark.parametrize("layout", ["zip", "coco", "coco json", "folder itself", "other folder"])
def test_every_layout_gives_the_same_items(layout: str, copy: Path, published: Path) -> None:
    expected = module(published).dataset("val")
    folder = copy / "bioimlab-segmentation"
    root = copy
    if layout == "zip":
        with zipfile.ZipFile(copy / "bioimlab-segmentation.zip", "w") as archive:
            for path in folder.iterdir():
                archive.write(path, path.name)
        shutil.rmtree(folder)
    elif layout.startswith("coco"):
        files = open_metaphases(folder)
        metaphases = [files.read(key) for key in files.keys()]  # noqa: SIM118
        shutil.rmtree(folder)
        write_coco(metaphases, folder)
        root = folder / "annotations.json" if "json" in layout else copy
    elif layout == "folder itself":
        root = folder
    else:
        root = folder.rename(copy / "my metaphases")
    found = module(root).dataset("val")
    assert found.keys == expected.keys
    for index in range(2):
        for name, tensor in expected[index].items():
            assert torch.equal(found[index][name], tensor), name


def test_items_have_the_documented_shapes_and_types(published: Path) -> None:
    data = module(published)
    images = data.dataset("val")
    item = images[0]
    assert set(item) == {"image", "boxes", "labels", "masks", "index"}
    assert item["image"].shape == (1, 150, 220) and item["image"].dtype == torch.float32
    assert item["masks"].shape == (8, 150, 220) and item["masks"].dtype == torch.uint8
    assert item["boxes"].shape == (8, 4) and item["boxes"].dtype == torch.float32
    assert item["labels"].tolist() == [1] * 8 and item["labels"].dtype == torch.int64
    assert item["index"].tolist() == 0 and images[1]["index"].tolist() == 1
    _, polygons = draw("6")
    for mask, box, polygon in zip(item["masks"], item["boxes"], polygons, strict=True):
        np.testing.assert_array_equal(mask, polygon_mask(polygon, 150, 220))
        rows, columns = np.nonzero(mask.numpy())
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box.tolist() == expected
    assert (item["masks"].sum(dim=0) > 1).any(), "amodal: crossing bars share pixels"
    original = images.metaphase(0)
    np.testing.assert_array_equal(original.image, draw("6")[0])


def test_outlines_follow_the_scale_of_the_preset(published: Path) -> None:
    full = module(published).dataset("val")[0]
    half = module(published, preset={"scale": 0.5, "typical_width": 0}).dataset("val")[0]
    assert half["image"].shape == (1, 75, 110) and half["masks"].shape == (8, 75, 110)
    np.testing.assert_allclose(half["boxes"] * 2, full["boxes"], atol=2.01)


def test_evaluation_gives_whole_images_one_a_batch(published: Path) -> None:
    data = module(published)
    for loader, keys in (
        (data.val_dataloader(), VAL),
        (data.test_dataloader(), TEST),
        (data.predict_dataloader(), TEST),
    ):
        batches = list(loader)
        assert [batch["index"].tolist() for batch in batches] == [[0], [1]]
        for batch, key in zip(batches, keys, strict=True):
            assert batch["image"][0].shape == (1, *draw(key)[0].shape)
            assert set(batch["target"][0]) == {"boxes", "labels", "masks"}


def test_images_and_masks_are_cached_up_to_a_limit(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = module(published)
    images = data.dataset("all")
    first = [images[index] for index in range(len(images))]
    with monkeypatch.context() as patch:
        forbid_reading(patch)
        assert torch.equal(images[0]["masks"], first[0]["masks"])
    monkeypatch.setattr(metaphase_store, "IMAGE_CACHE_BYTES", 70_000)  # two images
    few = MetaphaseStore(data.images.files, MetaphasePreset(typical_width=0))
    for key in ("2", "5", "6", "2", "10"):
        few[key]
    assert list(few._cache.items) == ["2", "10"]
    assert few._cache.size == sum(few[key].canvas.nbytes for key in ("2", "10"))


def test_the_preset_of_the_model_is_used(published: Path) -> None:
    data = module(published, preset=None)
    transforms = MetaphasePreset(scale=0.5, typical_width=0)
    data.trainer = stub_trainer(0, transforms)
    data.setup("fit")
    assert data.images.preset == transforms
    assert data.dataset("val")[0]["image"].shape == (1, 75, 110)


# Faulty data sets


def test_a_faulty_outline_is_named(copy: Path) -> None:
    _, polygons = draw("6")
    write(copy / "bioimlab-segmentation", "6", [*polygons, polygons[2]])
    with pytest.raises(DatasetError, match=r"original_6\.json: shape 8 is the same polygon as"):
        module(copy).dataset("val")[0]


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bioimlab-segmentation").mkdir()
    write(tmp_path / "bioimlab-segmentation", "2")
    with pytest.raises(DatasetError, match="none of the val images of bioimlab_segmentation_v1"):
        module(tmp_path).dataset("val")
    with pytest.raises(ValueError, match="synthetic is 2"):
        module(tmp_path, synthetic=2)


def test_missing_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as caught:
        module(tmp_path / "my {data}").setup()
    message = str(caught.value)
    assert f"\n         {tmp_path / 'my {data}'}/\n" in message and "  1. Get" in message
    assert "10.1016/j.bspc.2023.105199" in message and "CHROMOZOO_DATA" in message


def test_verify_checks_every_outline(copy: Path, capsys: Any) -> None:
    folder = copy / "bioimlab-segmentation"
    report = verify(copy)
    assert "8 images, 64 polygons" in report.lines
    assert "bioimlab_segmentation_v1/val: 2 images, 16 polygons" in report.lines
    assert len(report.faults) == 142
    assert "image 3 of the split is not in the data set" in report.faults
    _, polygons = draw("6")
    write(folder, "6", [[*polygons[0][:2]], polygons[1]])
    write(folder, "5", [])
    write(folder, "1234")
    (folder / "original_10.json").write_text("{")
    found = set(verify(copy).faults) - set(report.faults)
    for part in (
        "original_6.json: shape 0 has 2 points",
        "original_5.json: the image has no polygon",
        "original_10.json: damaged JSON",
        "image 1234 is in no part of the split",
    ):
        assert sum(part in fault for fault in found) == 1, part
    assert main(["data", "verify", "bioimlab-segmentation", "--root", str(copy)]) == 1
    assert "FAULT" in capsys.readouterr().out


def test_the_catalogue_knows_it(capsys: Any) -> None:
    assert next(iter(datasets("segmentation"))) == "bioimlab-segmentation"
    tasks = ("classification", "segmentation", "detection")
    assert {name for task in tasks for name in datasets(task)} == set(DATASETS)
    assert main(["data", "info", "bioimlab-segmentation"]) == 0
    assert "MPL-2.0" in capsys.readouterr().out


# Training crops


def stub_trainer(epoch: int, transforms: MetaphasePreset | None = None) -> Any:
    model = SimpleNamespace(transforms=transforms) if transforms else None
    return SimpleNamespace(current_epoch=epoch, global_rank=0, lightning_module=model)


def epoch_of(data: BioImLabSegmentationDataModule, epoch: int) -> list[dict[str, Any]]:
    data.trainer = stub_trainer(epoch)
    return list(data.train_dataloader())


def same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    return all(
        torch.equal(image, twin) and torch.equal(target["masks"], other["masks"])
        for one, two in zip(first, second, strict=True)
        for image, twin, target, other in zip(
            one["image"], two["image"], one["target"], two["target"], strict=True
        )
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_follows_from_its_number_alone(published: Path, num_workers: int) -> None:
    """A resumed run sees the same crops as an uninterrupted one, for any number of workers."""
    arguments: dict[str, Any] = {"augmentation": {}, "synthetic": 0.5}
    data = module(published, **arguments)
    at_3, at_4 = epoch_of(data, 3), epoch_of(data, 4)
    resumed = epoch_of(module(published, **arguments, num_workers=num_workers), 3)
    assert [len(batch["image"]) for batch in at_3] == [4, 4, 4]
    assert same(at_3, resumed)
    other_seed = epoch_of(module(published, **arguments, seed=1), 3)
    for other in (at_4, other_seed):
        assert not torch.equal(at_3[0]["image"][0], other[0]["image"][0])


@pytest.mark.parametrize("synthetic", [0.0, 1.0])
def test_training_targets_are_sound(published: Path, synthetic: float) -> None:
    batches = epoch_of(module(published, augmentation={}, synthetic=synthetic), 0)
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(12))
    boxes = torch.cat([target["boxes"] for batch in batches for target in batch["target"]])
    assert len(boxes) > 12
    assert (boxes[:, 2:] > boxes[:, :2]).all() and boxes.min() >= 0 and boxes.max() <= CROP
    for batch in batches:
        for image, target in zip(batch["image"], batch["target"], strict=True):
            assert image.shape == (1, CROP, CROP) and image.isfinite().all()
            assert target["masks"].shape == (len(target["boxes"]), CROP, CROP)
            assert set(target["masks"].unique().tolist()) <= {0, 1}
            assert target["labels"].tolist() == [1] * len(target["boxes"])


def crops(root: Path, **arguments: Any) -> MetaphaseCropDataset:
    data = module(root)
    keys = data.keys("train")
    return MetaphaseCropDataset(keys, data.images, **({"size": CROP, "samples": 24} | arguments))


def test_rotated_outlines_match_the_image(published: Path) -> None:
    """No loss curve would show half a pixel of shift between outline and image."""
    only_turns = MetaphaseAugmentation(brightness=0, contrast=0, gamma=1, blur=0, noise=0)
    dataset = crops(published, augmentation=only_turns)
    preset = dataset.images.preset
    shifts = []
    for index in range(len(dataset)):
        item = dataset[index]
        signal = (item["image"][0] * preset.std + preset.mean).numpy()
        inside = item["masks"].numpy().any(axis=0)
        # What is mostly outside the crop is bright, too, and no target.
        near = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        bright = (signal > 0.12) & near
        if inside.any():
            assert (bright & inside).sum() / (bright | inside).sum() > 0.85
            middles = [np.mean(np.nonzero(mask), axis=1) for mask in (bright, inside)]
            shifts.append(middles[0] - middles[1])
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.15


def test_bare_crops_are_cut_exactly(published: Path) -> None:
    dataset = crops(published, augmentation=IDENTITY)
    for index in (0, 5, 11):
        item = dataset[index]
        key, _ = dataset.middles[index]
        canvas = dataset.images[key].canvas
        preset = dataset.images.preset
        crop = np.round((item["image"][0] * preset.std + preset.mean).numpy() * 255)
        padded = np.pad(canvas, CROP)
        found = cv2.matchTemplate(padded.astype(np.float32), crop, cv2.TM_SQDIFF)
        assert found.min() < 100, "the same pixels, but for the rounding of the search"
        row, column = np.unravel_index(found.argmin(), found.shape)
        masks = np.stack([polygon_mask(p, *canvas.shape) for p in dataset.images[key].polygons])
        expected = np.pad(masks, ((0, 0), (CROP, CROP), (CROP, CROP)))[
            :, row : row + CROP, column : column + CROP
        ]
        sizes = masks.sum(axis=(1, 2))
        shown = expected.sum(axis=(1, 2))
        clear = np.abs(shown / sizes - 0.25) > 0.03
        kept = expected[(shown / sizes >= 0.25) & clear].any(axis=0)
        assert (item["masks"].numpy().any(axis=0) >= kept).mean() > 0.999


def test_each_chromosome_is_as_likely_as_another(published: Path) -> None:
    dataset = crops(published, samples=24)
    assert len(set(dataset.middles)) == 24 == 3 * 8
    again = crops(published, samples=60)
    counts = np.unique([f"{key} {number}" for key, number in again.middles], return_counts=True)[1]
    assert set(counts.tolist()) == {2, 3}


def test_mostly_invisible_instances_are_dropped() -> None:
    bar = np.array([[0.0, 0], [40, 0], [40, 10], [0, 10]])
    shown = [bar + np.array(place) for place in ((-29, 5), (-31, 20), (-100, 0), (10, 40))]
    found = make_targets(shown, 64, 64)
    assert found["boxes"].tolist() == [[0, 5, 11, 15], [10, 40, 50, 50]]
    speck = np.array([[5.0, 5], [8, 5], [8, 8], [5, 8]])
    assert len(make_targets([speck], 64, 64)["boxes"]) == 0
    assert len(make_targets([speck], 64, 64, 0, 1)["boxes"]) == 1
    nothing = make_targets([], 64, 48)
    assert nothing["boxes"].shape == (0, 4) and nothing["masks"].shape == (0, 64, 48)
    assert nothing["masks"].dtype == torch.uint8 and nothing["labels"].shape == (0,)
    item = {"image": torch.zeros(1, 64, 48), **nothing, "index": torch.tensor(3)}
    assert collate_metaphases([item, item])["index"].tolist() == [3, 3]


def test_exposure_leaves_the_background_dark() -> None:
    canvas = np.zeros((64, 64), np.uint8)
    canvas[20:40, 20:40] = 120
    changed = []
    for seed in range(20):
        exposed = MetaphaseAugmentation(blur=0).expose(np.random.default_rng(seed), canvas)
        assert exposed.dtype == np.uint8 and not exposed[canvas == 0].any()
        changed.append(exposed[30, 30])
    assert np.std(changed) > 10
    np.testing.assert_array_equal(IDENTITY.expose(np.random.default_rng(0), canvas), canvas)


def test_matrices_have_every_angle_and_the_given_scale() -> None:
    rng = np.random.default_rng(0)
    matrices = [MetaphaseAugmentation(shear=0).draw_matrix(rng) for _ in range(400)]
    determinants = np.linalg.det(matrices)
    assert 0.3 < (determinants < 0).mean() < 0.7, "mirrored"
    assert np.abs(determinants).min() > 0.79**2 and np.abs(determinants).max() < 1.26**2
    angles = np.array([np.arctan2(m[1, 1], m[0, 1]) for m in matrices])
    assert np.histogram(angles, bins=8, range=(-np.pi, np.pi))[0].min() > 20
    np.testing.assert_array_equal(IDENTITY.draw_matrix(rng), np.eye(2))


def test_composed_crops_come_from_training_images_alone(published: Path) -> None:
    data = module(published)
    cells = {chromosome.cell for chromosome in data.bank().chromosomes}
    assert cells <= set(range(len(TRAIN))) and len(data.bank().backgrounds) == len(TRAIN)
    assert data.bank() is data.bank()


def test_verify_reports_ignored_annotations_and_continues_after_damage(tmp_path: Path) -> None:
    data = write_all(tmp_path / "set")
    del data
    files = open_metaphases(tmp_path / "set")
    write_coco((files.read(key) for key in files.keys()), tmp_path / "coco")  # noqa: SIM118
    path = tmp_path / "coco" / "annotations.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(document))
    with pytest.warns(UserWarning, match="left out: 1 crowds"):
        lines = verify(tmp_path / "coco").lines
    assert "left out: 1 crowds without a mask (image_id 1)" in lines
    with zipfile.ZipFile(tmp_path / "bioimlab-segmentation.zip", "w") as archive:
        for one in sorted((tmp_path / "set").iterdir()):
            archive.write(one, one.name)
    broken = bytearray((tmp_path / "bioimlab-segmentation.zip").read_bytes())
    broken[200] ^= 1
    (tmp_path / "bioimlab-segmentation.zip").write_bytes(broken)
    report = verify(tmp_path / "bioimlab-segmentation.zip")
    assert sum(".json is damaged" in fault for fault in report.faults) == 1
    assert "content sha256 unknown, for a file cannot be read" in report.lines


@pytest.mark.data
def test_real_set_is_whole(real_data: Path) -> None:
    data = BioImLabSegmentationDataModule(root=real_data, preset={})
    assert [len(data.keys(stage)) for stage in ("train", "val", "test")] == [125, 8, 16]
    item = data.dataset("test")[0]
    assert item["image"].shape == (1, 576, 768) and len(item["boxes"]) == 46
