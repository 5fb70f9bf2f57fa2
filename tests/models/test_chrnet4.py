"""ChrNet4: the architecture of the paper, its start from ImageNet weights, and ``classify``."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from chromozoo.classes import CLASSES
from chromozoo.errors import ImageError, WeightsError
from chromozoo.karyotype.predictions import to_predictions
from chromozoo.models.classifiers.chrnet4 import ChrBlock, ChrNet4, ChrNet4Network, chrnet4
from chromozoo.synthetic import Appearance, draw_cell, draw_chromosome
from chromozoo.tasks.classify import FLIPS

SMALL = {"height": 64, "width": 32, "scale": 0.6}

# Of `seeded_network` for `fixed_input`, in float64, torch 2.15.
EXPECTED_LOGITS = [
    0.05713915193845618,
    5.001493421499456e-05,
    -0.03421320776451551,
    4.034103428320404e-05,
    -0.014009209893451294,
    0.0073212217090856384,
    0.03938289661823813,
    0.002045475558828093,
]


def seeded_network() -> ChrNet4Network:
    torch.manual_seed(0)
    network = ChrNet4Network()
    for block in network.modules():
        if isinstance(block, ChrBlock):
            nn.init.ones_(block.bn3.weight)  # 0 at the start: the blocks would not show
    return network.eval()


@pytest.fixture(scope="module")
def network() -> ChrNet4Network:
    return seeded_network()


@pytest.fixture(scope="module")
def model(network: ChrNet4Network) -> ChrNet4:
    model = ChrNet4(preset=SMALL)
    model.network.load_state_dict(network.state_dict())
    # Untrained logits are all alike: make them differ.
    model.network.fc.weight.data.mul_(30)  # type: ignore[union-attr,operator]
    return model.eval()


# The network


def test_parameter_count_of_the_paper(network: ChrNet4Network) -> None:
    count = sum(p.numel() for p in network.parameters())
    assert count == 16_355_160
    assert round(count * 4 / 2**20, 2) == 62.39
    assert sum(p.numel() for p in chrnet4().parameters()) == count  # centres are no parameters


def test_block_layout(network: ChrNet4Network) -> None:
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    assert [len(stage) for stage in stages] == [2, 3, 3, 2]  # type: ignore[arg-type]
    for stage in stages:
        projections = [not isinstance(block.downsample, nn.Identity) for block in stage]  # type: ignore[union-attr]
        assert projections == [True] + [False] * (len(projections) - 1)
    grouped = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(grouped) == 10
    assert all(conv.groups == 32 and conv.kernel_size == (3, 3) for conv in grouped)


def test_stage_outputs(network: ChrNet4Network) -> None:
    shapes = []
    hooks = [
        network.get_submodule(f"layer{stage}").register_forward_hook(
            lambda _module, _inputs, output: shapes.append(tuple(output.shape))
        )
        for stage in (1, 2, 3, 4)
    ]
    with torch.inference_mode():
        features = network.forward_features(torch.zeros(1, 1, 128, 64))
        logits = network.forward_head(features)
    for hook in hooks:
        hook.remove()
    assert shapes == [(1, 256, 32, 16), (1, 512, 16, 8), (1, 1024, 8, 4), (1, 2048, 4, 2)]
    assert features.shape == (1, 2048) and logits.shape == (1, 24)


def test_no_convolution_and_no_attention_has_a_bias(network: ChrNet4Network) -> None:
    assert all(m.bias is None for m in network.modules() if isinstance(m, nn.Conv2d))
    linear = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
    assert {name for name, m in linear.items() if m.bias is not None} == {"fc"}
    assert sum("attention" in name for name in linear) == 2 * 10
    reductions = {m.in_features / m.out_features for n, m in linear.items() if n.endswith("fc.0")}
    assert reductions == {16}


def test_regression_of_the_forward_pass(network: ChrNet4Network) -> None:
    fixed_input = torch.sin(torch.arange(2 * 96 * 40) * 0.1).reshape(2, 1, 96, 40)
    with torch.inference_mode():
        logits = network(fixed_input)
    torch.testing.assert_close(logits[0, :8], torch.tensor(EXPECTED_LOGITS), atol=1e-4, rtol=0)


def test_the_model_is_called_on_normalised_tensors(model: ChrNet4) -> None:
    image = draw_chromosome("1", Appearance(), np.random.default_rng(0)).image
    x = model.transforms(image)[None]
    assert x.shape == (1, 1, 64, 32)
    with torch.inference_mode():
        assert model(x).shape == (1, 24)
    assert model.categories == CLASSES


# Starting from ImageNet


def without_download(name: str, pretrained: bool) -> nn.Module:
    assert (name, pretrained) == ("resnext50_32x4d.tv_in1k", True)
    return REAL_CREATE_MODEL("resnext50_32x4d", pretrained=False)


REAL_CREATE_MODEL = timm.create_model


def test_imagenet_tensors_are_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[nn.Module] = []

    def create(name: str, pretrained: bool) -> nn.Module:
        made.append(without_download(name, pretrained))
        return made[0]

    monkeypatch.setattr(timm, "create_model", create)
    started = ChrNet4(preset=SMALL, init_from="resnext50_32x4d.tv_in1k")
    source = made[0].state_dict()
    own = started.network.state_dict()
    for name, tensor in own.items():
        if "attention" in name or name.startswith("fc."):
            assert name not in source or source[name].shape != tensor.shape
        else:
            assert torch.equal(tensor, source[name]), name
    # Weights that were trained from them carry their own values: nothing is fetched again.
    assert "init_from" not in started.hparams


def test_no_imagenet_weights_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("Cannot find an appropriate cached snapshot folder")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match=r"resnext50_32x4d\.tv_in1k.*init_from to null"):
        ChrNet4(init_from="resnext50_32x4d.tv_in1k")


def test_a_model_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: nn.Linear(2, 2))
    with pytest.raises(WeightsError, match="no tensor"):
        ChrNet4(init_from="something_else")


# classify


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [draw_chromosome(name, Appearance(), rng).image for name in ("1", "9", "21", "X")]


def test_one_image_or_many(model: ChrNet4, images: list[np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(images[1]).save(path)
    many = model.classify(images)
    assert len(many) == 4 and many.cell is None
    assert [p.name for p in many] == ["image 1", "image 2", "image 3", "image 4"]
    for source in (
        images[1],
        path,
        str(path),
        Image.fromarray(images[1]),
        [path],
        (images[1],),
        iter([path]),
    ):
        (one,) = model.classify(source)  # type: ignore[arg-type]
        assert one.label == many[1].label and one.error is None
        np.testing.assert_allclose(one.probabilities, many[1].probabilities, atol=1e-5)
    assert model.classify(path)[0].name == str(path)
    assert model.classify([]) == []


def test_probabilities(model: ChrNet4, images: list[np.ndarray]) -> None:
    for prediction in model.classify(images, batch_size=3):
        assert prediction.probabilities.shape == (24,)
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-12)
        assert (prediction.probabilities >= 0).all()
        best = int(prediction.probabilities.argmax())
        assert prediction.label == CLASSES[best]
        assert prediction.probability == prediction.probabilities[best]


def test_probabilities_do_not_depend_on_the_batch(model: ChrNet4, images: list[np.ndarray]) -> None:
    together, apart = model.classify(images), model.classify(images, batch_size=1)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_flips_do_not_change_the_average(model: ChrNet4, images: list[np.ndarray]) -> None:
    x = torch.stack([model.transforms(image) for image in images])
    with torch.inference_mode():
        averaged = model.predict_with_polarity(x)[0]
        for axes in FLIPS[1:]:
            torch.testing.assert_close(model.predict_with_polarity(x.flip(axes))[0], averaged)
            assert not torch.allclose(model(x.flip(axes)), model(x), atol=1e-3)


def test_temperature_calibrates(
    model: ChrNet4, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.temperature == 1
    sharp = model.classify(images)
    monkeypatch.setattr(model, "weights_entry", SimpleNamespace(temperature=4.0))
    for one, softer in zip(sharp, model.classify(images), strict=True):
        assert softer.probability < one.probability


def test_a_bad_image_stops_or_is_reported(
    model: ChrNet4, images: list[np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_text("text")
    sources: list[Any] = [images[0], tmp_path / "broken.png", np.zeros((50, 50)), images[1]]
    with pytest.raises(ImageError, match=r"broken\.png: "):
        model.classify(sources)
    for as_cell in (False, True):
        good, broken, black, other = model.classify(sources, as_cell, on_error="report")
        assert good.error is None and other.error is None
        assert good.label in CLASSES and other.label in CLASSES
        assert broken.name == str(tmp_path / "broken.png")
        assert broken.error is not None and broken.error.startswith(broken.name)
        assert black.error is not None and black.error.startswith("image 3: ")
        for bad in (broken, black):
            assert bad.label == "" and np.isnan(bad.probability)
            assert np.isnan(bad.probabilities).all()
        plain = model.classify([images[0]])[0]
        np.testing.assert_allclose(good.probabilities, plain.probabilities, atol=1e-5)


def test_nothing_readable_is_reported_too(model: ChrNet4) -> None:
    found = model.classify([np.zeros((50, 50))], as_cell=True, on_error="report")
    assert found.cell is None and found[0].error is not None


def test_a_cell_is_named_together(model: ChrNet4) -> None:
    cell = draw_cell(np.random.default_rng(1))
    found = model.classify([chromosome.image for chromosome in cell], as_cell=True)
    assert found.cell is not None
    assert tuple(prediction.label for prediction in found) == found.cell.labels
    alone = model.classify([cell[0].image])[0]
    np.testing.assert_allclose(found[0].probabilities, alone.probabilities, atol=1e-5)
    index = CLASSES.index(found[0].label)
    assert found[0].probability == found[0].probabilities[index]


def test_extra_chromosomes_of_a_cell_are_marked() -> None:
    """A sure trisomy 21 with one image that cannot be read between its chromosomes."""
    truth = [*np.repeat(np.arange(22), 2), 22, 22, CLASSES.index("21")]
    sure = np.full((47, 24), 1e-6)
    sure[np.arange(47), truth] = 1 - 23e-6
    probabilities = np.insert(sure, 10, np.nan, axis=0)
    names = [f"{row}.png" for row in range(48)]
    found = to_predictions(probabilities, names, {10: "10.png: broken"}, as_cell=True)
    assert found.cell is not None and found.cell.iscn == "47,XX,+21"
    assert [p.label for p in found if p.error is None] == [CLASSES[k] for k in truth]
    extra = [p for p in found if p.supernumerary]
    assert len(extra) == 1 and extra[0].label == "21"
    assert found[10].error == "10.png: broken" and not found[10].supernumerary


def test_classify_leaves_a_model_in_training_as_it_was(images: list[np.ndarray]) -> None:
    """After `fit` a model is in training mode: its norms must neither judge nor learn here."""
    model = ChrNet4(preset=SMALL).train()
    model.network.layer1.eval()  # type: ignore[union-attr,operator]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    together, apart = model.classify(images), model.classify(images, batch_size=1)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training and model.network.layer2.training  # type: ignore[union-attr]
    assert not model.network.layer1.training  # type: ignore[union-attr]


def test_maps_of_one_pixel_are_computed_in_full_precision() -> None:
    """On some processors bfloat16 gives garbage there, at times NaN (oneDNN)."""
    torch.manual_seed(0)
    network: Any = ChrNet4(preset={"height": 48, "width": 32}).network
    convolution = network.layer4[0].conv2
    for width, full in ((2, True), (4, False)):
        x = torch.randn(6, 1024, 3, width).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            found = convolution(x)
        right = convolution(x)
        torch.testing.assert_close(found.float(), right, atol=0.05, rtol=0.02)
        assert torch.equal(found, right.bfloat16()) == full
        assert found.requires_grad


def test_one_image_is_judged_as_among_others() -> None:
    """Its mirror images go through the network together, those of many in turn."""
    model = ChrNet4(preset=SMALL, polarity=True)
    model.network.load_state_dict(seeded_network().state_dict(), strict=False)
    model.eval()
    x = torch.randn(3, 1, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together, alone = model.predict_with_polarity(x), model.predict_with_polarity(x[1:2])
        upside_down = model.predict_with_polarity(x[1:2].flip(-2))
    for many, one in zip(together, alone, strict=True):
        assert many is not None and one is not None and one.shape == (1, 24)
        torch.testing.assert_close(one, many[1:2], atol=1e-5, rtol=1e-4)
    assert alone[1] is not None and upside_down[1] is not None
    assert (alone[1] - 0.5).abs().max() > 1e-4
    torch.testing.assert_close(upside_down[1], 1 - alone[1], atol=1e-5, rtol=1e-4)
