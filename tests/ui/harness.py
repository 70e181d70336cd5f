"""JupyterLab in a temporary folder and a real Chromium on it, for tests that look like a person.

Notebook 7 too, which is made of the same parts: `Lab(folder, front=NOTEBOOK)`.

>>> with Lab(folder, notebooks={"book.ipynb": ["1 + 1"]}) as lab, Chromium() as chromium:
...     page = chromium.open(lab, "book.ipynb")
...     page.run_cell(0)
...     page.screenshot("book")

Nothing that the machine has installed by hand is used but the interpreter, the built extension of
this checkout and the `chromium` on PATH.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlparse

import nbformat
import psutil
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    Playwright,
    expect,
    sync_playwright,
)

from tests.ui.pictures import is_blank

ROOT = Path(__file__).resolve().parents[2]
# What tests leave to be looked at; a CI that keeps files says where.
ARTIFACTS = Path(os.environ.get("CI_ARTIFACTS") or ROOT / "tests" / "artifacts")
START_S = 60
WAIT_MS = 30_000
# Playwright gives an expectation 5 s; two browsers and their servers share this machine's cores.
expect.set_options(timeout=WAIT_MS / 2)

# The lists of the address bar are pages, made anew for each profile: more work than most of what is
# looked at here, and nobody types there. Chromium takes one list, and this one takes the place of
# Playwright's: what of that matters without a network is in it too.
LEFT_OUT = (
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "AimEnabled",
    "DestroyProfileOnBrowserClose", "HttpsFirstBalancedModeAutoEnable", "HttpsUpgrades",
    "MediaRouter", "NetworkTimeServiceQuerying", "OptimizationHints", "PaintHolding",
    "PreconnectToSearch",
)  # fmt: skip
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--disable-features={','.join(LEFT_OUT)}",
    # No name resolves, so no request leaves the machine; one that tries is a failure of the test.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]

QUIET = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    "@jupyterlab/extensionmanager-extension/plugin.jupyterlab-settings": {"enabled": False},
}


@dataclass(frozen=True)
class Front:
    """A front end: the module that serves it, its options, and where it opens a notebook.

    `mishaps` are the errors that its page throws by itself, without any extension of ours.
    """

    module: str
    opens: str
    arguments: tuple[str, ...]
    mishaps: frozenset[str] = frozenset()


LAB = Front(
    "jupyterlab", "lab/tree/", ("--LabApp.expose_app_in_browser=True", "--LabApp.news_url=")
)
NOTEBOOK = Front(
    "notebook",
    "notebooks/",
    ("--JupyterNotebookApp.expose_app_in_browser=True",),
    # Of Notebook 7.6 alone: settings that come before the shortcuts, and an indicator of progress
    # that is in no toolbar once a notebook opens in another tab.
    frozenset(
        {
            "Cannot read properties of undefined (reading 'schema')",
            "Cannot read properties of null (reading 'updateRenderOption')",
        }
    ),
)


def notebook(cells: Sequence[str]) -> nbformat.NotebookNode:
    """Return a Python notebook with these code cells."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    book.metadata.kernelspec = {
        "name": "python3",
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
    }
    return book


