"The HTML page of a report: one file that loads nothing, runs nothing, and shows every text as it was written."

import base64
import copy
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ssnas_colab.core.basics import UserError
from ssnas_colab.models.network import Network, count_parameters
from ssnas_colab.models.stages import random_stages
from ssnas_colab.plots.style import THEMES, contrast
from ssnas_colab.reports.build import report_view
from ssnas_colab.reports.pages import Html, report_page, report_pictures, sign_line, tag
from ssnas_colab.reports.verdict import SYMBOLS, verdict

from .made_up import example_report

PNG = b"\x89PNG\r\n\x1a\n and so on"
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
FIRST_RUN = Path(__file__).parents[2] / "nbs/research/first_runs/cifar10_lt100/report.json"


@pytest.fixture(scope="module")
def made():
    return example_report(classes=4, searched=0.15, seeds=3, mobilenet=0.05)


class Read(HTMLParser):
    "The elements of a page with their attributes, and its text by element."

    def __init__(self, page):
        super().__init__()
        self.elements, self.text, self.within = [], "", []
        self.feed(page)
        assert not self.within

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in ("img", "source", "meta"):
            self.within.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.within.pop() == name

    def handle_data(self, data):
        self.text += data if self.within and self.within[-1] != "style" else ""

    def all(self, name):
        return [attributes for found, attributes in self.elements if found == name]


def test_elements_are_escaped_unless_they_are_html():
    assert tag("p", "a < b & c", tag("b", "<i>")) == "<p>a &lt; b &amp; c<b>&lt;i&gt;</b></p>"
    assert tag("p", Html("<i>x</i>")) == "<p><i>x</i></p>" and tag("td", 3) == "<td>3</td>"
    assert tag("img", src='"><script>', alt="") == '<img src="&quot;&gt;&lt;script&gt;" alt="">'
    assert tag("meta", name="x", http_equiv="y", class_=None) == '<meta name="x" http-equiv="y">'


def test_the_page_has_every_part(made):
    pictures = dict.fromkeys(("size", "recall", "confusion", "curves", "maps", "my own"), PNG)
    read = Read(report_page(report_view(made), pictures))
    first, _, rest = verdict(made).partition(". ")
    assert f"{first}." in read.text and rest in read.text and "arXiv 2109.08580" in read.text
    for text in ("Models", "Differences", "Recall per class", "Training", "The genotype", "Settings", "my own"):
        assert text in read.text, text
    for text in ("409,834", "loss logit_adjustment", "torch 2.14.1", "normal=[('sep_conv_3x3'"):
        assert text in read.text, text
    assert len(read.all("img")) == 6 and all(len(image["alt"]) > 5 for image in read.all("img"))
    assert len(read.all("svg")) == 1 and "normal cell" in read.all("svg")[0]["aria-label"]
    assert read.all("html") == [{"lang": "en"}]
    assert "viewport" in [meta.get("name") for meta in read.all("meta")]
    assert [row for row in read.all("tr") if row.get("class") == "own"]
    [sign] = [line for line in read.all("p") if (line.get("class") or "").startswith("sign ")]
    kind = {"✓": "good", "–": "even", "✗": "bad"}[verdict(made)[0]]
    assert sign["class"] == f"sign {kind}" and len(read.all("b")) > 5


def test_the_colour_of_the_sign_stands_out_from_both_themes_and_holds_its_white_form():
    for sign in SYMBOLS.values():
        colour = re.search("background: (#[0-9A-F]{6})", sign_line(f"{sign} text"))[1]
        assert contrast(colour, "#FFFFFF") >= 4.5 and all(contrast(colour, t["panel"]) > 2.5 for t in THEMES.values())
        assert all(contrast(colour, theme["paper"]) >= 3 for theme in THEMES.values())


def test_a_genotype_of_stages_is_drawn_with_what_it_costs(made):
    of_stages = copy.deepcopy(made)
    genotype, data = random_stages(3), made["data"]
    of_stages["models"]["searched"] |= {"genotype": str(genotype), "width": 9}
    read = Read(report_page(report_view(of_stages), {}))
    [drawn] = read.all("svg")
    net = Network(genotype, len(data["class_names"]), in_channels=data["channels"], width=9)
    assert "stage 1: " in drawn["aria-label"] and drawn["viewbox"].startswith("0 0 420 ")
    assert f"base width 9: {count_parameters(net):,} parameters" in read.text
    del of_stages["models"]["searched"]["width"]  # as in a report that does not say
    assert "base width" not in Read(report_page(report_view(of_stages), {})).text


def test_every_text_is_shown_as_it_was_written(made):
    odd = copy.deepcopy(made)
    hostile = '<img src=x onerror=alert(1)> & "quotes" </style></main>'
    odd["data"]["class_names"][1] = odd["data"]["name"] = odd["device"] = hostile
    odd["settings"]["search"][hostile] = hostile
    odd["models"]["searched"]["genotype"] = hostile
    odd["versions"][hostile] = hostile
    odd["models"][hostile] = odd["models"].pop("mobilenet_v3_small")
    page = report_page(report_view(odd), {hostile: PNG})
    read = Read(page)
    assert read.text.count(hostile) >= 10 and len(read.all("img")) == 1 and len(read.all("main")) == 1
    assert read.all("img")[0]["alt"] == hostile and not any(k.startswith("on") for _, at in read.elements for k in at)


def test_nothing_is_loaded_or_run(made):
    read = Read(page := report_page(report_view(made), {"size": PNG, "size_dark": SVG, "maps": SVG}))
    names = {name for name, _ in read.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form", "video", "audio", "a"}
    loading = "src", "srcset", "href", "data", "action"
    addresses = [value for _, at in read.elements for key, value in at.items() if key in loading]
    assert len(addresses) == 3 and all(address.startswith("data:image/") for address in addresses)
    assert base64.b64decode(read.all("img")[0]["src"].split(",")[1]) == PNG
    assert base64.b64decode(read.all("source")[0]["srcset"].split(",")[1]).decode() == SVG
    assert read.all("source")[0]["media"] == "(prefers-color-scheme: dark)"
    style = "".join(re.findall(r"<style>(.*?)</style>", page, re.S))
    assert "url(" not in style and "@import" not in style and "prefers-color-scheme: dark" in style
    policies = [meta["content"] for meta in read.all("meta") if "http-equiv" in meta]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'")


@pytest.mark.parametrize("picture", [b"GIF89a", "no picture", None, b"<svg></svg>"])
def test_what_is_no_picture_is_refused(made, picture):
    with pytest.raises(UserError, match="picture 'maps' of the page must be the bytes of a PNG or the text of an SVG"):
        report_page(report_view(made), {"maps": picture})


def test_pictures_are_those_that_there_is_data_for(made):
    pictures = report_pictures(made, dpi=20)
    names = ["size", "macs", "latency", "recall", "confusion", "curves"]
    assert sorted(pictures) == sorted([*names, *(f"{name}_dark" for name in names)])
    assert all(pictures[name].startswith("<svg" if "confusion" in name else b"\x89PNG") for name in pictures)
    assert len(set(pictures.values())) == 12
    less = {**made, "curves": {"searched": {"validation": []}}}
    less["models"] = {name: model | {"confusion": None} for name, model in made["models"].items()}
    assert list(report_pictures(less, dark=False, dpi=30)) == ["size", "macs", "latency", "recall"]


def test_an_old_report_makes_a_page():
    read = Read(report_page(report_view(json.loads(FIRST_RUN.read_text())), {}))
    assert "None" not in read.text and "Differences" not in read.text and "What is taken for what" not in read.text
    assert html.escape("airplane") in read.text and not read.all("img")
