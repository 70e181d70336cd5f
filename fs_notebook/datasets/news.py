"""Made-up readers of a made-up newspaper, with tastes that features can find."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.datasets.times import beginning_us, moments
from fs_notebook.errors import UsageError

GENRES = ("business", "culture", "food", "politics", "science", "sport", "technology", "travel")
CATEGORIES = ("analysis", "interview", "news", "opinion", "review")
_WORDS = (1_400, 1_000, 350, 700, 850)
_SUBJECTS = {
    "business": ("Banks", "Exporters", "Wages", "Start-ups"),
    "culture": ("Painters", "A cellist", "Old films", "Novels"),
    "food": ("Bakers", "Street kitchens", "Sour cherries", "Olive oil"),
    "politics": ("Mayors", "The coalition", "Voters", "Two ministers"),
    "science": ("Whales", "A comet", "Enzymes", "Glaciers"),
    "sport": ("Sprinters", "The relegated", "A goalkeeper", "Rowers"),
    "technology": ("Chips", "Batteries", "Open networks", "Robots"),
    "travel": ("Night trains", "Islands", "Mountain huts", "Harbours"),
}
_ENDINGS = ("against the odds", "at a turning point", "in winter", "one year on", "under review")
_SPEED_WORDS_S = 4.0
_FRESH_DAYS = 20.0
_LATE_SHARE = 0.04

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """A newspaper's articles, what was read, and what was recommended.

    Attributes
    ----------
    articles
        `article`, `title`, `genre`, `category`, `words`, `at`: a row when it is published, and
        another one when the editors change it.
    read_events
        `user`, `article`, `readtime` in seconds, `battery` in percent (which means nothing), `ts`:
        in the order of their arrival, a few of them hours late.
    recommendations
        `user`, `article`, `place` (1 is the topmost), `shown_at`, `clicked`: labels.
    """

    articles: pl.DataFrame
    read_events: pl.DataFrame
    recommendations: pl.DataFrame


@dataclass
class _Paper:
    """What readers choose from: one array an attribute, by the article's number."""

    published: _Floats
    genre: npt.NDArray[np.int64]
    category: npt.NDArray[np.int64]
    words: _Floats
    appeal: _Floats

    def there(self, day: float) -> npt.NDArray[np.int64]:
        """Return what was published within the last weeks before `day`."""
        age = day - self.published
        return np.flatnonzero((age > 0) & (age < _FRESH_DAYS))


@dataclass
class _Reader:
    """Somebody with tastes; from the day `turns` on the favourite genre is another."""

    favourites: tuple[int, int]
    turns: float
    category: int
    likes_words: float
    breadth: float
    sessions_a_day: float

    def taste(self, paper: _Paper, which: npt.NDArray[np.int64], day: float) -> _Floats:
        """Return how well articles fit: 0 is not at all, 1 is a favourite's perfect length."""
        genre = self.favourites[int(day >= self.turns)]
        fit = np.where(paper.genre[which] == genre, 1.0, self.breadth)
        fit = fit * np.where(paper.category[which] == self.category, 1.0, 0.65)
        length = np.abs(np.log(paper.words[which] / self.likes_words))
        taste: _Floats = fit * np.exp(-0.5 * length)
        return taste


def reading(
    *,
    users: int = 250,
    articles: int = 500,
    days: int = 60,
    until: datetime | None = None,
    seed: int = 0,
) -> Reading:
    """Return a newspaper's last `days`, drawn from `seed`.

    Planted: each user has a favourite genre, which for half of them becomes another one on some
    day; a favourite category; a length of article that suits. These, the article's own appeal and
    its place on the page decide what is clicked. The battery's charge decides nothing.

    Parameters
    ----------
    until
        The last day ends at the midnight, UTC, before it; default: 1 March 2024.

    Raises
    ------
    UsageError
        If there is to be less than one user, ten articles or two days.
    """
    if users < 1 or articles < 10 or days < 2:
        raise UsageError(
            "A newspaper has at least one user, ten articles and two days.",
            found=f"users={users}, articles={articles}, days={days}",
            remedy="datasets.reading()",
        )
    random = np.random.default_rng(seed)
    first_us = beginning_us(days, until)
    paper = _paper(random, articles, days)
    reads: list[tuple[Any, ...]] = []
    shown: list[tuple[Any, ...]] = []
    for number in range(users):
        reader = _reader(random, days)
        for day in _sessions(random, reader, days):
            late = random.exponential(0.5) if random.random() < _LATE_SHARE else 0.0
            _session(random, reader, paper, number, day, late, reads, shown)
    return Reading(
        articles=_articles(random, paper, days, first_us),
        read_events=_events(reads, days, first_us),
        recommendations=_shown(shown, first_us),
    )


def _paper(random: np.random.Generator, articles: int, days: int) -> _Paper:
    """Draw articles; a third of them is there when the first day begins."""
    category = random.integers(len(CATEGORIES), size=articles)
    published = np.sort(random.uniform(-_FRESH_DAYS, days - 1, size=articles))
    return _Paper(
        published=published,
        genre=random.integers(len(GENRES), size=articles),
        category=category,
        words=np.round(np.array(_WORDS)[category] * random.lognormal(0.0, 0.35, size=articles)),
        appeal=random.normal(0.0, 0.6, size=articles),
    )


