"""Displays where there is no extension, in VS Code, say: a MIME bundle in a bare page.

VS Code itself is nothing that the tests could install. What it does with a display is shown, as it
was seen once in VS Code 1.139 with its Jupyter extension: the HTML of the bundle is put into a page
with VS Code's colours (`--vscode-…`) and, in every theme, the light ones of JupyterLab (`--jp-…`),
and white is laid under each widget.
"""

from __future__ import annotations

import os
import re

import pytest
from harness import Chromium
from shown import CELLS, displays, shown

from fs_notebook.jupyter import _RICH
from fs_notebook.worker.connection import Connection
from tests.support.sessions import stop_all

# JupyterLab's light colours, as `@jupyter-widgets/controls/css/labvariables.css` has them. VS
# Code's Jupyter extension brings that sheet along, whatever the theme.
LAB_LIGHT = (
    "--jp-ui-font-color1:rgba(0,0,0,.8);--jp-ui-font-color2:rgba(0,0,0,.5);"
    "--jp-layout-color0:white;--jp-layout-color2:#eeeeee;--jp-border-color2:#e0e0e0;"
    "--jp-brand-color1:#2196f3;--jp-ui-font-family:Helvetica;--jp-code-font-family:monospace;"
)
# Text, background, fainter text, link and raised ground of VS Code's own themes.
VSCODE = {
    "light": ("#3b3b3b", "#ffffff", "#3b3b3b", "#005fb8", "#f8f8f8"),
    "light-2026": ("#202020", "#ffffff", "#606060", "#0069cc", "#fafafd"),
    "dark": ("#cccccc", "#1f1f1f", "#9d9d9d", "#4daafc", "#202020"),
    "dark-2026": ("#bfbfbf", "#121314", "#8c8c8c", "#48a0c7", "#202122"),
}
# A page that says nothing of colours but what it writes in.
PAGES = (*VSCODE, "bare-dark")
WIDGET = "application/vnd.jupyter.widget-view+json"
BARE = re.compile(r"<[\w.]+ object at 0x")

# The colours are what the browser paints: a canvas mixes them as the page does.
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const paint = colors => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.data.trim() || element.closest('style, option')) continue;
    if (!element.checkVisibility() || element.disabled) continue;
    const style = getComputedStyle(element);
    const behind = [];
    let opacity = 1;
    for (let at = element; at; at = at.parentElement) {
      behind.unshift(getComputedStyle(at).backgroundColor);
      opacity *= getComputedStyle(at).opacity;
    }
    if (!opacity) continue;
    const inSvg = element instanceof SVGElement;
    const [ground, ink] = [paint(behind), paint([...behind, inSvg ? style.fill : style.color])];
    const text = [...ground].map((c, n) => c + (ink[n] - c) * opacity);
    const [a, b] = [light(ground), light(text)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) {
      const at = element.closest('[data-of]');
      bad.push(`${at?.dataset.of}: ${node.data.trim().slice(0, 40)} ${ratio.toFixed(2)}`);
    }
  }
  return bad;
}"""


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown")
    home, before = folder / "home", os.environ.get("FS_NOTEBOOK_HOME")
    os.environ["FS_NOTEBOOK_HOME"] = str(home)
    try:
        yield shown(folder)
    finally:
        if before is None:
            del os.environ["FS_NOTEBOOK_HOME"]
        else:
            os.environ["FS_NOTEBOOK_HOME"] = before
        stop_all(Connection.remembered(home))


@pytest.mark.timeout(240)
def test_every_display_is_told_in_text_and_in_html_without_scripts(sent):
    found, _, kinds = sent
    rich = {name for _, name, _ in _RICH}
    assert displays() | rich <= kinds, f"shown by no cell: {sorted((displays() | rich) - kinds)}"
    for name, one in found.items():
        assert one.ended == ("error" if name == "error" else "ok"), (name, one.printed)
        assert one.bundles or one.printed.strip(), name
        for bundle in one.bundles:
            assert bundle["text/plain"].strip(), name
            assert not BARE.search(bundle["text/plain"]), (name, bundle["text/plain"])
            html = bundle.get("text/html", "")
            assert not re.search(r"<(script|iframe|link|object|embed)\b", html), name
            assert not re.search(r"""\b(src|href)=["']?(?!#)""", html), name
            assert not re.search(r"url\((?!#)|@import|\bon\w+\s*=\s*['\"]|require", html), name


