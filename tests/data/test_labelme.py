"""Outlines, and metaphases in the formats of labelme and COCO."""

import base64
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from chromozoo.data.io.archive import natural_order
from chromozoo.data.io.coco import CocoFiles, write_coco
from chromozoo.data.io.labelme import LabelmeFiles
from chromozoo.data.io.metaphase_files import open_metaphases
from chromozoo.errors import ChromozooError, DatasetError
from chromozoo.structures.metaphase import Metaphase, check_metaphase, find_faults
from chromozoo.structures.polygons import mask_box, mask_outline, polygon_area, polygon_mask

HEIGHT, WIDTH = 48, 64
BAR = [[10.0, 8.0], [40.0, 8.0], [40.0, 20.0], [10.0, 20.0]]
OTHER = [[30.0, 5.5], [38.2, 5.5], [38.2, 40.1], [30.0, 40.1]]


def draw_image() -> np.ndarray:
    image = np.full((HEIGHT, WIDTH), 10, np.uint8)
    image[8:20, 10:40] = 150
    image[6:40, 30:38] = 200
    return image


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def labelme(polygons: Any = (BAR, OTHER), **changed: Any) -> dict[str, Any]:
    return {
        "version": "4.5.6",
        "shapes": [{"label": "chr", "points": p, "shape_type": "polygon"} for p in polygons],
        "imagePath": "original_5.png",
        "imageData": base64.b64encode(png(draw_image())).decode(),
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    } | changed


def write(folder: Path, data: Any, name: str = "original_5.json") -> LabelmeFiles:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(data))
    return LabelmeFiles(folder)


# Outlines