class Lab:
    """A JupyterLab or Notebook server in its own session, killed with everything it started.

    Parameters
    ----------
    folder
        An empty folder that holds all its files.
    notebooks
        Notebooks to lay into its root, by name: texts of code cells, or the path of a notebook.
    service
        `module:factory` of a service in place of the real session (see `FS_NOTEBOOK_SERVICE`).
    extension
        Whether the server has the extension; without it only the magics work.
    settings
        The user's settings of the front end. Unless they say otherwise Promote asks nothing.
    env
        More of its environment.
    front
        Which front end it is: `LAB` or `NOTEBOOK`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        notebooks: Mapping[str, Sequence[str] | Path] | None = None,
        service: str | None = None,
        extension: bool = True,
        settings: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        front: Front = LAB,
    ) -> None:
        self.folder = folder
        self.front = front
        self.root = folder / "root"
        self.home = folder / "fs-home"
        self.token = secrets.token_hex(16)
        self.port = 0
        self.base = ""
        self._service = service
        self._extension = extension
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = {"confirmPromote": "never", **(settings or {})}
        self._lay_out(notebooks or {})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._end_what_outlives_it()

    @property
    def log(self) -> str:
        """What the server wrote so far."""
        return (self.folder / "lab.log").read_text(errors="replace")

    def start(self) -> None:
        """Start the server, on the port it had before if it had one, and wait until it serves."""
        runtime = self.folder / "runtime"
        shutil.rmtree(runtime, ignore_errors=True)
        runtime.mkdir()
        arguments = [
            sys.executable,
            "-m",
            self.front.module,
            "--no-browser",
            "--allow-root",
            "--ip=127.0.0.1",
            f"--port={self.port}",
            "--ServerApp.port_retries=0",
            f"--IdentityProvider.token={self.token}",
            *self.front.arguments,
            f"--ServerApp.root_dir={self.root}",
        ]
        with (self.folder / "lab.log").open("ab") as log:
            self._process = subprocess.Popen(
                arguments,
                cwd=self.root,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_it_serves(runtime)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and its kernels, as a crash would; the runner and its workers go on."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)

    def kill(self) -> None:
        """End the server as no server expects it: nothing of it gets to say goodbye."""
        process, self._process = self._process, None
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)

    def is_gone(self) -> bool:
        """Tell whether nobody listens where the server did."""
        with contextlib.closing(socket.socket()) as found:
            return found.connect_ex(("127.0.0.1", self.port)) != 0

    def url(self, path: str) -> str:
        """Return the address of a page, with the token."""
        return f"{self.base}{path}?token={self.token}&reset"

    def _lay_out(self, notebooks: Mapping[str, Sequence[str] | Path]) -> None:
        for part in ("root", "fs-home", "config", "data", "settings", "workspaces", "ipython"):
            (self.folder / part).mkdir(parents=True)
        for name, cells in notebooks.items():
            if isinstance(cells, Path):
                shutil.copy(cells, self.root / name)
            else:
                nbformat.write(notebook(cells), self.root / name)
        own = {"fs-notebook/plugin.jupyterlab-settings": self._settings}
        for name, values in {**QUIET, **own}.items():
            path = self.folder / "settings" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        extensions = self.folder / "share" / "labextensions"
        extensions.mkdir(parents=True)
        (extensions / "fs-notebook").symlink_to(ROOT / "fs_notebook" / "labextension")
        enabled = {"ServerApp": {"jpserver_extensions": {"fs_notebook": self._extension}}}
        (self.folder / "config" / "jupyter_server_config.json").write_text(json.dumps(enabled))
        # At each page JupyterLab would ask Node whether it is to be built anew.
        page = {"buildAvailable": False, "buildCheck": False}
        (self.folder / "config" / "labconfig").mkdir()
        (self.folder / "config" / "labconfig" / "page_config.json").write_text(json.dumps(page))

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "FS_NOTEBOOK"))}
        # The kernels find `python` and the package where this interpreter does.
        bin_folder = str(Path(sys.executable).parent)
        paths = [str(ROOT), *(str(ROOT / "tests" / room) for room in ("server", "ui"))]
        own = {
            "PATH": os.pathsep.join([bin_folder, kept.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join([*paths, kept.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "JUPYTER_CONFIG_DIR": str(self.folder / "config"),
            "JUPYTER_DATA_DIR": str(self.folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.folder / "runtime"),
            "JUPYTER_PATH": str(self.folder / "share"),
            "JUPYTERLAB_SETTINGS_DIR": str(self.folder / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(self.folder / "workspaces"),
            "IPYTHONDIR": str(self.folder / "ipython"),
            "FS_NOTEBOOK_HOME": str(self.home),
        }
        if self._service:
            own["FS_NOTEBOOK_SERVICE"] = self._service
        return {**kept, **own, **self._env}

    def _end_what_outlives_it(self) -> None:
        """End the runner, the workers and the Redis of this home: all are sessions of their own."""
        mine = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                # Redis writes its title over its environment; its folder still tells whose it is.
                if process.environ().get("FS_NOTEBOOK_HOME") == str(self.home) or Path(
                    process.cwd()
                ).is_relative_to(self.home):
                    process.kill()
                    mine.append(process)
        psutil.wait_procs(mine, timeout=10)

    def _wait_until_it_serves(self, runtime: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"Jupyter ended while it started:\n{self.log[-4000:]}")
            found = runtime / f"jpserver-{self._process.pid}.json"
            with contextlib.suppress(OSError, ValueError):
                told = json.loads(found.read_text())
                self.port, self.base = told["port"], told["url"]
                return
            time.sleep(0.05)
        raise RuntimeError(f"Jupyter did not start in {START_S} s:\n{self.log[-4000:]}")


class BarePage:
    """One tab: what is complained about in it, and who is asked for what."""

    def __init__(self, page: Page, mishaps: frozenset[str] = frozenset()) -> None:
        self.page = page
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self._mishaps = mishaps
        page.set_default_timeout(WAIT_MS)
        page.on("console", self._on_console)
        page.on("pageerror", self._on_error)
        page.on("request", self._on_request)

    def accessibility(self, selector: str) -> list[str]:
        """Return what axe-core holds against the part of the page that the selector names."""
        found = Axe().run(self.page, context=selector)
        return [
            f"{one['id']}: {node['html']}"
            for one in found.response["violations"]
            for node in one["nodes"]
        ]

    def screenshot(self, name: str, *, whole: bool = False) -> Path:
        """Keep what is to be seen now, or the whole page; there must be something to be seen."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        path = ARTIFACTS / f"{name}.png"
        path.unlink(missing_ok=True)
        self.page.screenshot(path=path, animations="disabled", full_page=whole)
        assert not is_blank(path.read_bytes()), f"{path} shows nothing"
        return path

    def keep(self, name: str, figures: Mapping[str, float]) -> None:
        """Keep figures beside the screenshots."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        (ARTIFACTS / f"{name}.json").write_text(json.dumps(figures))
        print(f"{name}: {figures}")

    def assert_clean(self) -> None:
        """Nothing was complained about on the console and nobody else was asked for anything."""
        assert self.errors == []
        assert self.foreign == []

    def _on_error(self, error: Any) -> None:
        if str(error) not in self._mishaps:
            self.errors.append(str(error))

    def _on_console(self, message: Any) -> None:
        if message.type == "error" and message.text not in self._mishaps:
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _on_request(self, request: Any) -> None:
        address = urlparse(request.url)
        if address.scheme not in ("data", "blob") and address.hostname != "127.0.0.1":
            self.foreign.append(request.url)


class LabPage(BarePage):
    """JupyterLab in one tab, with what a person does in it."""

    def __init__(self, page: Page, lab: Lab) -> None:
        super().__init__(page, lab.front.mishaps)
        self.lab = lab

    def goto(self, path: str) -> None:
        """Open a notebook and wait until the page is whole and its kernel is idle."""
        self.page.goto(self.lab.url(f"{self.lab.front.opens}{path}"))
        self.wait_restored()
        self.wait_idle()

    def reload(self) -> None:
        """Load the page again, as a person would: what Lab restores is kept."""
        self.page.goto(f"{self.lab.base}lab")
        self.wait_restored()

    def saving(self, text: str) -> Any:
        """Wait, at the end of a block, until Lab saved a workspace in it that holds `text`.

        Each change is saved a while after it, so the first save may be that of an earlier one.
        """
        return self.page.expect_response(
            lambda answer: (
                "/lab/api/workspaces/" in answer.url
                and answer.request.method == "PUT"
                and text in (answer.request.post_data or "")
            )
        )

    def wait_restored(self) -> None:
        self.page.wait_for_function("() => window.jupyterapp !== undefined")
        self.page.evaluate(
            "() => void window.jupyterapp.restored.then(() => { window.fsRestored = true })"
        )
        self.page.wait_for_function("() => window.fsRestored === true")

    def wait_idle(self) -> None:
        """Wait until the notebook's kernel has nothing to do; a run before that asks for one."""
        self.page.wait_for_function(
            """() => {
              const kernel = window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel;
              return kernel?.status === 'idle' && kernel.connectionStatus === 'connected';
            }"""
        )

    def command(self, name: str, **arguments: Any) -> None:
        """Start a Lab command; what it shows is for the caller to wait for."""
        self.page.evaluate(
            "([name, args]) => void window.jupyterapp.commands.execute(name, args)",
            [name, arguments],
        )

    def select_cell(self, index: int) -> None:
        """Make a cell the active one, scrolled into view."""
        self.page.evaluate(
            """index => {
              const notebook = window.jupyterapp.shell.currentWidget.content;
              notebook.activeCellIndex = index;
              void notebook.scrollToCell(notebook.widgets[index]);
            }""",
            index,
        )

    def run_cell(self, index: int, *, timeout_s: float = 120) -> None:
        """Run one cell and wait until it is done, whatever came of it."""
        self.wait_idle()
        before = self._execution_count(index)
        self.select_cell(index)
        self.command("notebook:run-cell")
        self.page.wait_for_function(
            """([index, before]) => {
              const model = window.jupyterapp.shell.currentWidget.content.widgets[index].model;
              return model.executionCount !== null && model.executionCount !== before;
            }""",
            arg=[index, before],
            timeout=timeout_s * 1000,
        )
        self.wait_idle()

    def write_cell(self, index: int, text: str) -> None:
        """Put a text in place of a cell's."""
        self.page.evaluate(
            """([index, text]) => window.jupyterapp.shell.currentWidget.content.widgets[index]
              .model.sharedModel.setSource(text)""",
            [index, text],
        )

    def cell_text(self, index: int) -> str:
        return self.page.evaluate(
            """index => window.jupyterapp.shell.currentWidget.content.widgets[index]
              .model.sharedModel.getSource()""",
            index,
        )

    def _execution_count(self, index: int) -> int | None:
        return self.page.evaluate(
            """index => window.jupyterapp.shell.currentWidget.content.widgets[index]
              .model.executionCount""",
            index,
        )

    def cell(self, index: int) -> Locator:
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        return self.cell(index).locator(".jp-OutputArea")

    def bar(self, name: str) -> Locator:
        """The bar under the cell that defines this feature."""
        return self.page.get_by_role("group", name=f"Feature {name}", exact=True)

    def bar_state(self, name: str) -> Locator:
        return self.bar(name).get_by_role("status")

    @property
    def sidebar(self) -> Locator:
        return self.page.get_by_role("region", name="Feature catalog", exact=True)

    def open_sidebar(self) -> Locator:
        self.command("fs-notebook:open")
        self.sidebar.wait_for()
        return self.sidebar

    def row(self, name: str) -> Locator:
        """The sidebar's row of this group: a button that opens its card."""
        return self.sidebar.get_by_role("button", name=re.compile(rf"^{re.escape(name)} "))

    def card(self, name: str) -> Locator:
        return self.sidebar.get_by_role("region", name=name, exact=True)

    def drag(self, name: str, index: int) -> None:
        """Drag a row out of the sidebar, and hold it over a cell; the caller lets go."""
        begin, target = self.row(name).bounding_box(), self.cell(index).bounding_box()
        assert begin is not None
        assert target is not None
        mouse = self.page.mouse
        mouse.move(begin["x"] + 60, begin["y"] + 10)
        mouse.down()
        mouse.move(begin["x"] + 90, begin["y"] + 30, steps=4)
        mouse.move(target["x"] + 200, target["y"] + 10, steps=8)

    def theme(self, name: str) -> None:
        """Change the theme (`JupyterLab Dark`) and wait until it shows."""
        self.command("apputils:change-theme", theme=name)
        light = "false" if "Dark" in name else "true"
        self.page.wait_for_function(
            "light => document.body.dataset.jpThemeLight === light", arg=light
        )
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")


