"""Derived features' SQL: what it means, what it pins, and what is refused with its place."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.errors import DefinitionError, FeatureStoreError, UsageError, unknown_name
from fs_notebook.language.derived import DerivedPlan
from fs_notebook.language.derived_scope import Given
from fs_notebook.language.derived_sql import compile_derived, parse_requests, shape_of
from fs_notebook.language.sql import SourceColumns, compile_sql
from fs_notebook.types import Type

EVENTS = SourceColumns(
    "events",
    (
        ("user", Type.VARCHAR), ("shop", Type.VARCHAR), ("number", Type.BIGINT),
        ("amount", Type.DOUBLE), ("ts", Type.TIMESTAMP),
    ),
    "ts",
)  # fmt: skip


def stored(name: str, sql: str) -> Given:
    return Given(name, compile_sql(sql, name=name, find_source=lambda _: EVENTS))


GROUPS = {
    "spending": stored(
        "spending",
        "SELECT user, AVG(amount) AS mean_amount, COUNT(*) AS payments FROM events GROUP BY user",
    ),
    "reading": stored("reading", "SELECT user, SUM(number) AS total FROM events GROUP BY user"),
    "shops": stored("shops", "SELECT shop, AVG(amount) AS shop_mean FROM events GROUP BY shop"),
    "numbers": stored(
        "numbers", "SELECT number, COUNT(*) AS of_number FROM events GROUP BY number"
    ),
    "readers": stored(
        "readers", "SELECT user AS reader, MAX(number) AS most FROM events GROUP BY user"
    ),
}


def find(name: str) -> Given:
    if name == "total":
        return Given("reading", GROUPS["reading"].plan, only="total")
    if name not in GROUPS:
        raise unknown_name("feature, group or stream", name, GROUPS)
    return GROUPS[name]


def compiled(
    sql: str, *, name: str = "ratio", entity: tuple[str, ...] = (), request: str | None = None
) -> DerivedPlan:
    return compile_derived(
        sql, name=name, find_group=find, entity=entity, requests=parse_requests(request)
    )


def fails(sql: str, *, entity: tuple[str, ...] = (), request: str | None = None) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        compiled(sql, entity=entity, request=request)
    return caught.value


RATIO = "SELECT user, :amount / NULLIF(mean_amount, 0) AS ratio FROM spending"


def test_a_plan_says_what_it_reads() -> None:
    plan = compiled(RATIO)
    (only,) = plan.inputs
    assert (only.group, only.fingerprint) == ("spending", GROUPS["spending"].plan.fingerprint)
    assert only.features == (("mean_amount", Type.DOUBLE),)
    assert plan.requests == (("amount", Type.DOUBLE),)
    assert (plan.entity, plan.features) == (("user",), ("ratio",))
    again = DerivedPlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    assert again.fingerprint == plan.fingerprint


@pytest.mark.parametrize(
    "same",
    [
        "select user, :amount/nullif(MEAN_AMOUNT,0) as ratio from spending -- the ratio",
        "SELECT s.user, $amount / NULLIF(s.mean_amount, 0) AS ratio FROM spending AS s;",
        ":amount / NULLIF(mean_amount, 0)",
    ],
)
def test_the_same_meaning_is_the_same_version(same: str) -> None:
    if same.startswith(":"):
        same = f"SELECT {same} FROM spending"
    assert compiled(same).fingerprint == compiled(RATIO).fingerprint


def test_how_from_is_put_makes_no_new_version() -> None:
    one = "SELECT user, total / payments AS r FROM spending JOIN reading USING (user)"
    two = (
        "SELECT user, b.total / a.payments AS r "
        "FROM reading b LEFT JOIN spending a ON b.user = a.user"
    )
    three = "SELECT user, total / payments AS r FROM total NATURAL JOIN spending"
    assert len({compiled(sql).fingerprint for sql in (one, two, three)}) == 1


@pytest.mark.parametrize(
    "other",
    [
        RATIO.replace("0)", "1)"),
        RATIO.replace(":amount", ":price"),
        RATIO.replace(":amount", "CAST(:amount AS BIGINT)"),
        RATIO.replace("mean_amount", "payments"),
        RATIO.replace("AS ratio", "AS other"),
    ],
)
def test_another_meaning_is_another_version(other: str) -> None:
    assert compiled(other).fingerprint != compiled(RATIO).fingerprint


def test_a_new_version_of_an_input_is_a_new_version(monkeypatch: pytest.MonkeyPatch) -> None:
    former = compiled(RATIO).fingerprint
    changed = stored(
        "spending", "SELECT user, AVG(amount + 1) AS mean_amount FROM events GROUP BY user"
    )
    monkeypatch.setitem(GROUPS, "spending", changed)
    assert compiled(RATIO).fingerprint != former


@pytest.mark.parametrize(
    ("sql", "request_", "kind"),
    [
        (":x + mean_amount", None, Type.DOUBLE),
        ("CAST(:x AS BIGINT) + payments", None, Type.BIGINT),
        ("CAST(:x AS BIGINT) + :x * mean_amount", None, Type.DOUBLE),
        (":x + payments", "x BIGINT", Type.BIGINT),
        ("CASE WHEN :x = 'NL' THEN payments END", "x VARCHAR", Type.VARCHAR),
        ("EXTRACT(hour FROM CAST(:x AS TIMESTAMP)) + payments", None, Type.TIMESTAMP),
    ],
)
def test_types_of_request_values(sql: str, request_: str | None, kind: Type) -> None:
    plan = compiled(f"SELECT user, {sql} AS y FROM spending", request=request_)
    assert plan.requests == (("x", kind),)


def test_what_is_derived_from_derived_is_flattened(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = compiled(
        "SELECT user, :x / payments AS share, CAST(:k AS BIGINT) + 1 AS z FROM spending"
    )
    monkeypatch.setitem(GROUPS, "middle", Given("middle", inner))
    outer = compiled("SELECT user, share * total AS y FROM middle JOIN reading USING (user)")
    assert [i.group for i in outer.inputs] == ["reading", "spending"]
    assert outer.requests == (("x", Type.DOUBLE),)
    monkeypatch.setitem(GROUPS, "above", Given("above", outer))
    third = compiled("SELECT user, y + z AS w FROM above JOIN middle USING (user)")
    assert [i.group for i in third.inputs] == ["reading", "spending"]
    direct = compiled(
        "SELECT user, (:x / payments) * total + (CAST(:k AS BIGINT) + 1) AS w "
        "FROM spending JOIN reading USING (user)"
    )
    assert third.fingerprint == direct.fingerprint
    # The type that the inner one gave its value holds in the outer one.
    plan = compiled("SELECT user, :k + z AS w, share AS s FROM middle")
    assert plan.requests == (("k", Type.BIGINT), ("x", Type.DOUBLE))
    error = fails("SELECT user, share + :x AS w FROM middle", request="x BIGINT")
    assert "reads :x as DOUBLE" in error.message


def test_entities_of_several_groups() -> None:
    plan = compiled(
        "SELECT user, shop, mean_amount / shop_mean AS r FROM spending CROSS JOIN shops"
    )
    assert plan.entity == ("user", "shop")
    twice = compiled(
        "SELECT a.shop_mean - b.shop_mean AS gap FROM shops a, shops b", entity=("here", "there")
    )
    assert twice.entity == ("here", "there")
    assert [i.keys for i in twice.inputs] == [("here",), ("there",)]
    one = compiled("SELECT most / total AS r FROM reading JOIN readers ON reader = user")
    assert one.entity == ("user",)
    assert {i.keys for i in one.inputs} == {("user",)}


@pytest.mark.parametrize(
    ("sql", "message", "remedy", "line", "column"),
    [
        ("SELECT user, mean_amont + 1 AS y FROM spending", "'mean_amont'", "'mean_amount'", 1, 14),
        ("SELECT user, payments + 1 AS y\nFROM spendin", "'spendin'", "'spending'", 2, 6),
        ("SELECT user,\n  SUM(payments) AS y FROM spending", "An aggregate", "of its own", 2, 3),
        ("SELECT user, x.payments AS y FROM spending", "'x'", "", 1, 14),
        ("SELECT user, payments + 1 AS y FROM spending WHERE payments > 1", "WHERE", "CASE", 1, 52),
        ("SELECT user, payments + 1 AS y FROM spending GROUP BY user", "folds nothing", "", 1, 55),
        ("SELECT user, payments AS y FROM spending LIMIT 1", "LIMIT", "--sample", 1, 48),
        ("SELECT * FROM spending", "SELECT *", "aliases", None, None),
        ("SELECT user, payments FROM spending", "a feature already", "AS another", 1, 14),
        ("SELECT user FROM spending", "only keys", "expression", 1, 8),
        ("SELECT user, payments + 1 AS user FROM spending", "as its key", "another", 1, 14),
        ("SELECT user AS u, payments + 1 AS y FROM spending", "A key is no", "--entity", 1, 8),
        ("SELECT user, 1 AS y FROM spending", "No feature of 'spending'", "leave it", 1, 26),
        ("SELECT payments + 1 AS y, 2 * payments AS y FROM spending", "Two", "another", 1, 27),
        ("SELECT payments + 1, 2 * payments FROM spending", "no name", "AS name", 1, 8),
        ("SELECT user, :x || mean_amount AS y FROM spending", "types", "cast", 1, 14),
        ("SELECT user, FROBNICATE(:x) AS y FROM spending", "FROBNICATE", "", 1, 14),
        ("SELECT 1 + payments AS y FROM spending, spending", "twice", "AS b", 1, 41),
        (
            "SELECT a.payments - b.total AS y FROM spending a, reading b",
            "'user' is there twice", "USING (user)", 1, 51,
        ),
        (
            "SELECT payments - total AS y FROM spending JOIN reading USING (shop)",
            "no key", "the key that both", 1, 64,
        ),
        (
            "SELECT payments - total AS y FROM spending JOIN reading ON payments = total",
            "joined on their keys", "USING", 1, 60,
        ),
        (
            "SELECT payments - of_number AS y FROM spending JOIN numbers ON user = number",
            "another type", "one type", 1, 64,
        ),
        ("SELECT x FROM (SELECT 1 AS x) AS t", "names of features", "USING", 1, 23),
    ],
)  # fmt: skip
def test_refusals_point_into_the_text(
    sql: str, message: str, remedy: str, line: int | None, column: int | None
) -> None:
    error = fails(sql)
    assert message in error.message
    assert remedy in str(error.remedy)
    if line is not None:
        assert error.line == line
        shown = sql.splitlines()[line - 1]
        assert column is not None
        assert error.column == column, f"{shown!r} at {error.column}"


def test_a_name_that_two_tables_have_is_ambiguous() -> None:
    error = fails("SELECT shop_mean - 1 AS y FROM shops a, shops b", entity=("here", "there"))
    assert (error.message, error.line, error.column) == ("'shop_mean' is ambiguous.", 1, 8)
    # Joined on the key they are the very same feature.
    plan = compiled("SELECT shop_mean - 1 AS y FROM shops a JOIN shops b USING (shop)")
    assert len(plan.inputs) == 1


def test_entity_names_are_counted() -> None:
    error = fails("SELECT payments + 1 AS y FROM spending", entity=("a", "b"))
    assert "--entity a,b beside user" in str(error.found)


def test_entity_names_that_swap_the_keys_are_refused() -> None:
    sql = "SELECT user, shop, mean_amount / shop_mean AS r FROM spending CROSS JOIN shops"
    error = fails(sql, entity=("shop", "user"))
    assert error.found == "--entity shop,user, where the key is user, shop"
    assert error.remedy == "--entity user,shop"
    assert compiled(sql, entity=("reader", "place")).entity == ("reader", "place")


@pytest.mark.parametrize("text", ["amount", "amount MONEY", "a DOUBLE, a BIGINT", "a b c"])
def test_request_declarations_are_checked(text: str) -> None:
    with pytest.raises(UsageError, match="declared by its name and its type"):
        parse_requests(text)


def test_what_a_select_is_at_first_sight() -> None:
    assert shape_of("SELECT a FROM x JOIN y USING (a)").tables == ("x", "y")
    assert shape_of("SELECT SUM(a) FROM x GROUP BY b").folds
    assert shape_of("SELECT SUM(a) OVER (PARTITION BY b) FROM x").folds
    assert not shape_of("SELECT a FROM x").folds
    assert shape_of("SELECT a FROM (SELECT 1)").tables == ()
    assert shape_of("WITH x AS (SELECT 1 AS a) SELECT a FROM x").tables == ()


WORDS = (
    "SELECT FROM JOIN USING ON ( ) , . : $ amount user mean_amount payments spending reading "
    "total AS x y = + / * 1 'a' NULL CASE WHEN THEN END CAST BIGINT COALESCE SUM WHERE "
    "CROSS NATURAL middle @ :: :amount"
)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS.split(" ")), max_size=14))
def test_no_text_breaks_the_compiler(words: list[str]) -> None:
    text = "SELECT user, " + " ".join(words) + " FROM spending"
    with suppress(FeatureStoreError):
        compiled(text)
