"""`compare`: two versions of a feature group side by side, from the values that both have online.

Both are finished at one and the same t, by the fold that serving uses too. Nothing is replayed.
"""

from fs_notebook.comparison.calls import CompareCalls, parse_versions
from fs_notebook.comparison.outcome import Comparison, Difference, FeatureComparison

__all__ = ["CompareCalls", "Comparison", "Difference", "FeatureComparison", "parse_versions"]
