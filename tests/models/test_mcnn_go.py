"""mCNN_GO: its parameter counts, its three views, and the three stages of its training."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.shallow import shallow_resnet
from lightning import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from chromozoo.classes import CLASSES
from chromozoo.models.classifiers import mcnn_go as module
from chromozoo.models.classifiers.mcnn_go import BRANCHES, FEATURES, McnnGo, McnnGoNetwork, mcnn_go
from chromozoo.models.registry import get_model
from chromozoo.synthetic import Appearance, draw_chromosome

COUNTS = {"linear": 100_963_712, "sum": 75_793_792}


@pytest.fixture(scope="module")
def network() -> McnnGoNetwork:
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "resnet50", shallow_resnet)
        return McnnGoNetwork(merge="sum").eval()


# The network


@pytest.mark.parametrize("merge", COUNTS)
def test_parameter_counts(merge: Any) -> None:
    with torch.device("meta"):
        network = McnnGoNetwork(merge=merge)
    assert sum(p.numel() for p in network.parameters()) == COUNTS[merge]


@pytest.mark.parametrize("size", [(128, 64), (64, 64)])
def test_every_resnet_sees_half_the_canvas(network: McnnGoNetwork, size: tuple[int, int]) -> None:
    seen = []
    hooks = [
        network.get_submodule(f"branches.{name}")[-1].conv1.register_forward_pre_hook(  # type: ignore[index]
            lambda _module, inputs: seen.append(tuple(inputs[0].shape))
        )
        for name in BRANCHES
    ]
    with torch.inference_mode():
        features = network.forward_features(torch.rand(2, 3, *size))
        logits = network.forward_head(features)
    for hook in hooks:
        hook.remove()
    assert seen == [(2, 3, size[0] // 2, size[1] // 2)] * 3
    assert features.shape == (2, FEATURES) and logits.shape == (2, 24)
    assert logits.isfinite().all()


def test_the_cropped_view_goes_in_directly(network: McnnGoNetwork) -> None:
    entries = [[type(layer) for layer in branch[:-1]] for branch in network.branches.values()]  # type: ignore[index]
    assert entries == [[nn.MaxPool2d, nn.Conv2d], [nn.MaxPool2d, nn.Conv2d], [nn.AvgPool2d]]


def test_each_branch_sees_its_view_alone(network: McnnGoNetwork) -> None:
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = network.forward_features(x).chunk(3, dim=1)
        for view in range(3):
            other = x.clone()
            other[:, view] = 1 - other[:, view]
            after = network.forward_features(other).chunk(3, dim=1)
            changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
            assert changed == [index == view for index in range(3)]


def test_the_two_ways_to_merge(network: McnnGoNetwork) -> None:
    original, straightened, cropped = torch.rand(3, 2, 2048)
    one = torch.cat([original, straightened, cropped], dim=1)
    swapped = torch.cat([straightened, original, cropped], dim=1)
    with torch.inference_mode():
        torch.testing.assert_close(network.forward_head(one), network.forward_head(swapped))
        turned = torch.cat([cropped, straightened, original], dim=1)
        assert not torch.allclose(network.forward_head(one), network.forward_head(turned))
    with pytest.raises(ValueError, match=r"'mean'.*linear or sum"):
        McnnGoNetwork(merge="mean")  # type: ignore[arg-type]


def test_images_that_do_not_fit_are_refused(network: McnnGoNetwork) -> None:
    with pytest.raises(ValueError, match=r"3 views.*not at 1"):
        network(torch.rand(2, 1, 128, 64))
    with pytest.raises(ValueError, match=r"128x48 pixels are too small.*64x64"):
        network(torch.rand(2, 3, 128, 48))


# The model. A tiny trunk stands for ResNet-50 where the stages count and not the network.


class TinyTrunk(nn.Module):
    """Gives 2048 features like a ResNet-50, through a norm with running statistics."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 2048, 4, stride=16)
        self.bn1 = nn.BatchNorm2d(2048)
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.fc(torch.relu(self.bn1(self.conv1(x))).mean(dim=(2, 3)))
        return features


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "resnet50", TinyTrunk)
    monkeypatch.setattr(module, "HIDDEN", 32)
    torch.manual_seed(0)


def test_the_preset_makes_the_three_views(tiny: None) -> None:
    model = mcnn_go(merge="sum")
    image = draw_chromosome("1", Appearance(), np.random.default_rng(0)).image
    x = model.transforms(image)
    assert x.shape == (3, 128, 64)
    assert model.transforms.views == ("upright", "straight", "crop")
    # The cropped view fills the canvas, the others lie in its middle.
    lowest = x.amin()
    filled = [float((view > lowest + 0.3).float().mean()) for view in x]
    assert filled[2] > 2 * max(filled[:2])
    (prediction,) = model.classify(image)
    assert prediction.label in CLASSES and prediction.error is None


