"""Work that several machines share, by Lightning: each process takes its part of the jobs."""

import logging
import signal
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import RichProgressBar
from torch.utils.data import DataLoader

from chromozoo.batch.worker_pool import Job


class _Share(lightning.LightningModule):
    """Does the jobs that a process gets, one batch each."""

    def __init__(self, work: Callable[[Job], None]) -> None:
        super().__init__()
        self.work = work
        # Strategies want something to move to their device.
        self.place = torch.nn.Parameter(torch.zeros(1))

    def predict_step(self, batch: Sequence[Job | None], batch_idx: int) -> None:
        # Lightning only notes that it was told to stop; what is left is then passed over.
        if self.trainer.received_sigterm:
            return
        for job in batch:
            if job is not None:
                self.work(job)


def predict(
    work: Callable[[Job], None], jobs: Sequence[Job], processes: int, nodes: int
) -> tuple[bool, int | None]:
    """Does all jobs, each in one of the processes.

    Args:
        work: Does one; it raises nothing.
        jobs: The same in all processes.
        processes: On each machine.
        nodes: Number of machines; Lightning's manual says how they find each other.

    Returns:
        Whether this is the first of all processes, and the signal that ended the run, if any.
    """
    # What Lightning tells of devices and its own products is nothing that a laboratory asked for.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec", FutureWarning)
    # Each process must get as many batches as the others, and at least one.
    count = processes * nodes
    batches: list[Job | None] = [*jobs, *[None] * (-len(jobs) % count or count * (not jobs))]
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=processes,
        num_nodes=nodes,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[RichProgressBar()],
    )
    module = _Share(work)
    listed: DataLoader[Any] = DataLoader(
        batches,  # type: ignore[arg-type]  # a list is a Dataset, too
        batch_size=1,
        collate_fn=list,
    )
    trainer.predict(module, listed, return_predictions=False)
    trainer.strategy.barrier()
    stopped = int(signal.SIGTERM) if trainer.received_sigterm else None
    return trainer.is_global_zero, stopped
