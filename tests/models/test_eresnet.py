"""EResNet: parameter counts, the variants uXcY, the centre loss and the label feature vectors."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers.entries import make_entry
from helpers.shallow import shallow_resnet
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torchvision.models import resnet50

from chromozoo.karyotype.matching import match_features
from chromozoo.models.classifiers import eresnet as module
from chromozoo.models.classifiers.eresnet import EResNet, EResNetNetwork, eresnet
from chromozoo.models.registry import get_model
from chromozoo.models.weights.storage import load_into, save_weights

SMALL = {"height": 64, "width": 32, "scale": 0.6}


@pytest.fixture(autouse=True)
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trunk is a shallow one unless a test says otherwise."""
    monkeypatch.setattr(module, "resnet50", shallow_resnet)


@pytest.fixture
def network() -> EResNetNetwork:
    torch.manual_seed(0)
    network = EResNetNetwork(units=2, feature_unit=1, width=64)
    for block in network.modules():
        if hasattr(block, "bn3"):
            nn.init.ones_(block.bn3.weight)  # 0 at the start: the blocks would not show
    return network.eval()


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 24_569_432),
        ({"width": 1024}, 25_630_808),
        ({"width": 2048}, 27_753_560),
        ({"units": 0}, 23_508_032 + 2048 * 24 + 24),
        ({"units": 3, "feature_unit": 2}, 24_569_432 + 2 * (512 * 512 + 512)),
    ],
)
def test_parameter_counts(
    arguments: dict[str, int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "resnet50", resnet50)
    with torch.device("meta"):
        model = eresnet(**arguments)
    assert sum(p.numel() for p in model.network.parameters()) == count
    # Neither centres nor label feature vectors are parameters.
    assert sum(p.numel() for p in model.parameters()) == count
    assert sum(p.numel() for p in model.network.trunk.parameters()) == 23_508_032


def test_the_unit_is_linear_relu_dropout() -> None:
    network = EResNetNetwork(units=2)
    assert [[type(layer) for layer in unit] for unit in network.block] == [  # type: ignore[attr-defined]
        [nn.Linear, nn.ReLU, nn.Dropout]
    ] * 2
    assert {m.p for m in network.modules() if isinstance(m, nn.Dropout)} == {0.5}


@pytest.mark.parametrize(
    ("units", "feature_unit", "features"),
    [(0, 0, 2048), (1, 0, 2048), (1, 1, 96), (3, 0, 2048), (3, 1, 96), (3, 2, 96)],
)
def test_variants(units: int, feature_unit: int, features: int) -> None:
    network = EResNetNetwork(units, feature_unit, width=96).eval()
    with torch.inference_mode():
        x = torch.rand(2, 1, 64, 32)
        found = network.forward_features(x)
        logits = network.forward_head(found)
        torch.testing.assert_close(network(x), logits)
    assert found.shape == (2, features) and (found >= 0).all()
    assert logits.shape == (2, 24) and logits.isfinite().all()
    assert network.label_features.shape == (24, features)


def test_the_logits_do_not_depend_on_where_the_feature_is_taken() -> None:
    one, other = (EResNetNetwork(2, unit, width=96).eval() for unit in (0, 2))
    tensors = {k: v for k, v in one.state_dict().items() if not k.startswith("label_")}
    other.load_state_dict(tensors, strict=False)
    x = torch.rand(2, 1, 64, 32)
    with torch.inference_mode():
        torch.testing.assert_close(one(x), other(x))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"units": -1}, "units is -1"),
        ({"width": 0}, "width 0"),
        ({"units": 1, "feature_unit": 2}, r"feature_unit is 2: give 0 .* to 1"),
        ({"feature_unit": -1}, "feature_unit is -1"),
    ],
)
def test_bad_arguments(arguments: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EResNetNetwork(**arguments)


def test_a_image_that_is_too_small(network: EResNetNetwork) -> None:
    with pytest.raises(ValueError, match=r"96x31 pixels .* 32x32 or more"):
        network(torch.rand(1, 1, 96, 31))


@pytest.mark.parametrize("feature_unit", [0, 1])
def test_the_centre_loss_takes_the_matching_feature(feature_unit: int) -> None:
    torch.manual_seed(0)
    model = EResNet(preset=SMALL, units=2, feature_unit=feature_unit, width=64).eval()
    batch = {"image": torch.rand(4, 1, 64, 32), "label": torch.tensor([0, 5, 5, 23])}
    assert model.centre_loss is not None
    assert model.centre_loss.centres.shape == (24, 64 if feature_unit else 2048)
    with torch.inference_mode():
        trunk = model.network.trunk(batch["image"].expand(-1, 3, -1, -1))
        feature = trunk if feature_unit == 0 else model.network.block[0](trunk)
        logits = model.network.fc(model.network.block(trunk))
        # Centres are still at 0: half the mean squared length, times Wen's weight.
        expected = model.cross_entropy(logits, batch["label"])
        expected = expected + 0.003 * feature.square().sum(dim=1).mean() / 2
        torch.testing.assert_close(model.loss(batch), expected)
        model.centre_loss = None
        torch.testing.assert_close(model.loss(batch), model.cross_entropy(logits, batch["label"]))


# Label feature vectors


def test_vectors_begin_with_the_first_batch_and_then_follow() -> None:
    network = EResNetNetwork(units=1, feature_unit=1, width=2)
    assert not network.label_features_set.any()
    network.update_label_features(
        torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([2, 2, 7])
    )
    assert network.label_features_set.nonzero().flatten().tolist() == [2, 7]
    assert network.label_features[2].tolist() == [2.0, 3.0]
    assert network.label_features[7].tolist() == [5.0, 6.0]
    network.update_label_features(torch.tensor([[12.0, 3.0], [12.0, 3.0]]), torch.tensor([2, 2]))
    # Two images: a share of 1 - 0.99 squared of the way from 2 to 12.
    torch.testing.assert_close(network.label_features[2], torch.tensor([2.199, 3.0]))
    assert network.label_features[7].tolist() == [5.0, 6.0]
    assert not network.label_features[[0, 23]].any()


def test_only_training_moves_the_vectors() -> None:
    model = EResNet(preset=SMALL).train()
    batch = {"image": torch.rand(4, 1, 64, 32), "label": torch.tensor([0, 5, 5, 23])}
    model.loss(batch)
    before = model.network.label_features.clone()
    assert model.network.label_features_set.nonzero().flatten().tolist() == [0, 5, 23]
    assert before[[0, 5, 23]].any(dim=1).all()
    assert not before.requires_grad
    model.eval().loss(batch)
    model.predict_with_polarity(batch["image"])
    assert torch.equal(model.network.label_features, before)


def test_vectors_of_half_precision_features() -> None:
    network = EResNetNetwork(units=1, feature_unit=1, width=2)
    network.update_label_features(
        torch.full((3, 2), 60_000.0, dtype=torch.float16), torch.zeros(3, dtype=int)
    )
    assert network.label_features[0].tolist() == [60_000.0, 60_000.0]  # the sum is beyond float16


def test_averaged_weights_keep_the_vectors() -> None:
    """As EMAWeightAveraging averages: with buffers, from a class's first image on."""
    network = EResNetNetwork(units=1, feature_unit=1, width=2)
    average = AveragedModel(network, avg_fn=get_ema_avg_fn(0.5), use_buffers=True)
    network.update_label_features(torch.tensor([[1.0, 2.0]]), torch.tensor([2]))
    average.update_parameters(network)
    network.update_label_features(torch.tensor([[8.0, 8.0]]), torch.tensor([7]))
    for _ in range(12):
        average.update_parameters(network)
    assert average.module.label_features_set.nonzero().flatten().tolist() == [2, 7]
    torch.testing.assert_close(average.module.label_features[2], torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(
        average.module.label_features[7], torch.tensor([8.0, 8.0]), rtol=1e-3, atol=0
    )


def test_weights_hold_the_vectors(tmp_path: Path) -> None:
    arguments = {"units": 1, "feature_unit": 1, "width": 8}
    network = EResNetNetwork(**arguments)
    features = torch.rand(24, 8)
    network.update_label_features(features, torch.arange(24))
    path, entry = save_weights(
        network, make_entry(model="eresnet", init_args=arguments), tmp_path, "fp16"
    )
    loaded = EResNetNetwork(**arguments)
    load_into(loaded, path, entry)
    assert loaded.label_features_set.all() and loaded.label_features_set.dtype == torch.bool
    torch.testing.assert_close(loaded.label_features, features, rtol=1e-3, atol=1e-3)
    labels, _ = match_features(features.numpy(), loaded.label_features.numpy())
    assert labels.tolist() == list(range(24))


def test_a_checkpoint_rebuilds_its_variant(tmp_path: Path) -> None:
    model = EResNet(preset=SMALL, units=2, feature_unit=1, width=32, dropout=0.25)
    model.network.update_label_features(torch.rand(1, 32), torch.tensor([3]))
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}, path)
    again = get_model("eresnet", weights=path)
    assert again.network.block[1][2].p == 0.25
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor), name
    image = np.zeros((60, 40), np.uint8)
    image[10:50, 15:25] = 200
    assert again.classify(image)[0].probabilities.shape == (24,)
    tuned = EResNet(preset=SMALL, units=2, feature_unit=1, width=32, init_from=str(path))
    assert torch.equal(tuned.network.fc.weight, model.network.fc.weight)
    assert "init_from" not in tuned.hparams


def test_imagenet_tensors_go_to_the_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "resnet50", resnet50)
    source = timm.create_model("resnet50", pretrained=False)

    def create(name: str, pretrained: bool) -> nn.Module:
        assert (name, pretrained) == ("resnet50.tv_in1k", True)
        return source

    monkeypatch.setattr(timm, "create_model", create)
    started = EResNet(preset=SMALL, init_from="resnet50.tv_in1k")
    given = source.state_dict()
    own = started.network.trunk.state_dict()
    assert own.keys() == {name for name in given if not name.startswith("fc.")}
    assert all(torch.equal(tensor, given[name]) for name, tensor in own.items())
