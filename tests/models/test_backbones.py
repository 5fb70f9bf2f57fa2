"""The baselines: exact sizes, what they take, timm by name, starting from weights there are."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
import yaml
from helpers.entries import make_entry
from lightning import Trainer
from torch import nn

from chromozoo.errors import UnknownNameError, WeightsError
from chromozoo.models import registry
from chromozoo.models.init_from import load_imagenet_weights
from chromozoo.models.layers.backbone import BODY, remove_head
from chromozoo.models.registry import get_weight, list_models, model_info
from chromozoo.models.weights.storage import save_weights
from chromozoo.structures.weights_entry import MAX_BYTES
from chromozoo.training.command import main

# The attributes of the models below are not those of any LightningModule.
get_model: Any = registry.get_model

CONFIGS = Path(__file__).parents[2] / "configs" / "classification"

# Minimum side in pixels.
BACKBONES = {
    "resnet50": 32,
    "resnext50": 32,
    "senet50": 32,
    "vgg16": 32,
    "vgg16_bn": 32,
    "alexnet": 63,
    "densenet121": 29,
    "inception_v4": 75,
    "timm_backbone": 32,
    "chromozoo_small": 32,
}
# A grid of one cell spares the tests the large linear layers.
QUICK: dict[str, dict[str, Any]] = {
    name: {"pool": (1, 1)} for name in ("vgg16", "vgg16_bn", "alexnet")
}
SMALL = {"height": 64, "width": 32, "scale": 0.6}

each_backbone = pytest.mark.parametrize("name", BACKBONES)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def quick(name: str, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    return get_model(name, weights=None, **QUICK.get(name, {}), **kwargs)


def checkpoint(model: Any, path: Path) -> Path:
    """A checkpoint as Lightning writes it."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    return path


def same_network(one: Any, other: Any) -> bool:
    own, others = one.network.state_dict(), other.network.state_dict()
    return own.keys() == others.keys() and all(torch.equal(own[key], others[key]) for key in own)


# All of them


@pytest.mark.parametrize(
    ("name", "mebibytes"), [("resnet50", 89.86), ("resnext50", 87.85), ("senet50", 99.46)]
)
def test_size_of_the_paper(name: str, mebibytes: float) -> None:
    """Wang et al. 2024, table II; of ResNet-50 they print 89.96, with two digits swapped."""
    with torch.device("meta"):
        model = get_model(name, weights=None)
    assert round(parameters(model) * 4 / 2**20, 2) == mebibytes


@each_backbone
def test_minimum_size(name: str) -> None:
    least = BACKBONES[name]
    with torch.device("meta"):  # shapes without computing
        model = quick(name)
        assert model(torch.rand(2, 1, least, least)).shape == (2, 24)
        for size in ((least - 1, 224), (224, least - 1)):
            with pytest.raises(ValueError, match=rf"{size[0]}x{size[1]} .*needs {least}x{least} o"):
                model(torch.rand(2, 1, *size))


@each_backbone
def test_a_canvas_that_is_too_small_is_told_at_once(name: str) -> None:
    least = BACKBONES[name]
    with torch.device("meta"), pytest.raises(ValueError, match=rf"{least - 1}x224 pixels.*preset"):
        get_model(name, weights=None, preset={"height": least - 1, "width": 224})


@each_backbone
def test_weights_of_the_config_fit_into_a_file(name: str) -> None:
    content = yaml.safe_load((CONFIGS / f"{name}_bioimlab.yaml").read_text())
    arguments = content["model"]["init_args"] | {"init_from": None}
    with torch.device("meta"):
        model = get_model(name, weights=None, **arguments)
    assert 2 * parameters(model) < 0.95 * MAX_BYTES  # as fp16; norms and header take little


def test_the_adaptor_changes_nothing() -> None:
    original = torchvision.models.resnet50(num_classes=24).eval()
    model = quick("resnet50")
    tensors = original.state_dict()
    head = {key: tensors.pop(f"fc.{key}") for key in ("weight", "bias")}
    model.network.body.load_state_dict(tensors)
    model.network.fc.load_state_dict(head)
    x = torch.rand(1, 3, 64, 48)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), original(x), atol=1e-5, rtol=1e-4)