def _reader(random: np.random.Generator, days: int) -> _Reader:
    first, second = random.choice(len(GENRES), size=2, replace=False)
    return _Reader(
        favourites=(int(first), int(second)),
        turns=float(random.uniform(0.3, 0.8) * days) if random.random() < 0.5 else float(days),
        category=int(random.integers(len(CATEGORIES))),
        likes_words=float(random.lognormal(np.log(700), 0.5)),
        breadth=float(random.uniform(0.02, 0.35)),
        sessions_a_day=float(random.gamma(3.0, 0.2)),
    )


def _sessions(random: np.random.Generator, reader: _Reader, days: int) -> _Floats:
    """Return when a reader sits down, in days since the beginning: mornings and evenings."""
    count = random.poisson(reader.sessions_a_day * days)
    hour = np.where(random.random(count) < 0.4, 7.5, 20.0) + random.normal(0.0, 1.2, count)
    times: _Floats = np.sort(random.integers(days, size=count) + np.clip(hour, 0.5, 23.0) / 24)
    return times


def _session(
    random: np.random.Generator, reader: _Reader, paper: _Paper, number: int, day: float,
    late: float, reads: list[tuple[Any, ...]], shown: list[tuple[Any, ...]],
) -> None:  # fmt: skip
    """Append a session: a few articles of one's own choice, then five recommendations."""
    there = paper.there(day)
    if not there.size:
        return
    battery = int(random.integers(5, 101))
    taste = reader.taste(paper, there, day)

    def read(place: int) -> None:
        nonlocal day
        share = min(max(random.normal(0.35 + 0.6 * taste[place], 0.15), 0.05), 1.0)
        seconds = int(np.ceil(paper.words[there[place]] / _SPEED_WORDS_S * share))
        reads.append((number, int(there[place]), seconds, battery, day + seconds / 86_400, late))
        day += (seconds + 20) / 86_400

    for _ in range(int(random.integers(1, 4))):
        drawn = np.cumsum(taste**1.5 * np.exp(paper.appeal[there]))
        read(int(np.searchsorted(drawn, random.random() * drawn[-1])))
    offered = np.argsort(random.random(there.size))[:5]
    at = day
    clicked = []
    for place, candidate in enumerate(offered, start=1):
        score = -2.3 + 4.2 * taste[candidate] + 0.7 * paper.appeal[there[candidate]] - 0.15 * place
        if random.random() < 1 / (1 + np.exp(-score)):
            clicked.append(place)
            read(int(candidate))
    for place, candidate in enumerate(offered, start=1):
        shown.append((number, int(there[candidate]), place, at, place in clicked))


def _user(numbers: list[int]) -> list[str]:
    return [f"u{n}" for n in numbers]


def _events(reads: list[tuple[Any, ...]], days: int, first_us: int) -> pl.DataFrame:
    user, article, readtime, battery, ts, late = map(list, zip(*reads, strict=True))
    arrived = np.array(ts) + np.array(late)
    frame = pl.DataFrame(
        {"user": _user(user), "article": article, "readtime": readtime, "battery": battery,
         "ts": moments(ts, first_us), "arrived": arrived}
    )  # fmt: skip
    # What a phone still keeps to itself at the end has not arrived.
    there = frame.filter(pl.col("arrived") < days)
    return there.sort("arrived", maintain_order=True).drop("arrived")


def _shown(shown: list[tuple[Any, ...]], first_us: int) -> pl.DataFrame:
    user, article, place, at, clicked = map(list, zip(*shown, strict=True))
    return pl.DataFrame(
        {"user": _user(user), "article": article, "place": place,
         "shown_at": moments(at, first_us), "clicked": clicked}
    ).sort("shown_at", "user", "place")  # fmt: skip


def _articles(random: np.random.Generator, paper: _Paper, days: int, first_us: int) -> pl.DataFrame:
    """Return the published articles, and for one in eight its revision: a longer one."""
    count = paper.words.size
    genres = [GENRES[g] for g in paper.genre]
    titles = [f"{random.choice(_SUBJECTS[g])} {random.choice(_ENDINGS)}" for g in genres]
    first = pl.DataFrame(
        {"article": np.arange(count), "title": titles, "genre": genres,
         "category": [CATEGORIES[c] for c in paper.category],
         "words": paper.words.astype(np.int64), "at": moments(paper.published, first_us)}
    )  # fmt: skip
    again = np.flatnonzero(random.random(count) < 0.125)
    when = paper.published[again] + random.uniform(0.5, 3.0, size=again.size)
    revised = first[again].with_columns(
        (pl.col("words") * 1.2).round().cast(pl.Int64), moments(when, first_us).alias("at")
    )[np.flatnonzero(when < days)]
    return pl.concat([first, revised]).sort("at", "article")
