"""Names of classes, data sets, models and runs do nothing to a page, a picture, a terminal or Markdown."""

import copy
import re
import xml.etree.ElementTree as tree

import mistune
import pytest

from ssnas_colab.core.files import figure_bytes
from ssnas_colab.reports.build import report_view
from ssnas_colab.reports.compare import compare
from ssnas_colab.reports.figures import confusion_picture, plot_report
from ssnas_colab.reports.pages import markdown, report_markdown, report_page

from .made_up import example_report

NAMES = [
    "<script>alert(1)</script>", r"$\frac{$", "\x1b[31mred", "\u202eright to left", "a\nb|c", "\udcff",
    "![x](http://host/x.png)", r"\<img src=x>", "&lt;b&gt; *x*", "# [x](javascript:x)",
]  # fmt: skip


@pytest.fixture(scope="module")
def hostile():
    made = copy.deepcopy(example_report(classes=len(NAMES), seeds=1))
    made["data"] |= {"class_names": NAMES, "name": NAMES[0], "decisions": [["labels", "\n".join(NAMES)]]}
    made["settings"]["search"] |= {name: name for name in NAMES}
    for model in made["models"].values():
        model["class_names"] = NAMES
    return made | {"models": made["models"] | {name: made["models"]["resnet18"] for name in NAMES}}


def rendered(text):
    "Markdown as HTML with the tags that it has, read by a library that lets raw HTML through."
    page = mistune.create_markdown(escape=False, plugins=["table"])(text)
    return page, set(re.findall(r"<(\w+)", page))


def test_markdown_shows_names_and_runs_none(hostile):
    for text in (report_markdown(report_view(hostile)), compare({name: hostile for name in NAMES[:2]})):
        assert all(line.isprintable() for line in text.splitlines()) and text.encode()
        page, tags = rendered(text)
        assert not tags & {"script", "a", "em", "b"} and page.count("<img") == page.count('src="report.png"')
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_text_of_our_own_is_left_as_it_is():
    for text in ("66.1 ± 0.8 % [64.9, 67.3]", "`ssnas derive RUN --pick N`", "resnet_small < 3", "a & b", "C:\\new"):
        assert markdown(text) == text
    for name in NAMES:
        page, _ = rendered(f"x {markdown(name)}")
        assert re.sub(r"\s|\\", "", page).startswith("<p>x")


def test_pages_pictures_and_drawings(hostile):
    page = report_page(report_view(hostile), {})
    page.encode()
    assert "\x1b" not in page and "\u202e" not in page and "<script>" not in page
    tree.fromstring(confusion_picture(hostile))
    for only in ("size", "recall", None):
        assert figure_bytes(plot_report(hostile, only=only)).startswith(b"\x89PNG")
