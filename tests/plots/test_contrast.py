"All words of all drawings on what lies beneath them, by the formula of WCAG 2.1, in both themes."

import re
import xml.etree.ElementTree as xml

import numpy as np
import pytest

from ssnas_colab.models.genotype import GENOTYPES, edges
from ssnas_colab.models.network import stage_sizes
from ssnas_colab.models.stages import STAGE_GENOTYPES, random_stages
from ssnas_colab.plots.genotype import draw_genotype, draw_weights
from ssnas_colab.plots.style import OPERATIONS
from ssnas_colab.plots.svg import Bar, Curve, draw_bars, draw_confusion, draw_curves

SVG = "{http://www.w3.org/2000/svg}"


def luminance(colour):
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def rgb(text):
    return np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def look(element, name):
    found = re.search(rf"(?:^|;)\s*{name}:\s*([^;]+)", element.get("style") or "")
    return found[1].strip() if found else element.get(name)


def words(drawing):
    "(text, its colour, the colour beneath it) of each text of an SVG: rectangles so far, the later on top."
    root, shapes = xml.fromstring(drawing), []
    whole = [float(part) for part in root.get("viewBox").split()[2:]]

    def walk(element, x, y):
        moved = re.match(r"translate\(([-\d.]+),([-\d.]+)\)", element.get("transform") or "")
        x, y = (x + float(moved[1]), y + float(moved[2])) if moved else (x, y)
        if element.tag == f"{SVG}rect":
            size = [
                full if element.get(name) == "100%" else float(element.get(name))
                for name, full in zip(("width", "height"), whole, strict=True)
            ]
            left, top, fill = x + float(element.get("x") or 0), y + float(element.get("y") or 0), look(element, "fill")
            if fill not in ("none", "transparent"):
                alpha = float(look(element, "fill-opacity") or 1)
                shapes.append((left, top, left + size[0], top + size[1], rgb(fill), alpha))
        elif element.tag == f"{SVG}text" and element.text:
            a, b = x + float(element.get("x")), y + float(element.get("y"))
            # Where a text begins or ends rather than in the middle: a point within its first or last letter.
            a += {"start": 3, "end": -3}.get(element.get("text-anchor"), 0)
            beneath = None
            for left, top, right, bottom, colour, alpha in shapes:
                if left <= a <= right and top <= b <= bottom:
                    beneath = colour if beneath is None else alpha * colour + (1 - alpha) * beneath
            yield element.text, rgb(look(element, "fill")), beneath
        for child in element:
            yield from walk(child, x, y)

    yield from walk(root, 0.0, 0.0)


def drawings(theme):
    "Everything that can be drawn, with whatever changes a colour."
    weights = {kind: np.linspace(0, 1, 98).reshape(14, 7) for kind in ("normal", "reduce")}
    names, options = list(GENOTYPES), {"theme": theme, "chosen": ("normal", 0, 2)}
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        yield draw_genotype(GENOTYPES[name], other=GENOTYPES[other], title=name, **options)
    # Of the derived, what nothing arrives at is grey, also where another genotype lacks it.
    odd = type(GENOTYPES["SNAS"])([("sep_conv_3x3", 0, 2), ("skip_connect", 3, 4)], [("skip_connect", 1, 2)])
    yield draw_genotype(odd, weights=weights, other=GENOTYPES["SNAS"], theme=theme, chosen=("normal", *edges()[-1]))
    yield from (draw_weights(weights, GENOTYPES["SNAS"], kind=kind, **options) for kind in (None, "normal", "reduce"))
    for one, other in (("resnet18", "mobilenet_v2"), ("mobilenet_v2", "resnet18")):
        one, other = STAGE_GENOTYPES[one], STAGE_GENOTYPES[other]
        yield draw_genotype(one, other=other, sizes=stage_sizes(one, 8, 10), theme=theme, chosen=("stage", 0, 0))
    yield draw_genotype(random_stages(4), theme=theme)
    yield draw_curves([Curve(op, op, (0.1, 0.2)) for op in OPERATIONS[theme]], "curves", at=1, theme=theme)
    bars = [Bar(0, "a", 0.5, "50 %", (0.4, 0.6), 0.7), Bar(1, "b", None, "none")]
    yield draw_bars(bars, "bars", theme=theme, chosen=0)
    yield draw_confusion([[3, 1, 0], [2, 2, 1], [0, 9, 1]], ["a", "b", "c"], "confusion", theme=theme, chosen=1)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_word_stands_out_from_what_is_beneath_it(theme):
    poor = {
        (text, round(contrast(ink, beneath), 2))
        for drawing in drawings(theme)
        for text, ink, beneath in words(drawing)
        if contrast(ink, beneath) < 4.5
    }
    assert not poor
    assert contrast(rgb("#777777"), rgb("#FFFFFF")) == pytest.approx(4.48, abs=0.005)
