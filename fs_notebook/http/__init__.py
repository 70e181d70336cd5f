"""The HTTP feature server, for applications that are not in Python: `fs-notebook serve`."""