def test_a_mask_follows_cocos_rule_exactly() -> None:
    """COCO evaluators decode polygons themselves, so a pixel of difference costs precision."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        reach = rng.uniform(3, 30, (12, 1))
        polygon = rng.uniform(-10, 70, 2) + reach * np.stack([np.cos(angles), np.sin(angles)], 1)
        polygon = polygon.round(1)  # as annotated: a fifth of a pixel is where COCO rounds
        runs = coco_mask.frPyObjects([polygon.ravel().tolist()], HEIGHT, WIDTH)
        expected = coco_mask.decode(runs)[..., 0].astype(bool)
        np.testing.assert_array_equal(polygon_mask(polygon, HEIGHT, WIDTH), expected)


def test_pixels_and_boxes_count_from_the_outer_corner() -> None:
    mask = polygon_mask(np.array(BAR), HEIGHT, WIDTH)
    assert mask.dtype == np.bool_
    assert mask[8:20, 10:40].all() and mask.sum() == 12 * 30
    assert mask_box(mask).tolist() == [10, 8, 40, 20]
    assert mask_box(mask).dtype == np.float32
    assert polygon_area(np.array(BAR)) == 12 * 30
    single = np.zeros((5, 5), bool)
    single[2, 3] = True
    assert mask_box(single).tolist() == [3, 2, 4, 3], "no box has zero width"
    with pytest.raises(ValueError, match="empty mask"):
        mask_box(np.zeros((5, 5), bool))


def test_an_outline_beyond_the_image_is_cut_off() -> None:
    square = np.array(BAR) - (20, 12)
    mask = polygon_mask(square, HEIGHT, WIDTH)
    assert mask[:8, :20].all() and mask.sum() == 8 * 20
    assert not polygon_mask(square + 1000, HEIGHT, WIDTH).any()
    assert not polygon_mask(square - 1000, HEIGHT, WIDTH).any()


def test_natural_order() -> None:
    assert natural_order(["107c", "24b", "5", "24a", "b", "18"]) == [
        "b",
        "5",
        "18",
        "24a",
        "24b",
        "107c",
    ]
    assert natural_order(["x" + "9" * 5000, "x007", "x10", "x7"]) == [
        "x007",
        "x7",
        "x10",
        "x" + "9" * 5000,
    ]


# labelme


@pytest.mark.parametrize("kind", ["folder", "zip", "folder in a zip"])
def test_labelme_is_read_zipped_or_not(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "set"
    write(path, labelme())
    if kind != "folder":
        prefix = "inner/" if "folder" in kind else ""
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            archive.write(path / "original_5.json", f"{prefix}original_5.json")
        path = tmp_path / "set.zip"
    files = LabelmeFiles(path)
    assert files.keys() == ["5"]
    metaphase = files.read("5")
    assert metaphase.key == "5" and metaphase.labels == ["chr", "chr"]
    np.testing.assert_array_equal(metaphase.image, draw_image())
    assert metaphase.image.dtype == np.float32
    np.testing.assert_array_equal(metaphase.polygons[1], OTHER)
    assert check_metaphase(metaphase) is metaphase and find_faults(metaphase) == []


def test_an_image_in_the_folder_of_its_file(tmp_path: Path) -> None:
    files = write(tmp_path, labelme(imageData=None, imagePath="C:\\study\\original_5.png"))
    with pytest.raises(
        DatasetError, match=r"original_5\.json: has no embedded image, .*is not in its folder"
    ):
        files.read("5")
    (tmp_path / "original_5.png").write_bytes(png(draw_image()))
    np.testing.assert_array_equal(files.read("5").image, draw_image())


def test_a_path_out_of_the_set_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(draw_image()))
    files = write(tmp_path / "set", labelme(imageData=None, imagePath="../secret.png"))
    with pytest.raises(DatasetError, match="is not in its folder"):
        files.read("5")


def test_colour_images_become_grey(tmp_path: Path) -> None:
    """The images of BioImLab are RGB JPEG with equal channels."""
    rgb = base64.b64encode(png(np.stack([draw_image()] * 3, -1))).decode()
    image = write(tmp_path, labelme(imageData=rgb)).read("5").image
    np.testing.assert_allclose(image, draw_image(), atol=0.5)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{", "damaged JSON"),
        ("[" * 100_000, "damaged JSON"),
        ([], "no JSON object"),
        ({"a": 1}, "no list of shapes"),
        (labelme([BAR, "x"]), "shape 1 is not a list of points"),
        (labelme([BAR, [[1, 2], [3, None]]]), "shape 1 is not a list of points"),
        (labelme([[[1, 2], [float("nan"), 3], [4, 5]]]), "shape 0 is not a list of points"),
        (labelme([[[1, 2, 3], [4, 5, 6]]]), "shape 0 is not a list of points"),
        (
            labelme(shapes=[{"points": [[1, 1], [5, 5]], "shape_type": "rectangle"}]),
            "shape 0 is of type rectangle; draw it again as a polygon",
        ),
        (labelme(shapes=[3]), "shape 0 is of type unknown"),
        (labelme(imageWidth=WIDTH + 1), "says that it is 65x48, but it is 64x48"),
        (labelme(imageWidth=[WIDTH]), r"says that it is \[64\]x48, but it is 64x48"),
        (labelme(imageWidth=None), "says that it is Nonex48"),
        (labelme(imageWidth=1e300), "says that it is"),
        (labelme(imageData=["a"]), "imageData is damaged"),
        (labelme(imageData=None, imagePath=["a.png"]), "imagePath is .*, no name of a file"),
        (labelme(shapes=[{"points": BAR, "label": [[]]}]), "shape 0 has the label"),
        (labelme(shapes=[{"points": BAR, "shape_type": ["polygon"]}]), "shape 0 is of type"),
        (labelme([[[0, 0], [1e9, 0], [0, 1e9]]]), "shape 0 extends over 3e[+]09 pixels"),
        (labelme([[[1e300, 1e300]] * 3]), "shape 0 extends over 1e[+]300 pixels"),
        (labelme([[["a", "b"]] * 3]), "shape 0 is not a list of points"),
        (labelme([{"a": 1}]), "shape 0 is not a list of points"),
        ('{"shapes": [], "shapes": []}', "damaged JSON .*an object has the key 'shapes' twice"),
        ('{"shapes": "\\ud800"}', "damaged JSON .*lone surrogate"),
        ('{"imageWidth": ' + "9" * 5000 + "}", "damaged JSON .*thousands of digits"),
        (labelme(imageData="!!"), "imageData is damaged"),
        (labelme(imageData=base64.b64encode(b"no image").decode()), "damaged or not an image"),
        (labelme(imageData=labelme()["imageData"][:120]), "damaged or not an image"),
    ],
)
def test_damaged_files_are_reported(data: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "original_5.json").write_text(data if isinstance(data, str) else json.dumps(data))
    with pytest.raises(DatasetError, match=r"original_5\.json: .*" + said):
        LabelmeFiles(tmp_path).read("5")


def test_a_set_without_labelme_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DatasetError, match="holds no labelme file"):
        LabelmeFiles(tmp_path)
    write(tmp_path, labelme())
    with pytest.raises(DatasetError, match=r"5\.json and original_5\.json are both image '5'"):
        write(tmp_path, labelme(), "5.json")


@pytest.mark.parametrize(
    ("polygons", "said"),
    [
        ([], ["the image has no polygon; outline"]),
        ([BAR, BAR[:2]], ["shape 1 has 2 points, a polygon has 3 or more"]),
        ([[]], ["shape 0 has 0 points"]),
        (
            [BAR, [[50, 5], [70, 5], [70, 9]]],
            ["shape 1 reaches from 50, 5 to 70, 9, out of the image of 64x48"],
        ),
        ([[[-3, 5], [9, 5], [9, 9]]], ["shape 0 reaches"]),
        ([[[1, 1], [20, 20], [40, 40]]], ["shape 0 has no area"]),
        ([[[1, 1], [1, 1], [1, 1]]], ["shape 0 has no area"]),
        ([BAR, OTHER, BAR], ["shape 2 is the same polygon as shape 0; remove one"]),
        ([BAR[:2], BAR, BAR], ["shape 0 has 2 points", "shape 2 is the same"]),
        ([[[-0.6, 5], [9, 5], [9, 48.9]]], []),
    ],
)
def test_faulty_outlines_name_file_and_shape(
    polygons: list[Any], said: list[str], tmp_path: Path
) -> None:
    metaphase = write(tmp_path, labelme(polygons)).read("5")
    found = find_faults(metaphase)
    assert len(found) == len(said)
    for fault, part in zip(found, said, strict=True):
        assert fault.startswith(f"{tmp_path}: original_5.json: ") and part in fault
    if said:
        with pytest.raises(DatasetError, match=r"original_5\.json: "):
            check_metaphase(metaphase)


# COCO


def metaphases() -> list[Metaphase]:
    polygons = [np.array(BAR), np.array(OTHER)]
    image = draw_image().astype(np.float32)
    return [
        Metaphase(key, image, polygons, ["chr"] * 2, "made", ["shape 0", "shape 1"])
        for key in ("9", "24a")
    ]


def test_coco_is_written_and_read(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "set"
    assert write_coco(metaphases(), folder, "made for a test") == 2
    assert os.listdir(folder.parent) == ["set"]
    data = json.loads((folder / "annotations.json").read_text())
    assert data["info"]["description"] == "made for a test"
    first = data["annotations"][0]
    assert first["bbox"] == [10, 8, 30, 12] and first["area"] == 360
    assert Image.open(folder / "images" / "9.png").mode == "L"
    files = open_metaphases(folder)
    assert isinstance(files, CocoFiles) and files.keys() == ["9", "24a"]
    metaphase = check_metaphase(files.read("24a"))
    np.testing.assert_array_equal(metaphase.image, draw_image())
    np.testing.assert_allclose(metaphase.polygons[1], OTHER)
    assert metaphase.labels == ["chromosome"] * 2
    assert metaphase.shapes == ["annotation 3", "annotation 4"]


@pytest.mark.parametrize("pointed_at", ["json", "zip"])
def test_coco_is_found(pointed_at: str, tmp_path: Path) -> None:
    write_coco(metaphases(), tmp_path / "set")
    path = tmp_path / "set" / "annotations.json"
    if pointed_at == "zip":
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            archive.write(path, "annotations/instances_val.json")
            for image in (tmp_path / "set" / "images").iterdir():
                archive.write(image, f"images/{image.name}")
        path = tmp_path / "set.zip"
    np.testing.assert_array_equal(open_metaphases(path).read("9").image, draw_image())


def test_several_coco_files_are_refused(tmp_path: Path) -> None:
    write_coco(metaphases(), tmp_path / "set")
    text = (tmp_path / "set" / "annotations.json").read_text()
    (tmp_path / "set" / "instances_val.json").write_text(text)
    with pytest.raises(DatasetError, match="holds several COCO files"):
        open_metaphases(tmp_path / "set")


def change_size(data: Any) -> None:
    data["images"][0]["width"] = 99


def change_outline(data: Any) -> None:
    data["annotations"][1]["segmentation"] = {"counts": "x", "size": [HEIGHT, WIDTH]}


def change(where: str, number: int, name: str, value: Any) -> Any:
    """Replace a value by one of another type."""

    def changed(data: Any) -> None:
        data[where][number][name] = value

    return changed


def split_outline(data: Any) -> None:
    data["annotations"][1]["segmentation"] *= 2


def cut_outline(data: Any) -> None:
    data["annotations"][1]["segmentation"][0].pop()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_size, r"9\.png: .*annotations\.json says that it is 99x48, but it is 64x48"),
        (change_outline, r"9\.png: annotation 2 is not a run-length encoded mask .*damaged"),
        (split_outline, r"9\.png: annotation 2 is not outlined by one polygon"),
        (cut_outline, r"9\.png: annotation 2 is not a list of points"),
        (lambda data: data.pop("images"), r"annotations\.json: not a COCO instance file"),
        (lambda data: data["annotations"][0].pop("image_id"), "not a COCO instance file"),
        (lambda data: data["annotations"].append(3), "not a COCO instance file"),
        (lambda data: data["images"][0].update(file_name="../x.png"), r"x\.png is missing"),
        (lambda data: data["images"][1].update(file_name="9.png"), "two images are named '9'"),
        (change("images", 1, "id", 1), "two images have the id 1"),
        (
            change("images", 0, "id", [1]),
            r"not a COCO instance file \('id' is missing or no id: \[1",
        ),
        (change("images", 0, "id", 1.5), "no id: 1.5"),
        (change("images", 0, "id", None), "no id: None"),
        (change("images", 0, "file_name", ["a"]), "'file_name' is missing or no text"),
        (change("images", 0, "file_name", ""), "'file_name' is missing or no text"),
        (change("images", 0, "width", [64]), r"says that it is \[64\]x48"),
        (change("images", 0, "height", "48 pixels"), "says that it is 64x'48 pixels'"),
        (change("annotations", 0, "category_id", [1]), "'category_id' is missing or no id"),
        (change("annotations", 0, "category_id", {"a": 1}), "'category_id' is missing or no id"),
        (change("annotations", 0, "image_id", {}), "'image_id' is missing or no id"),
        (change("annotations", 0, "image_id", float("nan")), "no id: nan"),
        (change("annotations", 0, "iscrowd", [0]), r"iscrowd is \[0\]"),
        (change("annotations", 0, "iscrowd", "no"), "iscrowd is 'no'"),
        (change("annotations", 0, "segmentation", None), "is not outlined by one polygon or mask"),
        (change("annotations", 0, "segmentation", [[]] * 2), "is not outlined by one polygon"),
        (change("annotations", 0, "segmentation", ["a"]), "is not outlined by one polygon"),
        (change("annotations", 0, "segmentation", [["a", 1]]), "is not a list of points"),
        (change("annotations", 0, "segmentation", [[[1], [2]]]), "is not a list of points"),
        (change("annotations", 0, "segmentation", [[10**30, 0]]), "extends over 1e[+]30 pixels"),
        (change("categories", 0, "id", [1]), "'id' is missing or no id"),
        (change("categories", 0, "name", [1]), "'name' is missing or no text"),
        (lambda data: data.update(images={}), "'images' is missing or no list of objects"),
        (lambda data: data.update(annotations=[[]]), "'annotations' is missing or no list"),
        (lambda data: data.update(categories=3), "'categories' is missing or no list"),
    ],
)
def test_faulty_coco_is_named(change: Any, said: str, tmp_path: Path) -> None:
    write_coco(metaphases(), tmp_path / "set")
    (tmp_path / "x.png").write_bytes(png(draw_image()))
    path = tmp_path / "set" / "annotations.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(DatasetError, match=said):
        open_metaphases(tmp_path / "set").read("9")


def test_a_damaged_coco_image_is_named(tmp_path: Path) -> None:
    write_coco(metaphases(), tmp_path / "set")
    image = tmp_path / "set" / "images" / "9.png"
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(DatasetError, match=r"9\.png: the file is damaged"):
        open_metaphases(tmp_path / "set").read("9")


def coco(folder: Path, rows: list[dict[str, Any]], image: np.ndarray | None = None) -> Any:
    """A set of one image with one annotation for each row."""
    write_coco(metaphases()[:1], folder)
    path = folder / "annotations.json"
    data = json.loads(path.read_text())
    first = data["annotations"][0]
    data["annotations"] = [first | {"id": k} | row for k, row in enumerate(rows, start=1)]
    path.write_text(json.dumps(data))
    if image is not None:
        Image.fromarray(image).save(folder / "images" / "9.png")
    return data


def counts(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths of zeros, ones, zeros, ... down the columns."""
    flat = np.concatenate([[0], mask.ravel(order="F").astype(int), [0]])
    edges = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()


