"""What a plan keeps of its joins: what is read, and nothing of what is not."""

from __future__ import annotations

import pytest

from fs_notebook.errors import DefinitionError
from fs_notebook.language.expr import columns_of
from fs_notebook.language.joins import early_where
from fs_notebook.language.plan import Plan
from fs_notebook.language.relation import SourceColumns
from fs_notebook.language.sql import compile_sql
from fs_notebook.language.unions import canonical
from fs_notebook.types import Type

READS = SourceColumns(
    "reads", (("user", Type.VARCHAR), ("article", Type.BIGINT), ("ts", Type.TIMESTAMP)), "ts"
)
ARTICLES = (("article", Type.BIGINT), ("genre", Type.VARCHAR), ("author", Type.VARCHAR))
AUTHORS = (("author", Type.VARCHAR), ("town", Type.VARCHAR))


def compiled(sql: str, *, more: tuple[tuple[str, Type], ...] = ()) -> Plan:
    known = {
        "reads": READS,
        "articles": SourceColumns("articles", (*ARTICLES, *more, ("at", Type.TIMESTAMP)), "at"),
        "authors": SourceColumns("authors", AUTHORS, None, cut="[[0,0,3,0]]"),
    }
    return compile_sql(sql, name="x", find_source=known.__getitem__)


NEWS = (
    "SELECT user, COUNT(*) AS n FROM reads JOIN articles USING (article) "
    "WHERE genre = 'news' AND article > 3 AND user <> 'bob' GROUP BY user"
)


def test_columns_that_nobody_reads_are_not_in_the_plan() -> None:
    plan = compiled(NEWS)
    assert [c for _, c, _ in plan.joins[0].columns] == ["genre"]
    assert plan.columns == ("article", "user")
    assert Plan.from_dict(plan.to_dict()) == plan
    # So a column that the other stream gets makes no new version.
    assert compiled(NEWS, more=(("words", Type.BIGINT),)).fingerprint == plan.fingerprint


def test_a_join_stays_though_none_of_its_columns_is_read() -> None:
    plan = compiled("SELECT user, COUNT(*) AS n FROM reads JOIN articles USING (article) "
                    "GROUP BY user")  # fmt: skip
    assert [j.columns for j in plan.joins] == [()]


def test_a_join_may_read_a_column_for_another_one() -> None:
    plan = compiled(
        "SELECT b.town, COUNT(*) AS n FROM reads r JOIN articles a ON r.article = a.article "
        "LEFT JOIN authors b ON a.author = b.author GROUP BY b.town"
    )
    assert [[c for _, c, _ in j.columns] for j in plan.joins] == [["author"], ["town"]]


def test_conditions_on_the_row_itself_come_before_the_join() -> None:
    early = early_where(compiled(NEWS))
    assert early is not None
    assert columns_of(early) == {"article", "user"}
    mixed = NEWS.replace("AND article > 3 AND user <> 'bob'", "OR article > 3")
    assert early_where(compiled(mixed)) is None


def between(on: str, *, how: str = "JOIN") -> str:
    return (
        f"SELECT r.user, COUNT(*) AS n FROM reads r {how} articles a ON r.article = a.article "
        f"AND {on} GROUP BY r.user"
    )


HOUR = 3_600_000_000


