"""`compare`: two versions side by side, against what was sent and against what each serves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.catalog.model import PROMOTED, Definition, Version
from fs_notebook.cli import main
from fs_notebook.clock import to_us
from fs_notebook.comparison import Comparison, parse_versions
from fs_notebook.comparison.reading import Online, Reading, sample
from fs_notebook.errors import UnknownName, UsageError
from fs_notebook.jupyter.compared import comparison_html, scatter
from fs_notebook.jupyter.display import StatusTable
from fs_notebook.session import Session
from fs_notebook.testing import Simulation
from fs_notebook.worker.shared import tell_partitions
from tests.support.sessions import BEGIN, SUM_SQL, read_events

ONE = """
SELECT user, SUM(readtime) AS total, AVG(readtime) AS mean, COUNT(*) AS reads,
       LAST(readtime) AS latest FROM read_events GROUP BY user
"""
TWO = """
SELECT user, SUM(readtime) AS total, AVG(readtime + 0.5) AS mean, COUNT(*) AS reads,
       MAX(readtime) AS most FROM read_events WHERE user <> 'u6' AND readtime <> 10 GROUP BY user
"""


@pytest.fixture
def ready(embedded_session: Session) -> Session:
    """Two versions of `reading`; the second lacks u6 and one event of u3."""
    embedded_session.upload(read_events(0, 70), "read_events", time="ts")
    embedded_session.define("reading", ONE)
    assert embedded_session.promote("reading").compared is None
    embedded_session.define("reading", TWO)
    return embedded_session


def columns(found: Comparison, names: Sequence[str]) -> list[tuple[Any, ...]]:
    return found.to_polars().select(names).rows()


def test_two_versions_side_by_side(ready: Session) -> None:
    status = ready.promote("reading")
    assert status.compared == (
        "v2 differs from v1 in 7 of 7 entities, most 10 for reads; %feature compare reading"
    )
    assert status.compared in repr(status)
    assert status.compared in repr(StatusTable([status.to_dict()]))
    assert "most 10 for reads" in StatusTable([status.to_dict()]).html()

    found = ready.compare("total")
    assert (found.name, found.versions, found.serving) == ("reading", (1, 2), 2)
    assert (found.entities, found.known, found.sampled) == (7, (7, 6), False)
    assert (found.differing, found.only, found.equal) == (7, (1, 0), False)
    assert found.lacking == (("latest",), ("most",))
    assert (found.positions, found.apart) == (("0:0:69:0", "0:0:69:0"), 0)

    sums = [sum(range(n, 70, 7)) for n in range(7)]
    others = [s - 10 * (n == 3) for n, s in enumerate(sums[:6])]
    assert columns(found, ["user", "total_v1", "total_v2"]) == [
        (f"u{n}", s, t) for n, (s, t) in enumerate(zip(sums, [*others, None], strict=True))
    ]
    total, mean, reads = found.features
    assert (total.entities, total.equal, total.only) == (7, 5, (1, 0))
    assert (total.numbers, total.mean_difference, total.greatest) == (6, 10 / 6, 10)
    assert total.means == (sum(sums) / 7, pytest.approx(sum(others) / 6))
    assert mean.equal == 0
    assert mean.greatest == pytest.approx(found.to_polars()["mean_v2"][3] - mean_of(3))
    # An entity that was never seen has read nothing: what is served is a count of zero.
    assert (reads.equal, reads.only, reads.greatest) == (5, (0, 0), 10)

    largest = {(d.feature, d.entity): d for d in found.largest}
    assert largest["total", "'u3'"].difference == -10
    assert largest["total", "'u6'"].difference is None
    assert largest["total", "'u6'"].lacking == "no events in v2"
    assert largest["reads", "'u6'"].difference == -10
    assert "1 entity has events in v1 only" in repr(found)
    assert "Only v2 has most." in repr(found)


def mean_of(user: int) -> float:
    return sum(range(user, 70, 7)) / 10


def test_it_is_what_each_version_serves(ready: Session) -> None:
    ready.promote("reading")
    found = ready.compare("reading", (2, 1)).to_polars()
    users = found["user"].to_list()
    assert users == [f"u{n}" for n in range(7)]
    for version in (2, 1):
        served = ready.serve(["total", "mean", "reads"], user=users)
        for feature in ("total", "mean", "reads"):
            assert found[f"{feature}_v{version}"].to_list() == served[feature]
        ready.rollback("reading")


def test_windows_of_both_end_at_one_moment(embedded_session: Session) -> None:
    session = embedded_session
    now = session.clock.now_us()
    rows = [
        {"user": f"u{n % 3}", "readtime": n, "ts": BEGIN + timedelta(microseconds=us)}
        for n, us in enumerate(range(0, 30_000_000, 1_000_000))
        for us in [now - us - int(BEGIN.timestamp() * 1e6)]
    ]
    session.upload(rows, "read_events", time="ts")
    for days in (1, 2):
        session.define("recent", SUM_SQL, window=f"{days}d")
        session.promote("recent")
    found = session.compare("recent")
    assert found.equal
    assert found.line == "v2 is equal to v1 in all of 3 entities"
    assert found.features[0].means[0] == sum(range(30)) / 3
    session.define("recent", SUM_SQL, window="1ms")
    assert session.promote("recent").compared is not None
    assert session.compare("recent").versions == (2, 3)
    assert session.compare("recent").features[0].only == (3, 0)


def test_more_entities_are_sampled(embedded_session: Session) -> None:
    session = embedded_session
    session.upload(read_events(0, 60, users=60), "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    session.promote("reading_time")
    session.define("reading_time", SUM_SQL.replace("SUM(readtime)", "SUM(readtime * 2)"))
    session.promote("reading_time")
    found = session.compare("reading_time", entities_max=20)
    assert (found.entities, found.known, found.sampled) == (20, (60, 60), True)
    assert found.to_polars().equals(session.compare("reading_time", entities_max=20).to_polars())
    assert "20 of 60" in repr(found)
    assert "A sample" in comparison_html(found)


@given(
    first=st.sets(st.integers(0, 60)), second=st.sets(st.integers(0, 60)), count=st.integers(1, 50)
)
def test_a_sample_is_drawn_from_all_keys(first: set[int], second: set[int], count: int) -> None:
    mine, others = ([str(n).encode() for n in keys] for keys in (first, second))
    keys, known, sampled = sample(mine, others, count)
    both = {*mine, *others}
    assert len(keys) == min(count, len(both))
    assert set(keys) <= both
    assert known == (len(first), len(second))
    assert sampled == (len(both) > count)
    # Which key is drawn depends on the key alone.
    fewer, _, _ = sample(others, mine, count - 1) if count > 1 else (keys, 0, 0)
    assert set(fewer) <= set(keys)


EVENTS = st.lists(
    st.tuples(st.integers(0, 4), st.one_of(st.none(), st.integers(-5, 5))), min_size=1, max_size=25
)


@settings(max_examples=6)
@given(events=EVENTS, later=EVENTS, hidden=st.integers(0, 4))
def test_against_plain_python(
    events: list[tuple[int, int | None]], later: list[tuple[int, int | None]], hidden: int
) -> None:
    """Both versions' values and what differs of them, at one position or at two."""
    sums = "SELECT user, SUM(x) AS total, COUNT(*) AS n FROM rows {} GROUP BY user"
    texts = sums.format(""), sums.format(f"WHERE user <> 'u{hidden}'")
    first = [*events, (0, 0)]
    behind, ahead = simulated(first), simulated(first)
    one, two = (behind.define("one", texts[0]), ahead.define("two", texts[1]))
    behind.run(one)
    ahead.append(records(later), "rows")
    ahead.run(two)
    found = side_by_side(Online(behind.store, *about(1, one)), Online(ahead.store, *about(2, two)))
    early = [*events, (0, 0)]
    late = [(u, x) for u, x in [*early, *later] if u != hidden]
    mine, theirs = naive(early), naive(late)
    users = sorted({*mine, *theirs})
    nothing = (None, 0)
    expected = [
        (f"u{u}", a[0], b[0], a[1], b[1])
        for u in users
        for a, b in [(mine.get(u, nothing), theirs.get(u, nothing))]
    ]
    assert found.to_polars().rows() == expected
    assert found.differing == sum(row[1::2] != row[2::2] for row in expected)
    assert found.apart == len(users)
    assert "different positions" in repr(found)
    assert found.positions[0] != found.positions[1]
    gaps = [abs(b - a) for _, a, b, *_ in expected if a is not None and b is not None]
    total = found.features[0]
    assert total.numbers == len(gaps)
    assert total.greatest == max(gaps, default=None)
    assert total.equal == sum(a == b for _, a, b, *_ in expected)
    ahead.run(ahead.define("one", texts[0]))
    again = side_by_side(Online(ahead.store, *about(1, one)), Online(ahead.store, *about(2, two)))
    assert again.apart == 0
    assert again.differing == len({u for u, _ in [*early, *later] if u == hidden})


