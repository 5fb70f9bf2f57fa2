"""Preparation of a process before it forks the workers of a DataLoader."""

import cv2


def limit_opencv_threads(num_workers: int) -> None:
    """Stop the thread pool of OpenCV before worker processes are forked.

    A forked process inherits the pool without its threads and waits for them forever, also in
    ``cv2.setNumThreads``, so the parent has to stop it.

    Args:
        num_workers: Number of workers; 0 changes nothing.
    """
    if num_workers:
        cv2.setNumThreads(1)
