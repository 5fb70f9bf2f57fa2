"""Trained weights: what is recorded of them, how they are stored, found, checked and loaded.

Two files make a set of weights. The *entry*, ``chromozoo/classifiers/weights/<model>_<tag>.json``
(or ``segmenters/``), travels with the package and says what the weights are. The *weights file*,
``<model>_<tag>-<first 8 hex of its sha256>.safetensors``, lies in ``weights/`` of the repository.
Both are written by the package, never typed. Nothing here executes what a file holds: safetensors
are plain numbers, and checkpoints are read with ``weights_only=True``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import time
import uuid
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from chromozoo import strict_json
from chromozoo.errors import OutputError, WeightsError
from chromozoo.files import replace_file
from chromozoo.strict_json import shown

if TYPE_CHECKING:
    from torch import Tensor, nn

REPOSITORY = Path(__file__).resolve().parents[1]
METADATA_KEY = "chromozoo"
SCALE_SUFFIX = "::scale"
STORAGES = ("fp32", "fp16", "int8")
# Of an entry. It rises only where a reader of before would take a value for something else: a field
# that is merely new has a default, and is left out by readers that do not know it.
FORMAT = 1
MAX_BYTES = 95_000_000  # GitHub refuses files from 100 MB
# Files of other networks, and checkpoints, hold the state of the optimiser, too.
LARGEST_FILE = 4 << 30
# Of a checkpoint's pickle, which names the tensors but does not hold them.
LARGEST_PICKLE = 64 << 20
# Numbers, words, lists and dictionaries among the arguments of a builder, at all depths.
MAX_ARGUMENTS = 10_000
# What a network is built of beyond the tensors of its weights: heads of ImageNet that are replaced,
# and the picture that a network is tried on. 1.2 GB.
SPARE_ELEMENTS = 300_000_000
MAX_ALLOCATIONS = 100_000
LARGEST_INPUT = 100_000
DOWNLOAD_ROUNDS = 3
BACKOFF_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """All that is recorded of one set of weights. :func:`save_weights` fills what it can measure.

    Attributes:
        model: Registered name of the model.
        tag: The data set that the weights were trained on.
        classes: Class of each output, in order.
        input_size: Height and width in pixels of the network's input; empty where any will do.
        init_args: Arguments of the model's builder.
        preprocessing: Arguments of the preprocessing preset.
        temperature: Divides the logits so that the probabilities are calibrated.
        conformal: Thresholds by error rate, for chromosomes ``"alone"`` and in their ``"cell"``
            (:mod:`chromozoo.cells.conformal`); empty where `chromozoo doubt` was not run.
        dataset: Data set and its version.
        split: Name of the split; ``split_sha256`` is the hash of its committed id list.
        metrics: Measured on the stored file, such as
            ``{'bioimlab_v1/test': {'accuracy': 0.97}}``, fractions 0..1.
        result_row: The row of the results table that holds the metrics: ``file`` and ``key``.
        config: Config file of the training, relative to the repository.
        seed: Seed of the training.
        training: How it was trained, in words.
        versions: Library versions of the training.
        licence_code, licence_data, licence_weights: Licences.
        created: Date, ``YYYY-MM-DD``.
        doc: Anything else a user must know.
        urls: Where the file is fetched from if it is not on the machine, in order.
        file, sha256, size_bytes: The weights file. Empty inside the file itself, which cannot hold
            its own hash.
        data_sha256: Hash of the file's tensor bytes alone: held inside the file, it lets a file
            that was renamed be checked without this entry.
        parameters: Number of parameters of the network.
        storage: ``'fp32'``, ``'fp16'`` or ``'int8'``, see :func:`save_weights`.
        format: Of the entry, see :data:`FORMAT`.

    Raises:
        WeightsError: A value is of another type, or none that can be (a temperature of 0).
    """

    model: str
    tag: str
    classes: list[str]
    input_size: list[int]
    init_args: dict[str, Any]
    preprocessing: dict[str, Any]
    dataset: str
    split: str
    split_sha256: str
    config: str
    seed: int
    training: str
    versions: dict[str, str]
    licence_code: str
    licence_data: str
    licence_weights: str
    created: str
    temperature: float = 1.0
    conformal: dict[str, dict[str, float]] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    result_row: dict[str, str] = field(default_factory=dict)
    intended_use: str = "research use only, not for diagnosis"
    urls: list[str] = field(default_factory=list)
    doc: str = ""
    file: str = ""
    sha256: str = ""
    size_bytes: int = 0
    data_sha256: str = ""
    parameters: int = 0
    storage: str = ""
    format: int = FORMAT

    def __post_init__(self) -> None:
        for name, kind in _field_types().items():
            if not _is_of(value := getattr(self, name), kind):
                words = kind if get_args(kind) else kind.__name__
                raise WeightsError(f"weights entry: {name} is {shown(value)}, which is no {words}")
        for name in (self.model, self.tag):
            if not re.fullmatch(r"\w+", name):
                raise WeightsError(
                    f"{name!r} cannot be part of a file name: use letters, digits, _"
                )
        wrong = {
            "temperature": not (math.isfinite(self.temperature) and self.temperature > 0),
            "input_size": len(self.input_size) not in (0, 2)
            or not all(0 <= side <= LARGEST_INPUT for side in self.input_size),
            "classes": len({*self.classes}) < len(self.classes),
            "conformal": not all(
                math.isfinite(number)
                for levels in self.conformal.values()
                for number in levels.values()
            ),
            "size_bytes": self.size_bytes < 0,
            "parameters": self.parameters < 0,
            "storage": self.storage not in ("", *STORAGES),
            "format": self.format < 1,
        }
        for name in (name for name, is_wrong in wrong.items() if is_wrong):
            raise WeightsError(
                f"weights entry: {name} is {shown(getattr(self, name))}, which cannot be"
            )

    def to_json(self) -> str:
        """The entry as JSON text with sorted keys: equal entries give equal bytes."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str | Path) -> WeightsEntry:
        """Reads an entry, also one of another version of ChromoZoo.

        Fields that have come since it was written have their defaults. Fields that are not known
        here are left out, and a warning names them: a later version wrote the entry.

        Args:
            text: What :meth:`to_json` gave.
            source: File to name in an error.

        Raises:
            WeightsError: Not JSON, a field is missing or of another type, or the format is a later
                one.
        """
        try:
            values = strict_json.parse(text)
        except ValueError as error:
            raise WeightsError(
                f"{source}: weights entry is not JSON ({error}); restore or re-save it"
            ) from error
        if not isinstance(values, dict):
            raise WeightsError(
                f"{source}: weights entry is not a JSON object; restore or re-save it"
            )
        fields = dataclasses.fields(cls)
        if _is_of(version := values.get("format", 1), int) and version > FORMAT:
            raise WeightsError(
                f"{source}: weights entry is of format {version}, written by a later version of "
                f"ChromoZoo (this one reads {FORMAT}); update ChromoZoo"
            )
        required = {
            item.name
            for item in fields
            if item.default is item.default_factory is dataclasses.MISSING
        }
        unknown = sorted(values.keys() - {item.name for item in fields})
        missing = sorted(required - values.keys())
        if missing:
            raise WeightsError(
                f"{source}: weights entry has unknown fields {shown(unknown)}, missing fields "
                f"{missing}; it was edited: restore or re-save it"
            )
        if unknown:
            warnings.warn(
                f"{source}: weights entry has fields that this version of ChromoZoo does not know, "
                f"and leaves out: {shown(unknown)}",
                stacklevel=2,
            )
        try:
            return cls(**{name: value for name, value in values.items() if name not in unknown})
        except WeightsError as error:
            raise WeightsError(f"{source}: {error}; restore or re-save it") from error


