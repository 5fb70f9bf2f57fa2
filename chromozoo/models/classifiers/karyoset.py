"""Karyoset: a set transformer that classifies all chromosomes of a cell together.

Ours. A classifier of single chromosomes (the *backbone*, any of the zoo) gives each chromosome
features and class probabilities. A small transformer sees these for all chromosomes of a cell,
their relative sizes, and the number of chromosomes of each class among the others, and corrects the
logits. It has no positions, so the order of the chromosomes does not matter (a set, as in Lee et
al., "Set Transformer", arXiv:1810.00825). A normal cell has a capacity of two for each class, and
the logits of a class over its capacity are lowered by a dual variable, as prices do in an auction
(:func:`solve_class_duals`): a soft form of the assignment of a cell. The scale of the dual
variables is learnt from real and composed cells, with gains and losses and incomplete ones
(:mod:`chromozoo.data.base.composed_cells`), so a third chromosome 21 may be found, and any number
of chromosomes classified.
"""

from typing import Any

import torch
from torch import Tensor, nn

from chromozoo.classes import CLASSES
from chromozoo.errors import ChromozooError
from chromozoo.images.preset import ChromosomePreset
from chromozoo.models.init_from import initialise_from
from chromozoo.models.registry import get_classifier, register_model
from chromozoo.tasks.classification import ChromosomeClassifier, mirrored
from chromozoo.tasks.classify import promote_to_float32
from chromozoo.tasks.networks import ClassifierNetwork

# Length and area of the foreground, the only measurements of an image beside its features.
N_SIZES = 2
# Chromosomes of each class in a normal cell: two, but one Y.
CAPACITY = tuple(1.0 if name == "Y" else 2.0 for name in CLASSES)
# Number and size of the dual steps: after these, the dual variables hardly change.
DUAL_STEPS, DUAL_STEP_SIZE = 30, 1.5
# Label smoothing leaves the logits of the zoo's classifiers too flat by about this factor.
SHARPNESS = 1.5


def solve_class_duals(logits: Tensor, cell: Tensor, weight: Tensor) -> Tensor:
    """Return the dual variables of the classes of each cell, which keep classes to their capacity.

    They are the dual solution of the nearest probabilities (in the Kullback-Leibler divergence)
    whose sums over the cell are no more than :data:`CAPACITY`, by coordinate steps.

    Args:
        logits: ``(B, 24)``.
        cell: ``(B,)`` number of the cell of each, 0 to C - 1.
        weight: ``(B,)`` weight of each chromosome in the sums, 0..1.

    Returns:
        ``(C, 24)`` nats, 0 or less: added to the logits.
    """
    capacity = logits.new_tensor(CAPACITY)
    dual = logits.new_zeros(int(cell.max()) + 1, len(CLASSES))
    for _ in range(DUAL_STEPS):
        share = (logits + dual[cell]).softmax(dim=1) * weight[:, None]
        total = torch.zeros_like(dual).index_add_(0, cell, share)
        dual = (dual - DUAL_STEP_SIZE * (total.clamp_min(1e-6) / capacity).log()).clamp_max(0)
    return dual


