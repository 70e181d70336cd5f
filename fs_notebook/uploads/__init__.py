"""Uploads: what there is to append, and appending it so that it can go on after any end."""

from fs_notebook.uploads.append import Appended, Appender
from fs_notebook.uploads.pieces import FilePiece, FramePiece, Piece, declared_by, file_pieces

__all__ = [
    "Appended", "Appender", "FilePiece", "FramePiece", "Piece", "declared_by", "file_pieces",
]  # fmt: skip