class Chromium:
    """The machine's Chromium; each page has a profile of its own."""

    def __init__(self) -> None:
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._contexts: list[BrowserContext] = []

    def __enter__(self) -> Self:
        executable = shutil.which("chromium") or shutil.which("chromium-browser")
        assert executable, "these tests need `chromium` on PATH"
        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(
                executable_path=executable, args=CHROMIUM_FLAGS
            )
        except BaseException:
            self._playwright.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close_pages()
        if self._browser:
            self._browser.close()
        if self._playwright:
            self._playwright.stop()

    def open(self, lab: Lab, path: str, *, width: int = 1280, height: int = 800) -> LabPage:
        """Open a notebook in a new profile, and wait until it can be worked with."""
        page = LabPage(self._new_page(width, height), lab)
        page.goto(path)
        return page

    def blank(self, *, width: int = 1280, height: int = 800) -> BarePage:
        """Open an empty page, whose errors and requests are noted as those of Lab's are."""
        return BarePage(self._new_page(width, height))

    def _new_page(self, width: int, height: int) -> Page:
        assert self._browser is not None
        context = self._browser.new_context(viewport={"width": width, "height": height})
        self._contexts.append(context)
        return context.new_page()

    def close_pages(self) -> None:
        while self._contexts:
            self._contexts.pop().close()


@contextlib.contextmanager
def measured() -> Iterator[list[float]]:
    """Measure a block; the list holds the seconds that it took."""
    took: list[float] = []
    started = time.perf_counter()
    yield took
    took.append(time.perf_counter() - started)