@pytest.mark.parametrize(
    ("on", "within"),
    [
        ("a.at BETWEEN r.ts - INTERVAL '1' HOUR AND r.ts", (-HOUR, 0)),
        ("r.ts BETWEEN a.at AND a.at + INTERVAL '1' HOUR", (-HOUR, 0)),
        ("r.ts - a.at BETWEEN INTERVAL '0' SECOND AND INTERVAL '1' HOUR", (-HOUR, 0)),
        ("a.at >= r.ts - INTERVAL '1' HOUR AND r.ts >= a.at", (-HOUR, 0)),
        ("at >= ts - (INTERVAL '2' HOUR - INTERVAL '1' HOUR) AND at - ts < INTERVAL '1' HOUR",
         (-HOUR, HOUR - 1)),
        ("a.at > r.ts AND a.at < r.ts + INTERVAL '1' HOUR", (1, HOUR - 1)),
        ("a.at > r.ts AND a.at >= r.ts + INTERVAL '1' HOUR AND INTERVAL '2' HOUR >= a.at - r.ts",
         (HOUR, 2 * HOUR)),
    ],
)  # fmt: skip
def test_an_interval_is_what_it_bounds_however_written(on: str, within: tuple[int, int]) -> None:
    plan = compiled(between(on))
    assert plan.pairs is not None
    assert plan.pairs.within == within
    assert plan.source == "reads + articles"
    assert Plan.from_dict(plan.to_dict()) == plan
    assert canonical(plan) == plan
    low, high = within
    plain = f"a.at - r.ts BETWEEN INTERVAL '{low / 1e6:.6f}' SECOND AND "
    assert compiled(between(f"{plain} INTERVAL '{high / 1e6:.6f}' SECOND")).fingerprint == (
        plan.fingerprint
    )
    if low:
        other = f"a.at - r.ts BETWEEN INTERVAL '0' SECOND AND INTERVAL '{high / 1e6:.6f}' SECOND"
        assert high < 0 or compiled(between(other)).fingerprint != plan.fingerprint


WHOLE = "a.at BETWEEN r.ts - INTERVAL '1' HOUR AND r.ts"


@pytest.mark.parametrize(
    ("sql", "says", "at"),
    [
        (between("a.at >= r.ts - INTERVAL '1' HOUR"), "both sides", "a.at >="),
        (between("a.at BETWEEN r.ts AND r.ts - INTERVAL '1' HOUR"), "empty", "a.at BETWEEN"),
        (between("a.at BETWEEN r.ts AND INTERVAL '1' HOUR"), "event times of both", "a.at BETWEEN"),
        (between("a.at BETWEEN r.article AND r.ts"), "event times of both", "r.article AND r.ts"),
        (between("a.at BETWEEN r.ts AND a.genre"), "event times of both", "a.genre GROUP"),
        (between("a.at > r.ts - 3 AND a.at < r.ts"), "no bound", "3 AND"),
        (between("a.at BETWEEN r.ts - INTERVAL '1' MONTH AND r.ts"), "month", "'1' MONTH"),
        (between(WHOLE, how="LEFT JOIN"), "cannot be folded as NULL", "articles"),
        ((f"SELECT user, COUNT(*) AS n FROM reads r JOIN articles a ON {WHOLE} GROUP BY user"),
         "equal columns too", "articles"),
        (("SELECT user, COUNT(*) AS n FROM reads r JOIN articles FOR SYSTEM_TIME AS OF r.ts AS a "
         f"ON r.article = a.article AND {WHOLE} GROUP BY user"), "not both", ""),
        (("SELECT user, COUNT(*) AS n FROM reads r JOIN authors b ON r.user = b.author JOIN "
         f"articles a ON r.article = a.article AND {WHOLE} GROUP BY user"), "before other joins",
         "articles"),
        (("SELECT user, COUNT(*) AS n FROM reads r JOIN authors b ON r.user = b.author AND "
         "b.town > r.ts GROUP BY user"), "no declared event time", "b.town"),
        (("SELECT user, COUNT(*) AS n FROM (SELECT user, article, ts FROM reads UNION ALL SELECT "
          f"user, article, ts FROM reads) r JOIN articles a ON r.article = a.article AND {WHOLE} "
          "GROUP BY user"), "two streams", "articles"),
    ],
)  # fmt: skip
def test_an_interval_that_cannot_be_folded_is_refused_with_its_place(
    sql: str, says: str, at: str
) -> None:
    with pytest.raises(DefinitionError, match=says) as caught:
        compiled(sql)
    assert sql[(caught.value.column or 0) - 1 :].startswith(at)
    assert caught.value.remedy


def test_a_column_of_both_streams_is_told_apart_by_the_stream() -> None:
    with pytest.raises(DefinitionError, match="more than one of the joined") as caught:
        compiled("SELECT user, SUM(article) AS n FROM reads r JOIN articles a "
                 "ON r.article = a.article GROUP BY user")  # fmt: skip
    assert caught.value.found == "r.article, a.article"
