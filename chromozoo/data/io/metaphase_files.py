"""Opening of annotated metaphases, whatever the format of the annotations."""

from pathlib import Path, PurePath, PurePosixPath

from chromozoo.data.io.archive import open_archive
from chromozoo.data.io.coco import FILE_NAME as COCO_NAME
from chromozoo.data.io.coco import CocoFiles
from chromozoo.data.io.labelme import LabelmeFiles, parse_json
from chromozoo.data.io.result_files import is_result
from chromozoo.errors import DatasetError


def open_metaphases(path: Path) -> CocoFiles | LabelmeFiles:
    """Open annotated metaphases in any format.

    Args:
        path: Folder or zip file of labelme files or with one COCO JSON, or a single JSON file.
            Results of ``chromozoo segment`` and ``chromozoo karyotype`` are read as well: the file
            about all images as COCO, files about one image like labelme files.

    Raises:
        DatasetError: There is no such file, or there are several COCO files.
    """
    if path.suffix.lower() == ".json":
        if _is_coco(path):
            return CocoFiles(path.parent, path.name)
        return LabelmeFiles(path.parent, path.name)
    with open_archive(path) as archive:
        names = [PurePosixPath(name) for name in archive.names()]
    coco = [name for name in names if _is_coco_name(name)]
    if len(coco) > 1:
        raise DatasetError(
            f"{path}: holds several COCO files ({', '.join(map(str, coco))}); name one of them"
        )
    return CocoFiles(path, str(coco[0])) if coco else LabelmeFiles(path)


def _is_coco_name(name: PurePath) -> bool:
    return name.name == COCO_NAME or (
        name.name.startswith("instances") and name.suffix.lower() == ".json"
    )


def _is_coco(path: Path) -> bool:
    """Return whether a JSON file is a COCO file, and not one about a single image."""
    if _is_coco_name(path):
        return True
    with open_archive(path.parent) as archive:
        data = parse_json(archive.read(path.name), str(path))
    return "images" in data or not ("shapes" in data or is_result(data))
