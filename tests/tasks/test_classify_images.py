"""The Python API: precision, kinds of images, threads, damaged images, weights that misfit."""

import copy
import dataclasses
import importlib
import io
import pkgutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import chromozoo
from chromozoo.classes import CLASSES
from chromozoo.errors import ChromozooError, ImageError, UnknownNameError, WeightsError
from chromozoo.images import preset as preset_module
from chromozoo.images.reading import ImagePage
from chromozoo.images.sources import as_list, image_name, to_image_source
from chromozoo.karyotype.predictions import Predictions
from chromozoo.models.registry import get_model, get_weight
from chromozoo.structures.prediction import Prediction
from chromozoo.tasks.classification import ChromosomeClassifier
from chromozoo.tasks.classify import ClassifierInference

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted((EXAMPLES / "cell_46XY").glob("*.png"))[:4]


class TinyNetwork(nn.Module):
    """Has running statistics and dropout, which training would change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 5, stride=3)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(8, len(CLASSES))

    def forward_features(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(self.conv(x)).relu()).amax(dim=(2, 3))

    def forward_head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def tiny_model() -> ChromosomeClassifier:
    torch.manual_seed(0)
    return ChromosomeClassifier(TinyNetwork(), 8, preset={"height": 48, "width": 32}).eval()


@pytest.fixture
def tiny() -> ChromosomeClassifier:
    return tiny_model()


@pytest.fixture
def double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def said(found: Predictions) -> np.ndarray:
    return np.stack([item.probabilities for item in found])


# Precision and mode


@pytest.fixture(scope="module", params=["chromozoo_small", "karyoset"])
def trained(request: pytest.FixtureRequest) -> Any:
    return get_model(request.param, weights="pki3")


@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float16, 0.01), (torch.bfloat16, 0.05), (torch.float64, 1e-5)]
)
@pytest.mark.parametrize("as_cell", [False, True])
def test_any_precision(trained: Any, dtype: torch.dtype, near: float, as_cell: bool) -> None:
    wanted = said(trained.classify(FILES, as_cell=as_cell))
    model = copy.deepcopy(trained).to(dtype)
    found = model.classify(FILES, as_cell=as_cell)
    assert said(found) == pytest.approx(wanted, abs=near)
    assert said(found).sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert {parameter.dtype for parameter in model.network.parameters()} == {dtype}


def test_a_default_of_double_precision(trained: Any, double_by_default: None) -> None:
    torch.set_default_dtype(torch.float32)
    wanted = said(trained.classify(FILES, as_cell=True))
    torch.set_default_dtype(torch.float64)
    assert said(trained.classify(FILES, as_cell=True)) == pytest.approx(wanted, abs=1e-5)
    entry = trained.weights_entry
    anew: Any = get_model(entry.model, weights=entry.tag)
    assert said(anew.classify(FILES, as_cell=True)) == pytest.approx(wanted, abs=1e-5)


def test_under_autocast(tiny: ChromosomeClassifier) -> None:
    wanted = said(tiny.classify(FILES))
    with torch.autocast("cpu", torch.bfloat16):
        assert said(tiny.classify(FILES)) == pytest.approx(wanted, abs=0.02)


def test_the_input_goes_where_the_weights_are(tiny: ChromosomeClassifier) -> None:
    assert tiny.place == (torch.device("cpu"), torch.float32)
    tiny.network.to("meta", torch.bfloat16)  # past the LightningModule, whose own device lags
    assert tiny.place == (torch.device("meta"), torch.bfloat16)


def test_answers_that_are_no_numbers_are_no_names(tiny: ChromosomeClassifier) -> None:
    tiny.network.fc.weight.data[3] = torch.nan  # type: ignore[union-attr]
    with pytest.raises(WeightsError, match=r"no numbers \(NaN\) in torch\.float32"):
        tiny.classify(FILES)


def test_a_model_in_training_is_left_as_it_is(tiny: ChromosomeClassifier) -> None:
    wanted = said(tiny.classify(FILES))
    tiny.train()
    tiny.network.norm.eval()  # type: ignore[union-attr]
    modes = [module.training for module in tiny.modules()]
    before = copy.deepcopy(tiny.state_dict())
    assert np.array_equal(said(tiny.classify(FILES)), wanted)
    assert [module.training for module in tiny.modules()] == modes
    after = tiny.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_threads_share_a_model_in_training(tiny: ChromosomeClassifier) -> None:
    wanted = said(tiny.classify(FILES))
    tiny.train()
    before = copy.deepcopy(tiny.state_dict())
    switched, stop = [], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            switched.extend(m for m in tiny.modules() if not m.training)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: said(tiny.classify(FILES)), range(24)))
    finally:
        stop.set()
        watcher.join()
    assert all(np.array_equal(one, wanted) for one in found)
    assert not switched, "another thread that trains must not see evaluation mode"
    after = tiny.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_the_twin_shares_the_weights(tiny: ChromosomeClassifier) -> None:
    assert tiny.in_evaluation() is tiny
    tiny.train()
    twin = tiny.in_evaluation()
    assert twin is not tiny and not any(module.training for module in twin.modules())
    shared = zip(tiny.network.parameters(), twin.network.parameters(), strict=True)
    assert all(mine is its for mine, its in shared)
    other = tiny.in_evaluation(torch.float64)
    assert {p.dtype for p in other.network.parameters()} == {torch.float64}
    assert {p.dtype for p in tiny.network.parameters()} == {torch.float32}


def test_a_module_of_two_names_has_one_twin() -> None:
    task: Any = ClassifierInference(nn.ModuleList([nn.Linear(1, 1)] * 2))
    twin = task.train().in_evaluation()
    assert twin.network[0] is twin.network[1]


# Kinds of images


def array_of(file: Path) -> np.ndarray:
    return np.array(Image.open(file))


@pytest.mark.parametrize(
    "kind",
    [
        lambda file: file,
        str,
        array_of,
        Image.open,
        lambda file: torch.from_numpy(array_of(file)),
        lambda file: torch.from_numpy(array_of(file))[None],
        lambda file: torch.from_numpy(array_of(file)).expand(3, -1, -1),
        lambda file: torch.from_numpy(array_of(file))[..., None].expand(-1, -1, 3),
        lambda file: torch.from_numpy(array_of(file) / 255.0).requires_grad_(),
        lambda file: torch.from_numpy(array_of(file)).to(torch.bfloat16),
        lambda file: np.stack([array_of(file)] * 3, axis=-1),
    ],
)
def test_every_kind_of_image(tiny: ChromosomeClassifier, kind: Any) -> None:
    image = kind(FILES[0])
    wanted = said(tiny.classify([FILES[0]]))
    for given in (image, [image], (one for one in [image])):
        found = tiny.classify(given)
        assert said(found) == pytest.approx(wanted, abs=0.02 if "bfloat" in str(image) else 1e-4)
        is_file = isinstance(image, str | Path)
        assert [item.name for item in found] == [str(FILES[0]) if is_file else "image 1"]


def test_a_page_is_an_image_and_has_a_name(tiny: ChromosomeClassifier, tmp_path: Path) -> None:
    first, second = (Image.open(file).convert("L") for file in FILES[:2])
    path = tmp_path / "two.tif"
    first.save(path, save_all=True, append_images=[second])
    page = ImagePage(path, 2)
    assert as_list(page) == [page]
    assert to_image_source(page, "") is page
    assert image_name(page, "image 1") == f"{path} (page 2)"
    assert image_name(path, "image 1") == str(path)


def test_many_images_of_one_object(tiny: ChromosomeClassifier) -> None:
    array = array_of(FILES[0])
    batch = torch.from_numpy(np.stack([array, array[::-1]]))[:, None]
    assert [item.name for item in tiny.classify(batch)] == ["image 1", "image 2"]
    paths = np.array([str(file) for file in FILES])
    for images in (paths, paths.astype(object), set(FILES)):
        assert {item.name for item in tiny.classify(images)} == {str(file) for file in FILES}


def test_no_image_gives_no_prediction(tiny: ChromosomeClassifier) -> None:
    for images in ([], (), iter([]), torch.zeros(0, 1, 9, 9)):
        for as_cell in (False, True):
            found = tiny.classify(images, as_cell=as_cell)
            assert isinstance(found, Predictions) and list(found) == [] and found.cell is None


def test_names_are_never_the_image(tiny: ChromosomeClassifier) -> None:
    array = array_of(FILES[0])
    images = [FILES[0], array, torch.from_numpy(array), Image.open(FILES[1]), str(FILES[2])]
    names = [item.name for item in tiny.classify(images)]
    assert names == [str(FILES[0]), "image 2", "image 3", "image 4", str(FILES[2])]


def test_each_image_is_read_once(
    tiny: ChromosomeClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, counted = [], preset_module.read_grey

    def count(source: Any, name: str | None = None) -> Any:
        read.append(name)
        return counted(source, name)

    monkeypatch.setattr(preset_module, "read_grey", count)
    for as_cell in (False, True):
        read.clear()
        tiny.classify(FILES, as_cell=as_cell)
        assert read == [str(file) for file in FILES]


# What is wrong with an image


class Stubborn:
    """Looks like an array and raises what it likes."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    @property
    def __array_interface__(self) -> Any:
        raise self.error

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise self.error

    def __repr__(self) -> str:
        raise self.error


