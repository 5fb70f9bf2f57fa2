"""The set transformer over a cell, and the cells that it is trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.drawn_gband import pki3_files, write_files
from lightning import Trainer

from chromozoo.benchmark.inference import cell_log_probabilities, predict
from chromozoo.classes import CLASS_INDEX
from chromozoo.data.base.composed_cells import Composition, batch_whole_cells, join_cells
from chromozoo.data.base.crop_dataset import CropDataset
from chromozoo.data.bioimlab import BioImLabDataModule
from chromozoo.data.pki3 import Pki3DataModule
from chromozoo.data.splits import load_split
from chromozoo.errors import ChromozooError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.models.classifiers.karyoset import (
    SHARPNESS,
    Karyoset,
    KaryosetNetwork,
    solve_class_duals,
)

PRESET = {"height": 48, "width": 40}
LABELS = np.repeat(np.arange(23), 2)  # a female cell: 1 to 22 and X, two of each


class Backbone(torch.nn.Module):
    """Says what the brightness of an image says: the class index / 24."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(200.0))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return x.amax(dim=(1, 2, 3))[:, None].expand(-1, 8)

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return -self.scale * (features[:, :1] - torch.arange(24) / 24).abs()


def told(network: KaryosetNetwork) -> KaryosetNetwork:
    """Its last layer begins as zero; with random numbers the rest of the cell has a say."""
    torch.nn.init.normal_(network.name.weight)
    return network.eval()


@pytest.fixture
def network() -> KaryosetNetwork:
    torch.manual_seed(0)
    return KaryosetNetwork(Backbone(), 8, background=-0.5, width=16, layers=2, heads=2)


@pytest.fixture
def model() -> Karyoset:
    torch.manual_seed(0)
    made = Karyoset(preset=PRESET, width=16, layers=1, heads=2, polarity=True).eval()
    told(made.network)  # type: ignore[arg-type]
    return made


def evidence(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 10, generator=torch.Generator().manual_seed(seed))


def test_at_first_it_says_what_its_backbone_says_at_the_prices_of_the_cell(
    network: KaryosetNetwork,
) -> None:
    rows, cell = evidence(46), torch.zeros(46, dtype=torch.int64)
    said = network.eval().forward_head(rows, cell)
    backbone: Any = network.backbone
    logits = SHARPNESS * backbone.forward_head(rows[:, :8])
    price = solve_class_duals(logits, cell, torch.ones(46))
    assert (price < -1).any()
    torch.testing.assert_close(said, logits + price)


def test_prices_leave_room_for_two_of_each() -> None:
    """Three look like an 8, the last of them a little like a 9, of which there is only one."""
    eight, nine = CLASS_INDEX["8"], CLASS_INDEX["9"]
    logits = torch.full((4, 24), -10.0)
    logits[:3, eight], logits[:3, nine] = 3.0, torch.tensor([-3.0, -2.0, 0.0])
    logits[3, nine] = 3.0
    # A second cell, to which nothing of this belongs: three certain X stay.
    other = torch.full((3, 24), -20.0)
    other[:, CLASS_INDEX["X"]] = 20.0
    cell, whole = torch.tensor([0] * 4 + [1] * 3), torch.ones(7)
    both = torch.cat([logits, other])
    price = solve_class_duals(both, cell, whole)
    assert price.shape == (2, 24) and (price <= 0).all()
    shares = (both + price[cell]).softmax(dim=1)
    assert shares[:4].argmax(dim=1).tolist() == [eight, eight, nine, nine]
    assert shares[:4].sum(dim=0)[eight] == pytest.approx(2, abs=0.05)
    assert (price[0, torch.arange(24) != eight] > -0.1).all()
    # Of what is not there nobody pays for.
    assert (solve_class_duals(both, cell, torch.tensor([1.0, 1, 0, 1, 1, 1, 0])) > -0.1).all()


def test_the_order_of_a_cell_does_not_matter(network: KaryosetNetwork) -> None:
    told(network)
    rows, cells = evidence(46), torch.zeros(46, dtype=torch.int64)
    mixed = torch.randperm(46, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        network.forward_head(rows[mixed], cells), network.forward_head(rows, cells)[mixed]
    )


def test_cells_do_not_see_one_another(network: KaryosetNetwork) -> None:
    told(network)
    rows = evidence(60)
    # Of 47, 12 and 1 chromosomes, mixed, with numbers that do not begin at 0.
    cells = torch.tensor([7] * 47 + [3] * 12 + [9])
    cells = cells[torch.randperm(60, generator=torch.Generator().manual_seed(2))]
    together = network.forward_head(rows, cells)
    for number in (3, 7, 9):
        own = cells == number
        alone = network.forward_head(rows[own], torch.zeros(int(own.sum()), dtype=torch.int64))
        torch.testing.assert_close(together[own], alone, atol=1e-5, rtol=1e-5)
    # And within a cell they do.
    each = network.forward_head(rows)
    assert not torch.allclose(together[cells == 7], each[cells == 7], atol=1e-3)
    torch.testing.assert_close(together[cells == 9], each[cells == 9], atol=1e-5, rtol=1e-5)


