"""How large a run is: the figures of the README, or just enough to see that all of it works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes
    ----------
    messages
        JSON messages of the topic that is replayed and folded.
    sent
        Events of one upload.
    steady
        Events that are sent at a steady rate while their values are read.
    entities
        Distinct entities in every data set.
    events, labels
        Of the training set, and of a preview.
    hot_events
        In the window of one busy entity.
    read_entities
        How many entities one online read asks for, one case each.
    long
        Events of the stream over which a worker's memory is watched.
    promoted
        Events of the stream that a feature is promoted on.
    many
        Entities that a worker has when it is started again.
    last_events, last_labels, last_entities
        Of the join with the newest event, one case for each number of entities.
    wide_labels, wide_events
        Of the join with two tables from Parquet files.
    growing
        Events of each point of the plot over sizes; a tenth as many labels.
    features
        In the catalog that is searched.
    repeats
        How often each side of a long duel runs; `repeats_many` of a short one.
    """

    messages: int
    sent: int
    steady: int
    entities: int
    events: int
    labels: int
    hot_events: int
    read_entities: tuple[int, ...]
    long: int
    promoted: int
    many: int
    last_events: int
    last_labels: int
    last_entities: tuple[int, ...]
    wide_labels: int
    wide_events: int
    growing: tuple[int, ...]
    features: int
    repeats: int
    repeats_many: int


FULL = Sizes(
    1_000_000, 200_000, 20_000, 20_000, 2_000_000, 200_000, 1_000_000, (1, 100, 1_000),
    50_000_000, 10_000_000, 1_000_000, 1_000_000, 100_000, (10_000, 500), 10_000_000, 500_000,
    (250_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000), 10_000, 5, 31,
)  # fmt: skip
QUICK = Sizes(
    8_000, 2_000, 1_000, 200, 10_000, 1_000, 5_000, (1, 20), 20_000, 20_000, 1_000, 5_000, 500,
    (200, 20), 4_000, 1_000, (2_000, 4_000, 8_000), 300, 1, 2,
)  # fmt: skip
