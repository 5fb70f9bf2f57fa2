"""mCNN_GO: three ResNet-50, one each for the upright, the straightened and the cropped chromosome.

Paper: N. Xie et al., "Statistical Karyotype Analysis Using CNN and Geometric Optimization", IEEE
Access 7, 2019, sections IV-C (straightening), IV-D (network) and V-B. The paper gives no parameter
count, and its "concatenation layer with 4096 nodes" cannot join three vectors of 2048; see
:class:`McnnGoNetwork`. Our other choices are stated where they are set.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from chromozoo.classes import CLASSES
from chromozoo.errors import TrainingError
from chromozoo.models.layers.channels import to_three_channels
from chromozoo.models.registry import register_model
from chromozoo.tasks.classification import FEATURE_LOSSES, ChromosomeClassifier
from chromozoo.tasks.networks import ClassifierNetwork
from chromozoo.tasks.optimisation import build_optimizer, total_steps

Merge = Literal["linear", "sum"]

BRANCHES = ("global", "straighten", "local")
BRANCH_FEATURES = 2048
FEATURES = len(BRANCHES) * BRANCH_FEATURES
MERGED = 4096
HIDDEN = 1024
# Each ResNet-50 halves its input five times, the entry once before.
MIN_SIDE = 64
WARM_UP = 0.15


def _trunk() -> nn.Module:
    # Each block begins as its shortcut (Goyal et al. 2017): steadier first epochs.
    trunk: nn.Module = resnet50(zero_init_residual=True)
    trunk.set_submodule("fc", nn.Identity())
    return trunk


class McnnGoNetwork(ClassifierNetwork):
    """The pure network: three branches, a layer that merges them, and two hidden layers.

    Input ``(B, 3, H, W)`` float, H and W from 64 up (the paper: 64x32 where the ResNets begin, so
    128x64 here); channel 0 is the original (upright) chromosome, 1 the straightened, 2 the cropped
    one. Output: logits ``(B, num_classes)``.

    Original and straightened first pass max pooling 2x2 and a convolution 3x3, as published; the
    cropped one, "fed into ResNet directly", is averaged over 2x2 pixels, so that all three ResNets
    get the same size (ours, the paper has all images at 64x32).

    Args:
        num_classes: Number of classes.
        merge: How the three vectors of 2048 become the published 4096: ``"linear"``, a linear layer
            and a ReLU; ``"sum"``, original + straightened, then concatenated with cropped.
    """

    def __init__(self, num_classes: int = len(CLASSES), merge: Merge = "linear") -> None:
        super().__init__()
        if merge not in ("linear", "sum"):
            raise ValueError(f"unknown merge {merge!r}; use linear or sum")
        self.branches = nn.ModuleDict(
            {
                name: nn.Sequential(
                    *(
                        [nn.AvgPool2d(2)]
                        if name == "local"
                        else [nn.MaxPool2d(2), nn.Conv2d(3, 3, 3, padding=1)]
                    ),
                    _trunk(),
                )
                for name in BRANCHES
            }
        )
        self.merge = (
            nn.Sequential(nn.Linear(FEATURES, MERGED), nn.ReLU(inplace=True))
            if merge == "linear"
            else None
        )
        self.classifier = nn.Sequential(
            nn.Linear(MERGED, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, num_classes),
        )

    def forward_features(self, x: Tensor) -> Tensor:
        """Return pooled features ``(B, 6144)``: original, straightened, cropped, 2048 each.

        Raises:
            ValueError: Not three views, or the images are too small.
        """
        if x.shape[1] != len(BRANCHES):
            raise ValueError(
                f"mcnn_go looks at 3 views of a chromosome, not at {x.shape[1]}; let its preset "
                "prepare the images (model.transforms)"
            )
        if min(x.shape[2:]) < MIN_SIDE:
            raise ValueError(
                f"{x.shape[2]}x{x.shape[3]} pixels are too small for mcnn_go; it needs "
                f"{MIN_SIDE}x{MIN_SIDE} or more: raise height and width of the preset, and its "
                "scale with them"
            )
        features = [
            branch(to_three_channels(x[:, view : view + 1]))
            for view, branch in enumerate(self.branches.values())
        ]
        return torch.cat(features, dim=1)

    def forward_head(self, features: Tensor) -> Tensor:
        """Return the logits ``(B, num_classes)`` of pooled features ``(B, 6144)``."""
        if self.merge is not None:
            merged = self.merge(features)
        else:
            original, straightened, cropped = features.chunk(len(BRANCHES), dim=1)
            merged = torch.cat([original + straightened, cropped], dim=1)
        logits: Tensor = self.classifier(merged)
        return logits


class McnnGo(ChromosomeClassifier):
    """mCNN_GO with its training in three stages, as one run.

    1. The branches are trained, each with its own linear head for the 24 classes. These heads are
       in the checkpoint but not in the network: they serve the training alone.
    2. The branches are frozen, running statistics and entry convolutions included; the layers that
       merge them are trained.
    3. All parameters are trained, at ``fine_tune_lr``.

    The stage follows from the epoch, so a run that is resumed is in the right one. Each stage has
    a one-cycle schedule of its own (ours; the paper gives 0.0005 for the third and nothing else).

    ``val/accuracy`` is that of the whole model in every stage. It is chance in the first, where the
    merging layers are untrained, so no checkpoint of that stage becomes the best.
    ``val/branch_accuracy``, only logged in the first stage, is that of the mean of the branches'
    probabilities.

    Under DDP a part of the parameters has no gradient in the stages 1 and 2:
    ``--trainer.strategy ddp_find_unused_parameters_true``.

    Args:
        merge: See :class:`McnnGoNetwork`.
        stage_epochs: Epochs of the three stages. Their sum is ``trainer.max_epochs``.
        fine_tune_lr: Highest learning rate of the third stage; ``lr`` is that of the others.
        **recipe: See :class:`chromozoo.tasks.classification.ChromosomeClassifier`. The preset is
            128x64 at scale 1.3, views upright, straight and crop, by default.

    Raises:
        ValueError: ``stage_epochs`` are not three numbers of epochs, or the preset does not give
            three views.
    """

    # Three images of 128x64: 64x32 where the ResNets begin.
    default_preset: ClassVar[dict[str, Any]] = {
        "height": 128,
        "width": 64,
        "scale": 1.3,
        "views": ["upright", "straight", "crop"],
    }
    training_arguments = ChromosomeClassifier.training_arguments | {"stage_epochs", "fine_tune_lr"}
    fixed_arguments = FEATURE_LOSSES

    network: McnnGoNetwork

    def __init__(
        self,
        merge: Merge = "linear",
        stage_epochs: Sequence[int] = (9, 3, 6),
        fine_tune_lr: float = 5e-4,
        **recipe: Any,
    ) -> None:
        stage_epochs = list(stage_epochs)
        if len(stage_epochs) != 3 or min(stage_epochs) < 0 or not sum(stage_epochs):
            raise ValueError(
                f"stage_epochs is {stage_epochs}; give the epochs of the three stages, such as "
                "[9, 3, 6]"
            )
        super().__init__(
            McnnGoNetwork(merge=merge),
            FEATURES,
            centre_loss=None,
            contrastive=0.0,
            polarity=False,
            **recipe,
        )
        if len(self.transforms.views) != len(BRANCHES):
            raise ValueError(
                f"mcnn_go has a branch for each of 3 views, the preset gives "
                f"{list(self.transforms.views)}; give for example [upright, straight, crop]"
            )
        self.stage_epochs = stage_epochs
        self.fine_tune_lr = fine_tune_lr
        self.branch_heads = nn.ModuleList(
            nn.Linear(BRANCH_FEATURES, len(CLASSES)) for _ in BRANCHES
        )
        self.branch_accuracy = self.val_accuracy.clone()

    @property
    def stage(self) -> int:
        """The stage of the trainer's current epoch: 1, 2 or 3."""
        return 1 + self._stage_of(self.trainer.current_epoch)

    def _stage_of(self, epoch: float) -> int:
        """Return the index of the stage, 0 to 2; beyond the last epoch it is the third."""
        return sum(epoch >= end for end in list(accumulate(self.stage_epochs))[:2])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Here and not where an epoch begins: a run may be resumed within one.
        frozen = self.stage == 2
        branches = self.network.get_submodule("branches")
        branches.requires_grad_(not frozen).train(not frozen)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the cross-entropy; in the first stage the mean over the three branches."""
        features = self.network.forward_features(batch["image"])
        if self.stage > 1:
            loss: Tensor = self.cross_entropy(self.network.forward_head(features), batch["label"])
            return loss
        losses = [
            self.cross_entropy(logits, batch["label"]) for logits in self._branch_logits(features)
        ]
        return torch.stack(losses).mean()

    def _branch_logits(self, features: Tensor) -> list[Tensor]:
        """Return the logits of each branch by its own head, three times ``(B, 24)``."""
        parts = features.chunk(len(BRANCHES), dim=1)
        return [head(part) for head, part in zip(self.branch_heads, parts, strict=True)]

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        if self.stage > 1:
            super().validation_step(batch, batch_idx)
            return
        features = self.network.forward_features(batch["image"])
        by_branch = torch.stack(
            [logits.softmax(dim=-1) for logits in self._branch_logits(features)]
        )
        self.branch_accuracy(by_branch.mean(dim=0), batch["label"])
        self.log("val/branch_accuracy", self.branch_accuracy, prog_bar=True)
        # Untrained layers need no average over mirror images, which costs four times as much.
        self.val_accuracy(self.network.forward_head(features), batch["label"])
        self.log("val/accuracy", self.val_accuracy, prog_bar=True)

    def trained_parameters(self) -> Iterator[nn.Parameter]:
        return chain(self.network.parameters(), self.branch_heads.parameters())

    def configure_optimizers(self) -> Any:
        """Return the optimiser (AdamW is ours), and one cycle a stage.

        Raises:
            TrainingError: The stages do not fill the trainer's epochs.
        """
        epochs = self.trainer.max_epochs
        if epochs != sum(self.stage_epochs) and not getattr(self.trainer, "fast_dev_run", False):
            raise TrainingError(
                f"trainer.max_epochs is {epochs}, but stage_epochs {self.stage_epochs} make "
                f"{sum(self.stage_epochs)}: set max_epochs to that, or stage_epochs to others"
            )
        # 100 million parameters: on CPUs the fused step takes a tenth of the time. Lightning does
        # not clip gradients for it.
        fused = self.trainer.gradient_clip_val is None
        optimizer = build_optimizer(
            self.trained_parameters(), self.optimizer, self.lr, self.weight_decay, fused
        )
        steps_an_epoch = total_steps(self) / (epochs or 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self._relative_lr(step / steps_an_epoch)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _relative_lr(self, epoch: float) -> float:
        """Return the learning rate at an epoch, relative to ``lr``: up and down once a stage."""
        stage = self._stage_of(epoch)
        begin = sum(self.stage_epochs[:stage])
        share = min((epoch - begin) / max(self.stage_epochs[stage], 1), 1.0)
        highest = self.fine_tune_lr / self.lr if stage == 2 else 1.0
        if share < WARM_UP:
            return highest * (0.04 + 0.96 * share / WARM_UP)
        return highest * 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP)))


@register_model(
    task="classification",
    paper="Xie et al. 2019, IEEE Access 7, doi:10.1109/ACCESS.2019.2951723 (mCNN_GO)",
)
def mcnn_go(**kwargs: Any) -> McnnGo:
    """mCNN_GO (Xie et al. 2019), 100,963,712 parameters; input ``(B, 3, H, W)``, three views.

    Three ResNet-50: one for the upright chromosome, one for the straightened, one for the cropped.
    The preset makes the three views from one image; they are the channels of the input, 64x64 or
    larger.

    Differences from the paper, and our choices:

    - "A concatenation layer with 4096 nodes" cannot hold three vectors of 2048. The default
      (``merge="linear"``) brings their 6144 numbers to 4096 by a linear layer; ``merge="sum"`` adds
      original and straightened before, 75,793,792 parameters.
    - "Cropped" is not described. Here it is the upright chromosome cut to its box and stretched
      over the canvas, so its width and its bands are enlarged, and its length is lost.
    - The straightened view is read along a smooth medial axis (``straight``). The paper's method,
      one cut at the bend, is the view ``straight-xie``.
    - The original is turned upright first. Pre-training, optimiser, epochs and the schedule of the
      first two stages are not given: random weights, AdamW, one cycle a stage.
    """
    return McnnGo(**kwargs)
