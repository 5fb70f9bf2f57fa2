"""Vanilla-CNN: the published parameter count, its layers, and its fixed input size."""

import pytest
import torch
from torch import nn

from chromozoo.models.classifiers.vanilla_cnn import VanillaCNNNetwork, vanilla_cnn

SMALL = {"height": 48, "width": 40}


@pytest.fixture(scope="module")
def network() -> VanillaCNNNetwork:
    torch.manual_seed(0)
    return VanillaCNNNetwork((48, 40)).eval()


@pytest.mark.parametrize(
    ("size", "count"), [((224, 224), 2_246_680), ((96, 40), 913_432), ((39, 39), 895_000)]
)
def test_parameter_count(size: tuple[int, int], count: int) -> None:
    with torch.device("meta"):
        network = VanillaCNNNetwork(size)
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_builder_is_as_published_unless_told() -> None:
    model = vanilla_cnn()
    assert (model.transforms.height, model.transforms.width) == (224, 224)
    assert vanilla_cnn(preset={"scale": 2.0}).transforms.height == 224


def test_no_layer_is_padded() -> None:
    """The sizes that the published count follows from."""
    with torch.device("meta"):
        network = VanillaCNNNetwork().eval()
    shapes = []
    for layer in network.layers:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            layer.register_forward_hook(
                lambda _layer, _in, out: shapes.append(tuple(out.shape[1:]))
            )
    with torch.inference_mode():
        assert network.forward_features(torch.zeros(1, 1, 224, 224, device="meta")).shape == (
            1,
            56_448,
        )
    assert shapes == [
        (256, 220, 220),
        (128, 218, 218),
        (128, 72, 72),
        (256, 70, 70),
        (256, 23, 23),
        (128, 21, 21),
    ]


def test_dropout_in_training_only(network: VanillaCNNNetwork) -> None:
    x = torch.rand(1, 1, 48, 40)
    with torch.inference_mode():
        assert torch.equal(network(x), network(x))
        network.train()
        assert not torch.equal(network(x), network(x))
        network.eval()
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]


def test_the_signal_does_not_fade_at_the_start(network: VanillaCNNNetwork) -> None:
    x = torch.randn(8, 1, 48, 40, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        logits = network(x)
    # 0.27; with torch's own start 0.008, with that of Keras 0.016.
    assert 0.1 < logits.std(dim=0).mean() < 1


@pytest.mark.parametrize("size", [(38, 64), (64, 38)])
def test_a_size_too_small_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"at least 39x39 pixels, not {size[0]}x{size[1]}"):
        vanilla_cnn(preset={"height": size[0], "width": size[1]})


def test_images_of_another_size_are_refused(network: VanillaCNNNetwork) -> None:
    with pytest.raises(ValueError, match="built for images of 48x40 pixels, not 38x40"):
        network(torch.zeros(1, 1, 38, 40))