@pytest.mark.parametrize(
    "bad",
    [
        Stubborn(SyntaxError("broken PNG file")),
        Stubborn(OSError("image file is truncated")),
        Stubborn(MemoryError()),
        torch.zeros(9, 9).to_sparse(),
        torch.zeros(9, 9, device="meta"),
        torch.zeros(2, 2, 9, 9),
        torch.zeros(5, 5, dtype=torch.complex64),
        np.array([["a", "b"]]),
        None,
        b"not a path",
    ],
)
def test_whatever_is_wrong_is_an_image_error(tiny: ChromosomeClassifier, bad: Any) -> None:
    for as_cell in (False, True):
        found = tiny.classify([FILES[0], bad, FILES[1]], as_cell=as_cell, on_error="report")
        assert [bool(item.error) for item in found] == [False, True, False]
        assert str(found[1].error).startswith("image 2: ")
        assert found[1].label == "" and np.isnan(found[1].probabilities).all()
        with pytest.raises(ImageError, match=r"^image 2: "):
            tiny.classify([FILES[0], bad, FILES[1]], as_cell=as_cell)


def mutated(rng: np.random.Generator) -> Iterator[Image.Image]:
    """Images that open, and whose pixels are damaged."""
    whole = Image.open(FILES[0]).convert("L")
    for format in ("PNG", "TIFF", "BMP", "JPEG", "GIF", "PPM"):
        buffer = io.BytesIO()
        whole.save(buffer, format)
        data = np.frombuffer(buffer.getvalue(), np.uint8)
        for number in range(40):
            copied = data.copy()
            places = rng.integers(8, len(data), size=1 + number % 6)
            copied[places] = rng.integers(0, 256, len(places))
            end = len(data) if number % 3 else int(rng.integers(30, len(data)))
            try:
                yield Image.open(io.BytesIO(copied[:end].tobytes()))
            except Exception:
                continue


