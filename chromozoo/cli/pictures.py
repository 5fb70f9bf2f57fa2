"""What the commands over pictures share: which they are, and where their results go."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from chromozoo.errors import ChromozooError, ImageError

INTENDED_USE = "Research use only, not for diagnosis."
# The outlines of all pictures of a folder, see `chromozoo segment`.
COCO_NAME = "annotations.json"


def find_pictures(paths: Iterable[Path], results: tuple[str, ...] = ()) -> list[Path]:
    """The files, and those in the folders that have the suffix of a picture, sorted; each once.

    Args:
        paths: Files and folders.
        results: Ends of the names of pictures that an earlier run may have left; they are left out.

    Raises:
        ImageError: A folder holds none.
    """
    from chromozoo.images.reading import IMAGE_SUFFIXES

    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise ImageError(
                    f"{path}: the folder holds no picture "
                    f"({', '.join(sorted(IMAGE_SUFFIXES))}); check the path"
                )
            files += inside
        else:
            files.append(path)
    return list({f.resolve(): f for f in files if not f.name.endswith(results)}.values())


def output_names(files: Sequence[Path]) -> list[str]:
    """Name of each picture's results: its stem, with its folder's name where stems are equal.

    None is that of the file with the results of all, and they differ in more than capitals, which
    some file systems do not tell apart.
    """
    stems = Counter(file.stem.casefold() for file in files)
    taken = {Path(COCO_NAME).stem} | {stem for stem, count in stems.items() if count == 1}
    names = []
    for file in files:
        name = file.stem
        if stems[name.casefold()] > 1 or name.casefold() == Path(COCO_NAME).stem:
            first = name = f"{file.resolve().parent.name}_{file.stem}"
            number = 2
            while name.casefold() in taken:
                name, number = f"{first}_{number}", number + 1
            taken.add(name.casefold())
        names.append(name)
    return names


def results_folder(output: Path | None, paths: Sequence[Path]) -> Path:
    """Makes the folder of the results.

    Args:
        output: As the user named it; None for ``chromozoo-results/<name of the first path>``.
        paths: Of the pictures, or folders of them.

    Raises:
        ChromozooError: It cannot be made.
    """
    folder = output or Path("chromozoo-results") / paths[0].resolve().stem
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ChromozooError(
            f"{folder}: cannot be made a folder ({error}); name another with --output"
        ) from error
    return folder