def _page(chromium: Chromium, look: str):
    color, ground, soft, link, raised = VSCODE.get(look, ("#d0d0d0", "#111111", "", "", ""))
    variables = f"--vscode-foreground:{color};--vscode-editor-background:{ground};"
    variables += f"--vscode-descriptionForeground:{soft};--vscode-textLink-foreground:{link};"
    variables += f"--vscode-editorWidget-background:{raised};{LAB_LIGHT}"
    page = chromium.blank(width=1000, height=900)
    page.page.set_content(
        f"<!doctype html><html style='{variables if look in VSCODE else 'color-scheme:dark'}'>"
        f"<body style='color:{color};background:{ground};font:13px sans-serif'></body></html>"
    )
    return page


@pytest.mark.parametrize("look", PAGES)
def test_displays_are_read_in_a_bare_page(chromium, sent, look):
    found, _, _ = sent
    page = _page(chromium, look)
    htmls = {f"{name} {n}": html for name, one in found.items() for n, html in enumerate(one.html)}
    assert len(htmls) > 40
    sizes = page.page.evaluate(
        """htmls => Object.entries(htmls).map(([name, html]) => {
          const place = document.createElement('div');
          place.dataset.of = name;
          place.innerHTML = html;
          document.body.append(place);
          for (const folded of place.querySelectorAll('details')) folded.open = true;
          const { width, height } = place.getBoundingClientRect();
          return [name, width, height, place.innerText.trim().length];
        })""",
        htmls,
    )
    for name, width, height, words in sizes:
        assert width > 100, name
        assert height > 15, name
        assert words, name
    page.screenshot(f"elsewhere-{look}", whole=True)
    assert page.page.evaluate(CONTRAST) == []
    page.assert_clean()


@pytest.mark.parametrize("look", PAGES)
def test_widgets_are_read_in_a_bare_page(chromium, sent, look):
    found, states, _ = sent
    page = _page(chromium, look)
    shown_ids = [
        (name, bundle[WIDGET]["model_id"])
        for name, one in found.items() for bundle in one.bundles if WIDGET in bundle
    ]  # fmt: skip
    assert [name for name, _ in shown_ids] == list(CELLS)[-5:]
    page.page.evaluate(
        """async widgets => {
          const white = document.createElement('style');
          white.textContent = '.cell-output-ipywidget-background { background: #fff !important }';
          document.head.append(white);
          for (const [name, state] of widgets) {
            const style = document.createElement('style');
            style.textContent = state._css;
            const output = document.createElement('div');
            output.innerHTML = '<div class="output cell-output-ipywidget-background">'
              + '<div class="cell-output-ipywidget-background"><div class="lm-Widget">';
            output.dataset.of = name;
            document.body.append(style, output);
            const place = output.querySelector('.lm-Widget');
            const source = new Blob([state._esm], { type: 'text/javascript' });
            const { default: widget } = await import(URL.createObjectURL(source));
            const model = { get: key => state[key], on() {}, off() {}, send() {} };
            widget.render({ model, el: place });
          }
        }""",
        [(name, states[model]) for name, model in shown_ids],
    )
    for name, _ in shown_ids:
        box = page.page.locator(f"[data-of='{name}'] .fsw").bounding_box()
        assert box["width"] > 200, name
        assert box["height"] > 20, name
    grounds = page.page.locator(".cell-output-ipywidget-background").evaluate_all(
        "all => all.map(one => getComputedStyle(one).backgroundColor)"
    )
    assert set(grounds) == {"rgba(0, 0, 0, 0)"}, "white frames around the widgets"
    page.screenshot(f"elsewhere-widgets-{look}", whole=True)
    assert page.page.evaluate(CONTRAST) == []
    page.assert_clean()