def test_sizes_are_those_of_the_foreground(network: KaryosetNetwork) -> None:
    images = torch.full((1, 1, 40, 20), -0.5)
    images[0, 0, 10:30, 5:10] = 1.0
    found = network.forward_features(images)
    assert found.shape == (1, 10)
    torch.testing.assert_close(found[0, 8:], torch.tensor([0.5, 0.125]))


@pytest.mark.slow
def test_a_hidden_chromosome_follows_from_the_rest_of_its_cell(network: KaryosetNetwork) -> None:
    """That is what the transformer adds to a backbone: of which class there is only one so far."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    classes, count = 6, 16
    for step in range(120):
        label = torch.arange(classes).repeat_interleave(2).repeat(count)
        cells = torch.arange(count).repeat_interleave(2 * classes)
        rows = torch.zeros(len(label), 10)
        rows[:, 0] = label / 24
        rows[torch.arange(len(label)), 1 + label] = 1
        rows[:, 8:] = 0.5
        hidden = torch.zeros(len(label), dtype=torch.bool)
        chosen = torch.randint(2 * classes, (count,), generator=generator)
        hidden[torch.arange(count) * 2 * classes + chosen] = True
        logits = network.train(step < 119).forward_head(rows, cells, hidden)
        loss = torch.nn.functional.cross_entropy(logits[hidden], label[hidden])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (logits[hidden].argmax(1) == label[hidden]).float().mean() > 0.9


def test_what_learns(model: Karyoset) -> None:
    batch = {
        # So many in one cell that an untrained backbone overdraws its classes.
        "image": torch.randn(130, 1, 48, 40),
        "label": torch.arange(130) % 24,
        "cell": torch.tensor([0] * 120 + [1] * 10),
    }
    for frozen in (True, False):
        model.frozen = frozen
        model.network.backbone.requires_grad_(not frozen)  # type: ignore[union-attr, operator]
        model.hidden = 0.3
        model.zero_grad()
        torch.manual_seed(0)
        model.train().loss(batch).backward()
        learnt = {
            name.partition(".")[0]
            for name, parameter in model.network.named_parameters()
            if parameter.grad is not None and parameter.grad.any()
        }
        own = {"look", "opinion", "size", "census", "price", "sharpness", "thrift"}
        own |= {"unseen", "cell", "norm", "name"}
        assert learnt == (own if frozen else own | {"backbone"})
        network: Any = model.network
        # Frozen, its batch norms must not follow the composed cells either.
        assert network.backbone.training != frozen
        assert network.cell.training


def test_single_chromosomes_are_refused(model: Karyoset, tiny_bioimlab: Path) -> None:
    data = BioImLabDataModule(str(tiny_bioimlab), num_workers=0)
    with pytest.raises(ChromozooError, match=r"data\.init_args\.composed"):
        Trainer(logger=False, fast_dev_run=1, accelerator="cpu").fit(model, datamodule=data)


def test_classify_sees_the_cell(model: Karyoset) -> None:
    rng = np.random.default_rng(0)
    images = []
    for length in range(20, 20 + 50):
        image = np.zeros((100, 40), np.uint8)
        image[10 : 10 + length, 12:24] = rng.integers(120, 250, (length, 1))
        images.append(image)
    alone = model.classify(images, batch_size=16)
    together = model.classify(images, as_cell=True, batch_size=16)
    part = model.classify(images[:25], as_cell=True)
    assert together.cell is not None and len(together) == 50
    one = np.stack([item.probabilities for item in alone])
    all_of_them = np.stack([item.probabilities for item in together])
    assert not np.allclose(one, all_of_them, atol=1e-4)
    assert not np.allclose(part[0].probabilities, all_of_them[0], atol=1e-4)
    assert together[0].p_arm_up is not None
    # Alone, it does not matter what else is in the batch.
    (single,) = model.classify(images[:1])
    np.testing.assert_allclose(single.probabilities, one[0], atol=1e-5)


def crops(cells: int, seed: int = 0) -> CropDataset:
    """Cells of 46 whose chromosomes are brighter the higher their class, lying mixed."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([rng.permutation(LABELS) for _ in range(cells)])
    ids = np.repeat(np.arange(cells), 46)
    mixed = rng.permutation(len(labels))
    images = np.zeros((len(labels), 48, 40), np.uint8)
    images[:, 8:40, 12:28] = (100 + 5 * labels)[:, None, None]
    return CropDataset(images[mixed], labels[mixed], ids[mixed], ChromosomePreset(**PRESET))


def test_prediction_does_not_part_cells_and_keeps_the_order(model: Karyoset) -> None:
    data = crops(3)
    by_batches, arms = predict(model, data, batch_size=8)
    assert arms is not None and arms.shape == by_batches.shape == (138, 24)
    of_rows = cell_log_probabilities(model, data)
    for cell in range(3):
        rows = np.flatnonzero(data.cells == cell)
        np.testing.assert_allclose(np.exp(of_rows(rows)), by_batches[rows], atol=1e-4)
    # A cell that has lost most of its chromosomes is looked at anew.
    few = rows[data.labels[rows] < 3]
    assert np.abs(np.exp(of_rows(few)) - by_batches[few]).max() > 1e-3


