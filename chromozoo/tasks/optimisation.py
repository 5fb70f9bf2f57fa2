"""The optimiser and the one-cycle schedule of all tasks."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from chromozoo.errors import TrainingError

OptimizerName = Literal["adamw", "sgd"]


class OneCycle(torch.optim.lr_scheduler.OneCycleLR):
    """torch's one-cycle schedule, which a training that is resumed for more epochs can prolong.

    torch restores the number of steps with the rest of a checkpoint, and fails at the first step
    beyond it. Here the number is that of the trainer: the learning rate continues as if the
    training had had this number of steps from its start.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before = state_dict.get("total_steps")
        if before not in (None, self.total_steps):
            rank_zero_warn(
                f"the checkpoint comes from a training of {before} steps, this one has "
                f"{self.total_steps}: its learning rate goes on as if it had had them from the "
                "start"
            )
        own = {"total_steps": self.total_steps, "_schedule_phases": self._schedule_phases}
        super().load_state_dict(state_dict | own)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the learning rates of the next step.

        Raises:
            TrainingError: All steps have been made.
        """
        if self.last_epoch > self.total_steps:
            raise TrainingError(
                f"the checkpoint has made {self.last_epoch - 1} steps, and this training has "
                f"{self.total_steps} in all: raise trainer.max_epochs (or trainer.max_steps), or "
                "begin anew with its weights: model.init_args.init_from, for models that have it"
            )
        rates: list[float | torch.Tensor] = super().get_lr()
        return rates


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    name: OptimizerName,
    lr: float,
    weight_decay: float,
    fused: bool | None = None,
) -> torch.optim.Optimizer:
    """Return an optimiser that spares biases and norms the weight decay.

    Args:
        parameters: Those that require a gradient are trained.
        name: ``"adamw"``, or ``"sgd"`` with momentum 0.9.
        lr: Learning rate.
        weight_decay: Weight decay of parameters with two or more dimensions.
        fused: Whether one kernel does the whole step; None leaves that to torch.
    """
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=fused)
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, fused=fused)


def one_cycle(
    task: LightningModule,
    parameters: Iterable[nn.Parameter],
    optimizer: OptimizerName,
    lr: float,
    weight_decay: float,
) -> Any:
    """Return the result of ``configure_optimizers``: one cycle over the trainer's steps.

    Args:
        task: Attached to a trainer, which knows the number of steps.
        parameters: Those that require a gradient are trained.
        optimizer: ``"adamw"``, or ``"sgd"`` with momentum 0.9.
        lr: Highest learning rate.
        weight_decay: Weight decay of parameters with two or more dimensions; norms and biases have
            none.

    Raises:
        TrainingError: The trainer does not know how many steps there will be.
    """
    built = build_optimizer(parameters, optimizer, lr, weight_decay)
    schedule = OneCycle(built, max_lr=lr, total_steps=total_steps(task), pct_start=0.15)
    return {"optimizer": built, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def total_steps(task: LightningModule) -> int:
    """Return the number of steps of the whole training, 1 or more.

    Raises:
        TrainingError: It is not known, because nothing or the time alone ends the training.
    """
    steps = task.trainer.estimated_stepping_batches
    if steps < 0 or not math.isfinite(steps):
        raise TrainingError(
            "the learning rate is laid over all steps of the training, and their number is not "
            "known: give trainer.max_epochs (or trainer.max_steps); trainer.max_time may stand "
            "beside it, and ends the training where it comes first"
        )
    return max(int(steps), 1)
