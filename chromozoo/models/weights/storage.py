"""Storage of weights as safetensors files, and their checks at every load."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo import strict_json
from chromozoo.errors import WeightsError
from chromozoo.models.weights.files import (
    check_hash,
    describe_damage,
    read_file,
    sha256_of,
    split_safetensors,
    write_file,
)
from chromozoo.models.weights.index import weights_entries
from chromozoo.structures.weights_entry import MAX_BYTES, METADATA_KEY, STORAGES, WeightsEntry

if TYPE_CHECKING:
    from torch import Tensor, nn

SCALE_SUFFIX = "::scale"
# Elements that a builder may allocate beyond the tensors of the weights: heads of ImageNet that are
# replaced, and the image on which a network is tried. 1.2 GB.
SPARE_ELEMENTS = 300_000_000
MAX_ALLOCATIONS = 100_000


def save_weights(
    network: nn.Module, entry: WeightsEntry, folder: str | Path, storage: str = "fp16"
) -> tuple[Path, WeightsEntry]:
    """Write the tensors of a network as a safetensors file that also carries its entry.

    One-dimensional tensors (biases, all of BatchNorm) always stay fp32: they are under 1 % of the
    bytes, an error in one scales a whole channel, and a running variance spans more than fp16
    holds (6e-5 to 65504 at full precision). Integer buffers are kept as they are. Equal tensors
    and entry give equal bytes.

    Args:
        network: The pure network, without the task around it.
        entry: Entry of the weights; file, hashes, size, parameters and storage are filled in here.
            Metrics must be those of the stored file: measure after saving, then
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
        data_sha256=sha256_of(split_safetensors(save(tensors))[1]),
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
    sha256 = sha256_of(data)
    path = Path(folder) / f"{entry.model}_{entry.tag}-{sha256[:8]}.safetensors"
    write_file(path, data)
    return path, dataclasses.replace(entry, file=path.name, sha256=sha256, size_bytes=len(data))


def read_entry(path: str | Path) -> WeightsEntry:
    """Return the entry that a weights file carries, or the packaged entry of a packaged file.

    Raises:
        WeightsError: The file is missing, damaged, or was not written by :func:`save_weights`.
    """
    path = Path(path)
    data = read_file(path)
    header, tensor_bytes = split_safetensors(data)
    try:
        text = strict_json.loads(header)["__metadata__"][METADATA_KEY]
        if not isinstance(text, str):
            raise TypeError(f"{METADATA_KEY} is no text")
    except (ValueError, LookupError, TypeError) as error:
        raise WeightsError(
            f"{path}: {describe_damage(data) or 'is no weights file that ChromoZoo wrote'}; give "
            "a .safetensors file written by chromozoo.models.weights.storage.save_weights, or a "
            ".ckpt"
        ) from error
    entry = WeightsEntry.from_json(text, path)
    sha256 = sha256_of(data)
    in_name = re.search(r"-([0-9a-f]{8})\.safetensors$", path.name)
    check_hash(path, data, entry.data_sha256, sha256_of(tensor_bytes))
    if in_name:
        check_hash(path, data, in_name[1], sha256[:8])
    for packaged in weights_entries(entry.model).values():
        if packaged.sha256 == sha256:
            return packaged
    return dataclasses.replace(entry, file=path.name, sha256=sha256, size_bytes=len(data))


def load_into(network: nn.Module, path: str | Path, entry: WeightsEntry) -> None:
    """Load a weights file into a network, as fp32, after a check of the full sha256.

    Raises:
        WeightsError: The file is missing, is not the one that the entry describes, or its tensors
            are not exactly those of the network.
    """
    load_tensors(network, read_tensors(path, entry), Path(path))


def read_tensors(path: str | Path, entry: WeightsEntry) -> dict[str, Tensor]:
    """Return the tensors of a weights file, floating ones as fp32, after a check of its sha256.

    Raises:
        WeightsError: The file is missing, is not the one that the entry describes, or holds no
            tensors as :func:`save_weights` stores them.
    """
    from safetensors.torch import load

    path = Path(path)
    data = read_file(path)
    check_hash(path, data, entry.sha256, sha256_of(data), entry.size_bytes)
    try:
        packed = load(data)
    except Exception as error:  # SafetensorError; others where torch has no such type of numbers
        raise WeightsError(
            f"{path}: is no safetensors file ({error}); restore or re-save it"
        ) from error
    return _unpack(packed, path)


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into a network whose names and shapes they must match exactly.

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


@contextmanager
def bounded_allocation(elements: int) -> Iterator[None]:
    """Limit the elements that torch allocates within the context.

    The arguments of a builder may come from a damaged or malicious file.

    Args:
        elements: Number in all tensors of the file. Twice as many may be allocated, and 300
            million.

    Raises:
        WeightsError: More are requested; they are not allocated.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    limit = 2 * elements + SPARE_ELEMENTS
    on_meta = {"device": torch.device("meta")}

    class Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
        n_elements = n_calls = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            # Functions that allocate take a device; on `meta` they only tell the size.
            if any(argument.name == "device" for argument in func._schema.arguments):
                self.n_elements += func(*args, **(kwargs | on_meta)).numel()
                self.n_calls += 1
            if self.n_elements > limit or self.n_calls > MAX_ALLOCATIONS:
                raise WeightsError(
                    f"{self.n_elements:,} numbers in {self.n_calls:,} tensors are asked for, and "
                    f"the file has {elements:,}"
                )
            return func(*args, **kwargs)

    with Bounded():  # type: ignore[no-untyped-call]
        yield


def _pack(network: nn.Module, storage: str) -> dict[str, Tensor]:
    """Return the tensors of a network as they are stored."""
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
    """Return the tensors of :func:`_pack` as they were, floating ones as fp32."""
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
    """Return the kind of a tensor's numbers; tensors of one kind may be copied into each other."""
    if tensor.is_floating_point():
        return "floating"
    return "complex" if tensor.is_complex() else str(tensor.dtype)


def _per_channel(scale: Tensor, tensor: Tensor) -> Tensor:
    """Return scales ``(C,)`` in a shape that multiplies a tensor ``(C, ...)``."""
    return scale.reshape(-1, *[1] * (tensor.dim() - 1))