def odd_mask() -> np.ndarray:
    """Two components, a hole with a component in it, and pixels that touch by a corner."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:30, 5:40], mask[10:25, 10:30], mask[15:20, 15:25] = True, False, True
    mask[30:35, 40:50] = mask[0, 60] = True
    return mask


@pytest.mark.parametrize("crowd", [0, 1, True, "1", None])
@pytest.mark.parametrize("compressed", [False, True])
def test_masks_are_read_whatever_iscrowd_says(crowd: Any, compressed: bool, tmp_path: Path) -> None:
    """CVAT marks masks of its brush as crowds; other tools do not."""
    mask = odd_mask()
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    outline = {"size": [HEIGHT, WIDTH], "counts": runs if compressed else counts(mask)}
    coco(tmp_path / "set", [{}, {"segmentation": outline, "iscrowd": crowd}])
    files = open_metaphases(tmp_path / "set")
    found = check_metaphase(files.read("9"))
    assert len(found.polygons) == 2 and files.left_out == []
    np.testing.assert_array_equal(found.masks()[1], mask)
    assert polygon_area(found.polygons[1]) == mask.sum()


def test_the_outline_of_a_mask_gives_the_mask_back() -> None:
    rng = np.random.default_rng(0)
    for number in range(300):
        mask = rng.random(rng.integers(1, 25, 2)) < (0.1, 0.5, 0.9)[number % 3]
        outline = mask_outline(mask)
        if not mask.any():
            assert outline.shape == (0, 2)
            continue
        height, width = mask.shape
        np.testing.assert_array_equal(polygon_mask(outline, height, width), mask)
        assert polygon_area(outline) == pytest.approx(mask.sum())
    turned = mask_outline(odd_mask()) @ np.array([[0.0, 1], [-1, 0]]) + (HEIGHT, 0)
    np.testing.assert_array_equal(polygon_mask(turned, WIDTH, HEIGHT), np.rot90(odd_mask(), -1))
    with pytest.raises(ValueError, match="more than 1,000 components"):
        mask_outline(rng.random((100, 100)) < 0.4)


RIGHT = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}


def test_too_many_outlines_are_refused(tmp_path: Path) -> None:
    polygon = np.array(BAR)
    image = np.broadcast_to(np.float32(10), (10_000, 10_000))
    many = Metaphase("a", image, [polygon] * 41, ["c"] * 41, "a.json", ["s"] * 41)
    with pytest.raises(DatasetError, match=r"^a\.json: 41 outlines in an image of 10000x10000 are"):
        many.masks()
    many = Metaphase("a", image[:48, :64], [polygon] * 2001, ["c"] * 2001, "a.json", ["s"] * 2001)
    (fault,) = find_faults(many)
    assert "has 2001 outlines, more than any metaphase (2000); divide it" in fault


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"counts": [1]},
        {"size": 3},
        {"size": [WIDTH, HEIGHT]},
        {"size": ["a", WIDTH]},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"counts": None},
        {"counts": [HEIGHT * WIDTH + 1]},
        {"counts": [-1, HEIGHT * WIDTH + 1]},
        {"counts": [[1]]},
        {"counts": [10**17] * 200},
        {"counts": ""},
        {"counts": "ä"},
        {"counts": "zz"},
        {"counts": "o" * 40 + "0"},
        {"counts": coco_mask.encode(np.ones((9, 9), np.uint8, order="F"))["counts"].decode()},
    ],
)
def test_damaged_run_lengths_are_named_and_never_decoded(wrong: Any, tmp_path: Path) -> None:
    coco(tmp_path / "set", [{"segmentation": RIGHT | wrong if wrong else wrong}])
    with pytest.raises(DatasetError, match=r"9\.png: annotation 1 is no mask in run lengths"):
        open_metaphases(tmp_path / "set").read("9")


def test_a_mask_without_a_pixel_is_a_fault(tmp_path: Path) -> None:
    coco(tmp_path / "set", [{"segmentation": RIGHT}])
    (fault,) = find_faults(open_metaphases(tmp_path / "set").read("9"))
    assert "annotation 1 has 0 points" in fault


def test_ignored_annotations_are_counted(tmp_path: Path) -> None:
    """A crowd is a region whose instances have no outlines."""
    rows = [{}, {"iscrowd": 1}, {"iscrowd": 1, "segmentation": []}, {"image_id": 77}]
    coco(tmp_path / "set", rows)
    said = [
        "2 crowds without a mask (image_id 1)",
        "1 annotations of images that are not listed (image_id 77)",
    ]
    with pytest.warns(UserWarning, match=r"annotations\.json: left out: 2 crowds .*, 1 annot"):
        files = open_metaphases(tmp_path / "set")
    assert files.left_out == said
    assert len(files.read("9").polygons) == 1


def test_numbers_may_be_text_and_paths_those_of_windows(tmp_path: Path) -> None:
    write_coco(metaphases(), tmp_path / "set")
    path = tmp_path / "set" / "annotations.json"
    data = json.loads(path.read_text())
    data["images"][0] |= {"id": "1", "width": "64", "height": 48.0, "file_name": "images\\9.png"}
    data["images"][1] |= {"id": "b", "file_name": "C:\\data\\24a.png"}
    data["categories"][0]["id"] = "1"
    for row in data["annotations"]:
        row["image_id"] = 1 if row["image_id"] == 1 else "b"
        row["category_id"] = 1.0
        row["segmentation"] = [[str(value) for value in row["segmentation"][0]]]
    path.write_text(json.dumps(data))
    files = open_metaphases(tmp_path / "set")
    for key in ("9", "24a"):
        metaphase = check_metaphase(files.read(key))
        np.testing.assert_array_equal(metaphase.image, draw_image())
        np.testing.assert_allclose(metaphase.polygons[1], OTHER)
        assert metaphase.labels == ["chromosome"] * 2
    data["images"][0] |= {"width": None, "height": None}
    path.write_text(json.dumps(data))
    assert len(open_metaphases(tmp_path / "set").read("9").polygons) == 2


def test_equal_names_in_several_folders(tmp_path: Path) -> None:
    write_coco(metaphases(), tmp_path / "set")
    images = tmp_path / "set" / "images"
    (images / "b").mkdir()
    (images / "24a.png").rename(images / "b" / "9.png")
    path = tmp_path / "set" / "annotations.json"
    path.write_text(path.read_text().replace("24a.png", "b/9.png"))
    files = open_metaphases(tmp_path / "set")
    assert files.keys() == ["9", "images/b/9"]
    assert files.read("images/b/9").shapes == ["annotation 3", "annotation 4"]


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_outlines_follow_the_exif_orientation(orientation: int, tmp_path: Path) -> None:
    """Annotation tools rotate an image by its EXIF data."""
    back = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 6: np.rot90, 8: None}
    stored = np.rot90(draw_image(), -1) if orientation == 8 else back[orientation](draw_image())
    exif = Image.Exif()
    exif[0x112] = orientation
    coco(tmp_path / "set", [{}])
    Image.fromarray(np.ascontiguousarray(stored)).save(
        tmp_path / "set" / "images" / "9.png", exif=exif
    )
    found = open_metaphases(tmp_path / "set").read("9")
    np.testing.assert_array_equal(found.image, draw_image())
    assert found.image[found.masks()[0]].min() == 150
    # A tool that ignores EXIF writes the other size, and its outlines would not fit.
    path = tmp_path / "set" / "annotations.json"
    data = json.loads(path.read_text())
    data["images"][0] |= {"width": HEIGHT, "height": WIDTH}
    path.write_text(json.dumps(data))
    with pytest.raises(DatasetError, match=r"is 48x64, but it is turned upright, .* 64x48"):
        open_metaphases(tmp_path / "set").read("9")


def test_a_folder_is_replaced_only_on_request(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_coco(metaphases(), folder)
    with pytest.raises(ChromozooError, match="exists already"):
        write_coco(metaphases()[:1], folder)
    write_coco(metaphases()[:1], folder, overwrite=True)
    assert os.listdir(folder / "images") == ["9.png"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ChromozooError, match="so it is not replaced"):
        write_coco(metaphases(), tmp_path / "mine", overwrite=True)


def test_an_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> Any:
        yield metaphases()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_coco(stopped(), tmp_path / "set")
    assert os.listdir(tmp_path) == []
