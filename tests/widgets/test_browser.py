"""The explorer in a real browser: Debian's Chromium on JupyterLab and, where it is installed, on Voila.

Needs `chromium` on the path and playwright with jupyterlab (or voila) beside the package; skipped, saying what is
missing, elsewhere. Screenshots go to the folder that SSNAS_SCREENSHOTS names, if it is set.
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

CHROMIUM = shutil.which("chromium")
MISSING = [name for name in ("playwright", "ipykernel") if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ["chromium (apt-get install chromium)"]
FRONT_ENDS = [name for name in ("jupyterlab", "voila") if importlib.util.find_spec(name)]
MISSING += [] if FRONT_ENDS else ["jupyterlab or voila"]
# One page serves all tests, in their order: tests/conftest.py keeps them together.
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

CODE = """import warnings
warnings.simplefilter("ignore")
from ssnas_colab.widgets.explorer import explore
explore("run")"""
REPORT = Path(__file__).resolve().parents[2] / "nbs/research/does_it_hold/cifar10_lt100/report.json"
BOARDS = f"""import warnings
warnings.simplefilter("ignore")
from IPython.display import display
from ssnas_colab.widgets.boards import show_data, show_report
from ssnas_colab.stages.loader import load_data
display(show_data(load_data("digits", imbalance_factor=10)))
display(show_report({str(REPORT)!r}))"""
PICTURE, TABLE, STATUS = "svg.ssnas >> nth=0", "svg.ssnas:has(g.row)", "[role=status] >> nth=0"


def a_run(folder):
    "A run folder with the weights of a search over long-tailed CIFAR-10 or, without its file, drifting ones."
    from ssnas_colab.experiment.run import Run

    run = Run.open(folder, {"search": {"depth": 5, "nodes": 4, "relaxation": "fair"}})
    run.save_json("data.json", {"class_names": list("0123456789"), "channels": 3, "size": [32, 32]})
    stored = Path(__file__).resolve().parents[2] / "nbs/research/first_runs/cifar10_lt100/alphas.npz"
    drift = np.random.default_rng(0).normal(0, 1, (2, 1, 14, 7)) * np.linspace(0, 6, 21)[None, :, None, None]
    drift = {"normal": drift[0].astype(np.float32), "reduce": drift[1].astype(np.float32)}
    run.save_arrays("alphas.npz", **(np.load(stored) if stored.is_file() else drift))


def notebook(path, code=CODE):
    "A notebook with one cell, which explores the run beside it."
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": None, "outputs": [], "source": code}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content))


def command(front_end, port, folder):
    if front_end == "voila":
        return ["voila", str(folder), "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1",
                "--VoilaConfiguration.enable_nbextensions=True"]  # fmt: skip
    quiet = ["--allow-root", "--IdentityProvider.token=t", "--LabApp.news_url=None"]
    return ["jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.root_dir=.", *quiet]


@pytest.fixture(scope="module", params=FRONT_ENDS)
def server(request, tmp_path_factory):
    "(front end, address, folder) of a running server; stopped, with its kernels, at the end."
    folder = tmp_path_factory.mktemp(request.param)
    a_run(folder / "run")
    notebook(folder / "explorer.ipynb")
    notebook(folder / "boards.ipynb", BOARDS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(Path(importlib.util.find_spec("ssnas_colab").origin).parent.parent)  # whatever the kernel's folder is
    places = {f"JUPYTER_{name}_DIR": str(folder / ".jupyter" / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command(request.param, port, folder)], cwd=folder, stdout=log, stderr=log,
            env={**os.environ, **places, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(300):
            assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
            try:
                # Voila's front page runs the notebook: any answer at all will do.
                urllib.request.urlopen(f"{address}api/status?token=t", timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.1)
        yield request.param, address, folder
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def browser():
    "Chromium, started once for all tests."
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = player.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(server, browser):
    "A page of the browser with the explorer on it, everything run; `page.complaints` collects errors."
    yield from opened(server, browser, "explorer.ipynb", PICTURE, TABLE)


def show(page, server, name):
    "Open a notebook in the page and have all its cells run."
    front_end, address, _ = server
    if front_end == "voila":
        page.goto(f"{address}voila/render/{name}", timeout=90_000)
        return
    page.goto(f"{address}lab/tree/{name}?token=t&reset", timeout=90_000)
    page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell", timeout=60_000)
    page.wait_for_selector(".jp-StatusBar-TextItem:has-text('| Idle')", timeout=60_000)
    page.wait_for_timeout(1000)  # JupyterLab asks for a kernel where "Run" comes before its session is known
    page.click(".lm-MenuBar-itemLabel:text-is('Run')")
    page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")


def opened(server, browser, name, *wanted):
    "The page of a notebook whose cells have run, once all of `wanted` is seen."
    page = browser.new_page(viewport={"width": 1400, "height": 1250})
    page.complaints, page.front_end = [], server[0]
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda said: said.type == "error" and page.complaints.append(f"{said.text} {said.location}"))
    page.on("response", lambda r: page.complaints.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    show(page, server, name)
    try:
        for selector in wanted:
            page.wait_for_selector(selector, timeout=90_000)
    except Exception as error:
        if os.environ.get("SSNAS_SCREENSHOTS"):
            page.screenshot(path=f"{os.environ['SSNAS_SCREENSHOTS']}/{page.front_end}_failed.png")
        raise AssertionError(f"{page.inner_text('body')[-1500:]} {page.complaints}") from error
    yield page
    page.close()


LAYOUT = """() => {
  const wrong = [], edge = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > edge) wrong.push(`${document.documentElement.scrollWidth} points wide`);
  for (const svg of document.querySelectorAll("svg")) {
    const frame = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll("text")];
    const boxes = texts.map((text) => text.getBoundingClientRect());
    boxes.forEach((box, i) => {
      const out = box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom;
      if (out || box.right > edge) wrong.push(`${texts[i].textContent} is cut off`);
      boxes.slice(0, i).forEach((other, j) => {
        const beside = box.right <= other.left + 0.5 || other.right <= box.left + 0.5;
        if (!beside && box.top < other.bottom - 1.5 && other.top < box.bottom - 1.5)
          wrong.push(`${texts[i].textContent} lies on ${texts[j].textContent}`);
      });
    });
  }
  return wrong;
}"""


@pytest.fixture(scope="module")
def sized():
    "Names of genotypes of stages, with each its genotype and its sizes."
    from ssnas_colab.models.network import stage_sizes
    from ssnas_colab.models.stages import STAGE_GENOTYPES, macro_genotype, random_stages

    long = "a name that is too long for its place"
    of_stages = STAGE_GENOTYPES | {"macro": macro_genotype("01201202"), long * 2: random_stages(4)}
    return {name: (one, stage_sizes(one, 64, 1000, size=(224, 224))) for name, one in of_stages.items()}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_stages_on_pages_of_any_width(browser, sized, theme, width):
    "Without a server: the drawings as they stand in reports and files, none wider than the page, no words that meet."
    from ssnas_colab.models.stages import random_stages
    from ssnas_colab.plots.genotype import draw_genotype

    pictures = [draw_genotype(random_stages(1), theme=theme)]
    for name, (genotype, sizes) in sized.items():
        pictures.append(draw_genotype(genotype, sizes=sizes, title=name, theme=theme, chosen=("stage", 1, 0)))
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_content(f"<!DOCTYPE html><body>{''.join(pictures)}</body>")
    assert page.evaluate(LAYOUT) == []
    widths = page.evaluate("[...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().width)")
    assert max(widths) <= 420 and min(widths) > 360
    if os.environ.get("SSNAS_SCREENSHOTS"):
        page.screenshot(path=f"{os.environ['SSNAS_SCREENSHOTS']}/stages_{theme}_{width}.png", full_page=True)
    page.close()


WORDS = """() => {
  const colour = (text) => text.match(/[\\d.]+/g).map(Number), found = [];
  const over = (top, under) => { const a = top[3] ?? 1; return [0, 1, 2].map((i) => a * top[i] + (1 - a) * under[i]); };
  const lines = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (lines.nextNode()) {
    const at = lines.currentNode.parentElement, text = lines.currentNode.textContent.trim();
    if (!text || !at.checkVisibility() || at.closest("script, svg, option")) continue;
    let beneath = [255, 255, 255], above = [];
    for (let one = at; one; one = one.parentElement) above.unshift(colour(getComputedStyle(one).backgroundColor));
    for (const shade of above) beneath = over(shade, beneath);
    found.push([text.slice(0, 30), colour(getComputedStyle(at).color).slice(0, 3), beneath]);
  }
  for (const svg of document.querySelectorAll("svg")) {
    const shapes = [];
    for (const part of svg.querySelectorAll("rect, text")) {
      const box = part.getBoundingClientRect(), look = getComputedStyle(part);
      if (part.tagName == "rect") {
        if (look.fill == "none") continue;
        const fill = colour(look.fill);
        shapes.push([box, [...fill.slice(0, 3), (fill[3] ?? 1) * Number(look.fillOpacity)]]);
        continue;
      }
      const x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
      let beneath = [255, 255, 255];
      for (const [one, fill] of shapes)
        if (one.left <= x && x <= one.right && one.top <= y && y <= one.bottom) beneath = over(fill, beneath);
      if (box.width) found.push([part.textContent, colour(look.fill).slice(0, 3), beneath]);
    }
  }
  return found;
}"""
NAMELESS = """() => [...document.querySelectorAll("button, input, select, [role=button]")].filter((e) =>
  !(e.ariaLabel || [...(e.labels || [])].map((l) => l.textContent).join("") || e.textContent.trim() && !e.options)
).map((e) => e.outerHTML.slice(0, 200))"""


def contrast(one, other):
    "By WCAG 2.1, of two colours from 0 to 255."
    shades = []
    for colour in (one, other):
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        shades.append(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] + 0.05)
    return max(shades) / min(shades)


def test_the_saved_page_works_offline_without_a_kernel(tmp_path, browser):
    "From a file, without a net: slider, click and keys move all of it; at 400 points and 1280, in both themes."
    from ssnas_colab.experiment.run import Run
    from ssnas_colab.models.genotype import PRIMITIVES, edges
    from ssnas_colab.plots.svg import shade_of
    from ssnas_colab.widgets.explorer import BEFORE, Explorer, draw_course, explain_edge, save

    a_run(tmp_path / "a <b> & run")
    run = Run.open(tmp_path / "a <b> & run")
    rows = [{"epoch": e, "loss": 1 / (e + 1), "alpha_loss": 2 / (e + 1)} for e in range(20)]
    run.save_json("search.json", {"relaxation": "fair", "history": rows})
    explorer = Explorer(run)
    explorer.other = BEFORE
    path, complaints, asked = save(explorer, "html", tmp_path), [], []
    for width, theme in ((400, "dark"), (1280, "light")):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, offline=True)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        assert page.inner_text("h1") == "a <b> & run: this search"
        paper = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(paper) == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 29)"}[theme]
        # The slider, by the keyboard
        assert "epoch 20 of 20" in page.inner_html("#pictures") and page.is_hidden("#edge-chart")
        page.get_by_role("slider", name="Epoch").focus()
        for _ in range(15):
            page.keyboard.press("ArrowLeft")
        explorer.epoch = 5
        assert "epoch 5 of 20" in page.inner_html("#pictures") and page.inner_text("#epoch-said") == "5 of 20"
        moved = page.get_attribute("#loss-chart .mark", "transform")
        assert float(moved[10:].split(",")[0]) == pytest.approx(46 + 362 * 5 / 20, abs=0.1)
        assert page.locator("#loss-chart .value").all_text_contents() == ["0.20", "0.40"]
        # The table says and shades what the weights after that epoch are, and frames what the genotype has
        weights, kept = explorer.weights(), explorer.genotype()
        lines = page.eval_on_selector_all(
            "#table .row", """rows => rows.map(row => [row.dataset.pick,
            [...row.querySelectorAll("text")].slice(1).map(text => text.textContent),
            [...row.querySelectorAll(".shade")].map(box => [Number(box.style.fillOpacity), box.style.stroke])])""",
        )  # fmt: skip
        assert len(lines) == 28
        for pick, numbers, shades in lines:
            kind, a, b = pick.split()
            wanted = weights[kind][edges(4).index((int(a), int(b)))]
            np.testing.assert_allclose([float(number) for number in numbers], wanted, atol=0.0051)
            here = [(op, int(a), int(b)) in map(tuple, getattr(kept, kind)) for op in PRIMITIVES]
            assert [stroke != "none" for _, stroke in shades] == here
            np.testing.assert_allclose([shade for shade, _ in shades], [shade_of(w) for w in wanted], atol=0.001)
        # A click on an edge, and a key on a row: its weights over the epochs, and all about it in words
        edge = page.locator("#pictures .edge").first
        pick = edge.get_attribute("data-pick")
        edge.locator("rect").click()
        for chosen in (pick, "reduce 1 4"):
            if chosen != pick:
                page.locator(f"#table [data-pick='{chosen}']").focus()
                page.keyboard.press("Enter")
            kind, a, b = chosen.split()
            explorer.chosen = kind, int(a), int(b)
            assert page.locator("#said p").last.inner_text() == explain_edge(explorer)
            assert page.is_visible("#edge-chart") and page.input_value("#edge") == chosen
            drawn = page.eval_on_selector_all("#edge-chart .curve", "all => all.map(one => one.getAttribute('d'))")
            wanted = draw_course(explorer)[0].split('class="curve" d="')[1:]
            for one, other in zip(drawn, wanted, strict=True):
                places = ([float(n) for n in re.findall(r"[\d.]+", d)] for d in (one, other.split('"')[0]))
                np.testing.assert_allclose(*places, atol=0.11)  # the page has rounded weights
        assert page.locator("#table .row.chosen").count() == 1
        # It can be used by whoever does not see well, or has a narrow page
        assert page.evaluate(NAMELESS) == [] and page.evaluate(LAYOUT) == []
        words = page.evaluate(WORDS)
        assert len(words) > 300
        assert [word for word in words if contrast(*word[1:]) < 4.5] == []
        page.get_by_role("button", name="Play the epochs").click()
        page.wait_for_function("document.getElementById('epoch').value > 5", timeout=10_000)
        page.get_by_role("button", name="Pause").click()
        if os.environ.get("SSNAS_SCREENSHOTS"):
            page.screenshot(path=f"{os.environ['SSNAS_SCREENSHOTS']}/page_{theme}_{width}.png", full_page=True)
        context.close()
    assert complaints == [] and set(asked) == {path.as_uri()}


def chosen_list(page, label):
    "The <select> of the control with this label."
    return page.locator(f".widget-dropdown:has(label:text-is('{label}')) select")


def handle(page, label):
    "The handle of the slider with this label, in ipywidgets 8 or 7."
    return page.locator(f".widget-hslider:has(label:text-is('{label}'))").locator(".noUi-handle, .ui-slider-handle")


def until(page, condition, what):
    "Wait until `condition()` holds, at most 40 seconds."
    for _ in range(400):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError(what)


def shows(page, selector, wanted, yes=True):
    """The element's HTML once `wanted` is in it (or, without `yes`, no longer).

    Never "once it has changed": on a busy machine that may be the answer to a key of the test before.
    """
    found = page.locator(selector).first
    until(page, lambda: (wanted in found.inner_html()) == yes, f"{selector} {'never' if yes else 'still'} has {wanted}")
    return found.inner_html()


def press(page, control, keys, selector, wanted, yes=True):
    "Press keys on a control; the HTML of what shows `wanted` after them (or, without `yes`, no longer shows it)."
    control.focus()
    for key in keys.split():
        page.keyboard.press(key)
    return shows(page, selector, wanted, yes)


# In a list: arrows alone belong to JupyterLab, which moves to the next cell by them.
DOWN, UP = "Space ArrowDown Enter", "Space ArrowUp Enter"
BOLD = 'font-weight="bold"'


def screenshot(page, name, what=".widget-vbox:has(svg.ssnas)"):
    "Keep a picture of the explorer, or of `what`, where SSNAS_SCREENSHOTS asks for it."
    folder = os.environ.get("SSNAS_SCREENSHOTS")
    if folder:
        if page.locator("button:text-is('No')").count():
            page.locator("button:text-is('No')").first.click()  # no news from Jupyter
        page.mouse.move(5, 5)
        page.wait_for_timeout(300)
        page.locator(what).first.screenshot(path=f"{folder}/{page.front_end}_{name}.png")


def test_epoch_and_threshold_by_keyboard(page):
    assert "epoch 20 of 20" in page.inner_html(PICTURE)
    screenshot(page, "light")
    press(page, handle(page, "Epoch"), "ArrowLeft", PICTURE, "epoch 19 of 20")
    press(page, handle(page, "Epoch"), "ArrowRight", PICTURE, "epoch 20 of 20")
    edges = page.locator(f"{PICTURE} >> g.edge").count()
    handle(page, "Threshold").focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    kept = page.locator(f"{PICTURE} >> g.edge")
    until(page, lambda: kept.count() < edges, "a higher threshold keeps fewer edges")
    assert "parameters" in page.inner_text(STATUS) and "MACs" in page.inner_text(STATUS)
    handle(page, "Threshold").focus()
    for _ in range(13):
        page.keyboard.press("ArrowLeft")
    until(page, lambda: kept.count() == edges, "the old threshold keeps the old edges")


def test_an_edge_chosen_in_the_list_is_seen_everywhere(page):
    chosen = press(page, chosen_list(page, "Edge"), DOWN, TABLE, BOLD)
    assert chosen.count(BOLD) == 1
    shows(page, STATUS, "normal cell, input 0 to node 2")
    press(page, chosen_list(page, "Edge"), UP, TABLE, BOLD, yes=False)
    press(page, chosen_list(page, "What is"), DOWN, STATUS, "avg_pool_3x3: the mean of each 3x3")


def test_an_edge_clicked_in_one_picture_is_seen_in_the_other(page):
    if not page.locator(f"{TABLE} >> g.row[role=button]").count():
        pytest.skip("anywidget is not installed: pictures cannot be clicked")
    page.locator(f"{PICTURE} >> g.edge rect").first.click()
    shows(page, TABLE, BOLD)
    pick = page.locator(f"{PICTURE} >> g.edge").first.get_attribute("data-pick")
    shows(page, STATUS, pick.split()[0][:6])
    row = page.locator(f"{TABLE} >> g.row[data-pick='reduce 1 4']")
    press(page, row, "Enter", STATUS, "reduction cell, input 1 to node 4")
    # Drawing anew must not lose the focus.
    page.wait_for_function("document.activeElement.dataset.pick == 'reduce 1 4'", timeout=5_000)
    press(page, row, "Enter", STATUS, "reduction cell, input 1 to node 4", yes=False)


def test_compare_and_dark(page):
    chosen_list(page, "Compare with").select_option(label="FairDARTS_b")
    shows(page, STATUS, "only in FairDARTS_b")
    paper = f"getComputedStyle(document.querySelector('{PICTURE.split(' >>')[0]} rect')).fill"
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    marked = page.evaluate("document.body.dataset.jpThemeLight")
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")  # as JupyterLab marks a dark page
    assert page.evaluate(paper) == "rgb(22, 24, 29)"
    page.evaluate(f"document.body.dataset.jpThemeLight = {json.dumps(marked or 'true')}")
    press(page, chosen_list(page, "Page"), DOWN, PICTURE, "var(--ss", yes=False)  # light, then dark
    press(page, chosen_list(page, "Page"), DOWN, PICTURE, "#16181D")
    assert page.evaluate(paper) == "rgb(22, 24, 29)"
    screenshot(page, "compare")
    chosen_list(page, "Page").select_option(label="auto")
    shows(page, PICTURE, "var(--ss")
    chosen_list(page, "Compare with").select_option(label="nothing")
    shows(page, STATUS, "only in FairDARTS_b", yes=False)


def test_in_a_dark_jupyterlab(page):
    if page.front_end != "jupyterlab":
        pytest.skip("JupyterLab's theme is JupyterLab's")
    page.click(".lm-MenuBar-itemLabel:text-is('Settings')")
    page.hover(".lm-Menu-itemLabel:text-is('Theme')")
    page.click(".lm-Menu-itemLabel:text-is('JupyterLab Dark')")
    page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
    paper = "getComputedStyle(document.querySelector('svg.ssnas rect')).fill"
    until(page, lambda: page.evaluate(paper) == "rgb(22, 24, 29)", "the picture is not dark")
    chosen_list(page, "Compare with").select_option(label="FairDARTS_b")
    shows(page, STATUS, "only in FairDARTS_b")
    screenshot(page, "dark")
    chosen_list(page, "Compare with").select_option(label="nothing")
    shows(page, STATUS, "only in FairDARTS_b", yes=False)


def test_play_moves_the_epochs(page):
    for epoch in (19, 18, 17):
        press(page, handle(page, "Epoch"), "ArrowLeft", PICTURE, f"epoch {epoch} of 20")
    button = page.locator(".widget-play button").first
    button.focus()
    page.keyboard.press("Enter")
    shows(page, PICTURE, "epoch 17 of 20", yes=False)
    shows(page, PICTURE, "epoch 20 of 20")


def test_save_and_refresh_by_keyboard(page, server):
    _, _, folder = server
    for form in ("JSON", "SVG", "PNG", "HTML"):
        button = page.locator(f"button:has-text('Save {form}')")
        button.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector(f"[role=status]:has-text('.{form.lower()}.')", timeout=20_000)
    assert {path.suffix for path in folder.glob("genotype_this_search_epoch_20_of_20.*")} == {
        ".json", ".svg", ".png", ".html",
    }  # fmt: skip
    page.locator("button:has-text('Refresh')").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=status]:has-text('20 epochs so far')", timeout=20_000)


def test_every_control_has_a_name_and_can_be_focused(page):
    panel = page.locator(".widget-vbox:has(svg.ssnas)").first
    if importlib.util.find_spec("anywidget"):  # which gives a name to what ipywidgets leaves without
        for name in ("Epoch", "Threshold"):
            assert panel.get_by_role("slider", name=name).count() == 1
        for name in ("Play the epochs", "Stop", "Repeat"):
            assert panel.locator(".widget-play").get_by_role("button", name=name).count() == 1
        assert panel.locator(".widget-readout:not([aria-label])").count() == 0
    # Elsewhere the buttons of Play are ipywidgets' own and have no names: a label stands before them.
    assert "Play" in page.locator(".widget-hbox:has(.widget-play) .widget-label").first.inner_text()
    for role in ("select", "button:not(.widget-play button)", "input"):
        for control in panel.locator(role).all():
            if control.is_visible():
                named = control.evaluate(
                    "e => e.ariaLabel || e.title || e.textContent.trim() && e.tagName == 'BUTTON' "
                    "|| [...(e.labels || [])].map(l => l.textContent).join('') || "
                    "e.closest('.jupyter-widgets')?.querySelector('label')?.textContent"
                )
                assert named, control.evaluate("e => e.outerHTML")
                assert control.evaluate("e => e.tabIndex >= 0")


def test_the_genotype_is_on_the_clipboard(page, server):
    if not importlib.util.find_spec("anywidget"):
        pytest.skip("anywidget is not installed: a page cannot put anything on the clipboard")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("button:has-text('Copy genotype')").click()
    page.wait_for_selector("[role=status]:has-text('Copied')", timeout=20_000)
    found = page.evaluate("navigator.clipboard.readText()")
    assert found.startswith("Genotype(normal=[")
    assert found == page.locator("pre:has-text('Genotype(')").last.inner_text()


def test_a_panel_of_400_points_cuts_nothing_off(page):
    panel = page.locator(".widget-vbox:has(svg.ssnas)").first
    press(page, chosen_list(page, "Edge"), DOWN, TABLE, BOLD)
    until(page, lambda: panel.locator("svg").count() == 5, "not all there is to show is shown")
    assert panel.evaluate("""panel => {
      panel.style.width = "384px";  // a page of 400 has a little margin
      const edge = panel.getBoundingClientRect().right + 1, parts = [...panel.querySelectorAll("*")];
      const out = parts.filter((part) => part.getBoundingClientRect().right > edge).map((part) => part.outerHTML);
      const cells = parts.filter((part) => part.tagName == "svg").map((svg) => svg.getBoundingClientRect());
      const side = cells.filter((cell, i) => i && cell.top < cells[i - 1].bottom - 1).length;
      panel.style.width = "";
      return [out, side, cells.length, Math.min(...cells.map((cell) => cell.width)) > 350];
    }""") == [[], 0, 5, True]  # two cells, the weights of the edge, two tables, one below the other
    press(page, chosen_list(page, "Edge"), UP, TABLE, BOLD, yes=False)


def test_no_errors_in_the_console(page):
    "Comes last: what the page complained of in all tests before."
    assert not complaints(page), complaints(page)


def complaints(page):
    "What the page complained of, but for what Voila's own page wants from the net: fonts and MathJax."
    away = ["favicon"]
    if page.front_end == "voila":
        away += ["ERR_NAME_NOT_RESOLVED", "ERR_INTERNET_DISCONNECTED", "reading 'Queue'"]
    return [said for said in page.complaints if not any(name in said for name in away)]


# The data and the report as widgets


@pytest.fixture(scope="module")
def boards(server, page):
    "A page with the two boards on it, which takes the place of the explorer's."
    show(page, server, "boards.ipynb")
    page.wait_for_selector("label:text-is('Sort by')", timeout=60_000)
    page.wait_for_timeout(1000)
    return page


def board(page, label):
    "The selector of the board that has a control with this label."
    return f".widget-vbox:has(label:text-is('{label}'))"


def test_the_data_board_by_keyboard(boards):
    said = f"{board(boards, 'Split')} >> [role=status] >> nth=0"
    screenshot(boards, "data", board(boards, "Split"))
    assert "9.85 times as many as the smallest" in boards.inner_text(said)
    bars = f"{board(boards, 'Split')} >> svg >> nth=0"
    drawn = boards.locator(bars).inner_html()
    for name in ("Axis", "Split"):
        press(boards, chosen_list(boards, name), DOWN, bars, drawn, yes=False)
        press(boards, chosen_list(boards, name), UP, bars, drawn)
    pictures = f"{board(boards, 'Split')} >> img >> nth=0"
    before = boards.get_attribute(pictures, "src")
    boards.locator("button:has-text('Other examples and views')").focus()
    boards.keyboard.press("Enter")
    boards.wait_for_function("([s, b]) => document.querySelector(s) && document.querySelector(s).src != b",
                             arg=[".widget-vbox img", before], timeout=15_000)  # fmt: skip


def test_the_report_board_by_keyboard(boards):
    here = board(boards, "Sort by")
    table, said = f"{here} >> table >> nth=0", f"{here} >> [role=status] >> nth=0"
    assert "searched network" in boards.inner_text(said)
    screenshot(boards, "report", here)
    choice = f"{here} >> .widget-dropdown:has(label:text-is('{{}}')) select"
    sorted_by = boards.locator(table).inner_html()
    press(boards, boards.locator(choice.format("Sort by")), DOWN, table, sorted_by, yes=False)
    bars = f"{here} >> svg >> nth=0"
    drawn = boards.locator(bars).inner_html()
    drawn = press(boards, chosen_list(boards, "Model"), DOWN, bars, drawn, yes=False)
    press(boards, chosen_list(boards, "Compare with"), DOWN, bars, drawn, yes=False)
    press(boards, boards.locator(choice.format("Class")), DOWN, said, "training images")


def test_the_boards_make_no_errors(boards):
    assert not complaints(boards), complaints(boards)
