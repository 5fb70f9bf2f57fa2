"""CIR-Net: the published count, the flattened head, and the Image Adaptive Interface."""

import math

import pytest
import torch
from torch import nn

from chromozoo.models.classifiers.cir_net import (
    CIRNetNetwork,
    ImageAdaptiveInterface,
    adapt,
    cir_net,
)

MIN_INPUT_SIDE = {"height": 75, "width": 75}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def network() -> CIRNetNetwork:
    torch.manual_seed(0)
    return CIRNetNetwork((75, 107)).eval()


def test_parameter_count_of_the_paper_in_the_terms_of_keras() -> None:
    with torch.device("meta"):
        model = cir_net()
    assert (model.transforms.height, model.transforms.width) == (224, 224)
    assert model.transforms.rotate_crop == "none"
    assert count(model) == 55_228_088
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    scales = sum(m.weight.numel() for m in norms)
    statistics = sum(m.running_mean.numel() + m.running_var.numel() for m in norms)  # type: ignore[union-attr]
    assert (scales, statistics) == (30_272, 60_544)
    assert count(model) - scales == 55_197_816  # "trainable"
    assert count(model) - scales + statistics == 55_258_360
    assert {m.eps for m in norms} == {1e-3}


def test_the_head_sees_where_a_feature_is(network: CIRNetNetwork) -> None:
    """Flattened, not pooled: channel c at column k is feature 2 c + k of a 1x2 map."""
    x = torch.zeros(1, 1, 75, 107)
    x[..., 54:] = 5 * torch.rand(75, 53, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features = network.forward_features(x)
        last = network.trunk(x.expand(-1, 3, -1, -1))
    assert last.shape == (1, 1536, 1, 2)
    torch.testing.assert_close(features[0, 1::2], last[0, :, 0, 1])
    assert not torch.allclose(features[0, 0::2], features[0, 1::2], rtol=0.05)


@pytest.mark.parametrize("size", [(74, 112), (112, 48)])
def test_a_size_too_small_is_refused(size: tuple[int, int]) -> None:
    said = rf"CIR-Net needs images of at least 75x75 pixels, not {size[0]}x{size[1]}"
    with pytest.raises(ValueError, match=said):
        cir_net(preset={"height": size[0], "width": size[1]})
    with pytest.raises(ValueError, match=said):
        cir_net(preset=MIN_INPUT_SIDE, interface=list(size))


def test_images_of_another_size_are_refused(network: CIRNetNetwork) -> None:
    with pytest.raises(ValueError, match="built for images of 75x107 pixels, not 64x64"):
        network(torch.zeros(1, 1, 64, 64))


# The Image Adaptive Interface


@pytest.mark.parametrize("target", [75, 112, 224])
@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_equation_9(target: int, kernel: int) -> None:
    for length in range(20, 700):
        k, stride, padding = adapt(length, target, kernel)
        assert math.floor((length + 2 * padding - k) / stride + 1) == target
        if length == target:
            assert (k, stride, padding) == (1, 1, 0)
        elif length > target:
            assert padding == 0
            assert (target - 1) * stride + k == length  # every pixel is seen
            assert stride == length // target
        else:
            assert stride == 1 and padding > 0
            assert k in (kernel, kernel + 1)
            assert padding == math.ceil((target - length + kernel - 1) / 2)


@pytest.mark.parametrize(
    ("size_in", "size_out"),
    [
        ((60, 60), (60, 60)),
        ((90, 80), (60, 60)),
        ((200, 131), (60, 60)),
        ((40, 41), (60, 60)),
        ((100, 30), (75, 80)),
        ((75, 30), (75, 80)),
        ((33, 90), (50, 20)),
    ],
    ids=["same", "smaller", "strided", "larger", "tall-shrinks-wide-grows", "one-axis", "mixed"],
)
def test_sizes_of_the_interface(size_in: tuple[int, int], size_out: tuple[int, int]) -> None:
    interface = ImageAdaptiveInterface(1, size_in, size_out)
    assert interface(torch.rand(2, 1, *size_in)).shape == (2, 3, *size_out)


def test_same_size_is_network_in_network() -> None:
    """A 1x1 convolution: each pixel by itself, grey to colour, 6 parameters."""
    interface = ImageAdaptiveInterface(1, (20, 30), (20, 30))
    assert count(interface) == 6
    x = torch.rand(1, 1, 20, 30)
    weight, bias = interface.conv.weight.flatten(), interface.conv.bias
    assert bias is not None
    torch.testing.assert_close(interface(x)[0], weight[:, None, None] * x[0] + bias[:, None, None])


def test_a_smaller_target_does_not_pad_and_a_larger_one_does() -> None:
    """With all weights 1 and no bias, the output says which pixels were summed."""
    smaller = ImageAdaptiveInterface(1, (6, 8), (3, 5), c_out=1)
    larger = ImageAdaptiveInterface(1, (3, 4), (7, 7), c_out=1)
    for interface in (smaller, larger):
        nn.init.ones_(interface.conv.weight)
        nn.init.zeros_(interface.conv.bias)  # type: ignore[arg-type]
    # Rows: kernel 2, stride 2; columns: kernel 4, stride 1.
    assert torch.equal(smaller(torch.ones(1, 1, 6, 8)), torch.full((1, 1, 3, 5), 8.0))
    # Rows: kernel 3, padding 3; columns: 7 - 4 + 2 is odd, so kernel 4, padding 3.
    assert (larger.conv.kernel_size, larger.conv.padding) == ((3, 4), (3, 3))
    found = larger(torch.ones(1, 1, 3, 4))[0, 0]
    assert found[0].tolist() == [0.0] * 7 and found[3, 3] == 12


def test_the_interface_is_off_unless_asked_for() -> None:
    assert cir_net(preset=MIN_INPUT_SIDE).network.interface is None
    model = cir_net(preset={"height": 100, "width": 60, "channels": 3}, interface=[75, 90])
    assert count(model.network.interface) == 3 * 3 * 26 * 3 + 3  # type: ignore[arg-type]
    # The trunk sees 75x90: a map of one pixel.
    assert model.network.fc.in_features == 1536  # type: ignore[union-attr]
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 100, 60)).shape == (2, 24)
    assert model.hparams["interface"] == [75, 90]