class KaryosetNetwork(ClassifierNetwork):
    """A backbone, and a transformer over the chromosomes of each cell.

    Args:
        backbone: Network of a classifier of single chromosomes.
        features: Length of its feature vectors.
        background: Value of an empty pixel in the normalised images.
        width: Width of the tokens, one for each chromosome.
        layers: Layers of the transformer.
        heads: Attention heads of each layer.
        dropout: Dropout rate in the transformer.
    """

    def __init__(
        self,
        backbone: ClassifierNetwork,
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
        # The names of these layers are those of the tensors in the weights files.
        # Projections to a token: features, prior logits, sizes, class counts, dual variables.
        self.look = nn.Sequential(
            nn.LayerNorm(features), nn.Linear(features, width), nn.Dropout(dropout)
        )
        self.opinion = nn.Linear(len(CLASSES), width)
        self.size = nn.Linear(2 * N_SIZES, width)
        self.census = nn.Linear(len(CLASSES), width)
        self.price = nn.Linear(len(CLASSES), width)
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))
        # Scale of the dual variables.
        self.thrift = nn.Parameter(torch.tensor(1.0))
        # Mask token: replaces features and prior logits of a chromosome hidden in training.
        self.unseen = nn.Parameter(torch.zeros(width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.cell = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.name = nn.Linear(width, len(CLASSES))
        # At first the logits are those of the backbone and the dual variables of the cell.
        nn.init.zeros_(self.name.weight)
        nn.init.zeros_(self.name.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return features, length and area of each image ``(B, channels, H, W)``: ``(B, F + 2)``.

        Length and area are shares of the canvas, 0..1.
        """
        inside = x[:, 0] > self.background + 1e-3
        features = promote_to_float32(self.backbone.forward_features(x))
        length = inside.any(dim=2).to(features.dtype).mean(dim=1)
        area = inside.to(features.dtype).mean(dim=(1, 2))
        return torch.cat([features, length[:, None], area[:, None]], dim=1)

    def forward_head(
        self, features: Tensor, cells: Tensor | None = None, hidden: Tensor | None = None
    ) -> Tensor:
        """Return the logits ``(B, 24)`` of :meth:`forward_features`.

        Args:
            features: ``(B, F + 2)``.
            cells: ``(B,)`` int, a number for each cell, in any order; None takes each chromosome
                for a cell of its own.
            hidden: ``(B,)`` bool: of these chromosomes only the size is used; None hides none.
        """
        # What is summed and compared stays in single precision or better, layers have their own.
        own = self.norm.weight.dtype
        image_features, size = features[:, : self.features].to(own), features[:, self.features :]
        if cells is None:
            cells = torch.arange(len(features), device=features.device)
        cell = torch.unique(cells, return_inverse=True)[1]
        number = cell.bincount()
        size = size.clamp_min(1e-4).log()
        mean = size.new_zeros(len(number), N_SIZES).index_add_(0, cell, size)
        relative = size - (mean / number[:, None])[cell]
        prior = self.sharpness.to(features.dtype) * promote_to_float32(
            self.backbone.forward_head(image_features)
        )
        tokens = self.look(image_features) + self.opinion(prior.log_softmax(dim=1).to(own))
        visible = torch.ones_like(prior[:, 0])
        if hidden is not None:
            visible = 1 - hidden.to(prior.dtype)
            tokens = torch.where(hidden[:, None], self.unseen, tokens)
            prior = torch.where(hidden[:, None], 0.0, prior)
        with torch.no_grad():
            dual = solve_class_duals(prior, cell, visible)[cell]
            # Class counts of the other chromosomes: attention alone learns to count slowly.
            share = (prior + dual).softmax(dim=1) * visible[:, None]
            total = share.new_zeros(len(number), len(CLASSES))
            others = total.index_add_(0, cell, share)[cell] - share
        tokens = tokens + self.size(torch.cat([size, relative], dim=1).to(own))
        tokens = tokens + self.census(others.to(own)) + self.price(dual.to(own))

        correction = self.name(self.norm(self._attend_within_cells(tokens, cell)))
        logits: Tensor = prior + self.thrift.to(dual.dtype) * dual + promote_to_float32(correction)
        return logits

    def _attend_within_cells(self, tokens: Tensor, cell: Tensor) -> Tensor:
        """Apply the transformer: each token ``(B, width)`` sees those of its own cell alone."""
        number = cell.bincount()
        order = cell.argsort(stable=True)
        before = (number.cumsum(0) - number)[cell[order]]
        row = cell[order], torch.arange(len(cell), device=cell.device) - before
        padded = tokens.new_zeros(len(number), int(number.max()), tokens.shape[1])
        padded = padded.index_put(row, tokens[order])
        empty = torch.ones(padded.shape[:2], dtype=torch.bool, device=cell.device)
        empty[row] = False
        attended = self.cell(padded, src_key_padding_mask=empty)[row]
        return torch.empty_like(attended).index_copy(0, order, attended)

    def polarity(self, features: Tensor) -> Tensor:
        """Return the polarity logits ``(B, 24)`` of the backbone."""
        image_features = features[:, : self.features].to(self.norm.weight.dtype)
        return self.backbone.polarity(image_features)


class Karyoset(ChromosomeClassifier):
    """A trained backbone, and the transformer over its cells with its training.

    The data must give whole cells (``composed`` of
    :class:`chromozoo.data.base.chromosome_datamodule.ChromosomeDataModule`).

    Args:
        preset: Preparation of the images, that of the backbone's weights.
        backbone: Name of a classifier of the zoo.
        init_from: Source of the backbone's weights, ``"chromozoo/<model>:<tag>"`` or a checkpoint
            of it; they stay unchanged. None trains the backbone, too, from random numbers.
        polarity: Whether the backbone predicts polarity.
        width, layers, heads, dropout: See :class:`KaryosetNetwork`.
        count: Weight of the squared difference between the number of chromosomes of each class in
            the cell and the sum of the probabilities of that class.
        hidden: Share of the chromosomes whose images are hidden in training: their classes must
            then follow from the rest of the cell.
        label_smoothing: Share of the target that is spread over all classes.
        **recipe: See :class:`chromozoo.tasks.classification.ChromosomeClassifier`.
    """

    sees_cells = True
    training_arguments = ChromosomeClassifier.training_arguments | {"count", "hidden"}
    fixed_arguments = frozenset({"centre_loss", "contrastive"})

    network: KaryosetNetwork

    def __init__(
        self,
        preset: dict[str, Any] | ChromosomePreset | None = None,
        backbone: str = "chromozoo_small",
        init_from: str | None = None,
        polarity: bool = False,
        width: int = 128,
        layers: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
        count: float = 0.1,
        hidden: float = 0.1,
        label_smoothing: float = 0.0,
        **recipe: Any,
    ) -> None:
        canvas = self.make_preset(preset)
        # Not every backbone takes the argument.
        with_polarity = {"polarity": True} if polarity else {}
        single = get_classifier(backbone, weights=None, preset=preset, **with_polarity).network
        with torch.no_grad():
            channels = max(canvas.channels, len(canvas.views))
            blank = torch.zeros(1, channels, canvas.height, canvas.width)
            features = single.eval().forward_features(blank).shape[1]
        if init_from is not None:
            initialise_from(single, init_from)
            single.requires_grad_(False)
        network = KaryosetNetwork(
            single, features, -canvas.mean / canvas.std, width, layers, heads, dropout
        )
        super().__init__(
            network,
            features,
            preset=preset,
            label_smoothing=label_smoothing,
            centre_loss=None,
            contrastive=0.0,
            polarity=False,  # the backbone has this head
            **recipe,
        )
        self.polarity = polarity
        self.count = count
        self.hidden = hidden
        self.frozen = init_from is not None

    def train(self, mode: bool = True) -> "Karyoset":
        super().train(mode)
        if self.frozen:
            self.network.backbone.eval()
        return self

    def on_fit_start(self) -> None:
        data: Any = getattr(self.trainer, "datamodule", None)
        if getattr(data, "composed", None) is None:
            raise ChromozooError(
                "karyoset learns from whole cells, and these data give single chromosomes: set "
                "data.init_args.composed, as configs/classification/karyoset_pki3.yaml does"
            )

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the cross-entropy and the weighted squared error of the class counts.

        Args:
            batch: ``image`` (B, channels, H, W), ``label`` (B,) and ``cell`` (B,), a number for
                each cell.
        """
        label, cell = batch["label"], batch["cell"]
        with torch.set_grad_enabled(not self.frozen):
            features = self.network.forward_features(mirrored(batch["image"]))
        hidden = torch.rand(len(label), device=label.device) < self.hidden
        logits = self.network.forward_head(features, cell, hidden)
        loss: Tensor = self.cross_entropy(logits, label)
        surplus = logits.softmax(dim=1) - nn.functional.one_hot(label, len(CLASSES))
        counts = surplus.new_zeros(int(cell.max()) + 1, len(CLASSES)).index_add(0, cell, surplus)
        count_loss: Tensor = counts.square().mean()
        return loss + self.count * count_loss

    def forward_with_polarity(
        self, x: Tensor, cells: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        features = self.network.forward_features(x)
        up = self.network.polarity(features) if self.polarity else None
        return self.network.forward_head(features, cells), up


@register_model(
    task="classification",
    paper="ours: a set transformer (Lee et al. 2019) over the features of a classifier",
    default_weights="pki3",
)
def karyoset(**kwargs: Any) -> Karyoset:
    """Classify all chromosomes of a cell together, any number of them; ``(B, 1 or 3, H, W)``."""
    return Karyoset(**kwargs)