def test_the_preset_can_be_changed_in_part(tiny: None) -> None:
    views = ["upright", "straight-xie", "crop"]
    model = mcnn_go(preset={"views": views, "height": 64})
    assert (model.transforms.height, model.transforms.width) == (64, 64)
    assert model.transforms.views == tuple(views)
    with pytest.raises(ValueError, match=r"3 views.*\['upright', 'crop'\]"):
        mcnn_go(preset={"views": ["upright", "crop"]})


def test_the_builder_rebuilds_it_from_its_arguments(tiny: None) -> None:
    model = get_model("mcnn_go", weights=None, merge="sum", stage_epochs=(1, 0, 2))
    again = get_model("mcnn_go", weights=None, **dict(model.hparams))
    assert again.transforms == model.transforms
    assert again.stage_epochs == model.hparams["stage_epochs"] == [1, 0, 2]
    again.network.load_state_dict(model.network.state_dict())
    assert not [name for name in model.network.state_dict() if "head" in name]


@pytest.mark.parametrize("stage_epochs", [[3, 4], [1, -1, 3], [0, 0, 0]])
def test_stages_that_are_none(stage_epochs: list[int], tiny: None) -> None:
    with pytest.raises(ValueError, match=r"three stages.*\[9, 3, 6\]"):
        mcnn_go(stage_epochs=stage_epochs)


def test_the_learning_rate_goes_up_and_down_once_a_stage(tiny: None) -> None:
    model = McnnGo(merge="sum", stage_epochs=[8, 2, 4], lr=1e-3, fine_tune_lr=5e-4)
    rates = np.array([1e-3 * model._relative_lr(step / 50) for step in range(14 * 50)])
    for begin, end, highest in ((0, 8, 1e-3), (8, 10, 1e-3), (10, 14, 5e-4)):
        stage = rates[begin * 50 : end * 50]
        assert stage.max() == pytest.approx(highest, rel=0.01)
        assert stage[-1] < 0.01 * highest < stage[0] < 0.1 * highest
        peak = int(stage.argmax())
        assert (np.diff(stage[: peak + 1]) > 0).all() and (np.diff(stage[peak:]) < 0).all()
    assert model._relative_lr(14) == pytest.approx(0, abs=1e-9)


# The stages


class MetaphaseStore(Dataset[dict[str, Tensor]]):
    """Eight random images, always the same."""

    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.images[index], "label": torch.tensor(index % 4)}


