"""What a plan keeps of its joins: what is read, and nothing of what is not."""

from __future__ import annotations

import pytest

from fs_notebook.errors import DefinitionError
from fs_notebook.language.expr import columns_of
from fs_notebook.language.joins import early_where
from fs_notebook.language.plan import Plan
from fs_notebook.language.relation import SourceColumns
from fs_notebook.language.sql import compile_sql
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


@pytest.mark.parametrize(
    "between",
    [
        "a.at BETWEEN r.ts - INTERVAL '1' HOUR AND r.ts",
        "a.at >= r.ts - INTERVAL '1' HOUR",
        "r.ts > a.at",
    ],
)
def test_a_join_over_an_interval_is_refused_with_its_place(between: str) -> None:
    sql = (
        "SELECT r.user, COUNT(*) AS n FROM reads r JOIN articles a ON r.article = a.article "
        f"AND {between} GROUP BY r.user"
    )
    with pytest.raises(DefinitionError, match="interval") as caught:
        compiled(sql)
    assert sql[(caught.value.column or 0) - 1 :].startswith(between.split()[0])
    assert "UNION ALL" in str(caught.value.remedy)
