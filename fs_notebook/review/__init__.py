"""The catalog as files, for review in git: one readable file a feature, view and stream."""

from fs_notebook.review.calls import ReviewCalls
from fs_notebook.review.outcome import Exported, Imported, Step

__all__ = ["Exported", "Imported", "ReviewCalls", "Step"]