def test_whole_cells() -> None:
    batches = batch_whole_cells(["b", "a", "b", "c", "a", "c", "c"], min_rows=3)
    assert batches == [[0, 2, 1, 4], [3, 5, 6]]
    assert batch_whole_cells(["a"] * 5, min_rows=2) == [[0, 1, 2, 3, 4]]


# Composition


def drawn(composition: Composition, times: int = 200) -> list[np.ndarray]:
    labels = np.concatenate([LABELS] * 4)
    rng = np.random.default_rng(0)
    return [composition.draw_rows(np.arange(46), labels, rng) for _ in range(times)]


def test_a_plain_cell_stays_as_it_is() -> None:
    for rows in drawn(Composition(mixed=0, losses=0, gains=0, incomplete=0), 3):
        assert rows.tolist() == list(range(46))


def test_a_mixed_cell_has_the_same_classes() -> None:
    labels = np.concatenate([LABELS] * 4)
    mixed = drawn(Composition(mixed=1, losses=0, gains=0, incomplete=0), 20)
    assert all((labels[rows] == LABELS).all() for rows in mixed)
    of_others = np.mean([(rows >= 46).mean() for rows in mixed])
    assert 0.3 < of_others < 0.45  # half, of which a quarter are drawn from the cell itself


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [("losses", {43, 44, 45}), ("gains", {47, 48}), ("incomplete", set(range(1, 47)))],
)
def test_abnormal_cells(kind: str, numbers: set[int]) -> None:
    shares = {"mixed": 0.0, "losses": 0.0, "gains": 0.0, "incomplete": 0.0} | {kind: 1.0}
    sizes = {len(rows) for rows in drawn(Composition(**shares))}
    assert sizes <= numbers and len(sizes) >= min(len(numbers), 30)


def test_shares_must_make_sense() -> None:
    with pytest.raises(ValueError, match="together at most 1"):
        Composition(losses=0.5, gains=0.4, incomplete=0.2)


def test_the_data_module_composes_cells(tmp_path: Path) -> None:
    split = load_split("pki3_v1")
    for cell in (*split.train[:3], split.val[0]):
        write_files(tmp_path / "gband-pki3", pki3_files(cell))
    arguments: dict[str, Any] = {
        "root": tmp_path,
        "batch_size": 2,
        "num_workers": 0,
        "composed": {"mixed": 1.0, "losses": 0.0, "gains": 0.0, "incomplete": 0.0},
        "augmentation": {"flips": False, "scale": [0.7, 1.4], "bend": 0.0, "shear": 0.0},
        "preset": PRESET,
        "cache": str(tmp_path / "crops"),
    }
    data = Pki3DataModule(**arguments)
    first, second = list(data.train_dataloader())
    assert len(first["label"]) == 2 * 46 and len(second["label"]) == 46
    assert first["cell"].tolist() == [0] * 46 + [1] * 46
    assert first["image"].shape == (92, 1, 48, 40)
    assert first["label"].bincount()[:22].tolist() == [4] * 22
    assert first["upright"].all()
    again = next(iter(Pki3DataModule(**arguments).train_dataloader()))
    assert torch.equal(again["image"], first["image"])
    other = next(iter(Pki3DataModule(**arguments | {"seed": 1}).train_dataloader()))
    assert not torch.equal(other["image"], first["image"])
    # The whole cell grows or shrinks: within a cell the lengths keep their order.
    background = float(first["image"].min())
    for batch, rows in ((first, slice(0, 46)), (first, slice(46, 92))):
        lengths = (batch["image"][rows, 0] > background + 0.01).any(dim=2).sum(dim=1).double()
        plain = data.dataset("train")
        bare = torch.stack([plain[int(row)]["image"] for row in batch["index"][rows]])
        known = (bare[:, 0] > background + 0.01).any(dim=2).sum(dim=1).double()
        ratio = lengths / known
        assert ratio.std() / ratio.mean() < 0.12
    (val,) = list(data.val_dataloader())
    assert len(val["label"]) == 46 and val["cell"].unique().tolist() == [0]


def test_join_cells_numbers_them() -> None:
    items = [{"label": torch.arange(n), "cell": torch.full((n,), 5)} for n in (2, 3)]
    joined = join_cells(items)
    assert joined["label"].tolist() == [0, 1, 0, 1, 2]
    assert joined["cell"].tolist() == [0, 0, 1, 1, 1]


def test_the_backbone_may_look_at_two_views() -> None:
    torch.manual_seed(0)
    preset: dict[str, Any] = PRESET | {"views": ["upright", "straight"]}
    made = Karyoset(preset=preset, backbone="chromozoo_large", width=16, layers=1, heads=2).eval()
    network: Any = told(made.network)  # type: ignore[arg-type]
    views = torch.rand(6, 2, 48, 40)
    together = torch.zeros(6, dtype=torch.int64)
    with torch.inference_mode():
        evidence = network.forward_features(views)
        assert evidence.shape == (6, 2 * 2048 + 2)
        probabilities, up = made.predict_with_polarity(views, together)
    assert up is None
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(6))
