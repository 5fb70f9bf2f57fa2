"""SiameseNet: the published count, the pair loss, and the prototypes."""

from pathlib import Path
from typing import cast

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from chromozoo.classes import CLASSES
from chromozoo.models.classifiers.siamese_net import (
    MEMORY,
    SiameseNet,
    SiameseNetNetwork,
    siamese_net,
)
from chromozoo.models.registry import get_model

SMALL = {"height": 44, "width": 40}


@pytest.fixture
def model() -> SiameseNet:
    torch.manual_seed(0)
    return SiameseNet(preset=SMALL)


def network_of(model: SiameseNet) -> SiameseNetNetwork:
    return cast(SiameseNetNetwork, model.network)


def batch_of(labels: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Images that are alike where their labels are: a pattern for each class, and noise."""
    patterns = torch.rand(24, 1, 44, 40, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(len(labels), 1, 44, 40, generator=torch.Generator().manual_seed(seed))
    return {"image": patterns[labels] + 0.1 * noise, "label": torch.tensor(labels)}


# The network


@pytest.mark.parametrize(("size", "count"), [((224, 224), 1_416_281), ((144, 60), 168_281)])
def test_parameter_count(size: tuple[int, int], count: int) -> None:
    with torch.device("meta"):
        network = SiameseNetNetwork(size)
    assert sum(p.numel() for p in network.parameters()) == count
    # Odd, and only the single unit of the pair head makes it so.
    assert sum(p.numel() for p in network.embed.parameters()) == count - 101


def test_the_logit_of_a_class_is_the_pair_head_on_its_prototype(model: SiameseNet) -> None:
    network = network_of(model)
    network.prototypes.uniform_()
    network.seen.fill_(1)
    features = torch.rand(3, 100)
    logits = network.forward_head(features)
    for row, k in ((0, 0), (1, 7), (2, 23)):
        alone = network.pair((features[row] - network.prototypes[k]).abs())
        torch.testing.assert_close(logits[row, k], alone[0])
    # Which of a pair comes first makes no difference.
    other = torch.rand(3, 100)
    assert torch.equal(network.compare(features, other), network.compare(other, features))


@pytest.mark.parametrize("size", [(35, 64), (64, 35)])
def test_a_size_too_small_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"at least 36x36 pixels, not {size[0]}x{size[1]}"):
        siamese_net(preset={"height": size[0], "width": size[1]})


def test_images_of_another_size_are_refused(model: SiameseNet) -> None:
    with pytest.raises(ValueError, match="built for images of 44x40 pixels, not 20x40"):
        model(torch.zeros(1, 1, 20, 40))


# The pair loss


def test_pair_loss_by_hand(model: SiameseNet) -> None:
    """One same-class pair and five others: half the weight for each kind."""
    batch = batch_of([3, 3, 5, 8])
    network = network_of(model.eval())
    with torch.inference_mode():
        loss = model.loss(batch)
        features = network.forward_features(batch["image"])
        pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
        logits = torch.stack([network.compare(features[a], features[b]) for a, b in pairs])
    same = nn.functional.softplus(-logits[0])
    other = nn.functional.softplus(logits[1:]).mean()
    torch.testing.assert_close(loss, (same + other) / 2)


@pytest.mark.parametrize("labels", [[1, 2], [4, 4], [6]])
def test_batches_without_one_kind_of_pair(model: SiameseNet, labels: list[int]) -> None:
    loss = model.train().loss(batch_of(labels))
    loss.backward()
    assert loss.isfinite()
    assert bool(loss > 0) == (len(labels) > 1)


def test_learns_to_name_what_it_only_compared(model: SiameseNet) -> None:
    """Four classes of 24: the other 20, which have no prototype, are never named."""
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=3e-3)
    labels = [0, 5, 22, 23] * 3
    model.train()
    for step in range(60):
        optimizer.zero_grad()
        loss = model.loss(batch_of(labels, seed=step))
        loss.backward()
        optimizer.step()
    assert loss < 0.3
    unseen = batch_of(labels, seed=1000)
    with torch.inference_mode():
        logits = model.eval()(unseen["image"])
    assert torch.equal(logits.argmax(dim=1), unseen["label"])


# The prototypes


def test_a_prototype_is_the_mean_of_its_first_images(model: SiameseNet) -> None:
    network = network_of(model)
    features = torch.rand(12, 100)
    labels = torch.tensor([2, 2, 9] * 4)
    for part in range(4):
        network.update_prototypes(
            features[3 * part : 3 * part + 3], labels[3 * part : 3 * part + 3]
        )
    for k in (2, 9):
        torch.testing.assert_close(network.prototypes[k], features[labels == k].mean(dim=0))
    assert network.seen.tolist() == [0, 0, 8, 0, 0, 0, 0, 0, 0, 4] + [0] * 14
    absent = [k for k in range(24) if k not in (2, 9)]
    assert not network.prototypes[absent].any()


def test_then_an_exponential_mean_that_forgets(model: SiameseNet) -> None:
    network = network_of(model)
    network.update_prototypes(torch.zeros(5 * MEMORY, 100), torch.full((5 * MEMORY,), 4))
    network.update_prototypes(torch.ones(10, 100), torch.full((10,), 4))
    torch.testing.assert_close(network.prototypes[4], torch.full((100,), 10 / MEMORY))
    for _ in range(60):
        network.update_prototypes(torch.ones(10, 100), torch.full((10,), 4))
    assert (network.prototypes[4] > 0.99).all() and (network.prototypes[4] <= 1).all()


def test_training_moves_prototypes_and_evaluation_does_not(model: SiameseNet) -> None:
    network = network_of(model)
    batch = batch_of([1, 1, 2])
    model.eval().loss(batch)
    assert not network.prototypes.any() and not network.seen.any()
    model.train().loss(batch)
    expected = network.forward_features(batch["image"]).detach()
    torch.testing.assert_close(network.prototypes[2], expected[2])
    torch.testing.assert_close(network.prototypes[1], expected[:2].mean(dim=0))
    assert not network.prototypes.requires_grad


def test_all_processes_move_to_the_same_prototypes(
    model: SiameseNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes, one with two images of zeros and one with three of ones."""
    sum_of_the_other = torch.zeros(24, 100)
    sum_of_the_other[6] = 3
    shares = [sum_of_the_other, torch.bincount(torch.full((3,), 6), minlength=24)]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda own: own.add_(shares.pop(0)))
    network = network_of(model)
    network.update_prototypes(torch.zeros(2, 100), torch.tensor([6, 6]))
    torch.testing.assert_close(network.prototypes[6], torch.full((100,), 3 / 5))
    assert network.seen[6] == 5 and not shares


def test_prototypes_travel_with_the_checkpoint(model: SiameseNet, tmp_path: Path) -> None:
    batch = batch_of(list(range(24)))
    loader = DataLoader([{key: batch[key][i] for key in batch} for i in range(24)], batch_size=8)  # type: ignore[arg-type]
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, loader, loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    network = network_of(model)
    assert network.seen.tolist() == [1] * len(CLASSES)
    again = get_model("siamese_net", weights=tmp_path / "last.ckpt")
    assert torch.equal(network_of(again).prototypes, network.prototypes)  # type: ignore[arg-type]
    x = torch.rand(2, 1, 44, 40)
    with torch.inference_mode():
        torch.testing.assert_close(again(x), model.eval()(x))