@cache
def _field_types() -> dict[str, Any]:
    return get_type_hints(WeightsEntry)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of a type as the fields of an entry have it."""
    if kind is Any:
        return True
    if kind in (int, float):  # JSON does not tell 1.0 from 1
        numbers = (int,) if kind is int else (int, float)
        is_number = isinstance(value, numbers) and not isinstance(value, bool)
        return is_number and (isinstance(value, float) or abs(value) < 10**18)
    inner = get_args(kind)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is_of(item, inner[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(
            _is_of(key, inner[0]) and _is_of(item, inner[1]) for key, item in value.items()
        )
    return isinstance(value, kind)


def weights_entries(model: str) -> dict[str, WeightsEntry]:
    """The packaged entries of a model by tag, in the order of the tags. Does not import torch.

    Raises:
        UnknownNameError: No such model.
        WeightsError: An entry is damaged or has the wrong file name.
    """
    from chromozoo.registry import model_info  # the registry imports this module

    entries = {}
    for file in sorted((model_info(model).file.parent / "weights").glob(f"{escape(model)}_*.json")):
        entry = WeightsEntry.from_json(_read(file), file)
        if file.stem != f"{entry.model}_{entry.tag}":
            raise WeightsError(
                f"{file}: holds the entry of {entry.model!r}, tag {entry.tag!r}; "
                f"its name must be {entry.model}_{entry.tag}.json"
            )
        if entry.model == model:  # not so for model 'a' and the file 'a_b_tag.json' of model 'a_b'
            entries[entry.tag] = entry
    return entries


def write_entry(entry: WeightsEntry) -> Path:
    """Writes an entry beside the file of its model, where :func:`weights_entries` finds it."""
    from chromozoo.registry import model_info

    path = model_info(entry.model).file.parent / "weights" / f"{entry.model}_{entry.tag}.json"
    _write(path, entry.to_json().encode())
    return path


def save_weights(
    network: nn.Module, entry: WeightsEntry, folder: str | Path, storage: str = "fp16"
) -> tuple[Path, WeightsEntry]:
    """Writes the tensors of a network as a safetensors file that also carries its entry.

    One-dimensional tensors (biases, all of BatchNorm) always stay fp32: they are under 1 % of the
    bytes, an error in one scales a whole channel, and a running variance spans more than fp16
    holds (6e-5 to 65504 at full precision). Integer buffers are kept as they are. Equal tensors
    and entry give equal bytes.

    Args:
        network: The pure network, without the task around it.
        entry: What is known of the weights; file, hashes, size, parameters and storage are filled
            in here. Metrics must be those of the stored file: measure after saving, then
            :func:`write_entry`.
        folder: Folder to write to, ``weights/`` of the repository for weights that are shipped.
        storage: ``'fp32'``; ``'fp16'``: all other floating tensors in half precision, except where
            one overflows; ``'int8'``: as fp16, but weights of convolutions and linear layers as
            round(w / scale), scale = max |w| / 127 of each output channel, kept in fp32.

    Returns:
        The path and the entry, complete but for its metrics.

    Raises:
        WeightsError: A tensor holds NaN, or the file would be larger than 95 MB.
    """
    from safetensors.torch import save

    if storage not in STORAGES:
        raise WeightsError(f"unknown storage {storage!r}: use one of {', '.join(STORAGES)}")
    tensors = _pack(network, storage)
    entry = dataclasses.replace(
        entry,
        file="",
        sha256="",
        size_bytes=0,
        data_sha256=_sha256(_split(save(tensors))[1]),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        storage=storage,
    )
    # One metadata key only: safetensors does not promise the order of several.
    data = save(tensors, metadata={METADATA_KEY: entry.to_json()})
    if len(data) > MAX_BYTES:
        raise WeightsError(
            f"{entry.model}_{entry.tag}: {len(data)} bytes as {storage}, more than {MAX_BYTES}; "
            f"use a smaller storage ({', '.join(STORAGES)})"
        )
    sha256 = _sha256(data)
    path = Path(folder) / f"{entry.model}_{entry.tag}-{sha256[:8]}.safetensors"
    _write(path, data)
    return path, dataclasses.replace(entry, file=path.name, sha256=sha256, size_bytes=len(data))


def read_entry(path: str | Path) -> WeightsEntry:
    """The entry that a weights file carries; the packaged one if the file is a packaged one.

    Raises:
        WeightsError: The file is missing, damaged, or was not written by :func:`save_weights`.
    """
    path = Path(path)
    data = _read(path)
    header, tensor_bytes = _split(data)
    try:
        text = strict_json.parse(header)["__metadata__"][METADATA_KEY]
        if not isinstance(text, str):
            raise TypeError(f"{METADATA_KEY} is no text")
    except (ValueError, LookupError, TypeError) as error:
        raise WeightsError(
            f"{path}: {_what_is_wrong(data) or 'is no weights file that ChromoZoo wrote'}; give "
            f"a .safetensors file written by chromozoo.weights.save_weights or a .ckpt"
        ) from error
    entry = WeightsEntry.from_json(text, path)
    sha256 = _sha256(data)
    in_name = re.search(r"-([0-9a-f]{8})\.safetensors$", path.name)
    _compare(path, data, entry.data_sha256, _sha256(tensor_bytes))
    if in_name:
        _compare(path, data, in_name[1], sha256[:8])
    for packaged in _packaged(entry.model):
        if packaged.sha256 == sha256:
            return packaged
    return dataclasses.replace(entry, file=path.name, sha256=sha256, size_bytes=len(data))


def load_into(network: nn.Module, path: str | Path, entry: WeightsEntry) -> None:
    """Loads a weights file into a network, as fp32, after the full sha256 has been checked.

    Raises:
        WeightsError: The file is missing, is not the one that the entry describes, or its tensors
            are not exactly those of the network.
    """
    load_tensors(network, read_tensors(path, entry), Path(path))


def read_tensors(path: str | Path, entry: WeightsEntry) -> dict[str, Tensor]:
    """The tensors of a weights file, floating ones as fp32, after its sha256 has been checked.

    Raises:
        WeightsError: The file is missing, is not the one that the entry describes, or holds no
            tensors as :func:`save_weights` stores them.
    """
    from safetensors.torch import load

    path = Path(path)
    data = _read(path)
    _compare(path, data, entry.sha256, _sha256(data), entry.size_bytes)
    try:
        packed = load(data)
    except Exception as error:  # SafetensorError; others where torch has no such type of numbers
        raise WeightsError(
            f"{path}: is no safetensors file ({error}); restore or re-save it"
        ) from error
    return _unpack(packed, path)


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copies tensors into a network whose names and shapes they must match exactly.

    Args:
        network: The pure network.
        tensors: Named like its ``state_dict``.
        path: File to name in an error.

    Raises:
        WeightsError: Tensors are missing, unexpected, of another shape or kind, or hold NaN or
            infinite values; the network is left as it was.
    """
    wanted = network.state_dict()
    both = sorted(wanted.keys() & tensors.keys())
    fitting = [key for key in both if tensors[key].shape == wanted[key].shape]
    wrong = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "of another shape": [
            f"{key} {tuple(tensors[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in both
            if key not in set(fitting)
        ],
        "of another kind": [
            f"{key} {tensors[key].dtype} instead of {wanted[key].dtype}"
            for key in fitting
            if _kind(tensors[key]) != _kind(wanted[key])
        ],
    }
    if any(wrong.values()):
        lists = "; ".join(
            f"{len(keys)} {kind}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
            for kind, keys in wrong.items()
            if keys
        )
        raise WeightsError(
            f"{path}: does not fit this model ({lists}); choose the weights of this model, built "
            f"with the same arguments"
        )
    broken = [key for key in fitting if not tensors[key].isfinite().all()]
    if broken:
        raise WeightsError(
            f"{path}: holds NaN or infinite values ({len(broken)}: {', '.join(broken[:5])}); the "
            "training diverged, or the file is damaged: take another checkpoint"
        )
    network.load_state_dict(tensors)


