"""What the worker processes of a DataLoader need."""

import cv2


def limit_opencv_threads(num_workers: int) -> None:
    """To be called before ``num_workers`` worker processes are forked; with 0 it does nothing.

    A forked process inherits OpenCV's thread pool without its threads and waits for them for ever,
    also in ``cv2.setNumThreads``; so the pool goes before the fork, in the process that forks.
    """
    if num_workers:
        cv2.setNumThreads(1)