def test_partitions_that_workers_share_are_read_as_one() -> None:
    """A key's events lie in two partitions, its state in two shards of the first version."""
    sim = Simulation()
    rows = [{"user": f"u{n % 3}", "x": n, "ts": BEGIN} for n in range(40)]
    sim.upload(rows, "rows", time="ts", partitions=2)
    sums = "SELECT user, SUM({}) AS total, COUNT(*) AS n FROM rows GROUP BY user"
    one, two = sim.define("one", sums.format("x")), sim.define("two", sums.format("2 * x"))
    assert isinstance(one, Definition)
    sim.run(one, shared=True)
    sim.run(two)
    tell_partitions(sim.store, one.shard, 2)
    found = side_by_side(Online(sim.store, *about(1, one)), Online(sim.store, *about(2, two)))
    totals = [sum(range(n, 40, 3)) for n in range(3)]
    assert found.to_polars()["total_v1"].to_list() == totals
    assert found.to_polars()["total_v2"].to_list() == [2 * t for t in totals]
    assert (found.entities, found.apart, found.features[1].equal) == (3, 0, 3)
    assert found.positions[0] == found.positions[1]


def records(events: Sequence[tuple[int, int | None]]) -> list[dict[str, Any]]:
    return [{"user": f"u{u}", "x": x, "ts": BEGIN} for u, x in events]


