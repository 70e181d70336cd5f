"""Data to try things on: New York's flights of 2013, and made-up readers and payments.

The flights and their weather are real. Readers and payments are drawn from a seed, with habits
planted in them that features can find: what is known of them is in their docstrings.
"""

from __future__ import annotations

from fs_notebook.datasets.news import Reading, reading
from fs_notebook.datasets.nyc import bulletins, departures_to_predict, flights, weather
from fs_notebook.datasets.shops import Payments, payments

__all__ = [
    "Payments", "Reading", "bulletins", "departures_to_predict", "flights", "payments", "reading",
    "weather",
]  # fmt: skip