class Diary(Callback):
    """Notes the stage of every batch, the state after every epoch, and what was measured."""

    def __init__(
        self, folder: Path | None = None, save_within: tuple[int, int] | None = None
    ) -> None:
        self.folder = folder
        self.save_within = save_within  # epoch and batch
        self.batches: list[tuple[int, int, bool]] = []
        self.states: list[dict[str, Tensor]] = []
        self.metrics: list[set[str]] = []

    def on_train_batch_end(self, trainer: Trainer, model: Any, *args: Any) -> None:
        training = model.network.branches["global"][-1].bn1.training
        self.batches.append((trainer.current_epoch, model.stage, training))
        if self.folder and (trainer.current_epoch, args[-1]) == self.save_within:
            trainer.save_checkpoint(self.folder / "within.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, model: Any) -> None:
        self.states.append({k: v.clone() for k, v in model.state_dict().items()})
        self.metrics.append({key for key in trainer.callback_metrics if key.startswith("val/")})
        if self.folder and not self.save_within:
            trainer.save_checkpoint(self.folder / f"epoch{trainer.current_epoch}.ckpt")


def fit(diary: Diary, model: McnnGo, ckpt_path: Path | None = None, **options: Any) -> None:
    trainer = Trainer(
        max_epochs=sum(model.stage_epochs),
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[diary],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    loader = DataLoader(MetaphaseStore(), batch_size=2)
    trainer.fit(model, loader, loader, ckpt_path=ckpt_path, weights_only=True)


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Parts of the model of which any tensor moved, counters left out."""
    parts = {
        "network.branches": "branches",
        "branch_heads": "heads of the branches",
        "network.classifier": "classifier",
        "network.merge": "merge",
    }
    return {
        name
        for key, value in after.items()
        if value.is_floating_point() and not torch.equal(value, before[key])
        for prefix, name in parts.items()
        if key.startswith(prefix)
    }


@pytest.mark.parametrize("merge", COUNTS)
def test_each_stage_teaches_its_part(merge: Any, tiny: None) -> None:
    model = McnnGo(merge=merge, stage_epochs=[1, 2, 1])
    start = {k: v.clone() for k, v in model.state_dict().items()}
    diary = Diary()
    fit(diary, model)
    upper = {"classifier"} | ({"merge"} if merge == "linear" else set())
    states = [start, *diary.states]
    moved = [changed(before, after) for before, after in pairwise(states)]
    assert moved == [{"branches", "heads of the branches"}, upper, upper, upper | {"branches"}]
    # 4 batches an epoch; running statistics move in the stages 1 and 3 only.
    stages = [1] * 4 + [2] * 8 + [3] * 4
    assert [stage for _, stage, _ in diary.batches] == stages
    assert [training for *_, training in diary.batches] == [stage != 2 for stage in stages]
    running = [k for k in start if "running_mean" in k or "running_var" in k]
    assert len(running) == 6
    for key in running:
        assert not torch.equal(states[0][key], states[1][key])
        assert torch.equal(states[1][key], states[3][key])
        assert not torch.equal(states[3][key], states[4][key])
    # In the last stage every tensor of the network learns.
    silent = {k for k, v in states[4].items() if torch.equal(v, states[3][k])}
    assert not {k for k in silent if k.startswith("network.")}
    assert diary.metrics[0] == {"val/accuracy", "val/branch_accuracy"}
    assert "val/loss" in diary.metrics[-1]


def test_the_branches_learn_apart_from_each_other(tiny: None) -> None:
    """What one branch sees has no say in how another learns."""
    model = McnnGo(merge="sum", stage_epochs=[1, 0, 0])
    fit(Diary(), model)
    torch.manual_seed(0)
    other = McnnGo(merge="sum", stage_epochs=[1, 0, 0])

    class Blind(Callback):
        def on_train_batch_start(self, trainer: Trainer, model: Any, batch: Any, _: int) -> None:
            batch["image"][:, 2] = 0

    trained = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[Blind()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trained.fit(other, DataLoader(MetaphaseStore(), batch_size=2))
    first, second = model.network.state_dict(), other.network.state_dict()
    for key in first:
        if key.startswith(("branches.global", "branches.straighten")):
            torch.testing.assert_close(first[key], second[key])
    key = "branches.local.1.conv1.weight"
    assert not torch.allclose(first[key], second[key])


OPTIONS: dict[str, Any] = {"merge": "sum", "stage_epochs": [1, 2, 1]}


def test_a_run_resumed_in_the_second_stage_ends_like_an_uninterrupted_one(
    tiny: None, tmp_path: Path
) -> None:
    whole = Diary(tmp_path)
    fit(whole, McnnGo(**OPTIONS))
    torch.manual_seed(1)
    resumed = Diary()
    fit(resumed, McnnGo(**OPTIONS), tmp_path / "epoch1.ckpt")
    assert resumed.batches == whole.batches[8:]
    assert [stage for _, stage, _ in resumed.batches] == [2] * 4 + [3] * 4
    for key, value in whole.states[-1].items():
        torch.testing.assert_close(resumed.states[-1][key], value, rtol=1e-4, atol=1e-6)


def test_a_run_resumed_within_an_epoch_finds_its_stage(tiny: None, tmp_path: Path) -> None:
    fit(Diary(tmp_path, save_within=(2, 1)), McnnGo(**OPTIONS))
    saved = torch.load(tmp_path / "within.ckpt", weights_only=True)
    assert saved["epoch"] == 2
    resumed = Diary()
    fit(resumed, McnnGo(**OPTIONS), tmp_path / "within.ckpt")
    assert resumed.batches[0] == (2, 2, False)
    assert changed(saved["state_dict"], resumed.states[0]) == {"classifier"}
    assert resumed.batches[-1] == (3, 3, True)


def test_the_stages_must_fill_the_run(tiny: None) -> None:
    model = McnnGo(merge="sum", stage_epochs=[1, 1, 1])
    trainer = Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    with pytest.raises(ValueError, match=r"max_epochs is 5.*\[1, 1, 1\] make 3"):
        trainer.fit(model, DataLoader(MetaphaseStore(), batch_size=2))


@pytest.mark.parametrize("clip", [None, 1.0])
def test_bfloat16_with_and_without_clipping(clip: float | None, tiny: None) -> None:
    model = McnnGo(merge="sum", stage_epochs=[0, 0, 1])
    diary = Diary()
    fit(diary, model, precision="bf16-mixed", gradient_clip_val=clip)
    assert model.trainer.optimizers[0].defaults["fused"] is (clip is None)
    assert all(value.isfinite().all() for value in diary.states[-1].values())
