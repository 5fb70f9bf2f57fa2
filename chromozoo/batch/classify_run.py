"""Run of ``classify``: one job reads all images and classifies them together."""

from collections.abc import Mapping, Sequence
from typing import Any

from chromozoo.batch.images import printable_path
from chromozoo.batch.results import ResultsFolder
from chromozoo.batch.run import progress_bar
from chromozoo.batch.signals import SignalWatch
from chromozoo.batch.worker import Message
from chromozoo.batch.worker_pool import Job, WorkerPool
from chromozoo.errors import ChromozooError

JSON, TABLE, KARYOGRAM = "predictions.json", "predictions.csv", "karyogram.png"
# Step that follows the reading of each image.
CLASSIFY_STEP = "classification"
# Predictions with a lower probability need review.
MIN_CERTAIN_PROBABILITY = 0.9


def run_classification(
    task: str,
    settings: Mapping[str, Any],
    files: Sequence[str],
    path_errors: Sequence[str],
    timeout: float,
    results: ResultsFolder,
    watch: SignalWatch,
) -> None:
    """Classify all images in a worker process, which writes the results.

    An image that exceeds the time limit or crashes the worker is left out by the next worker.

    Args:
        task: Dotted name of the task, such as ``chromozoo.batch.classify_task:ClassifyTask``.
        settings: Settings of the task.
        files: Paths of the images.
        path_errors: Messages of the paths that give no image.
        timeout: Time limit of one image in seconds; 0 for no limit.
        results: Folder of the results.
        watch: Watch of signals.

    Raises:
        ChromozooError: The model cannot be loaded, the images cannot be classified together, or the
            results cannot be written.
        Stopped: The run was stopped by a signal; no results were written.
    """
    image_errors: dict[str, str] = {}
    payload = {
        "files": list(files),
        "path_errors": list(path_errors),
        "image_errors": image_errors,
        "prepare_each": False,
    }
    failures: list[str] = []

    def on_message(job: Job, message: Message) -> None:
        if "failed" not in message:
            return
        step = message["failed"]
        is_crash = step == CLASSIFY_STEP and "final" not in message
        if step.isdecimal():
            image_errors[step] = message["message"]
        elif is_crash and not payload["prepare_each"]:
            # A single image may have crashed the worker: the next one prepares each separately.
            payload["prepare_each"] = True
        else:
            failures.append(message["message"])

    for _ in range(2):
        prepare_each = payload["prepare_each"]
        job = Job("classify", printable_path(settings["title"]), payload)
        pool = WorkerPool(task, settings, max_workers=1, timeout=timeout)
        try:
            with progress_bar(1), pool:
                pool.load_identity()
                pool.run([job], on_message, watch)
        finally:
            for pid in pool.ended_pids:
                results.remove_partial_files(pid)
        if payload["prepare_each"] == prepare_each:
            break
    if failures:
        raise ChromozooError(failures[0])
