"""The large classifier: two views through one trunk, and how it begins."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer

from chromozoo.errors import WeightsError
from chromozoo.models.classifiers.chrnet4 import ChrNet4, chrnet4
from chromozoo.models.classifiers.chromozoo_large import ChromozooLarge, chromozoo_large

VIEWS = ["upright", "straight"]
CANVAS = {"height": 48, "width": 40, "views": VIEWS}


def test_one_trunk_serves_both_views() -> None:
    with torch.device("meta"):
        large, small = (
            sum(parameter.numel() for parameter in builder().network.parameters())
            for builder in (chromozoo_large, chrnet4)
        )
    assert large == small + 24 * 2048


def test_other_than_two_views_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not at 1; let its preset"):
        chromozoo_large().network(torch.rand(2, 1, 48, 40))
    with pytest.raises(ValueError, match="the preset gives"):
        chromozoo_large(preset={"views": ["upright"]})


def test_it_begins_as_chrnet4_on_both_views() -> None:
    torch.manual_seed(0)
    alone = chrnet4().network.eval()
    large = ChromozooLarge(preset=CANVAS).network.eval()
    large.load_chrnet4(alone.state_dict(), Path("chrnet4.ckpt"))
    views = torch.rand(4, 2, 48, 40)
    with torch.inference_mode():
        expected = (alone(views[:, :1]) + alone(views[:, 1:])) / 2
        torch.testing.assert_close(large(views), expected)


def test_it_begins_as_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for name, model in (
        ("chrnet4", ChrNet4(preset=CANVAS | {"views": ["upright"]}, polarity=True)),
        ("large", ChromozooLarge(preset=CANVAS)),
    ):
        path = tmp_path / f"{name}.ckpt"
        trainer = Trainer(logger=False, accelerator="cpu", max_epochs=0)
        trainer.strategy.connect(model)
        trainer.save_checkpoint(path)
        begun = ChromozooLarge(preset=CANVAS, init_from=str(path)).network
        expected = model.network.fc.weight
        if name == "chrnet4":
            expected = torch.cat([expected / 2] * 2, dim=1)
        torch.testing.assert_close(begun.fc.weight, expected)
        torch.testing.assert_close(begun.conv1.weight, model.network.conv1.weight)
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"network.fc.weight": torch.zeros(24, 2048)}}, other)
    with pytest.raises(WeightsError, match=r"other\.ckpt: does not fit this model"):
        ChromozooLarge(preset=CANVAS, init_from=str(other))


def test_it_begins_as_published_weights() -> None:
    large = ChromozooLarge(preset=CANVAS, init_from="chromozoo/chrnet4:bioimlab").network
    trunk = chrnet4_weights("bioimlab")
    torch.testing.assert_close(large.layer4[1].conv3.weight, trunk.layer4[1].conv3.weight)
    torch.testing.assert_close(large.fc.weight[:, 2048:], trunk.fc.weight / 2)


def chrnet4_weights(tag: str):
    from chromozoo.models.registry import get_model

    return get_model("chrnet4", weights=tag).network


def test_a_bent_chromosome_is_seen_straightened() -> None:
    import numpy as np

    y, x = np.mgrid[0:80, 0:60]
    bent = (abs(np.hypot(y - 40, x - 70) - 40) < 6) & (x < 58)
    tensor = chromozoo_large().transforms(np.where(bent, 200, 0).astype(np.uint8))
    assert tensor.shape == (2, 144, 60)
    across = (tensor > tensor.min()).any(dim=1).sum(dim=1)  # columns that each view fills
    assert across[1] < 0.75 * across[0]