def test_senet50_is_resnet50_with_attention() -> None:
    model = quick("senet50")
    attention = {n: m for n, m in model.network.body.named_modules() if n.endswith(".se")}
    assert len(attention) == 16
    for module in attention.values():
        assert module.fc1.in_channels == 16 * module.fc1.out_channels
        assert module.fc2.out_channels == module.fc1.in_channels
        assert module.fc1.bias is None and module.fc2.bias is None
    # Without it, torchvision's ResNet-50 is left.
    plain = remove_head(torchvision.models.resnet50(), "fc").eval()
    plain.load_state_dict(model.network.body.state_dict(), strict=False)
    for name in attention:
        model.network.body.set_submodule(name, nn.Identity())
    assert model.network.body.state_dict().keys() == plain.state_dict().keys()
    x = torch.rand(1, 3, 64, 48)
    with torch.inference_mode():
        torch.testing.assert_close(model.network.body(x), plain(x), atol=1e-5, rtol=1e-4)


def test_a_grid_of_the_maps_own_size_gives_the_same_function() -> None:
    torch.manual_seed(0)
    published = get_model("alexnet", weights=None)
    torch.manual_seed(0)
    small = get_model("alexnet", weights=None, pool=[4, 1])
    assert parameters(small.network) == 23_547_736
    first = small.network.body.classifier[1]
    assert first.in_features == first.weight.shape[1] == 4 * 256
    x = torch.rand(2, 1, 160, 80)
    with torch.inference_mode():
        torch.testing.assert_close(small(x), published(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["alexnet", "inception_v4"])
def test_a_deep_stem_brings_its_canvas(name: str) -> None:
    with torch.device("meta"):
        canvas = get_model(name, weights=None, preset={"rotate_crop": "none"}).transforms
    assert (canvas.height, canvas.width, canvas.scale) == (160, 80, 1.6)
    assert canvas.rotate_crop == "none"
    with torch.device("meta"):
        canvas = get_model(name, weights=None, preset={"height": 96, "scale": 1.0}).transforms
    assert (canvas.height, canvas.width, canvas.scale) == (96, 80, 1.0)


# timm by name


def test_timm_by_name() -> None:
    short = quick("timm/test_resnet", preset=SMALL)
    long = quick("timm_backbone", backbone="test_resnet", preset=SMALL)
    assert same_network(short, long)
    assert short.hparams == long.hparams and short.hparams.backbone == "test_resnet"
    assert not short.training and short.weights_entry is None
    assert short.network.body.conv1[0].in_channels == 1
    assert model_info("timm/test_resnet") == model_info("timm_backbone")
    assert not [name for name in list_models() if "/" in name]
    with pytest.raises(WeightsError, match=r"model 'timm_backbone' has no weights .*weights=None"):
        get_weight("timm/test_resnet")


def test_unknown_timm_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"'resnet_18': did you mean .*resnet18"):
        get_model("timm/resnet_18", weights=None)
    with pytest.raises(UnknownNameError, match=r"timm has no architecture '%%': see timm\.list"):
        get_model("timm_backbone", weights=None, backbone="%%")
    with pytest.raises(UnknownNameError, match=r"resnet18\.a1_in1k.*weights go into init_from"):
        get_model("timm/resnet18.a1_in1k", weights=None)
    with pytest.raises(UnknownNameError, match=r"'timm/resnet18' already names.*'resnet34' out"):
        get_model("timm/resnet18", weights=None, backbone="resnet34")
    assert get_model("timm/test_resnet", weights=None, backbone="test_resnet")


def test_timm_architectures_of_one_size_are_built_for_the_canvas() -> None:
    model = quick("timm/vit_tiny_patch16_224")
    with torch.inference_mode():
        assert model(torch.rand(2, 1, 112, 48)).shape == (2, 24)
    with pytest.raises(ValueError, match="needs 48x48 or more"):
        model(torch.rand(2, 1, 32, 32))


def test_timm_architectures_that_do_not_take_the_canvas() -> None:
    with pytest.raises(ValueError, match=r"'inception_v4' does not take .* 112x48 pixels.*preset"):
        get_model("timm/inception_v4", weights=None)
    model = get_model("timm/inception_v4", weights=None, preset={"height": 96, "width": 80})
    with pytest.raises(ValueError, match="needs 80x80 or more"):
        model(torch.rand(1, 1, 40, 40))


# Weights


