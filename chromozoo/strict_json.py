"""JSON of others, read so that nothing of it surprises whoever uses it.

Python's own reader takes what no other program would write, and fails in a way of its own on each
kind of damage. Here every fault is one ``ValueError``, whose words go into the message of the
caller.
"""

import json
import re
import reprlib
from collections import Counter
from typing import Any

# A data set of 10,000 metaphases has 50 million numbers, in several files. Python makes up to 100
# bytes of a character of JSON, so the number of values bounds the memory.
MAX_BYTES = 512 << 20
MAX_VALUES = 30_000_000

_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,18}\s*", re.ASCII)


def parse(data: bytes | str) -> Any:
    """The value of a JSON text.

    Args:
        data: As text, or in UTF-8, UTF-16 or UTF-32.

    Raises:
        ValueError: No JSON, too large or too deep; a number of thousands of digits, a key that
            stands twice in one object, or text that cannot be written again (lone surrogates).
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
        parsed = json.loads(text, object_pairs_hook=_object)
        if _SURROGATE.search(text):
            json.dumps(parsed, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("a text of it holds half a character (a lone surrogate)") from None
    except ValueError as error:
        if "digits" in str(error):
            raise ValueError("a number of it has thousands of digits") from error
        raise
    return parsed


def whole(value: Any) -> int:
    """A whole number, also of a file that has it as text or with a decimal point.

    Raises:
        ValueError: It is none, or has more than 18 digits.
    """
    match value:
        case bool():
            pass
        case int() if abs(value) < 10**18:
            return value
        case float() if abs(value) < 10**15 and value.is_integer():
            return int(value)
        case str() if _WHOLE.fullmatch(value):
            return int(value)
    raise ValueError(f"{shown(value)} is no whole number")


def shown(value: Any) -> str:
    """A value of any kind and length in a few words, for an error message."""
    try:
        return _SHORT.repr(value)
    except (ValueError, RecursionError):  # an int of thousands of digits
        return f"a {type(value).__name__}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return made


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
