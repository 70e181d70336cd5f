"""``python -m fs_notebook`` is `fs-notebook`, where the script is not on the path."""

from __future__ import annotations

from fs_notebook.cli import main

if __name__ == "__main__":
    main(prog_name="fs-notebook")