def simulated(events: Sequence[tuple[int, int | None]]) -> Simulation:
    sim = Simulation()
    sim.upload(records(events), "rows", time="ts")
    return sim


def about(number: int, definition: Any) -> tuple[Version, Definition, int]:
    assert isinstance(definition, Definition)
    return Version(number, definition, "tester", BEGIN), definition, to_us(BEGIN)


def side_by_side(first: Online, second: Online) -> Comparison:
    keys, known, sampled = sample(first.keys(), second.keys(), 1_000)
    reading = Reading(first, second)
    reading.read(keys)
    return reading.outcome(keys, known, sampled, None)


def naive(events: Sequence[tuple[int, int | None]]) -> dict[int, tuple[int | None, int]]:
    found: dict[int, tuple[int | None, int]] = {}
    for user, x in events:
        total, n = found.get(user, (None, 0))
        found[user] = (total if x is None else (total or 0) + x, n + 1)
    return found


def test_what_cannot_be_compared(ready: Session) -> None:
    with pytest.raises(UsageError, match="Only one version") as caught:
        ready.compare("reading")
    assert "v1 live" in str(caught.value)
    with pytest.raises(UnknownName, match="version of 'reading'"):
        ready.compare("reading", (1, 2))
    for wrong in ((1, 1), (1,), (1, 2, 3)):
        with pytest.raises(UsageError, match="two versions"):
            ready.compare("reading", wrong)
    with pytest.raises(UsageError, match="1 to 100,000"):
        ready.compare("reading", entities_max=0)
    ready.define("other", "SELECT user, MIN(readtime) AS least FROM read_events GROUP BY user")
    with pytest.raises(UsageError, match="not served yet"):
        ready.compare("other")
    with pytest.raises(UnknownName, match="did you mean"):
        ready.compare("readin")
    ready.promote("reading")
    ready.define("reading", SUM_SQL.replace("total_readtime", "total"))
    ready.promote("reading")
    # The first one is kept by nobody any more; what is stored of it grows old.
    with pytest.raises(UsageError, match="v1 of 'reading' is not kept current") as caught:
        ready.compare("reading", (1, 3))
    assert "v2 live, v3 live" in str(caught.value)


