"""Weights entry: the metadata of one weights file, stored as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from chromozoo import strict_json
from chromozoo.errors import WeightsError
from chromozoo.strict_json import short_repr

# Key of the entry among the metadata of a safetensors file.
METADATA_KEY = "chromozoo"
STORAGES = ("fp32", "fp16", "int8")
# Version of the format. It rises only when older readers would misinterpret a value. A new field
# has a default, and readers that do not know it ignore it.
FORMAT = 1

# GitHub refuses files from 100 MB.
MAX_BYTES = 95_000_000
MAX_INPUT_SIDE = 100_000


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """Metadata of one weights file. :func:`save_weights` fills the fields that it can measure.

    Attributes:
        model: Registered name of the model.
        tag: The data set that the weights were trained on.
        classes: Class of each output, in order.
        input_size: Height and width in pixels of the network's input; empty if any size will do.
        init_args: Arguments of the model's builder.
        preprocessing: Arguments of the preprocessing preset.
        temperature: Divides the logits so that the probabilities are calibrated.
        conformal: Thresholds of the nonconformity score by error rate, for chromosomes ``"alone"``
            and in their ``"cell"`` (:mod:`chromozoo.karyotype.conformal`); empty before the
            calibration.
        dataset: Training data set and its version.
        split: Name of the split; ``split_sha256`` is the hash of its committed id list.
        metrics: Metrics of the stored file, such as
            ``{'bioimlab_v1/test': {'accuracy': 0.97}}``, fractions 0..1.
        result_row: The row of the results table that holds the metrics: ``file`` and ``key``.
        config: Config file of the training, relative to the repository; ``config_sha256`` is the
            hash of the resolved config.
        lineage: Every stage of the training, the first one first
            (:mod:`chromozoo.benchmark.lineage`).
        seed: Seed of the training.
        training: Description of the training.
        versions: Library versions of the training.
        licence_code, licence_data, licence_weights: Licences.
        created: Date, ``YYYY-MM-DD``.
        intended_use: Statement of the intended use.
        doc: Anything else that a user must know.
        urls: Download addresses of the file, in order of preference.
        file, sha256, size_bytes: The weights file. Empty inside the file itself, which cannot hold
            its own hash.
        data_sha256: Hash of the tensor bytes alone. It is also stored inside the file, so that a
            renamed file can be checked without this entry.
        parameters: Number of parameters of the network.
        storage: ``'fp32'``, ``'fp16'`` or ``'int8'``, see :func:`save_weights`.
        format: Version of the entry's format, see :data:`FORMAT`.

    Raises:
        WeightsError: A value has the wrong type or is impossible (a temperature of 0).
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
    config_sha256: str = ""
    lineage: list[dict[str, Any]] = field(default_factory=list)
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
                raise WeightsError(
                    f"weights entry: {name} is {short_repr(value)}, which is no {words}"
                )
        for name in (self.model, self.tag):
            if not re.fullmatch(r"\w+", name):
                raise WeightsError(
                    f"{name!r} cannot be part of a file name: use letters, digits, _"
                )
        wrong = {
            "temperature": not (math.isfinite(self.temperature) and self.temperature > 0),
            "input_size": len(self.input_size) not in (0, 2)
            or not all(0 <= side <= MAX_INPUT_SIDE for side in self.input_size),
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
                f"weights entry: {name} is {short_repr(getattr(self, name))}, which cannot be"
            )

    def to_json(self) -> str:
        """Return the entry as JSON with sorted keys, so that equal entries give equal bytes."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str | Path) -> WeightsEntry:
        """Parse an entry, which another version of ChromoZoo may have written.

        Fields that an older version did not know get their defaults. Fields that only a later
        version knows are dropped with a warning.

        Args:
            text: Output of :meth:`to_json`.
            source: File name for error messages.

        Raises:
            WeightsError: Not JSON, a field is missing or has the wrong type, or the format is
                newer than this version of ChromoZoo.
        """
        try:
            values = strict_json.loads(text)
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
                f"{source}: weights entry has unknown fields {short_repr(unknown)}, missing fields "
                f"{missing}; it was edited: restore or re-save it"
            )
        if unknown:
            warnings.warn(
                f"{source}: weights entry has fields that this version of ChromoZoo does not know, "
                f"and leaves out: {short_repr(unknown)}",
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
    """Return whether a JSON value has the type of an entry's field."""
    if kind is Any:
        return True
    if kind in (int, float):  # JSON does not distinguish 1.0 from 1
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
