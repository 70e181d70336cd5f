"""Keys are never mixed up, values come back as they were, damage is noticed."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_notebook.errors import IntegrityError, OverflowInFold, UsageError
from fs_notebook.online.codec import (
    Packed,
    pack_key,
    pack_value,
    seal,
    show_key,
    unpack_key,
    unpack_value,
    unseal,
)

pytestmark = pytest.mark.timeout(60)

INT64 = st.integers(-(2**63), 2**63 - 1)
PARTS = st.one_of(
    INT64,
    st.text(),
    st.booleans(),
    st.floats(allow_nan=False),
    st.dates(),
    st.datetimes().map(lambda d: d.replace(tzinfo=UTC, fold=0)),
)
KEYS = st.lists(PARTS, min_size=1, max_size=4).map(tuple)
SCALARS = st.one_of(st.none(), st.booleans(), INT64, st.floats(), st.text())


def typed(values: Any) -> str:
    """Return text in which 1, 1.0, True and NaN are told apart, but 0.0 and -0.0 are not."""
    return repr([(type(v).__name__, v + 0.0 if isinstance(v, float) else v) for v in values])


@given(KEYS)
def test_a_key_comes_back_as_it_was(key: tuple[Any, ...]) -> None:
    assert typed(unpack_key(pack_key(key))) == typed(key)


@given(KEYS, KEYS)
def test_other_keys_have_other_bytes(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert (pack_key(one) == pack_key(other)) == (typed(one) == typed(other))


def test_fault_28_keys_that_look_alike_are_never_mixed_up() -> None:
    noon = datetime(2024, 1, 1, tzinfo=UTC)
    keys: list[tuple[Any, ...]] = [
        (1,), ("1",), (True,), (1.0,), ("",), (" ",), ("\0",), ("a", "b"), ("ab",), ("a,b",),
        ("a\0b",), ("é",), ("e\u0301",), ("{x}",), ("*",), (date(2024, 1, 1),), (noon,),
        ("2024-01-01",), (0,), (False,), ("x" * 300,), ("x" * 301,), ("😀" * 100_000,),
    ]  # fmt: skip
    assert len({pack_key(k) for k in keys}) == len(keys)
    assert len(pack_key(("x" * 5000,))) > 5000


def test_equal_instants_and_zeros_and_nans_are_one_key() -> None:
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    assert pack_key((noon,)) == pack_key((noon.replace(tzinfo=None),))
    assert pack_key((noon,)) == pack_key((noon.astimezone(timezone(timedelta(hours=5))),))
    assert pack_key((0.0,)) == pack_key((-0.0,))
    assert pack_key((math.nan,)) == pack_key((-math.nan,))


@pytest.mark.parametrize("key", [(), (None,), (b"x",), (2**70,), ("\ud800",), (["a"],)])
def test_a_key_that_cannot_be_stored_is_refused(key: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError):
        pack_key(key)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_key_are_an_integrity_error(blob: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        assert isinstance(unpack_key(blob), tuple)
    assert show_key(blob)


def test_a_long_key_is_shortened_in_errors() -> None:
    assert len(show_key(pack_key(("x" * 10_000,)))) < 250


@given(
    INT64,
    st.none() | INT64,
    st.lists(SCALARS | st.lists(SCALARS, max_size=4), max_size=6).map(tuple),
    st.binary(max_size=50),
)
def test_a_value_comes_back_as_it_was(
    newest: int, until: int | None, values: tuple[Any, ...], state: bytes
) -> None:
    found = unpack_value(pack_value(newest, until, values, state))
    assert repr(found) == repr(Packed(newest, until, values, state))


def test_nan_and_infinity_survive() -> None:
    values = unpack_value(pack_value(0, None, (math.nan, math.inf, -math.inf, -0.0), b"")).values
    assert math.isnan(values[0])
    assert values[1:3] == (math.inf, -math.inf)
    assert math.copysign(1, values[3]) == -1


def test_an_integer_beyond_64_bits_is_refused() -> None:
    with pytest.raises(OverflowInFold):
        pack_value(0, None, (2**64,), b"")


@pytest.mark.parametrize(
    "blob", [b"", b"\x01", b"\x02\x00\x00\x00\x00", b"\x01\x01\x00\x00\x00\xc1"]
)
def test_another_format_is_an_integrity_error(blob: bytes) -> None:
    with pytest.raises(IntegrityError):
        unpack_value(blob)


@given(st.binary(min_size=1, max_size=60), st.data())
def test_fault_30_one_changed_bit_is_noticed(blob: bytes, data: st.DataObject) -> None:
    key = pack_key(("u7",))
    sealed = bytearray(seal(key, blob))
    assert unseal(key, bytes(sealed), shard="s") == blob
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IntegrityError, match="'u7'"):
        unseal(key, bytes(sealed), shard="s")


def test_a_value_under_another_key_is_noticed() -> None:
    with pytest.raises(IntegrityError):
        unseal(pack_key(("u8",)), seal(pack_key(("u7",)), b"x"), shard="s")


def test_a_truncated_seal_is_noticed() -> None:
    for length in range(4):
        with pytest.raises(IntegrityError):
            unseal(b"k", b"\0" * length + b"x" * (length > 0), shard="s")
