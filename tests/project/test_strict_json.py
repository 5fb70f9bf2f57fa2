"""JSON of others: one plain error for each kind of damage."""

from typing import Any

import pytest

from chromozoo import strict_json
from chromozoo.strict_json import parse, shown, whole


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
def test_what_is_json_is_read(data: bytes, value: Any) -> None:
    assert parse(data) == value or value is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "a number of it has thousands of digits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice"),
        (b'["\\ud800"]', "lone surrogate"),
        (b'["\\uDE00\\uD83D"]', "lone surrogate"),
        (b'["\xed\xa0\x80"]', "not in UTF-8 at byte 2"),
        (b'["\xe4"]', "not in UTF-8 at byte 2"),
    ],
)
def test_damage_is_one_plain_error(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(data)


def test_memory_is_bounded_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "MAX_VALUES", 1000)
    assert len(parse(b"[" + b"1," * 998 + b"1]")) == 999
    with pytest.raises(ValueError, match="about 1,001 values are more than 1,000"):
        parse(b"[" + b"1," * 1000 + b"1]")
    with pytest.raises(ValueError, match="values are more than"):
        parse(b"[" + b"{}," * 1000 + b"{}]")
    monkeypatch.setattr(strict_json, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="11 bytes are more than 10"):
        parse(b'"123456789"')


@pytest.mark.parametrize(
    ("value", "number"), [(3, 3), ("12", 12), (" -7 ", -7), (4.0, 4), (10**17, 10**17)]
)
def test_whole_numbers_may_be_text(value: Any, number: int) -> None:
    assert whole(value) == number and type(whole(value)) is int


@pytest.mark.parametrize(
    "value", [True, None, 1.5, "1.5", "", "٣", float("nan"), 1e300, 10**18, "9" * 19, [1], {}]
)
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(ValueError, match="is no whole number"):
        whole(value)


def test_anything_is_shown_in_a_few_words() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    for value in ("x" * 10**6, 10**5000, deep, "\ud800", {"a": list(range(1000))}):
        words = shown(value)
        assert len(words) < 200
        words.encode()
