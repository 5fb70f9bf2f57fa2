"""Lightning checkpoints, read without executing anything in them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chromozoo.errors import WeightsError
from chromozoo.models.weights.files import MAX_FILE_BYTES
from chromozoo.strict_json import short_repr

if TYPE_CHECKING:
    from torch import Tensor

# Size of a checkpoint's pickle, which names the tensors but does not hold them.
MAX_PICKLE_BYTES = 64 << 20
# Numbers, words, lists and dictionaries among the arguments of a builder, at all depths.
MAX_ARGUMENTS = 10_000


def load_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a Lightning checkpoint without executing anything in it.

    ``init_from``, the start of the checkpoint's own training, is left out of the arguments.

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
        hparams = dict(checkpoint.get("hyper_parameters") or {})
    except Exception as error:  # torch raises many kinds, by the sort of damage
        raise WeightsError(
            f"{path}: is no Lightning checkpoint that can be read safely, that is one of tensors "
            f"and plain values only ({type(error).__name__}: {str(error)[:300]}); save it again, "
            "or give a .safetensors file"
        ) from error
    prefix = "network."
    tensors = {
        key.removeprefix(prefix): _copy_dense(value, path)
        for key, value in states.items()
        if isinstance(key, str) and key.startswith(prefix)
    }
    if not tensors:
        raise WeightsError(
            f"{path}: holds no tensors named '{prefix}...'; was it saved by ChromoZoo?"
        )
    if wrong := [key for key in hparams if not isinstance(key, str)]:
        raise WeightsError(
            f"{path}: hyper_parameters has names that are no text ({short_repr(wrong[0])}); was it "
            "saved by ChromoZoo?"
        )
    # Lightning's own keys, such as _class_path, begin with an underscore.
    arguments = {key: value for key, value in hparams.items() if not key.startswith("_")}
    arguments.pop("init_from", None)
    try:
        return _copy_plain(arguments, [0]), tensors
    except ValueError as error:
        raise WeightsError(
            f"{path}: hyper_parameters {error}; was it saved by ChromoZoo?"
        ) from error


def _check_checkpoint(path: Path) -> None:
    """Refuse a checkpoint for which :func:`torch.load` would need more memory than its own size.

    Raises:
        ValueError, zipfile.BadZipFile, OSError: The file is no such checkpoint, or too large.
    """
    import pickletools

    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{size:,} bytes are more than {MAX_FILE_BYTES:,}")
    with zipfile.ZipFile(path) as archive:  # as torch writes it since 1.6
        members = archive.infolist()
        # torch stores without compression, so nothing in it is larger than the file.
        if any(one.compress_type != zipfile.ZIP_STORED for one in members):
            raise ValueError("its parts are compressed")
        if sum(one.file_size for one in members) > size:
            raise ValueError("its parts claim to be larger than the file")
        pickles = [one for one in members if one.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE_BYTES:
            raise ValueError("it has no data.pkl, several, or a very large one")
        for code, argument, _ in pickletools.genops(archive.read(pickles[0])):
            # torch's own list of safe names includes bytearray, which may be of any length.
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


def _copy_dense(tensor: Any, path: Path) -> Tensor:
    """Return a copy of a dense tensor, after a check that its storage is as large as it claims."""
    import torch

    is_plain = (
        isinstance(tensor, torch.Tensor)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        # A tensor with strides of 0 may claim any size.
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )
    if not is_plain:
        raise WeightsError(
            f"{path}: holds {short_repr(type(tensor).__name__)} among its tensors, no dense one; "
            "was it saved by ChromoZoo?"
        )
    copied: Tensor = tensor.detach().clone()
    return copied


def _copy_plain(value: Any, count: list[int], depth: int = 0) -> Any:
    """Return a copy of plain values; values repeated by reference count each time.

    Raises:
        ValueError: Other objects, or too many.
    """
    count[0] += 1
    if count[0] > MAX_ARGUMENTS or depth > 20:
        raise ValueError(f"holds more than {MAX_ARGUMENTS:,} values, or is nested too deeply")
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str | int | float | None)]:
            raise ValueError(f"has a name that is no text ({short_repr(wrong[0])})")
        return {key: _copy_plain(item, count, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy_plain(item, count, depth + 1) for item in value]
    if isinstance(value, tuple):
        return tuple(_copy_plain(item, count, depth + 1) for item in value)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("holds a number of more than 63 bits")
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"holds {short_repr(type(value).__name__)}, which is no plain value")
