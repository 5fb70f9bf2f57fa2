"""Distribution of jobs over several machines by Lightning."""

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


class _JobModule(lightning.LightningModule):
    """Runs the jobs that a process gets, one job in each batch."""

    def __init__(self, run_job: Callable[[Job], None]) -> None:
        super().__init__()
        self.run_job = run_job
        # Strategies need a parameter that they can move to the device.
        self.dummy = torch.nn.Parameter(torch.zeros(1))

    def predict_step(self, batch: Sequence[Job | None], batch_idx: int) -> None:
        # Lightning only records SIGTERM; the remaining jobs are skipped here.
        if self.trainer.received_sigterm:
            return
        for job in batch:
            if job is not None:
                self.run_job(job)


def run_on_all_nodes(
    run_job: Callable[[Job], None], jobs: Sequence[Job], n_processes: int, n_nodes: int
) -> tuple[bool, int | None]:
    """Run each job in one of the processes of all machines.

    Args:
        run_job: Runs one job; raises nothing.
        jobs: All jobs, the same list in each process.
        n_processes: Number of processes on each machine.
        n_nodes: Number of machines; Lightning's manual says how they find each other.

    Returns:
        Whether this is the first of all processes, and the signal that stopped the run, if any.
    """
    # Lightning's messages about devices and its products are of no use to users of the command.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec", FutureWarning)
    # Each process must get the same number of batches, and at least one.
    count = n_processes * n_nodes
    batches: list[Job | None] = [*jobs, *[None] * (-len(jobs) % count or count * (not jobs))]
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=n_processes,
        num_nodes=n_nodes,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[RichProgressBar()],
    )
    module = _JobModule(run_job)
    loader: DataLoader[Any] = DataLoader(
        batches,  # type: ignore[arg-type]  # a list is a Dataset, too
        batch_size=1,
        collate_fn=list,
    )
    trainer.predict(module, loader, return_predictions=False)
    trainer.strategy.barrier()
    stop_signal = int(signal.SIGTERM) if trainer.received_sigterm else None
    return trainer.is_global_zero, stop_signal
