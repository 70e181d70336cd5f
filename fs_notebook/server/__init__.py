"""The Jupyter server extension: the catalog over REST, and an event at every change of it."""
