"""Speed of an epoch from the cache of prepared crops, relative to one without it.

Run: ``python benchmarks/preparation.py [--cells 8]``. It prints a ratio measured in one process on
simulated cells; absolute times depend on the machine.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from chromozoo.data import bioimlab
from chromozoo.data.splits import load_split
from chromozoo.images.preset import ChromosomePreset
from chromozoo.synthetic import write_bioimlab_layout


def seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Return the shortest time of several runs, the one least disturbed by other work."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=8)
    arguments = parser.parse_args()
    preset = ChromosomePreset(height=96, width=40)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "bioimlab-classification"
        cells = list(load_split(bioimlab.SPLIT).train[: arguments.cells])
        write_bioimlab_layout(root, cells, seed=0)
        images = [root / file.name for file in bioimlab.list_files(root)]

        def from_files() -> None:
            for image in images:
                preset(image)

        data = bioimlab.BioImLabDataModule(
            root=root, preset=preset, cache=str(Path(temporary) / "cache")
        )
        crops = data.dataset("train")

        def from_cache() -> None:
            for index in range(len(crops)):
                crops[index]

        slow, fast = seconds(from_files), seconds(from_cache)
    print(f"{len(images)} images: {1000 * slow / len(images):.3f} ms each from files, ")
    print(
        f"{1000 * fast / len(images):.3f} ms each from the cache: {slow / fast:.1f} times as fast"
    )


if __name__ == "__main__":
    main()
