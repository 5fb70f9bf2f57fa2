"""A folder of results: whose each one is, and that none takes the place of another.

A hidden file in it, the manifest, says which command wrote which name, of which image. Names are
taken before any work begins, so that several runs may write into one folder at once; what lies
there and is not in the manifest is somebody else's and stays.
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
from chromozoo.batch.images import (
    COCO_NAME,
    Names,
    digest,
    name_key,
    output_names,
    safe_name,
    shown,
    without_page,
)
from chromozoo.errors import ChromozooError, ImageError, OutputError
from chromozoo.files import remove_file, replace_file
from chromozoo.visualization.page import JSON, KARYOGRAM, OVERLAY

MANIFEST, LOCK = ".chromozoo-manifest", ".chromozoo-lock"
MANIFEST_FORMAT = 1
LOCK_SECONDS = 60.0
FAILED = ".failed.txt"
ENDINGS = (KARYOGRAM, OVERLAY, FAILED, JSON)
# Files of which a folder has one, for all images; no image's results are called so.
_OF_ALL = Names(Path(name).stem for name in (COCO_NAME, "predictions.json"))


def with_option(error: OutputError) -> str:
    """The message of a failed writing, for commands that have ``--output``."""
    return f"{error} with --output"


def absolute(path: Path) -> str:
    """A path that means the same from everywhere; its last part may be a link."""
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 (keeps `..png`)


@dataclass
class Results:
    """The results of one command in a folder.

    Attributes:
        folder: Where they lie.
        command: Which wrote them.
        ending: Comes behind each name, so that two commands have names of their own.
        notes: What the user should know of the folder, in words.
    """

    folder: Path
    command: str
    ending: str = ""
    notes: list[str] = field(default_factory=list)
    _listed: dict[str, dict[str, list[str]]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def open(
        cls, command: str, ending: str, output: Path | None, paths: Sequence[Path]
    ) -> "Results":
        """Makes the folder of the results.

        Args:
            command: Which writes into it.
            ending: See the class.
            output: As the user named it. None: ``chromozoo-results/<name of the first path>``, or,
                where that holds results of another path, the next number behind it.
            paths: Of the images, or folders of them.

        Raises:
            ChromozooError: It cannot be made, or not be written to.
        """
        first = paths[0]
        # `.` and `x/..` have no name of their own.
        place = Path(absolute(first) if first.name not in ("", "..") else os.path.realpath(first))
        if output is not None:
            results = cls(output, command, ending)
            results._make()
            with results._manifest() as manifest:
                manifest.setdefault("named_for", str(place))
            return results
        name = safe_name(place.name if place.is_dir() else place.stem)
        for number in itertools.count(1):
            folder = Path("chromozoo-results") / (name if number == 1 else f"{name}-{number}")
            results = cls(folder, command, ending)
            results._make()
            with results._manifest() as manifest:
                if "named_for" not in manifest and not results._holds_anything():
                    manifest["named_for"] = str(place)
                if manifest.get("named_for") == str(place):
                    break
        if number > 1:
            results.notes.append(
                f"chromozoo-results/{name} holds results of other images: "
                f"these go to {shown(folder)}"
            )
        return results

    def _make(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ChromozooError(
                f"{self.folder}: cannot be made a folder ({error.strerror or error}); name another "
                "with --output"
            ) from error

    def _holds_anything(self) -> bool:
        return any(name not in (MANIFEST, LOCK) for name in os.listdir(self.folder))

    @contextlib.contextmanager
    def _manifest(self) -> Iterator[dict[str, Any]]:
        """The manifest, for this process alone; what is changed in it is written."""
        try:
            with FileLock(self.folder / LOCK, timeout=LOCK_SECONDS):
                manifest = self._read_manifest()
                before = json.dumps(manifest)
                yield manifest
                if json.dumps(manifest) != before:
                    about = {
                        "about": "Says which image each result in this folder belongs to. "
                        "ChromoZoo reads it, so that no result takes the place of another.",
                        "format": MANIFEST_FORMAT,
                        "chromozoo": __version__,
                    }
                    text = json.dumps(about | manifest, indent=1)
                    replace_file(self.folder / MANIFEST, text.encode())
        except Timeout as error:
            raise ChromozooError(
                f"{self.folder / LOCK}: another run has held it for {LOCK_SECONDS:.0f} seconds; "
                "wait for that, or name another folder with --output"
            ) from error
        except OutputError as error:
            raise OutputError(with_option(error)) from error
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot be written to ({error.strerror or error}); free space or "
                "name another folder with --output"
            ) from error

    def _read_manifest(self) -> dict[str, Any]:
        manifest = read_json(self.folder / MANIFEST)
        # Without it, or where it is damaged, what lies there is somebody else's: nothing is lost.
        if manifest.get("format") != MANIFEST_FORMAT:
            return {"results": {}, "files": {}}
        return manifest

    # Names

    def take_file(self, name: str, images: Sequence[Path] = ()) -> str | None:
        """Takes the name of a file of which the folder has one.

        Args:
            name: Of the file, such as ``index.html``.
            images: Those that it is about; empty where it is about all that lies in the folder.

        Returns:
            What the user should know, or None.

        Raises:
            ChromozooError: The file is somebody else's, or about other images altogether.
        """
        wanted = [absolute(image) for image in images]
        with self._manifest() as manifest:
            mine = manifest["files"].get(name)
            is_there = mine is None and os.path.lexists(self.folder / name)
            # What is about all that lies in the folder is made anew of that.
            if is_there and (images or not _is_about_all(self.folder / name)):
                raise ChromozooError(
                    f"{self.folder / name}: is there already and was not written by this command; "
                    "name another folder with --output"
                )
            before = mine["images"] if mine else []
            gone = set(before) - set(wanted)
            if wanted and before and len(gone) == len(set(before)):
                raise ChromozooError(
                    f"{self.folder / name}: is of other images ({shown(before[0])}, ...); name "
                    "another folder with --output"
                )
            manifest["files"][name] = {"command": self.command, "images": wanted}
        if not gone:
            return None
        return f"{name} replaced: of the {len(before)} images before, {len(gone)} are not in it now"

    def take_names(self, files: Sequence[Path]) -> dict[Path, str]:
        """A name for the results of each file, without the ending; nobody else's.

        An image keeps the name that it had, also if it was moved since.

        Raises:
            OutputError: The folder cannot be written to.
        """
        paths = {file: absolute(file) for file in files}
        with self._manifest() as manifest:
            known: dict[str, dict[str, str]] = manifest["results"]
            own = {
                entry["image"]: entry["name"]
                for entry in known.values()
                if entry["command"] == self.command
            }
            names = {file: own[path] for file, path in paths.items() if path in own}
            given = set(paths.values())
            others = Names(entry["name"] + entry["ending"] for entry in known.values())
            strangers = Names(self._prefixes())

            def is_free(name: str, file: Path) -> bool:
                prefix = name + self.ending
                if prefix in _OF_ALL:
                    return False
                entry = known.get(name_key(prefix))
                if entry is not None:
                    return (
                        entry["command"] == self.command
                        and entry["image"] not in given
                        and self._is_of(name, file)
                    )
                if prefix in others:  # looks like a page of another
                    return False
                return prefix not in strangers or self._is_of(name, file)

            rest = [file for file in files if file not in names]
            names |= zip(rest, output_names(rest, is_free), strict=True)
            for file, name in names.items():
                known[name_key(name + self.ending)] = {
                    "name": name,
                    "ending": self.ending,
                    "command": self.command,
                    "image": paths[file],
                }
        return {file: names[file] for file in files}

    def _prefixes(self) -> Iterator[str]:
        """Names of what lies in the folder, without the last ending."""
        for name in os.listdir(self.folder):
            for ending in ENDINGS:
                if name.endswith(ending):
                    yield name.removesuffix(ending)

    def _is_of(self, name: str, file: Path) -> bool:
        """Whether the results of a name are those of this image, by its content."""
        found = self.documents(name)
        try:
            return bool(found) and all(
                content_of(document).get("sha256") == digest(file) for document in found.values()
            )
        except ImageError:
            return False

    # Results

    def path(self, name: str, ending: str) -> Path:
        """Of a file of the results of one image."""
        return self.folder / f"{name}{self.ending}{ending}"

    def documents(self, name: str) -> dict[str, dict[str, Any]]:
        """The JSON of the results of a name and of its pages, by their names.

        Those that lay there when they were first asked for, see :meth:`look_again`.
        """
        found = {part: self.document(part) for part in self.parts(name, JSON)}
        return {part: document for part, document in found.items() if document}

    def parts(self, name: str, ending: str) -> list[str]:
        """The name and those of its pages, where a file with this ending lies in the folder."""
        if ending not in self._listed:
            self._listed[ending] = {}
            for part in self.written(ending):
                for key in {name_key(part), name_key(without_page(part))}:
                    self._listed[ending].setdefault(key, []).append(part)
        return self._listed[ending].get(name_key(name), [])

    def look_again(self) -> None:
        """Forgets what lay in the folder."""
        self._listed.clear()

    def failure(self, name: str) -> str:
        """The message that :meth:`note_failure` left."""
        text = self.path(name, FAILED).read_text(encoding="utf-8", errors="backslashreplace")
        return text.partition("\n\n")[0]

    def document(self, name: str) -> dict[str, Any]:
        """The JSON of one result; empty where there is none that can be read."""
        return read_json(self.path(name, JSON))

    def written(self, ending: str = JSON) -> list[str]:
        """Names of the results of this command that lie in the folder, in their order.

        Args:
            ending: Of the file that is looked for.
        """
        end = f"{self.ending}{ending}"
        names = {name.removesuffix(end) for name in os.listdir(self.folder) if name.endswith(end)}
        return sorted(names, key=natural)

    def note_failure(self, name: str, message: str, details: str = "") -> None:
        """Leaves a message where the results of an image would be."""
        text = f"{message}\n\n{details}" if details else message
        replace_file(self.path(name, FAILED), text.encode("utf-8", "backslashreplace"))

    def remove(self, name: str, *endings: str) -> None:
        """Removes files of the results of one image; those that are not there are no fault.

        Raises:
            OutputError: One cannot be removed.
        """
        for ending in endings:
            remove_file(self.path(name, ending))

    def remove_unfinished(self, process: int) -> None:
        """Removes what a process that was killed was about to write."""
        for path in self.folder.glob(f"*.{process}.part"):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_about_all(path: Path) -> bool:
    """Whether a file is a page or a list of outlines that ChromoZoo wrote."""
    signs = (b'<meta name="generator" content="ChromoZoo', b'{\n "info": {\n  "description": "Chro')
    try:
        with path.open("rb") as file:
            head = file.read(1000)
    except OSError:
        return False
    return any(sign in head for sign in signs)


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts `x-page2` before `x-page10`."""
    parts = re.split(r"(\d+)", name)
    return [(int(part) if part.isdecimal() else 0, part) for part in parts]


def read_json(path: Path) -> dict[str, Any]:
    """An object that a JSON file holds; empty where there is none that can be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def content_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a result says of its image; empty where it says nothing."""
    identity = document.get("identity")
    image = identity.get("content") if isinstance(identity, dict) else None
    return image if isinstance(image, dict) else {}
