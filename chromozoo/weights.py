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
import os
import re
import time
import uuid
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

REPOSITORY = Path(__file__).resolve().parents[1]
METADATA_KEY = "chromozoo"
SCALE_SUFFIX = "::scale"
STORAGES = ("fp32", "fp16", "int8")
MAX_BYTES = 95_000_000  # GitHub refuses files from 100 MB
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

    def __post_init__(self) -> None:
        for name in (self.model, self.tag):
            if not re.fullmatch(r"\w+", name):
                raise WeightsError(
                    f"{name!r} cannot be part of a file name: use letters, digits, _"
                )

    def to_json(self) -> str:
        """The entry as JSON text with sorted keys: equal entries give equal bytes."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str | Path) -> WeightsEntry:
        """Reads an entry strictly.

        Args:
            text: What :meth:`to_json` gave.
            source: File to name in an error.

        Raises:
            WeightsError: Not JSON, or a field is unknown or missing.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise WeightsError(f"{source}: weights entry is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise WeightsError(f"{source}: weights entry is not a JSON object")
        fields = {item.name for item in dataclasses.fields(cls)}
        unknown = sorted(values.keys() - fields)
        # Entries inside the files of before have no thresholds of conformal sets.
        missing = sorted(fields - values.keys() - {"conformal"})
        if unknown or missing:
            raise WeightsError(
                f"{source}: weights entry has unknown fields {unknown}, missing fields {missing}; "
                f"it belongs to another version of ChromoZoo or was edited: restore or re-save it"
            )
        return cls(**values)


def weights_entries(model: str) -> dict[str, WeightsEntry]:
    """The packaged entries of a model by tag, in the order of the tags. Does not import torch.

    Raises:
        UnknownNameError: No such model.
        WeightsError: An entry is damaged or has the wrong file name.
    """
    from chromozoo.registry import model_info  # the registry imports this module

    entries = {}
    for file in sorted((model_info(model).file.parent / "weights").glob(f"{escape(model)}_*.json")):
        entry = WeightsEntry.from_json(file.read_text(encoding="utf-8"), file)
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
    try:
        header, tensor_bytes = _split(data)
        text = json.loads(header)["__metadata__"][METADATA_KEY]
    except (ValueError, KeyError, TypeError) as error:
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
    from safetensors.torch import load

    path = Path(path)
    data = _read(path)
    _compare(path, data, entry.sha256, _sha256(data), entry.size_bytes)
    load_tensors(network, _unpack(load(data)), path)


def load_tensors(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copies tensors into a network whose names and shapes they must match exactly.

    Args:
        network: The pure network.
        tensors: Named like its ``state_dict``.
        path: File to name in an error.

    Raises:
        WeightsError: Tensors are missing, unexpected or of another shape.
    """
    wanted = network.state_dict()
    wrong = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "of another shape": [
            f"{key} {tuple(tensors[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in sorted(wanted.keys() & tensors.keys())
            if tensors[key].shape != wanted[key].shape
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
    network.load_state_dict(tensors)


def load_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a Lightning checkpoint without executing anything in it.

    Returns:
        The arguments of the model (``hyper_parameters``) and the tensors of its ``network``.

    Raises:
        WeightsError: The file is missing or damaged, holds objects other than tensors and plain
            values, or no tensors of a ``network``.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        states: dict[str, Tensor] = checkpoint["state_dict"]
        arguments: dict[str, Any] = dict(checkpoint.get("hyper_parameters", {}))
    except Exception as error:  # torch raises many kinds, by the sort of damage
        raise WeightsError(
            f"{path}: is no Lightning checkpoint that can be read safely, that is one of tensors "
            f"and plain values only ({type(error).__name__}: {str(error)[:300]})"
        ) from error
    prefix = "network."
    tensors = {
        key.removeprefix(prefix): value for key, value in states.items() if key.startswith(prefix)
    }
    if not tensors:
        raise WeightsError(
            f"{path}: holds no tensors named '{prefix}...'; was it saved by ChromoZoo?"
        )
    # Lightning's own keys, such as _class_path, begin with an underscore.
    return {key: value for key, value in arguments.items() if not key.startswith("_")}, tensors


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


def _unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undoes :func:`_pack`: all floating tensors as fp32."""
    tensors: dict[str, Tensor] = {}
    for key, tensor in packed.items():
        if key.endswith(SCALE_SUFFIX):
            continue
        scale = packed.get(key + SCALE_SUFFIX)
        if scale is not None:
            tensor = tensor.float() * _per_channel(scale, tensor)
        tensors[key] = tensor.float() if tensor.is_floating_point() else tensor
    return tensors


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
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error


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
    """Writes to a temporary name, then renames: no reader ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _temporary(path)
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
