"""The optimiser and schedule that all tasks share."""

import math
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from chromozoo.errors import TrainingError

OptimizerName = Literal["adamw", "sgd"]


class OneCycle(torch.optim.lr_scheduler.OneCycleLR):
    """torch's one cycle, which a training that is continued for more epochs can prolong.

    torch restores the number of steps with the rest of a checkpoint, and fails at the first step
    beyond it. Here the number is that of the trainer: the learning rate goes on as it would have if
    the training had been told so from its start.
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
        """Learning rates of the next step.

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


def one_cycle(
    task: LightningModule, network: nn.Module, optimizer: OptimizerName, lr: float, decay: float
) -> Any:
    """What ``configure_optimizers`` returns: one cycle over the trainer's steps.

    Args:
        task: Attached to a trainer, which knows the number of steps.
        network: Its parameters are trained, as far as they require a gradient.
        optimizer: ``"adamw"``, or ``"sgd"`` with momentum 0.9.
        lr: Highest learning rate.
        decay: Weight decay of weights with two or more dimensions; norms and biases have none.

    Raises:
        TrainingError: The trainer does not know how many steps there will be.
    """
    weights = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    chosen: torch.optim.Optimizer = (
        torch.optim.AdamW(groups, lr=lr)
        if optimizer == "adamw"
        else torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    )
    schedule = OneCycle(chosen, max_lr=lr, total_steps=total_steps(task), pct_start=0.15)
    return {"optimizer": chosen, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def total_steps(task: LightningModule) -> int:
    """Steps of the whole training, 1 or more: a schedule is laid over them.

    Raises:
        TrainingError: They are not known, because nothing or the time alone ends the training.
    """
    steps = task.trainer.estimated_stepping_batches
    if steps < 0 or not math.isfinite(steps):
        raise TrainingError(
            "the learning rate is laid over all steps of the training, and their number is not "
            "known: give trainer.max_epochs (or trainer.max_steps); trainer.max_time may stand "
            "beside it, and ends the training where it comes first"
        )
    return max(int(steps), 1)