def load_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a Lightning checkpoint without executing anything in it.

    What the checkpoint's own training started from (``init_from``) is left out: its tensors are
    there.

    Returns:
        The arguments of the model (``hyper_parameters``) and the tensors of its ``network``.

    Raises:
        WeightsError: The file is missing or damaged, holds objects other than tensors and plain
            values, or no tensors of a ``network``.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; check the path")
    try:
        _check_checkpoint(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        states = dict(checkpoint["state_dict"])
        given = dict(checkpoint.get("hyper_parameters") or {})
    except Exception as error:  # torch raises many kinds, by the sort of damage
        raise WeightsError(
            f"{path}: is no Lightning checkpoint that can be read safely, that is one of tensors "
            f"and plain values only ({type(error).__name__}: {str(error)[:300]}); save it again, "
            "or give a .safetensors file"
        ) from error
    prefix = "network."
    tensors = {
        key.removeprefix(prefix): _own(value, path)
        for key, value in states.items()
        if isinstance(key, str) and key.startswith(prefix)
    }
    if not tensors:
        raise WeightsError(
            f"{path}: holds no tensors named '{prefix}...'; was it saved by ChromoZoo?"
        )
    if wrong := [key for key in given if not isinstance(key, str)]:
        raise WeightsError(
            f"{path}: hyper_parameters has names that are no text ({shown(wrong[0])}); was it "
            "saved by ChromoZoo?"
        )
    # Lightning's own keys, such as _class_path, begin with an underscore.
    arguments = {key: value for key, value in given.items() if not key.startswith("_")}
    arguments.pop("init_from", None)
    try:
        return _plain(arguments, [0]), tensors
    except ValueError as error:
        raise WeightsError(
            f"{path}: hyper_parameters {error}; was it saved by ChromoZoo?"
        ) from error


@contextmanager
def bounded_allocation(elements: int) -> Iterator[None]:
    """Within it, torch makes no more tensors than the weights of a file can need.

    The arguments of a builder may come from a file, and a builder believes them.

    Args:
        elements: Of all tensors of the file together. Twice as many may be made, and 300 million.

    Raises:
        WeightsError: More are asked for; none of them is made.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    limit = 2 * elements + SPARE_ELEMENTS
    nowhere = {"device": torch.device("meta")}

    class Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
        made = calls = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            # What makes a tensor takes a device; without memory it says how large that would be.
            if any(argument.name == "device" for argument in func._schema.arguments):
                self.made += func(*args, **(kwargs | nowhere)).numel()
                self.calls += 1
            if self.made > limit or self.calls > MAX_ALLOCATIONS:
                raise WeightsError(
                    f"{self.made:,} numbers in {self.calls:,} tensors are asked for, and the file "
                    f"has {elements:,}"
                )
            return func(*args, **kwargs)

    with Bounded():  # type: ignore[no-untyped-call]
        yield


def _check_checkpoint(path: Path) -> None:
    """Refuses what :func:`torch.load` would take more memory for than the file has bytes.

    Raises:
        ValueError, zipfile.BadZipFile, OSError: It does.
    """
    import pickletools

    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"{size:,} bytes are more than {LARGEST_FILE:,}")
    with zipfile.ZipFile(path) as archive:  # as torch writes it since 1.6
        members = archive.infolist()
        # torch stores without compression, so nothing in it is larger than the file.
        if any(one.compress_type != zipfile.ZIP_STORED for one in members):
            raise ValueError("its parts are compressed")
        if sum(one.file_size for one in members) > size:
            raise ValueError("its parts claim to be larger than the file")
        pickles = [one for one in members if one.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE:
            raise ValueError("it has no data.pkl, several, or a very large one")
        for code, argument, _ in pickletools.genops(archive.read(pickles[0])):
            # What torch allows without being asked has a bytearray of any length among it.
            if code.name in ("GLOBAL", "STACK_GLOBAL", "INST") and not _TENSOR_PARTS.fullmatch(
                str(argument)
            ):
                raise ValueError(f"it names {argument}, which no tensor or plain value needs")


_TENSOR_PARTS = re.compile(
    r"torch\._utils _rebuild_(tensor|tensor_v2|parameter|parameter_with_state)"
    r"|torch \w+Storage|torch\.storage (Typed|Untyped)Storage|torch Size"
    r"|torch (float|bfloat|int|uint|complex)\d+|torch bool|torch device"
    r"|torch\.nn\.parameter Parameter|torch\.serialization _get_layout"
    r"|torch\._tensor _rebuild_from_type_v2|_codecs encode"
    r"|collections (OrderedDict|Counter)|(builtins|__builtin__) (set|complex)"
)


def _own(tensor: Any, path: Path) -> Tensor:
    """A tensor that lies in memory as it says, in memory of its own."""
    import torch

    is_plain = (
        isinstance(tensor, torch.Tensor)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        # One that repeats its numbers may claim to be of any size.
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )
    if not is_plain:
        raise WeightsError(
            f"{path}: holds {shown(type(tensor).__name__)} among its tensors that is no dense one; "
            "was it saved by ChromoZoo?"
        )
    own: Tensor = tensor.detach().clone()
    return own


def _plain(value: Any, count: list[int], depth: int = 0) -> Any:
    """A copy of plain values; what a pickle repeats by reference is counted again and again.

    Raises:
        ValueError: Other objects, or too many.
    """
    count[0] += 1
    if count[0] > MAX_ARGUMENTS or depth > 20:
        raise ValueError(f"holds more than {MAX_ARGUMENTS:,} values, or is nested too deeply")
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str | int | float | None)]:
            raise ValueError(f"has a name that is no text ({shown(wrong[0])})")
        return {key: _plain(item, count, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, count, depth + 1) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(item, count, depth + 1) for item in value)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("holds a number of more than 63 bits")
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"holds {shown(type(value).__name__)}, which is no plain value")


def home() -> Path:
    """The user's folder for downloads: ``$CHROMOZOO_HOME``, or ``~/.cache/chromozoo``."""
    return Path(os.environ.get("CHROMOZOO_HOME") or "~/.cache/chromozoo").expanduser()


def find_weights(entry: WeightsEntry) -> Path:
    """The file of an entry: in ``$CHROMOZOO_HOME/weights``, the repository, or downloaded.

    Raises:
        WeightsError: It is nowhere and cannot be downloaded; the message says where to put it.
    """
    places = [home() / "weights" / entry.file, REPOSITORY / "weights" / entry.file]
    for path in places:
        if path.is_file():
            return path
    failures = _download(entry, places[0]) if entry.urls else ["the entry has no download address"]
    if not failures:
        return places[0]
    if (REPOSITORY / "hubconf.py").is_file():
        remedy = "restore it from the repository (git checkout -- weights)"
    else:
        remedy = "ChromoZoo is installed without its repository: take the file from its weights/"
    raise WeightsError(
        f"{entry.file}: weights of {entry.model!r} not found in "
        f"{' or '.join(str(path.parent) for path in places)}, nor by download "
        f"({'; '.join(failures)}); {remedy}, or put it into {places[0].parent}"
    )


def _download(entry: WeightsEntry, target: Path) -> list[str]:
    """Tries every address in turn, then all again after a pause. Returns the failures, if all."""
    from http.client import HTTPException

    failures: dict[str, str] = {}
    for attempt in range(DOWNLOAD_ROUNDS):
        if attempt:
            time.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
        for url in entry.urls:
            try:
                _download_one(url, entry, target)
            except (OSError, HTTPException, ValueError, WeightsError) as error:
                failures[url] = f"{url}: {error}"
            else:
                return []
    return list(failures.values())


def _download_one(url: str, entry: WeightsEntry, target: Path) -> None:
    from urllib.request import urlopen

    from tqdm import tqdm  # type: ignore[import-untyped]

    target.parent.mkdir(parents=True, exist_ok=True)
    part = _temporary(target)
    digest, size = hashlib.sha256(), 0
    try:
        with (
            urlopen(url, timeout=TIMEOUT_SECONDS) as response,
            part.open("wb") as file,
            # disable=None: a bar on a terminal, silence elsewhere
            tqdm(
                total=entry.size_bytes, desc=entry.file, unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            while size <= entry.size_bytes and (block := response.read(1 << 20)):
                file.write(block)
                digest.update(block)
                size += len(block)
                bar.update(len(block))
        if digest.hexdigest() != entry.sha256:
            raise WeightsError(
                f"got {size} bytes with sha256 {digest.hexdigest()}, "
                f"expected {entry.size_bytes} with {entry.sha256}"
            )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _pack(network: nn.Module, storage: str) -> dict[str, Tensor]:
    """The tensors of a network as they are stored."""
    import torch
    from torch import nn

    quantised = {
        f"{name}.weight".lstrip(".")
        for name, module in network.named_modules()
        if storage == "int8" and isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)
    }
    packed: dict[str, Tensor] = {}
    for key, value in network.state_dict().items():
        # A copy of its own: safetensors refuses tensors that share memory.
        tensor = value.detach().cpu().contiguous().clone()
        if not tensor.is_floating_point():
            packed[key] = tensor
            continue
        if tensor.isnan().any():
            raise WeightsError(f"{key}: holds NaN; the training diverged, nothing was written")
        tensor = tensor.float()
        if key in quantised:
            scale = tensor.abs().flatten(1).amax(1).clamp_min(1e-12) / 127
            packed[key] = (tensor / _per_channel(scale, tensor)).round().to(torch.int8)
            packed[key + SCALE_SUFFIX] = scale
        elif storage != "fp32" and tensor.dim() > 1 and tensor.half().isfinite().all():
            packed[key] = tensor.half()
        else:
            packed[key] = tensor
    return packed


def _unpack(packed: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Undoes :func:`_pack`: all floating tensors as fp32."""
    tensors: dict[str, Tensor] = {}
    for key, tensor in packed.items():
        base = key.removesuffix(SCALE_SUFFIX)
        if base != key:
            if base not in packed:
                raise WeightsError(f"{path}: {key} is the scale of nothing; restore or re-save it")
            continue
        scale = packed.get(key + SCALE_SUFFIX)
        if scale is not None:
            if not scale.is_floating_point() or scale.shape != tensor.shape[:1]:
                raise WeightsError(
                    f"{path}: {key} {tuple(tensor.shape)} has a scale of {tuple(scale.shape)}, "
                    f"{scale.dtype}, not one for each channel; restore or re-save it"
                )
            tensor = tensor.float() * _per_channel(scale, tensor)
        tensors[key] = tensor.float() if tensor.is_floating_point() else tensor
    return tensors


def _kind(tensor: Tensor) -> str:
    """Numbers of one kind are copied into each other without loss of their sense."""
    if tensor.is_floating_point():
        return "floating"
    return "complex" if tensor.is_complex() else str(tensor.dtype)


def _per_channel(scale: Tensor, tensor: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (tensor.dim() - 1))


def _packaged(model: str) -> list[WeightsEntry]:
    from chromozoo.registry import models

    return list(weights_entries(model).values()) if model in models() else []


def _split(data: bytes) -> tuple[bytes, bytes]:
    """JSON header and tensor bytes of a safetensors file (8 bytes of length come first)."""
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], data[end:]


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise WeightsError(f"{path}: is no file; check the path")
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise WeightsError(f"{path}: has {size:,} bytes, more than any weights; check the path")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _compare(path: Path, data: bytes, expected: str, found: str, size: int | None = None) -> None:
    """Raises a WeightsError with the remedy unless the hashes are equal."""
    if found != expected:
        wrong = _what_is_wrong(data) or "has been altered or damaged"
        if size is not None and len(data) < size and "git" not in wrong:
            wrong = f"is truncated ({len(data)} of {size} bytes)"
        raise WeightsError(
            f"{path}: {wrong} (sha256 expected {expected}, found {found}); "
            f"delete it and load again, or restore it from the repository"
        )


def _what_is_wrong(data: bytes) -> str:
    if data.startswith(b"version https://git-lfs"):
        return "is a git-LFS pointer, not the file itself (run: git lfs pull)"
    return "" if data else "is empty"


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")


def _write(path: Path, data: bytes) -> None:
    """Writes a file as a whole, and its folder.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path.parent}: cannot be made a folder ({error.strerror}); name another"
        ) from error
    replace_file(path, data)