def test_a_version_that_is_not_built_yet(ready: Session) -> None:
    ready.stop()
    draft = ready.catalog.refresh().group("reading").latest
    ready.catalog.record(
        PROMOTED, "reading", {"definition": draft.to_dict()}, check=lambda state: True
    )
    with pytest.raises(UsageError, match="v2 of 'reading' is not built yet") as caught:
        ready.compare("reading")
    assert "v2 starting" in str(caught.value)


def test_derived_features_are_compared_by_what_they_come_to(ready: Session) -> None:
    ready.promote("reading")
    totals = {f"u{n}": sum(range(n, 70, 7)) - 10 * (n == 3) for n in range(6)}
    ready.define("scaled", "SELECT user, total * 2 AS scaled, 1 AS one FROM reading")
    assert ready.promote("scaled").compared is None
    ready.define("scaled", "SELECT user, total * 3 + :more * 0 AS scaled, 1 AS one FROM reading")
    told = ready.promote("scaled").compared
    assert told is not None
    assert f"v2 differs from v1 in {len(totals)} of {len(totals)} entities" in told
    found = ready.compare("scaled")
    assert (found.versions, found.entities, found.sampled) == ((1, 2), len(totals), False)
    assert found.positions[0] == found.positions[1]
    assert found.only == (0, 0)
    scaled, one = found.features
    assert (scaled.equal, one.equal) == (0, len(totals))
    assert scaled.greatest == max(totals.values())
    rows = found.to_polars().rows(named=True)
    assert {r["user"]: (r["scaled_v1"], r["scaled_v2"]) for r in rows} == {
        user: (2 * total, 3 * total) for user, total in totals.items()
    }
    assert ready.compare("scaled", entities_max=1).sampled


def test_the_command_line_compares(ready: Session) -> None:
    home = ["--home", str(ready.connection.home)]

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, [*home, *words])
        assert done.exit_code == code, done.output
        return done.output

    assert "%feature compare reading" in run("promote", "reading")
    assert "v2 differs from v1 in 7 of 7 entities" in run("compare", "reading")
    assert "v1 differs from v2" in run("compare", "reading", "--versions", "2,1", "-n", "100")
    assert "--versions 1,2" in run("compare", "reading", "--versions", "new", code=1)
    assert parse_versions("v1, 2") == (1, 2)


def test_what_a_user_writes_is_escaped(embedded_session: Session) -> None:
    rows = [{"user": "<b>x</b>\x1b[2J", "note": "<script>", "n": 5, "ts": BEGIN}]
    embedded_session.upload(rows, "rows", time="ts")
    for function in ("LAST(note)", "LAST(CONCAT(note, '<i>'))"):
        embedded_session.define(
            "notes", f"SELECT user, {function} AS note, SUM(n) AS n FROM rows GROUP BY user"
        )
        embedded_session.promote("notes")
    found = embedded_session.compare("notes")
    html = comparison_html(found)
    assert found.differing == 1
    for steering in ("<script>", "<b>x", "<i>"):
        assert steering not in html
    assert "\x1b" not in html + repr(found)
    # The only number is equal in both: one point, on the diagonal.
    (number,) = [f for f in found.features if f.numbers]
    assert scatter(found, number).facts == ("100% equal",)
    assert html.count("<svg") == 1
