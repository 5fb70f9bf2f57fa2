"""Karyoset: names a chromosome by itself and by all others of its cell.

Ours. A classifier that looks at one chromosome at a time (the *backbone*, any of the zoo) says
what each looks like. A small transformer sees its features for all chromosomes of a cell, their
relative sizes, and how many of each class the others seem to be, and corrects the names. It has no
positions, so the order of the chromosomes does not matter (a set, as in Lee et al., "Set
Transformer", arXiv:1810.00825). A normal cell has room for two of each class, and a class that is
overdrawn gets a price, as in an auction (:func:`class_prices`): a soft form of the assignment of a
cell. How much such a price counts is learnt from real and composed cells, with gains and losses and
incomplete ones (:mod:`chromozoo.data.base.composed_cells`), so a third chromosome 21 may be found, and
any number of chromosomes named.
"""

from typing import Any

import torch
from torch import Tensor, nn

from chromozoo.classes import CLASSES
from chromozoo.errors import ChromozooError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.models.init_from import initialise_from
from chromozoo.models.registry import get_model, register_model
from chromozoo.tasks.classification import ChromosomeClassifier, at_least_float32, mirrored
from chromozoo.tasks.optimisation import OptimizerName

# Length and area of the foreground, the only things that are told of an image beside its features.
SIZES = 2
# Room of a normal cell: two of each, but one Y.
ROOM = tuple(1.0 if name == "Y" else 2.0 for name in CLASSES)
# Steps of the auction, and how far each goes: after these, prices hardly change.
ROUNDS, STEP = 30, 1.5
# Label smoothing leaves the logits of the zoo's classifiers too flat by about this factor.
SHARPNESS = 1.5


def class_prices(logits: Tensor, cell: Tensor, weight: Tensor) -> Tensor:
    """What a chromosome must pay for each class, so that no class of a cell is overdrawn.

    The prices are the dual solution of the nearest probabilities (in the Kullback-Leibler
    divergence) whose sums over the cell are no more than :data:`ROOM`, by coordinate steps.

    Args:
        logits: ``(B, 24)``.
        cell: ``(B,)`` number of the cell of each, 0 to C - 1.
        weight: ``(B,)`` how much of a chromosome each is, 0..1.

    Returns:
        ``(C, 24)`` nats, 0 or less: added to the logits.
    """
    room = logits.new_tensor(ROOM)
    price = logits.new_zeros(int(cell.max()) + 1, len(CLASSES))
    for _ in range(ROUNDS):
        share = (logits + price[cell]).softmax(dim=1) * weight[:, None]
        taken = torch.zeros_like(price).index_add_(0, cell, share)
        price = (price - STEP * (taken.clamp_min(1e-6) / room).log()).clamp_max(0)
    return price


