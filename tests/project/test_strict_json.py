"""Strict JSON: each kind of damage raises one ValueError."""

from typing import Any

import pytest

from chromozoo import strict_json
from chromozoo.strict_json import loads, parse_int, short_repr


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a": [1, "b", null]}', {"a": [1, "b", None]}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ('{"ä": 1}'.encode("utf-16"), {"ä": 1}),
        ('["ä"]', ["ä"]),
        (b'["\\ud83d\\ude00"]', ["\U0001f600"]),
        (b"[" * 100 + b"]" * 100, None),
    ],
)
def test_valid_json_is_parsed(data: bytes, value: Any) -> None:
    assert loads(data) == value or value is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "one of its numbers has thousands of digits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "an object has the key 'c' twice"),
        (b'["\\ud800"]', "lone surrogate"),
        (b'["\\uDE00\\uD83D"]', "lone surrogate"),
        (b'["\xed\xa0\x80"]', "not in UTF-8 at byte 2"),
        (b'["\xe4"]', "not in UTF-8 at byte 2"),
    ],
)
def test_damaged_json_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loads(data)


def test_size_is_checked_before_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "MAX_VALUES", 1000)
    assert len(loads(b"[" + b"1," * 998 + b"1]")) == 999
    with pytest.raises(ValueError, match="about 1,001 values are more than 1,000"):
        loads(b"[" + b"1," * 1000 + b"1]")
    with pytest.raises(ValueError, match="values are more than"):
        loads(b"[" + b"{}," * 1000 + b"{}]")
    monkeypatch.setattr(strict_json, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="11 bytes are more than 10"):
        loads(b'"123456789"')


@pytest.mark.parametrize(
    ("value", "number"), [(3, 3), ("12", 12), (" -7 ", -7), (4.0, 4), (10**17, 10**17)]
)
def test_integers_may_be_text(value: Any, number: int) -> None:
    assert parse_int(value) == number and type(parse_int(value)) is int


@pytest.mark.parametrize(
    "value", [True, None, 1.5, "1.5", "", "٣", float("nan"), 1e300, 10**18, "9" * 19, [1], {}]
)
def test_other_values_are_not_integers(value: Any) -> None:
    with pytest.raises(ValueError, match="is not an integer"):
        parse_int(value)


def test_short_repr_of_large_values() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    for value in ("x" * 10**6, 10**5000, deep, "\ud800", {"a": list(range(1000))}):
        text = short_repr(value)
        assert len(text) < 200
        text.encode()