@pytest.mark.filterwarnings("ignore")
def test_damaged_images_that_are_opened_lazily(tiny: ChromosomeClassifier) -> None:
    images = [*mutated(np.random.default_rng(0)), FILES[0]]
    found = tiny.classify(images, on_error="report")
    failed = [item for item in found if item.error]
    assert len(found) == len(images) > 150
    assert len(failed) > 20, "the test would show nothing"
    for item in failed:
        assert str(item.error).startswith(f"{item.name}: ")
    assert found[-1].label in CLASSES


def test_wrong_words_are_refused(tiny: ChromosomeClassifier) -> None:
    with pytest.raises(UnknownNameError, match="'raise' or 'report'"):
        tiny.classify(FILES, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(ChromozooError, match="batch_size is 0"):
        tiny.classify(FILES, batch_size=0)


# What predictions are


def test_predictions_can_be_compared_and_hashed(tiny: ChromosomeClassifier) -> None:
    one, other = tiny.classify(FILES[:2])
    assert one == one and one != other and one in [other, one]
    assert len({one, other, one}) == 2
    assert Prediction("a", "1", 1.0, one.probabilities) != one


def test_no_dataclass_compares_arrays() -> None:
    """`==` of two arrays is an array, which has no truth value."""
    kinds = ("ndarray", "NDArray", "Tensor", "FloatArray", "IntArray", "BoolArray")
    compared = []
    for info in pkgutil.walk_packages(chromozoo.__path__, "chromozoo."):
        for item in vars(importlib.import_module(info.name)).values():
            if not (isinstance(item, type) and dataclasses.is_dataclass(item)):
                continue
            types = [str(field.type) for field in dataclasses.fields(item)]
            arrays = [text for text in types if "Callable" not in text]
            if any(kind in text for text in arrays for kind in kinds):
                compared.append((item.__name__, item.__eq__ is object.__eq__))
    assert len(compared) > 20
    assert [name for name, by_identity in compared if not by_identity] == []


# Weights that do not fit


@pytest.mark.parametrize(
    ("name", "tag", "argument"),
    [("chrnet4", "metaphase", "polarity=True"), ("chr_fast", "cil", "num_classes=24")],
)
def test_a_state_that_does_not_fit_says_what_would(name: str, tag: str, argument: str) -> None:
    trained: Any = get_model(name, weights=tag)
    plainer: Any = get_model(name, weights=None)
    with pytest.raises(WeightsError, match=argument) as refused:
        plainer.load_state_dict(trained.state_dict())
    assert f"get_weight('{name}', tag).init_args" in str(refused.value)
    same: Any = get_model(name, weights=None, **get_weight(name, tag).init_args)
    same.load_state_dict(trained.state_dict())
    assert same.transforms == trained.transforms
    with pytest.raises(WeightsError, match=argument.split("=")[0]):
        same.load_state_dict(plainer.state_dict())


def test_a_state_of_another_shape(tiny: ChromosomeClassifier) -> None:
    state = tiny.state_dict()
    state["network.fc.weight"] = torch.zeros(3, 8)
    with pytest.raises(WeightsError, match=r"1 of another shape: network\.fc\.weight"):
        tiny.load_state_dict(state, strict=False)


# Segmenters


@pytest.fixture(scope="module")
def segmenter() -> Any:
    return get_model("chr_fast", weights="metaphase")


@pytest.fixture(scope="module")
def part() -> np.ndarray:
    return array_of(EXAMPLES / "normal_46XY.png")[100:350, 150:500]


def assert_same_boxes(found: Any, wanted: Any, near: float) -> None:
    """Every chromosome is found in both, its box within ``near`` pixels."""
    one, other = found.filter_by_score(0.4).boxes, wanted.filter_by_score(0.4).boxes
    assert len(one) == len(other) > 25
    assert np.abs(one[:, None] - other).max(axis=2).min(axis=0).max() <= near


@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float16, 2), (torch.bfloat16, 4), (torch.float64, 0.01)]
)
def test_segment_in_any_precision(
    segmenter: Any, part: np.ndarray, dtype: torch.dtype, near: float
) -> None:
    found = copy.deepcopy(segmenter).to(dtype).segment(part)
    assert_same_boxes(found, segmenter.segment(part), near)


def test_segment_with_a_default_of_double_precision(
    segmenter: Any, part: np.ndarray, double_by_default: None
) -> None:
    found = segmenter.segment(part)
    torch.set_default_dtype(torch.float32)
    assert_same_boxes(found, segmenter.segment(part), 0)


def test_segment_in_training_and_of_tensors(segmenter: Any, part: np.ndarray) -> None:
    wanted = segmenter.segment(part)
    before = copy.deepcopy(segmenter.state_dict())
    segmenter.train()
    try:
        with ThreadPoolExecutor(2) as pool:
            images = [torch.from_numpy(part), torch.from_numpy(part)[None] / 255]
            found = list(pool.map(segmenter.segment, images))
        assert all(module.training for module in segmenter.modules())
    finally:
        segmenter.eval()
    for one in found:
        assert_same_boxes(one, wanted, 1)
    after = segmenter.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