class KaryosetNetwork(nn.Module):
    """A backbone, and a transformer over the chromosomes of each cell.

    Args:
        backbone: A network with ``forward_features`` and ``forward_head``.
        features: Length of its feature vectors.
        background: Value of an empty pixel in the normalised images.
        width: Of the tokens, one for each chromosome.
        layers: Of the transformer.
        heads: Of its attention.
        dropout: Within it.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        background: float,
        width: int = 128,
        layers: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.background = background
        self.features = features
        self.look = nn.Sequential(
            nn.LayerNorm(features), nn.Linear(features, width), nn.Dropout(dropout)
        )
        self.opinion = nn.Linear(len(CLASSES), width)
        self.size = nn.Linear(2 * SIZES, width)
        self.census = nn.Linear(len(CLASSES), width)
        self.price = nn.Linear(len(CLASSES), width)
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))
        # How much of the price counts.
        self.thrift = nn.Parameter(torch.tensor(1.0))
        # In place of look and opinion, where the chromosome's image is hidden in training.
        self.unseen = nn.Parameter(torch.zeros(width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.cell = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.name = nn.Linear(width, len(CLASSES))
        # At first the names are those of the backbone, at the prices of the cell.
        nn.init.zeros_(self.name.weight)
        nn.init.zeros_(self.name.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Of each image ``(B, channels, H, W)``: features, length and area, ``(B, F + 2)``.

        Length and area are shares of the canvas, 0..1.
        """
        network: Any = self.backbone
        inside = x[:, 0] > self.background + 1e-3
        features = at_least_float32(network.forward_features(x))
        length = inside.any(dim=2).to(features.dtype).mean(dim=1)
        area = inside.to(features.dtype).mean(dim=(1, 2))
        return torch.cat([features, length[:, None], area[:, None]], dim=1)

    def forward_head(
        self, evidence: Tensor, cells: Tensor | None = None, hidden: Tensor | None = None
    ) -> Tensor:
        """Logits ``(B, 24)`` of what :meth:`forward_features` gives.

        Args:
            evidence: ``(B, F + 2)``.
            cells: ``(B,)`` int: those with one number are of one cell, in any order; None takes
                each for a cell of its own.
            hidden: ``(B,)`` bool: the size alone is shown of these; None shows all.
        """
        network: Any = self.backbone
        # What is summed and compared stays in single precision or better, layers have their own.
        own = self.norm.weight.dtype
        features, size = evidence[:, : self.features].to(own), evidence[:, self.features :]
        if cells is None:
            cells = torch.arange(len(evidence), device=evidence.device)
        cell = torch.unique(cells, return_inverse=True)[1]
        number = cell.bincount()
        size = size.clamp_min(1e-4).log()
        mean = size.new_zeros(len(number), SIZES).index_add_(0, cell, size)
        relative = size - (mean / number[:, None])[cell]
        alone = self.sharpness.to(evidence.dtype) * at_least_float32(network.forward_head(features))
        seen = self.look(features) + self.opinion(alone.log_softmax(dim=1).to(own))
        visible = torch.ones_like(alone[:, 0])
        if hidden is not None:
            visible = 1 - hidden.to(alone.dtype)
            seen = torch.where(hidden[:, None], self.unseen, seen)
            alone = torch.where(hidden[:, None], 0.0, alone)
        with torch.no_grad():
            price = class_prices(alone, cell, visible)[cell]
            # How many of each class the others are: attention alone learns to count slowly.
            counted = (alone + price).softmax(dim=1) * visible[:, None]
            total = counted.new_zeros(len(number), len(CLASSES))
            others = total.index_add_(0, cell, counted)[cell] - counted
        tokens = seen + self.size(torch.cat([size, relative], dim=1).to(own))
        tokens = tokens + self.census(others.to(own)) + self.price(price.to(own))

        told = self.name(self.norm(self._among_themselves(tokens, cell)))
        logits: Tensor = alone + self.thrift.to(price.dtype) * price + at_least_float32(told)
        return logits

    def _among_themselves(self, tokens: Tensor, cell: Tensor) -> Tensor:
        """The transformer, in which each token ``(B, width)`` sees those of its own cell alone."""
        number = cell.bincount()
        order = cell.argsort(stable=True)
        before = (number.cumsum(0) - number)[cell[order]]
        row = cell[order], torch.arange(len(cell), device=cell.device) - before
        padded = tokens.new_zeros(len(number), int(number.max()), tokens.shape[1])
        padded = padded.index_put(row, tokens[order])
        empty = torch.ones(padded.shape[:2], dtype=torch.bool, device=cell.device)
        empty[row] = False
        seen = self.cell(padded, src_key_padding_mask=empty)[row]
        return torch.empty_like(seen).index_copy(0, order, seen)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, 24)``, each image as a cell of its own."""
        return self.forward_head(self.forward_features(x))

    def polarity(self, evidence: Tensor) -> Tensor:
        """The backbone's, ``(B, 24)``."""
        network: Any = self.backbone
        features = evidence[:, : self.features].to(self.norm.weight.dtype)
        logits: Tensor = network.polarity(features)
        return logits


