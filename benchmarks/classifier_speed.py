"""Speed of the small classifier relative to ChrNet4, in one run on the same threads.

    python benchmarks/classifier_speed.py [--threads 2]

Each network runs as shipped or published: `chromozoo_small` at its canvas, ChrNet4 at the 224x224
of its paper and at the canvas of the shipped weights, with the mean of four mirror images as in
`classify`. The networks are untrained, because weights do not change the speed. Batches of 46
chromosomes and of one are measured; the models take turns, and medians are compared.
"""

import argparse
import statistics
import time
from typing import Any

import torch

from chromozoo.models.registry import get_model

ROUNDS = 7
CANVASES = {
    "chromozoo_small": [(112, 48)],
    "chrnet4": [(144, 60), (224, 224)],
}


def main() -> None:
    """Print a table with the ratio to ChrNet4 at 224x224 in each line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    runs: dict[tuple[str, tuple[int, int]], Any] = {
        (name, canvas): get_model(name, weights=None).eval()
        for name, canvases in CANVASES.items()
        for canvas in canvases
    }
    print("images at once | model | input | ms an image | times as fast as ChrNet4 at 224x224")
    for batch in (1, 46):
        seconds: dict[tuple[str, tuple[int, int]], list[float]] = {key: [] for key in runs}
        for _ in range(ROUNDS):
            for key, model in runs.items():
                images = torch.rand(batch, 1, *key[1])
                start = time.perf_counter()
                with torch.inference_mode():
                    model.predict_with_polarity(
                        images.contiguous(memory_format=torch.channels_last)
                    )
                seconds[key].append(time.perf_counter() - start)
        # The first round warms up.
        medians = {key: statistics.median(values[1:]) for key, values in seconds.items()}
        peer = medians["chrnet4", (224, 224)]
        for (name, canvas), median in medians.items():
            print(
                f"{batch} | {name} | {canvas[0]}x{canvas[1]} | {1000 * median / batch:.1f} | "
                f"{peer / median:.1f}"
            )


if __name__ == "__main__":
    main()
