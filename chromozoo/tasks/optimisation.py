"""The optimiser and schedule that all tasks share."""

from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import nn

OptimizerName = Literal["adamw", "sgd"]


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
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        chosen,
        max_lr=lr,
        total_steps=int(task.trainer.estimated_stepping_batches),
        pct_start=0.15,
    )
    return {"optimizer": chosen, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
