"""``chromozoo karyotype``: from pictures of metaphases to karyograms."""

import argparse
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo.cli.pictures import INTENDED_USE, find_pictures, output_names, results_folder
from chromozoo.errors import ChromozooError

if TYPE_CHECKING:
    from chromozoo.cells.karyotyper import Karyotyper

FAILED = ".failed.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, help="pictures of metaphases, or folders")
    parser.add_argument("--segmenter", default="chr_fast", help="see `chromozoo models`")
    parser.add_argument("--segmenter-weights", default="DEFAULT", help="tag or path")
    parser.add_argument("--classifier", default="chrnet4", help="see `chromozoo models`")
    parser.add_argument(
        "--classifier-weights", default="DEFAULT", help="the same of the classifier"
    )
    parser.add_argument(
        "--stain",
        choices=("auto", "q", "g"),
        default="auto",
        help="g: G-band; q: Q-band, DAPI; it chooses the weights (default: as the picture looks)",
    )
    parser.add_argument(
        "--assignment",
        choices=("cell", "none"),
        default="cell",
        help="name all chromosomes of a cell together, or each alone (default: %(default)s)",
    )
    parser.add_argument(
        "--score", type=float, help="leave out what the segmenter is less sure of, 0 to 1"
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="processes, or GPUs (default: %(default)s)"
    )
    parser.add_argument("--nodes", type=int, default=1, help="machines; see Lightning's manual")
    parser.add_argument(
        "--again", action="store_true", help="also do pictures again that are done already"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of the results (default: chromozoo-results/<name of the first path>)",
    )


def run(arguments: argparse.Namespace) -> int:
    from torch.utils.data import DataLoader

    from chromozoo import report
    from chromozoo.cells.karyotyper import Karyotyper

    for name in ("processes", "nodes"):
        if getattr(arguments, name) < 1:
            raise ChromozooError(f"--{name} {getattr(arguments, name)}: give 1 or more")
    if arguments.score is not None and not 0 <= arguments.score <= 1:
        raise ChromozooError(f"--score {arguments.score}: give a number from 0 to 1")
    files = find_pictures(arguments.paths, (report.KARYOGRAM, report.OVERLAY))
    names = dict(zip(files, output_names(files), strict=True))
    output = results_folder(arguments.output, arguments.paths)
    karyotyper = Karyotyper(
        arguments.segmenter,
        arguments.classifier,
        arguments.assignment,
        segmenter_weights=arguments.segmenter_weights,
        classifier_weights=arguments.classifier_weights,
        stain=arguments.stain,
        score=arguments.score,
    )
    waiting = [
        file
        for file in files
        if arguments.again or not _is_done(output / f"{names[file]}.json", file, karyotyper)
    ]
    if waiting:
        trainer = _trainer(arguments.processes, arguments.nodes, names, output)
        # Nothing is read before the model reads it; Lightning divides them among the processes.
        pictures: DataLoader[Path] = DataLoader(
            waiting,  # type: ignore[arg-type]  # a list is a Dataset, too
            batch_size=1,
            collate_fn=list,
        )
        trainer.predict(karyotyper, pictures, return_predictions=False)
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return 0
    failed = [
        message.read_text(encoding="utf-8")
        for file in files
        if (message := output / f"{names[file]}{FAILED}").exists()
    ]
    stems = [name for name in names.values() if (output / f"{name}.json").exists()]
    report.write_page(output, stems, failed, arguments.paths[0].resolve().name)
    _summarise(output, stems, len(files) - len(waiting))
    if failed:
        print(f"{len(failed)} of {len(files)} pictures could not be read:")
        print("\n".join(f"  {words}" for words in failed))
    return 1 if failed else 0


def _is_done(path: Path, file: Path, karyotyper: "Karyotyper") -> bool:
    """Whether the result is of this picture as it is now, by the same models and settings."""
    from chromozoo.report import FORMAT, models_of

    try:
        done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        newer = path.stat().st_mtime >= file.stat().st_mtime
    except (OSError, ValueError):
        return False
    wanted = {
        "format": FORMAT,
        "image": str(file),
        "stain_asked": karyotyper.stain,
        "models": models_of(karyotyper, "g" if done.get("stain") == "g" else "q"),
        "assignment": karyotyper.assignment,
        "least_score": karyotyper.score,
    }
    return newer and all(done.get(key) == value for key, value in wanted.items())


def _trainer(processes: int, nodes: int, names: dict[Path, str], output: Path) -> Any:
    import logging

    import lightning
    import torch
    from lightning.pytorch.callbacks import BasePredictionWriter, RichProgressBar

    from chromozoo.files import replace_file
    from chromozoo.report import write_cell

    class Writer(BasePredictionWriter):
        """Writes each cell as soon as it is done: an interrupted run loses one."""

        def write_on_batch_end(
            self,
            trainer: lightning.Trainer,
            pl_module: lightning.LightningModule,
            prediction: Any,
            batch_indices: Sequence[int] | None,
            batch: Any,
            batch_idx: int,
            dataloader_idx: int,
        ) -> None:
            for path, found in zip(batch, prediction, strict=True):
                message = output / f"{names[path]}{FAILED}"
                if isinstance(found, ChromozooError):
                    (output / f"{names[path]}.json").unlink(missing_ok=True)
                    replace_file(message, str(found).encode())
                else:
                    write_cell(output, names[path], found, pl_module)  # type: ignore[arg-type]
                    message.unlink(missing_ok=True)

    # What Lightning tells of devices and its own products is nothing that a laboratory asked for.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec", FutureWarning)
    many = processes * nodes > 1
    if many and not torch.cuda.is_available():
        # Each process would take all cores, and they would wait for each other.
        torch.set_num_threads(max((os.cpu_count() or 1) // processes, 1))
    return lightning.Trainer(
        accelerator="auto",
        devices=processes,
        num_nodes=nodes,
        strategy="ddp" if many else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[Writer("batch"), RichProgressBar()],
    )


def _summarise(output: Path, stems: Sequence[str], done_before: int) -> None:
    total = review = flagged = 0
    for stem in stems:
        cell = json.loads((output / f"{stem}.json").read_text(encoding="utf-8"))
        total += cell["count"]
        review += cell["review"]
        flagged += bool(cell["flags"])
        print(f"{cell['image']}: {cell['iscn'] or 'no chromosomes'}")
        for flag in cell["flags"]:
            print(f"  {flag}")
    before = f" ({done_before} were done before)" if done_before else ""
    print(
        f"\n{len(stems)} metaphases{before}, {flagged} flagged; "
        f"{review} of {total} chromosomes to look at again\n{INTENDED_USE}\n"
        f"Written: karyograms, overlays and JSON in {output}; see {output / 'index.html'}"
    )
