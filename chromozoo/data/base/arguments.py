"""Arguments of DataModules that are dataclasses, given as such or as plain dicts."""

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def as_dataclass(kind: type[T], value: Any, name: str) -> T | None:
    """Return an argument as a dataclass.

    Args:
        kind: The dataclass.
        value: An instance, a dict of its fields, or None.
        name: Name of the argument in errors.

    Raises:
        ValueError: It is neither, has unknown fields or invalid values.
    """
    if value is None or isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {value!r}; give a {kind.__name__} or a dict of its fields")
    fields = kind.__dataclass_fields__  # type: ignore[attr-defined]
    if unknown := sorted(set(value) - set(fields)):
        raise ValueError(
            f"{name} has no field {', '.join(map(str, unknown))}; known are {', '.join(fields)}"
        )
    return kind(**value)
