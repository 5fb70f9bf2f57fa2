"""M-FISH: instances derived from class maps, on tiny drawn sets."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chromozoo.cli.main import main
from chromozoo.data.karyotyping_truth import true_cells
from chromozoo.data.mfish import (
    FILE_NAME,
    MFishDataModule,
    MFishFiles,
    find_instances,
    karyotype_of,
    slide_of,
    verify,
)
from chromozoo.data.splits import STAGES, load_split
from chromozoo.errors import DatasetError, DatasetNotFoundError
from chromozoo.structures.polygons import mask_polygon, polygon_mask
from chromozoo.structures.segmentation import Segmentation

SPLIT = load_split("mfish_v1")
TRAIN, VAL, TEST = SPLIT.train[0], SPLIT.val[0], SPLIT.test[0]


def drawn_map() -> np.ndarray:
    """Six chromosomes: a cross of 1 and 2, a free 1 and 2, an X and a Y that touch."""
    values = np.zeros((120, 160), np.uint8)
    values[20:100, 30:40] = 1
    values[55:65, 5:80] = 2
    values[55:65, 30:40] = 255
    values[20:100, 90:100] = 1
    values[10:85, 110:120] = 2
    values[20:70, 130:140] = 23
    values[20:40, 140:150] = 24
    return values


def write(folder: Path, key: str, values: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(folder / f"{key}K.png")
    image = np.where(values > 0, 150 + values // 4, 10).astype(np.uint8)
    Image.fromarray(image).save(folder / f"{key}D.png")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    for key in (TRAIN, VAL, TEST):
        write(tmp_path / "data" / "mfish-dapi", key, drawn_map())
    return tmp_path / "data"


def module(root: Path, **arguments: Any) -> MFishDataModule:
    given = {
        "preset": {"typical_width": 0},
        "crop": 96,
        "samples_per_epoch": 12,
        "num_workers": 0,
    }
    return MFishDataModule(root=root, **(given | arguments))


# The split


def test_split_is_disjoint_by_slide() -> None:
    assert [len(SPLIT.ids(stage)) for stage in STAGES] == [113, 17, 33]
    slides = [{slide_of(key) for key in SPLIT.ids(stage)} for stage in STAGES]
    assert [len(part) for part in slides] == [17, 2, 5]
    assert len(set.union(*slides)) == 24 and len(set(SPLIT.ids("all"))) == 163
    # Every result row carries this hash: a changed list needs a new file, mfish_v2.json.
    assert SPLIT.sha256[:12] == "461c6ece0d0c"


# Instances of a class map


def test_fragments_at_an_overlap_are_joined() -> None:
    values = drawn_map()
    found = find_instances(values)
    assert [label for label, _ in found] == [0, 0, 1, 1, 22, 23]
    crossing = [mask for _, mask in found if mask[60, 35]]
    assert len(crossing) == 2, "the pixels of the crossing belong to both"
    expected = np.zeros((2, 120, 160), bool)
    expected[0, 20:100, 30:40] = True
    expected[1, 55:65, 5:80] = True
    np.testing.assert_array_equal(crossing, expected)
    np.testing.assert_array_equal(found[4][1], values == 23)


def test_homologues_at_one_overlap_stay_apart() -> None:
    """Both 1 cross the same 2 in one region; together they are too large for one chromosome."""
    values = np.pad(drawn_map(), ((0, 80), (0, 0)))
    values[:, :85] = 0
    values[95:105, 5:80] = 2
    values[15:95, 30:40] = values[105:185, 30:40] = 1
    values[95:105, 30:40] = 255
    ones = [mask for label, mask in find_instances(values) if label == 0]
    assert len(ones) == 3


def test_dust_is_left_out_and_holes_are_filled() -> None:
    values = drawn_map()
    values[2:5, 2:5] = 7
    values[50:53, 94:96] = 0
    found = find_instances(values)
    assert len(found) == 6
    assert found[1][1][51, 95] or found[0][1][51, 95]
    assert find_instances(np.zeros((20, 20), np.uint8)) == []


def test_the_outlines_give_the_masks_back() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = np.zeros((40, 50), np.uint8)
        for _ in range(4):
            top, left = rng.integers(0, 30, 2)
            values[top : top + rng.integers(1, 20), left : left + rng.integers(1, 25)] = 3
        for _, mask in find_instances(values):
            np.testing.assert_array_equal(polygon_mask(mask_polygon(mask), 40, 50), mask)
    corners = mask_polygon(np.ones((1, 1), bool)).tolist()
    assert sorted(corners) == [[0, 0], [0, 1], [1, 0], [1, 1]]
    with pytest.raises(ValueError, match="2 pieces"):
        mask_polygon(np.array([[1, 0, 1]], bool))
    with pytest.raises(ValueError, match="empty"):
        mask_polygon(np.zeros((4, 4), bool))


# The DataModule


def test_items_carry_classes(published: Path) -> None:
    data = module(published)
    item = data.dataset("val")[0]
    assert set(item) == {"image", "boxes", "labels", "masks", "index"}
    assert item["image"].shape == (1, 120, 160) and item["masks"].shape == (6, 120, 160)
    assert item["labels"].tolist() == [1, 1, 2, 2, 23, 24]
    np.testing.assert_array_equal(item["masks"][4].numpy() > 0, drawn_map() == 23)
    assert [data.keys(stage) for stage in STAGES] == [[TRAIN], [VAL], [TEST]]


def test_training_crops_keep_class_and_place_together(published: Path) -> None:
    """The grey value of a chromosome is its class here, which reveals shifted labels."""
    data = module(published)
    preset = None
    seen = set()
    for batch in data.train_dataloader():
        preset = data.images.preset
        for image, target in zip(batch["image"], batch["target"], strict=True):
            assert image.shape == (1, 96, 96)
            canvas = image[0] * preset.std + preset.mean
            grey = {
                label: float(canvas[mask > 0].median())
                for label, mask in zip(target["labels"].tolist(), target["masks"], strict=True)
            }
            seen |= set(grey)
            if {1, 23} <= set(grey):
                assert grey[1] < grey[23]
    assert seen == {1, 2, 23, 24}


def test_composed_crops_have_no_classes() -> None:
    with pytest.raises(ValueError, match="composed crops have no classes"):
        MFishDataModule(synthetic=0.5)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_metaphases_for_karyotyping(published: Path, kind: str) -> None:
    if kind == "zip":
        with zipfile.ZipFile(published / FILE_NAME, "w") as archive:
            for path in (published / "mfish-dapi").iterdir():
                archive.write(path, f"DAPI/{path.name}")
    ((image, cell),) = true_cells("mfish", "test", published)
    assert (cell.name, karyotype_of(cell.name)) == (TEST, TEST[-2:])
    assert cell.classes.tolist() == [0, 0, 1, 1, 22, 23]
    assert isinstance(cell.outlines, Segmentation)
    assert cell.outlines.masks.shape == (6, 120, 160)
    masks = [mask for _, mask in find_instances(drawn_map())]
    np.testing.assert_array_equal(cell.outlines.masks, masks)
    assert image.shape == (120, 160) and image.dtype == np.float32


# Faulty data sets


def test_faulty_files_are_named(published: Path, capsys: Any) -> None:
    folder = published / "mfish-dapi"
    report = verify(published)
    assert "3 images of 3 slides" in report.lines and "18 chromosomes" in report.lines
    assert "mfish_v1/val: 1 images, 6 chromosomes" in report.lines
    assert len(report.faults) == 160
    write(folder, "A9999XY", drawn_map())
    values = drawn_map()
    values[0, 0] = 99
    write(folder, TRAIN, values)
    write(folder, VAL, drawn_map())
    Image.new("L", (10, 10)).save(folder / f"{VAL}D.png")
    (folder / f"{TEST}K.png").write_bytes(b"x")
    found = set(verify(published).faults) - set(report.faults)
    for part in (
        f"{TRAIN}K.png: has the value 99",
        f"{VAL}K.png: is 160x120, its image 10x10",
        f"{TEST}K.png: the file is damaged",
        "image A9999XY is in no part of the split",
    ):
        assert sum(part in fault for fault in found) == 1, part
    (folder / f"{TEST}K.png").unlink()
    with pytest.raises(DatasetError, match=rf"{TEST}K\.png is missing"):
        module(published).setup()
    assert main(["data", "info", "mfish"]) == 0
    assert "mfish-README.txt" in capsys.readouterr().out


def test_noise_is_no_class_map(published: Path) -> None:
    """Joining its tens of thousands of fragments would take hours."""
    noise = np.random.default_rng(0).choice(np.r_[np.arange(25), 255], (300, 300))
    write(published / "mfish-dapi", "A0101XY", noise.astype(np.uint8))
    with pytest.raises(
        DatasetError, match=r"A0101XYK\.png: the map has [0-9,]+ fragments, which is noise"
    ):
        MFishFiles(published / "mfish-dapi").read("A0101XY")


def test_two_files_of_one_name_are_refused(published: Path) -> None:
    folder = published / "mfish-dapi"
    (name,) = sorted(path.name for path in folder.glob("*K.png"))[:1]
    (folder / "copy").mkdir()
    (folder / "copy" / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(DatasetError, match=f"{name} .*have one name; remove one"):
        MFishFiles(folder)


def test_missing_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"(?s)mfish-dapi\.zip.*1\. Get.*3\. Check"):
        module(tmp_path).setup()
    (tmp_path / "mfish-dapi").mkdir()
    with pytest.raises(DatasetError, match=r"holds no <id>D\.png"):
        module(tmp_path).setup()


@pytest.mark.data
def test_real_set_is_whole(real_data: Path) -> None:
    data = MFishDataModule(root=real_data)
    assert [len(data.keys(stage)) for stage in STAGES] == [113, 17, 33]
    item = data.dataset("val")[0]
    assert item["labels"].min() == 1 and item["labels"].max() == 24