def test_a_trained_checkpoint_keeps_the_backbone(
    tiny_bioimlab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line to `get_model`, by way of the checkpoint's own arguments."""
    monkeypatch.chdir(tmp_path)
    words = ["fit", f"--config={CONFIGS / 'timm_backbone_bioimlab.yaml'}"]
    words += ["--model.init_args.backbone=test_resnet", "--model.init_args.centre_loss=wen"]
    words += ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.max_epochs=1"]
    words += ["--trainer.limit_train_batches=1", "--trainer.enable_progress_bar=false"]
    words += [f"--data.init_args.root={tiny_bioimlab}", "--data.init_args.num_workers=0"]
    words += ["--data.init_args.batch_size=4", "--data.init_args.synthetic_cells=0"]
    main(words)
    path = tmp_path / "runs" / "timm_backbone_bioimlab" / "last.ckpt"
    for name in ("timm_backbone", "timm/test_resnet"):
        model = get_model(name, weights=path)
        assert model.hparams.backbone == "test_resnet" and model.hparams.centre_loss == "wen"
        stored = torch.load(path, weights_only=True)["state_dict"]
        assert torch.equal(model.network.fc.weight, stored["network.fc.weight"])
        assert (model.transforms.height, model.transforms.scale) == (112, 1.15)
    with pytest.raises(WeightsError, match="belong to backbone='test_resnet', not backbone='resn"):
        get_model("timm/resnet18", weights=path)


def test_a_weights_file_keeps_the_backbone(tmp_path: Path) -> None:
    trained = quick("timm/test_resnet", preset=SMALL)
    entry = make_entry(
        model="timm_backbone", init_args={"backbone": "test_resnet", "preset": SMALL}
    )
    path, _ = save_weights(trained.network, entry, tmp_path, storage="fp32")
    for name in ("timm_backbone", "timm/test_resnet"):
        assert same_network(get_model(name, weights=path), trained)


@pytest.mark.parametrize("name", ["chrnet4", "timm/test_resnet"])
def test_training_can_start_from_a_checkpoint(name: str, tmp_path: Path) -> None:
    earlier = quick(name, preset=SMALL)
    path = checkpoint(earlier, tmp_path / "earlier.ckpt")
    torch.manual_seed(1)
    assert not same_network(get_model(name, weights=None, preset=SMALL), earlier)
    started = get_model(name, weights=None, preset=SMALL, init_from=str(path), lr=1e-5)
    assert same_network(started, earlier)
    assert started.hparams.lr == 1e-5
    # Its own checkpoint holds all that it is: the earlier one may be gone.
    assert "init_from" not in started.hparams


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = checkpoint(quick("timm/test_resnet", preset=SMALL), tmp_path / "other.ckpt")
    with pytest.raises(WeightsError, match=r"other\.ckpt: does not fit this model"):
        get_model("chrnet4", weights=None, init_from=str(path))
    with pytest.raises(WeightsError, match=r"absent\.ckpt: no such file"):
        get_model("timm/test_resnet", weights=None, init_from=str(tmp_path / "absent.ckpt"))


@pytest.mark.parametrize(
    ("name", "source", "own"),
    [
        ("resnet50", "resnet50.tv_in1k", ()),
        ("senet50", "resnet50.tv_in1k", (".se.",)),
        ("resnext50", "resnext50_32x4d.tv_in1k", ()),
        ("vgg16_bn", "vgg16_bn.tv_in1k", ("classifier",)),
        ("densenet121", "densenet121.tv_in1k", ()),
        ("inception_v4", "inception_v4.tf_in1k", ()),
    ],
)
def test_imagenet_tensors_fit_by_name(
    name: str, source: str, own: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the head, and but for the parts in `own`."""
    create = timm.create_model
    with torch.device("meta"):  # names and shapes are all that counts
        model = quick(name)
        monkeypatch.setattr(
            timm, "create_model", lambda timm_name, pretrained: create(timm_name.split(".")[0])
        )
        taken = load_imagenet_weights(model.network, source, BODY)
    expected = [key for key in model.network.body.state_dict() if not any(o in key for o in own)]
    assert taken == len(expected) > 20


def test_imagenet_tensors_are_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grey stem is the sum of the colours."""
    imagenet = timm.create_model("resnet18")
    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, pretrained=False, **options: (
            imagenet if pretrained else create(name, **options)
        ),
    )
    model = quick("timm_backbone", init_from="resnet18.a1_in1k")
    source = imagenet.state_dict()
    for key, tensor in model.network.body.state_dict().items():
        expected = source[key]
        if key == "conv1.weight":
            expected = expected.sum(dim=1, keepdim=True)
        assert torch.equal(tensor, expected), key
