"""JSON files of unknown origin, read with strict checks.

Python's own parser accepts text that no other program would write, and raises a different error for
each kind of damage. Here every fault is a ``ValueError`` whose message callers can quote.
"""

import json
import re
import reprlib
from collections import Counter
from typing import Any

# A data set of 10,000 metaphases has 50 million numbers, in several files. Python needs up to 100
# bytes for one character of JSON, so the number of values is limited to bound the memory.
MAX_BYTES = 512 << 20
MAX_VALUES = 30_000_000

_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*", re.ASCII)

_SHORT_REPR = reprlib.Repr()
_SHORT_REPR.maxstring = _SHORT_REPR.maxother = 60


def loads(data: bytes | str) -> Any:
    """Parse a JSON text.

    Args:
        data: Text, or bytes in UTF-8, UTF-16 or UTF-32.

    Raises:
        ValueError: Not JSON, too large or too deeply nested; a number of thousands of digits, a
            duplicate key in an object, or lone surrogates, which could not be written again.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data):,} bytes are more than {MAX_BYTES:,}")
    try:
        text = data if isinstance(data, str) else data.decode(json.detect_encoding(data))
    except UnicodeDecodeError as error:
        raise ValueError(f"not in UTF-8 at byte {error.start}") from error
    if (values := sum(map(text.count, ",[{"))) > MAX_VALUES:
        raise ValueError(f"about {values:,} values are more than {MAX_VALUES:,}")
    try:
        parsed = json.loads(text, object_pairs_hook=_build_object)
        if _SURROGATE.search(text):
            json.dumps(parsed, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("one of its strings has a lone surrogate") from None
    except ValueError as error:
        if "digits" in str(error):
            raise ValueError("one of its numbers has thousands of digits") from error
        raise
    return parsed


def parse_int(value: Any) -> int:
    """Return an integer that a file may hold as text or with a decimal point.

    Raises:
        ValueError: The value is not an integer, or has more than 18 digits.
    """
    match value:
        case bool():
            pass
        case int() if abs(value) < 10**18:
            return value
        case float() if abs(value) < 10**15 and value.is_integer():
            return int(value)
        case str() if _INTEGER.fullmatch(value):
            return int(value)
    raise ValueError(f"{short_repr(value)} is not an integer")


def short_repr(value: Any) -> str:
    """Return a repr of limited length of any value, for an error message."""
    try:
        return _SHORT_REPR.repr(value)
    except (ValueError, RecursionError):  # an int of thousands of digits
        return f"a {type(value).__name__}"


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict, and refuse duplicate keys."""
    members = dict(pairs)
    if len(members) < len(pairs):
        (duplicate, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"an object has the key {short_repr(duplicate)} twice")
    return members
