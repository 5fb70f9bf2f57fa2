"""Speed of the segmenters relative to torchvision's Mask R-CNN: one image, process and run.

    python benchmarks/segmentation_speed.py [MODEL ...]

The image is simulated (46 chromosomes in 768x576), so no data are needed. Untrained networks find
hundreds of false objects, so only figures with weights are meaningful; the script marks them. The
reference is torchvision's ``maskrcnn_resnet50_fpn``, untrained, with its own resizing to 800 pixels
and its default of 100 detections.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torchvision

from chromozoo.models.registry import get_model, list_models
from chromozoo.models.weights.index import weights_entries
from chromozoo.synthetic import draw_metaphase

REPEATS = 5


def seconds(run: Callable[[], object]) -> float:
    """Return the median time of some runs, after a first one in which torch warms up."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print the reference and each segmenter."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=list_models("segmentation"))
    arguments = parser.parse_args()
    image = draw_metaphase(np.random.default_rng(0)).image
    reference = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None
    ).eval()
    tensor = torch.from_numpy(image).float()[None].expand(3, -1, -1) / 255
    with torch.inference_mode():
        peer = seconds(lambda: reference([tensor]))
    print(f"{torch.get_num_threads()} threads, image 768x576")
    print(f"{'maskrcnn_resnet50_fpn (torchvision)':<40} {peer:6.2f} s")
    for name in arguments.models:
        trained = bool(weights_entries(name))
        model: Any = get_model(name, weights="DEFAULT" if trained else None)
        taken = seconds(partial(model.segment, image))
        words = f"{name} ({'trained' if trained else 'untrained'})"
        print(f"{words:<40} {taken:6.2f} s   {peer / taken:5.1f} times as fast")


if __name__ == "__main__":
    main()