class Karyoset(ChromosomeClassifier):
    """A backbone that is trained already, and the transformer over its cells with its training.

    The data must give whole cells (``composed`` of
    :class:`chromozoo.data.base.chromosome_datamodule.ChromosomeDataModule`).

    Args:
        preset: Arguments of :class:`ChromosomePreset`: those of the backbone's weights.
        backbone: Name of a classifier of the zoo.
        init_from: Where the backbone's weights come from, ``"chromozoo/<model>:<tag>"`` or a
            checkpoint of it; they stay as they are. None trains it, too, from random numbers.
        polarity: The backbone tells polarity.
        width, layers, heads, dropout: See :class:`KaryosetNetwork`.
        count: Weight of the squared difference between the number of chromosomes of each class in
            the cell and the sum of the probabilities of that class.
        hidden: Share of the chromosomes whose images are hidden in training: their names must
            then follow from the rest of the cell.
        lr, optimizer, weight_decay, label_smoothing, flip_average: See
            :class:`ChromosomeClassifier`.
    """

    sees_cells = True

    def __init__(
        self,
        preset: dict[str, Any] | None = None,
        backbone: str = "chromozoo_small",
        init_from: str | None = None,
        polarity: bool = False,
        width: int = 128,
        layers: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
        count: float = 0.1,
        hidden: float = 0.1,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        label_smoothing: float = 0.0,
        flip_average: bool = True,
    ) -> None:
        self.save_hyperparameters(ignore=["init_from"])
        canvas = ChromosomePreset(**(preset or {}))
        # Not every backbone tells polarity.
        arms = {"polarity": True} if polarity else {}
        alone: Any = get_model(backbone, weights=None, preset=preset, **arms).network
        with torch.no_grad():
            channels = max(canvas.channels, len(canvas.views))
            blank = torch.zeros(1, channels, canvas.height, canvas.width)
            features = alone.eval().forward_features(blank).shape[1]
        if init_from is not None:
            initialise_from(alone, init_from)
            alone.requires_grad_(False)
        network = KaryosetNetwork(
            alone, features, -canvas.mean / canvas.std, width, layers, heads, dropout
        )
        super().__init__(
            network,
            features,
            preset=preset,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            label_smoothing=label_smoothing,
            flip_average=flip_average,
        )
        self.polarity = polarity
        self.count = count
        self.hidden = hidden
        self.frozen = init_from is not None

    def train(self, mode: bool = True) -> "Karyoset":
        super().train(mode)
        network: Any = self.network
        if self.frozen:
            network.backbone.eval()
        return self

    def on_fit_start(self) -> None:
        data: Any = getattr(self.trainer, "datamodule", None)
        if getattr(data, "composed", None) is None:
            raise ChromozooError(
                "karyoset learns from whole cells, and these data give single chromosomes: set "
                "data.init_args.composed, as configs/classification/karyoset_pki3.yaml does"
            )

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Cross-entropy and the difference of the counts; ``cell`` (B,) says what is together."""
        network: Any = self.network
        label, cell = batch["label"], batch["cell"]
        with torch.set_grad_enabled(not self.frozen):
            evidence = network.forward_features(mirrored(batch["image"]))
        hidden = torch.rand(len(label), device=label.device) < self.hidden
        logits = network.forward_head(evidence, cell, hidden)
        loss: Tensor = self.cross_entropy(logits, label)
        surplus = logits.softmax(dim=1) - nn.functional.one_hot(label, len(CLASSES))
        counts = surplus.new_zeros(int(cell.max()) + 1, len(CLASSES)).index_add(0, cell, surplus)
        count_loss: Tensor = counts.square().mean()
        return loss + self.count * count_loss

    def forward_with_polarity(
        self, x: Tensor, cells: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        network: Any = self.network
        evidence = network.forward_features(x)
        up = network.polarity(evidence) if self.polarity else None
        return network.forward_head(evidence, cells), up


@register_model(
    task="classification",
    paper="ours: a set transformer (Lee et al. 2019) over the features of a classifier",
    default_weights="pki3",
)
def karyoset(**kwargs: Any) -> Karyoset:
    """Names all chromosomes of a cell together, any number of them; ``(B, 1 or 3, H, W)``."""
    return Karyoset(**kwargs)
