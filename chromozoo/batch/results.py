"""Folder of results, in which no result replaces the result of another image.

A hidden manifest in the folder records which command wrote which name for which image. Names are
assigned before any work begins, so that several runs can write into one folder at the same time.
Files that are not in the manifest were put there by the user and are never replaced.
"""

import contextlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from chromozoo import __version__
from chromozoo.batch.coco import COCO_FILE
from chromozoo.batch.file_names import TakenNames, name_key, safe_name, strip_page, unique_names
from chromozoo.batch.images import file_sha256, printable_path
from chromozoo.errors import ChromozooError, ImageError, OutputError
from chromozoo.files import remove_file, replace_file
from chromozoo.visualization.page import JSON, KARYOGRAM, OVERLAY

MANIFEST, LOCK = ".chromozoo-manifest", ".chromozoo-lock"
MANIFEST_FORMAT = 1
LOCK_SECONDS = 60.0
FAILED = ".failed.txt"
RESULT_ENDINGS = (KARYOGRAM, OVERLAY, FAILED, JSON)
# Text added to the names of `segment`'s results, so that `karyotype` can use the same folder.
SEGMENT_ENDING = ".segment"
# Names of files about all images of a folder; the results of an image never get these names.
_RESERVED_NAMES = TakenNames(Path(name).stem for name in (COCO_FILE, "predictions.json"))


def add_output_hint(error: OutputError) -> str:
    """Return the message of a write error for commands that have the option ``--output``."""
    return f"{error} with --output"


def absolute_path(path: Path) -> str:
    """Return an absolute path; links of the folder are resolved, a link of the file is not."""
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 (keeps `..png`)


