"""CIL:54816 for detection and as crops, on a tiny drawn set."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from chromozoo.classes import CLASSES
from chromozoo.cli.main import main
from chromozoo.data.base.metaphase_augmentation import MetaphaseAugmentation
from chromozoo.data.catalogue import dataset_of_tag
from chromozoo.data.cil54816 import (
    FILE_NAME,
    RIM,
    Annotation,
    Cil54816CropsDataModule,
    Cil54816DataModule,
    Cil54816Files,
    group_of,
    verify,
)
from chromozoo.data.karyotyping_truth import true_cells
from chromozoo.data.splits import STAGES, load_split
from chromozoo.errors import ChromozooError, DatasetError, DatasetNotFoundError, UnknownNameError

SPLIT = load_split("cil54816_v1")
TRAIN, VAL, TEST = SPLIT.train[0], SPLIT.val[0], SPLIT.test[0]
HEIGHT, WIDTH = 120, 160
# Name and corners of bars, which differ in length and grey value.
BOXES = [
    ("A1", (10, 10, 20, 70)),
    ("B4", (40, 12, 50, 57)),
    ("C6", (70, 20, 110, 30)),
    ("G21", (70, 60, 80, 85)),
    ("X", (100, 50, 110, 90)),
    ("Y", (130, 70, 140, 90)),
]


def published_boxes() -> list[tuple[str, tuple[int, ...]]]:
    """The boxes with the rims of the published ones."""
    left, above, right, below = (int(width) for width in RIM)
    return [
        (name, (x0 - left, y0 - above, x1 + right, y1 + below)) for name, (x0, y0, x1, y1) in BOXES
    ]


def annotation(boxes: list[tuple[str, tuple[int, ...]]], width: int = WIDTH) -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(
            f"<{end}>{value}</{end}>"
            for end, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox></object>"
        for name, box in boxes
    )
    size = f"<size><width>{width}</width><height>{HEIGHT}</height></size>"
    return f"<annotation>{size}{objects}</annotation>"


def write(folder: Path, key: str, text: str | None = None) -> None:
    image = np.full((HEIGHT, WIDTH), 230, np.uint8)
    for number, (_, (x0, y0, x1, y1)) in enumerate(BOXES):
        image[y0:y1, x0:x1] = 30 + 20 * number
    inner = folder / "24_chromosomes_object"
    for name in ("JEPG", "annotations"):
        (inner / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).convert("RGB").save(inner / "JEPG" / f"{key}.jpg", quality=95)
    (inner / "annotations" / f"{key}.xml").write_text(text or annotation(published_boxes()))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "gband-cil54816"
    for key in (TRAIN, VAL, TEST):
        write(folder, key)
    (folder / "train.txt").write_text(f"{TRAIN}\n{VAL}\n1100997\n")
    (folder / "test.txt").write_text(f"{TEST}\n")
    return tmp_path / "data"


def module(root: Path, **arguments: Any) -> Cil54816DataModule:
    given = {
        "preset": {"typical_width": 0},
        "crop": 64,
        "samples_per_epoch": 12,
        "num_workers": 0,
    }
    return Cil54816DataModule(root=root, **(given | arguments))


# The split


def test_split_is_disjoint_by_group() -> None:
    assert [len(SPLIT.ids(stage)) for stage in STAGES] == [836, 114, 150]
    assert SPLIT.excluded == ("1100997",)
    groups = [{group_of(key) for key in SPLIT.ids(stage)} for stage in STAGES]
    assert [len(part) for part in groups] == [256, 34, 57]
    assert len(set.union(*groups)) == 347
    assert group_of("1050211_1") == group_of("1050213") == "105021"
    # Every result row carries this hash: a changed list needs a new file, cil54816_v2.json.
    assert SPLIT.sha256[:12] == "b224e2524add"


# Annotations


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_boxes_for_evaluation(published: Path, kind: str) -> None:
    if kind == "zip":
        with zipfile.ZipFile(published / FILE_NAME, "w") as archive:
            for path in (published / "gband-cil54816").rglob("*.*"):
                archive.write(path, path.relative_to(published / "gband-cil54816").as_posix())
    ((image, cell),) = true_cells("cil54816", "test", published)
    assert cell.name == TEST and image.shape == cell.instances.shape == (HEIGHT, WIDTH)
    assert [CLASSES[label] for label in cell.classes] == ["1", "4", "6", "21", "X", "Y"]
    np.testing.assert_array_equal(cell.instances.boxes, [box for _, box in BOXES])
    assert cell.instances.crops is None


def test_known_defects_are_repaired_and_counted(published: Path) -> None:
    defects = [
        ("A1", (-1, 10, 20, 70)),
        ("C8", (70, 20, 110, 30)),
        ("X", (70, 20, 110, 30)),
        ("Y", (150, 100, 161, 121)),
        ("E16", (30, 30, 30, 60)),
    ]
    write(published / "gband-cil54816", TRAIN, annotation(defects))
    found = Cil54816Files(published / "gband-cil54816").read_boxes(TRAIN)
    assert (found.clipped, found.duplicates, found.empty) == (2, 1, 1)
    assert [CLASSES[label] for label in found.classes] == ["1", "8", "Y"]
    assert found.boxes.tolist() == [[0, 10, 20, 70], [70, 20, 110, 30], [150, 100, 160, 120]]
    report = verify(published)
    assert "clipped at the edge of the image: 2 boxes" in report.lines
    assert "removed, repeating another: 1 boxes" in report.lines
    assert "removed, covering nothing: 1 boxes" in report.lines
    assert "listed without a file: 1 (1100997)" in report.lines
    assert "boxes of an image: 3: 1 images, 6: 2 images" in report.lines
    assert "cil54816_v1/val: 1 images, 6 boxes" in report.lines
    assert len(report.faults) == 1097, "images of the split that are not there"


def test_removing_the_rim_leaves_a_box() -> None:
    boxes = np.array([(10, 20, 110, 220), (10, 20, 20, 30)], np.float64)
    found = Annotation(boxes, np.array([0, 1]), (300, 300), 0, 0, 0)
    assert found.tight_boxes[0].tolist() == [16, 28, 105, 216]
    x0, y0, x1, y1 = found.tight_boxes[1]
    assert x1 - x0 == pytest.approx(4) and y1 - y0 == pytest.approx(4)
    assert 10 < x0 < x1 < 20 and 20 < y0 < y1 < 30


def test_faulty_files_are_named(published: Path, capsys: Any) -> None:
    folder = published / "gband-cil54816"
    before = set(verify(published).faults)
    write(folder, TRAIN, annotation([("Z3", (1, 1, 20, 20))]))
    write(folder, VAL, annotation(BOXES, width=90))
    write(folder, TEST, "<annotation>")
    write(folder, "77", annotation(BOXES).replace(f"<height>{HEIGHT}</height>", ""))
    write(folder, "78")
    (folder / "24_chromosomes_object" / "JEPG" / "78.jpg").unlink()
    faults = set(verify(published).faults) - before
    for part in (
        f"{TRAIN}.xml: no annotation in Pascal VOC (unknown class 'Z3')",
        f"{VAL}.xml: describes an image of 90x120, but the image is 160x120",
        f"{TEST}.xml: no annotation in Pascal VOC",
        "77.xml: no annotation in Pascal VOC (no size/height)",
        "image 78 lacks its image or annotation file",
    ):
        assert sum(part in fault for fault in faults) == 1, part
    with pytest.raises(DatasetError, match="unknown class 'Z3'"):
        module(published).dataset("train")[0]
    assert main(["data", "info", "cil54816"]) == 0
    assert "24_chromosomes_object" in capsys.readouterr().out


GOOD = annotation(published_boxes())
LAUGHS = "".join(f'<!ENTITY l{k + 1} "{f"&l{k};" * 10}">' for k in range(12))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no element found"),
        (b'<?xml version="1.0" encoding="foo"?>' + GOOD.encode(), "unknown encoding"),
        (b'<?xml version="1.0" encoding="shift_jis"?>' + GOOD.encode(), "multi-byte encodings"),
        (b'<?xml version="1.0" encoding="rot13"?>' + GOOD.encode(), "encoding"),
        (GOOD.replace("A1", "\xe4").encode("latin-1"), "not well-formed"),
        (f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a>&l9;</a>'.encode(), "a document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/hostname"><a/>', "a document type"),
        (b"<a>" * 300_000, "no element found|unclosed"),
        (b"<a>" + b"<b/>" * 2_000_000 + b"</a>", "bytes are more than"),
        (GOOD.replace("<xmax>", "<xmax>" + "9" * 5000).encode(), "bndbox/xmax is '9+"),
        (GOOD.replace("<xmax>", "<xmax>1e").encode(), "bndbox/xmax is"),
        (GOOD.replace("<xmax>", "<xmax>nan ").encode(), "bndbox/xmax is 'nan"),
        (annotation([("A" + "1" * 5000, (1, 1, 20, 20))]).encode(), "unknown class 'A1"),
        (annotation([("\u0663", (1, 1, 20, 20))]).encode(), "unknown class"),
        (annotation([], width=10**300).encode(), "size/width is"),
    ],
)
def test_damaged_xml_is_reported(data: bytes, said: str, published: Path) -> None:
    folder = published / "gband-cil54816"
    (folder / "24_chromosomes_object" / "annotations" / f"{TRAIN}.xml").write_bytes(data)
    with pytest.raises(DatasetError, match=rf"{TRAIN}\.xml: no annotation .*({said})") as caught:
        Cil54816Files(folder).read(TRAIN)
    assert len(str(caught.value)) < 600 and "mend it or fetch it again" in str(caught.value)


def test_other_encodings_are_read(published: Path) -> None:
    folder = published / "gband-cil54816"
    path = folder / "24_chromosomes_object" / "annotations" / f"{TRAIN}.xml"
    for encoding in ("utf-16", "latin-1"):
        head = f'<?xml version="1.0" encoding="{encoding}"?>'
        path.write_bytes((head + GOOD).encode(encoding))
        assert len(Cil54816Files(folder).read(TRAIN).polygons) == 6


def test_two_files_of_one_image_are_refused(published: Path, tmp_path: Path) -> None:
    folder = published / "gband-cil54816"
    (folder / "copy").mkdir()
    (folder / "copy" / f"{VAL}.xml").write_text(GOOD)
    with pytest.raises(DatasetError, match=f"are both of image '{VAL}'; remove one"):
        Cil54816Files(folder)


def test_crops_of_boxes_of_another_image_are_refused(published: Path, tmp_path: Path) -> None:
    write(published / "gband-cil54816", TRAIN, annotation(published_boxes(), width=WIDTH + 1))
    with pytest.raises(DatasetError, match=r"describes an image of 161x120, but the image is 160x"):
        Cil54816CropsDataModule(published, cache=str(tmp_path / "cache")).setup()


def test_verify_continues_after_an_unreadable_file(published: Path) -> None:
    with zipfile.ZipFile(published / FILE_NAME, "w") as archive:
        for path in (published / "gband-cil54816").rglob("*.*"):
            archive.write(path, path.relative_to(published / "gband-cil54816").as_posix())
    data = bytearray((published / FILE_NAME).read_bytes())
    start = data.index(b"\xff\xd8\xff")  # of a JPEG, stored as it is
    data[start + 200] ^= 1
    (published / FILE_NAME).write_bytes(data)
    report = verify(published / FILE_NAME)
    assert sum(".jpg is damaged" in fault for fault in report.faults) == 1
    assert "content sha256 unknown, for a file cannot be read" in report.lines
    assert "3 images of 3 groups" in report.lines


def test_missing_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"(?s)gband-cil54816.*1\. Down.*3\. Check"):
        module(tmp_path).setup()
    (tmp_path / "gband-cil54816").mkdir()
    with pytest.raises(DatasetError, match=r"holds no <id>\.jpg with <id>\.xml"):
        module(tmp_path).setup()


# Detection


def test_items_and_batches_have_boxes_and_classes(published: Path) -> None:
    data = module(published)
    (batch,) = data.val_dataloader()
    (target,) = batch["target"]
    assert set(target) == {"boxes", "labels"}
    assert batch["image"][0].shape == (1, HEIGHT, WIDTH)
    assert target["labels"].tolist() == [1, 4, 6, 21, 23, 24]
    assert target["boxes"].tolist() == [list(box) for _, box in BOXES]


def test_boxes_stay_tight_on_rotated_crops(published: Path) -> None:
    only_turns = {"brightness": 0, "contrast": 0, "gamma": 1, "blur": 0, "noise": 0}
    data = module(published, augmentation=only_turns, samples_per_epoch=40)
    shapes = set()
    for batch in data.train_dataloader():
        for image, target in zip(batch["image"], batch["target"], strict=True):
            preset = data.images.preset
            bright = (image[0] * preset.std + preset.mean) > 0.2
            for x0, y0, x1, y1 in target["boxes"].int().tolist():
                inside = bright[y0:y1, x0:x1]
                assert inside.float().mean() > 0.8
                shapes.add(x1 - x0 > y1 - y0)
    assert shapes == {True, False}
    augmentation = MetaphaseAugmentation(scale=(1, 1))
    matrices = [
        augmentation.draw_matrix(np.random.default_rng(k), boxes_only=True) for k in range(64)
    ]
    assert len({tuple(np.round(matrix).ravel().tolist()) for matrix in matrices}) == 8
    bare = MetaphaseAugmentation(rotate=0, flips=False, scale=(1, 1))
    np.testing.assert_array_equal(bare.draw_matrix(np.random.default_rng(0), True), np.eye(2))


# Crops


def test_crops_of_boxes(published: Path, tmp_path: Path) -> None:
    preset: dict[str, Any] = {"height": 64, "width": 32}
    data = Cil54816CropsDataModule(
        root=published, preset=preset, cache=str(tmp_path), num_workers=0
    )
    test = data.dataset("test")
    assert set(test.cells.tolist()) == {TEST} and len(data.dataset("all")) == 18
    assert [CLASSES[label] for label in test.labels] == ["1", "4", "6", "21", "X", "Y"]
    lengths = (test.crops > 60).any(axis=2).sum(axis=1)
    assert np.abs(lengths - np.array([60, 45, 40, 25, 40, 20])).max() <= 3
    batch = next(
        iter(Cil54816CropsDataModule(published, preset=preset, batch_size=4).val_dataloader())
    )
    assert batch["image"].shape == (4, 1, 64, 32) and batch["image"].dtype == torch.float32
    assert [path.name[:15] for path in tmp_path.glob("*.npy")] == ["cil54816-crops-"]
    with pytest.raises(UnknownNameError, match="has no folds"):
        Cil54816CropsDataModule(published, fold=1)


def test_the_tag_names_crops_and_boxes() -> None:
    assert dataset_of_tag("cil", "classification").name == "cil54816-crops"
    assert dataset_of_tag("cil", "detection").name == "cil54816"
    # Segmenters can be trained on boxes.
    assert dataset_of_tag("cil", "segmentation").name == "cil54816"
    with pytest.raises(ChromozooError):
        dataset_of_tag("pki3", "segmentation")


@pytest.mark.data
def test_real_set_is_whole(real_data: Path) -> None:
    files = Cil54816Files(real_data / FILE_NAME)
    assert set(files.keys()) == set(SPLIT.ids("all"))
    assert files.read_lists() - set(files.keys()) == {"1100997"}
    found = files.read_boxes("1057261")
    assert len(found.boxes) == 46 and found.duplicates == 1