@dataclass
class ResultsFolder:
    """Results of one command in a folder.

    Attributes:
        folder: Path of the folder.
        command: Name of the command.
        ending: Text added to each name, so that two commands have separate names in one folder.
        notes: Lines about the choice of the folder, for the user.
    """

    folder: Path
    command: str
    ending: str = ""
    notes: list[str] = field(default_factory=list)
    _listed: dict[str, dict[str, list[str]]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def open(
        cls, command: str, ending: str, output: Path | None, paths: Sequence[Path]
    ) -> "ResultsFolder":
        """Make the folder of the results.

        Args:
            command: Name of the command.
            ending: As in the class.
            output: Folder chosen by the user. None: ``chromozoo-results/<name of the first path>``.
                If that folder holds results of another path, a number is added to the name.
            paths: Image files, or folders of them.

        Raises:
            ChromozooError: The folder cannot be made or written to.
        """
        first = paths[0]
        # `.` and `x/..` have no name of their own.
        is_named = first.name not in ("", "..")
        source = Path(absolute_path(first) if is_named else os.path.realpath(first))
        if output is not None:
            results = cls(output, command, ending)
            results._make_folder()
            with results._manifest() as manifest:
                manifest.setdefault("named_for", str(source))
            return results
        name = safe_name(source.name if source.is_dir() else source.stem)
        for number in itertools.count(1):
            folder = Path("chromozoo-results") / (name if number == 1 else f"{name}-{number}")
            results = cls(folder, command, ending)
            results._make_folder()
            with results._manifest() as manifest:
                if "named_for" not in manifest and not results._has_files():
                    manifest["named_for"] = str(source)
                if manifest.get("named_for") == str(source):
                    break
        if number > 1:
            results.notes.append(
                f"chromozoo-results/{name} holds results of other images: "
                f"these go to {printable_path(folder)}"
            )
        return results

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ChromozooError(
                f"{self.folder}: cannot be made a folder ({error.strerror or error}); name another "
                "with --output"
            ) from error

    def _has_files(self) -> bool:
        return any(name not in (MANIFEST, LOCK) for name in os.listdir(self.folder))

    @contextlib.contextmanager
    def _manifest(self) -> Iterator[dict[str, Any]]:
        """Lock the manifest, and write it at the end if it was changed."""
        try:
            with FileLock(self.folder / LOCK, timeout=LOCK_SECONDS):
                manifest = self._read_manifest()
                before = json.dumps(manifest)
                yield manifest
                if json.dumps(manifest) != before:
                    header = {
                        "about": "Records the image of each result in this folder, so that no "
                        "result replaces the result of another image.",
                        "format": MANIFEST_FORMAT,
                        "chromozoo": __version__,
                    }
                    text = json.dumps(header | manifest, indent=1)
                    replace_file(self.folder / MANIFEST, text.encode())
        except Timeout as error:
            raise ChromozooError(
                f"{self.folder / LOCK}: another run has held it for {LOCK_SECONDS:.0f} seconds; "
                "wait for that, or name another folder with --output"
            ) from error
        except OutputError as error:
            raise OutputError(add_output_hint(error)) from error
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot be written to ({error.strerror or error}); free space or "
                "name another folder with --output"
            ) from error

    def _read_manifest(self) -> dict[str, Any]:
        manifest = read_json(self.folder / MANIFEST)
        # Without a valid manifest all files count as the user's own, so that none is lost.
        if manifest.get("format") != MANIFEST_FORMAT:
            return {"results": {}, "files": {}}
        return manifest

    # Names

    def claim_file(self, name: str, images: Sequence[Path] = ()) -> str | None:
        """Claim the name of a file that exists once in the folder.

        Args:
            name: File name, such as ``index.html``.
            images: Images that the file is about; empty if it is about all results in the folder.

        Returns:
            A line for the user about an earlier file that is replaced, or None.

        Raises:
            ChromozooError: The file was not written by this command, or is about other images.
        """
        paths = [absolute_path(image) for image in images]
        with self._manifest() as manifest:
            claimed = manifest["files"].get(name)
            exists = claimed is None and os.path.lexists(self.folder / name)
            # A file about all results in the folder can be generated anew from them.
            if exists and (images or not _is_generated(self.folder / name)):
                raise ChromozooError(
                    f"{self.folder / name}: is there already and was not written by this command; "
                    "name another folder with --output"
                )
            before = claimed["images"] if claimed else []
            gone = set(before) - set(paths)
            if paths and before and len(gone) == len(set(before)):
                raise ChromozooError(
                    f"{self.folder / name}: is of other images ({printable_path(before[0])}, ...); "
                    "name another folder with --output"
                )
            manifest["files"][name] = {"command": self.command, "images": paths}
        if not gone:
            return None
        return f"{name} replaced: of the {len(before)} images before, {len(gone)} are not in it now"

    def assign_names(self, files: Sequence[Path]) -> dict[Path, str]:
        """Assign an unused name, without the ending, to the results of each file.

        An image keeps the name of an earlier run, also if its file was moved.

        Raises:
            OutputError: The folder cannot be written to.
        """
        paths = {file: absolute_path(file) for file in files}
        with self._manifest() as manifest:
            entries: dict[str, dict[str, str]] = manifest["results"]
            earlier = {
                entry["image"]: entry["name"]
                for entry in entries.values()
                if entry["command"] == self.command
            }
            names = {file: earlier[path] for file, path in paths.items() if path in earlier}
            current = set(paths.values())
            assigned = TakenNames(entry["name"] + entry["ending"] for entry in entries.values())
            existing = TakenNames(self._existing_names())

            def is_free(name: str, file: Path) -> bool:
                full_name = name + self.ending
                if full_name in _RESERVED_NAMES:
                    return False
                entry = entries.get(name_key(full_name))
                if entry is not None:
                    return (
                        entry["command"] == self.command
                        and entry["image"] not in current
                        and self._has_results_of(name, file)
                    )
                if full_name in assigned:  # it looks like a page of another name
                    return False
                return full_name not in existing or self._has_results_of(name, file)

            unnamed = [file for file in files if file not in names]
            names |= zip(unnamed, unique_names(unnamed, is_free), strict=True)
            for file, name in names.items():
                entries[name_key(name + self.ending)] = {
                    "name": name,
                    "ending": self.ending,
                    "command": self.command,
                    "image": paths[file],
                }
        return {file: names[file] for file in files}

    def _existing_names(self) -> Iterator[str]:
        """Yield the names of all results in the folder, without the endings of the files."""
        for name in os.listdir(self.folder):
            for ending in RESULT_ENDINGS:
                if name.endswith(ending):
                    yield name.removesuffix(ending)

    def _has_results_of(self, name: str, file: Path) -> bool:
        """Return whether the results of a name belong to this image, by its content."""
        documents = self.read_documents(name)
        try:
            return bool(documents) and all(
                image_content(document).get("sha256") == file_sha256(file)
                for document in documents.values()
            )
        except ImageError:
            return False

    # Results

    def path(self, name: str, ending: str) -> Path:
        """Return the path of a result file of one image."""
        return self.folder / f"{name}{self.ending}{ending}"

    def read_documents(self, name: str) -> dict[str, dict[str, Any]]:
        """Read the JSON results of a name and of its pages, by name.

        The folder is listed once; see :meth:`clear_listing`.
        """
        documents = {part: self.read_document(part) for part in self.list_parts(name, JSON)}
        return {part: document for part, document in documents.items() if document}

    def list_parts(self, name: str, ending: str) -> list[str]:
        """List the name and the names of its pages for which a file with this ending exists."""
        if ending not in self._listed:
            self._listed[ending] = {}
            for part in self.list_names(ending):
                for key in {name_key(part), name_key(strip_page(part))}:
                    self._listed[ending].setdefault(key, []).append(part)
        return self._listed[ending].get(name_key(name), [])

    def clear_listing(self) -> None:
        """Forget the listed files, so that the folder is listed again."""
        self._listed.clear()

    def read_failure(self, name: str) -> str:
        """Read the message that :meth:`write_failure` wrote."""
        text = self.path(name, FAILED).read_text(encoding="utf-8", errors="backslashreplace")
        return text.partition("\n\n")[0]

    def read_document(self, name: str) -> dict[str, Any]:
        """Read the JSON of one result; empty if it is missing or damaged."""
        return read_json(self.path(name, JSON))

    def list_names(self, ending: str = JSON) -> list[str]:
        """List the names of this command's results in natural order.

        Args:
            ending: Ending of the files that are listed.
        """
        end = f"{self.ending}{ending}"
        names = {name.removesuffix(end) for name in os.listdir(self.folder) if name.endswith(end)}
        return sorted(names, key=natural_sort_key)

    def write_failure(self, name: str, message: str, details: str = "") -> None:
        """Write an error message in place of the results of an image."""
        text = f"{message}\n\n{details}" if details else message
        replace_file(self.path(name, FAILED), text.encode("utf-8", "backslashreplace"))

    def remove(self, name: str, *endings: str) -> None:
        """Remove result files of one image, if they exist.

        Raises:
            OutputError: A file cannot be removed.
        """
        for ending in endings:
            remove_file(self.path(name, ending))

    def remove_partial_files(self, pid: int) -> None:
        """Remove the partial files of a process that was ended."""
        for path in self.folder.glob(f"*.{pid}.part"):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_generated(path: Path) -> bool:
    """Return whether a file is a page or a COCO file that ChromoZoo wrote."""
    signs = (b'<meta name="generator" content="ChromoZoo', b'{\n "info": {\n  "description": "Chro')
    try:
        with path.open("rb") as file:
            head = file.read(1000)
    except OSError:
        return False
    return any(sign in head for sign in signs)


def natural_sort_key(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts `x-page2` before `x-page10`."""
    parts = re.split(r"(\d+)", name)
    return [(int(part) if part.isdecimal() else 0, part) for part in parts]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file; empty if it is missing or damaged."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON object atomically.

    Raises:
        OutputError: The file cannot be written.
    """
    replace_file(path, json.dumps(document, indent=1).encode())


def image_content(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of the image from a result; empty if the result has none."""
    identity = document.get("identity")
    content = identity.get("content") if isinstance(identity, dict) else None
    return content if isinstance(content, dict) else {}
