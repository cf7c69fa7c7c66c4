"The drawings of cells and weights: every edge is there, nothing touches a name, colours hold on any page."

import random
import subprocess
import sys
import xml.etree.ElementTree as xml

import numpy as np
import pytest

from ssnas_colab.core.basics import UserError
from ssnas_colab.models.genotype import GENOTYPES, PRIMITIVES, Edge, Genotype, edges
from ssnas_colab.plots.genotype import CELLS, HALF, TALL, describe, draw_genotype, draw_weights, lanes, name_box, route
from ssnas_colab.plots.svg import paint, theme_sheet

SVG = "{http://www.w3.org/2000/svg}"


def groups(text, kind):
    return [part for part in xml.fromstring(text).iter(f"{SVG}g") if part.get("class") == kind]


def random_genotype(seed, nodes):
    draw = random.Random(seed)

    def cell():
        pairs = draw.sample(edges(nodes), draw.randint(1, len(edges(nodes))))
        return [Edge(op, *pair) for pair in pairs for op in draw.sample(PRIMITIVES, draw.choice([1, 1, 2]))]

    return Genotype(cell(), cell(), range(2, 2 + nodes), range(2, 2 + nodes))


def weights_of(nodes, seed=0):
    return {kind: np.random.default_rng(seed).random((len(edges(nodes)), 7)) for kind in CELLS}


@pytest.mark.parametrize("nodes", [1, 2, 4, 6])
@pytest.mark.parametrize("seed", range(5))
def test_all_edges_of_any_genotype_are_drawn_and_parse(nodes, seed):
    genotype = random_genotype(seed, nodes)
    for weights in (None, weights_of(nodes)):
        drawn = groups(draw_genotype(genotype, weights=weights), "edge")
        told = sorted((*part.get("data-pick").split(), part.get("data-op")) for part in drawn)
        assert told == sorted((k, str(a), str(b), op) for k in CELLS for op, a, b in getattr(genotype, k))


@pytest.mark.parametrize("seed", range(100))
def test_names_do_not_overlap_and_stay_off_level_lines(seed):
    for cell in (random_genotype(seed, 4).normal, random_genotype(seed, 5).reduce):
        placed = lanes(cell)
        boxes = {edge: name_box(edge, lane) for edge, lane in placed.items()}
        for one, (left, top, right, bottom) in boxes.items():
            assert right - left == 2 * HALF and bottom - top == 2 * TALL
            for other, (a, b, c, d) in boxes.items():
                if one != other:
                    assert not (left < c and a < right and top < d and b < bottom)
                    (_, _), (x1, y), (x2, _), _ = route(other, placed[other])
                    assert not (top < y < bottom and left < x2 and x1 < right)


def test_thickness_follows_the_weight():
    genotype = Genotype([("sep_conv_3x3", 0, 2), ("sep_conv_3x3", 1, 2)], [("skip_connect", 0, 2)], [2], [2])
    weights = {kind: np.zeros((14, 7)) for kind in CELLS}
    weights["normal"][0, 3] = 1.0
    thick = {}
    for part in groups(draw_genotype(genotype, weights=weights, theme="light"), "edge"):
        line = [path.get("style") for path in part.iter(f"{SVG}path")][-1]
        thick[part.get("data-pick")] = float(line.split("stroke-width: ")[1].split(";")[0])
    assert thick["normal 0 2"] == pytest.approx(4.6) and thick["normal 1 2"] == pytest.approx(1)


def test_parameter_free_edges_are_dashed_and_unused_ones_dotted():
    cell = [("sep_conv_3x3", 0, 2), ("max_pool_3x3", 1, 2), ("dil_conv_3x3", 3, 4)]
    text = draw_genotype(Genotype(cell, cell), theme="light")
    drawn = groups(text, "edge")
    dashes = {part.get("data-op"): [line.get("style") for line in part.iter(f"{SVG}path")][-1] for part in drawn}
    assert "dasharray: none" in dashes["sep_conv_3x3"] and "dasharray: 7 4" in dashes["max_pool_3x3"]
    assert "dasharray: 2 4" in dashes["dil_conv_3x3"] and "nothing arrives here" in text


def test_the_chosen_edge_is_marked_in_graph_and_table():
    genotype, weights = GENOTYPES["FairDARTS_b"], weights_of(4)
    for chosen in [(kind, *pair) for kind in CELLS for pair in edges()]:
        picked = " ".join(map(str, chosen))
        text = draw_genotype(genotype, weights=weights, chosen=chosen, theme="light")
        mark = paint("light")["chosen"].encode()
        marked = {part.get("data-pick") for part in groups(text, "edge") if mark in xml.tostring(part)}
        assert picked in marked
        assert {pick.split()[0] for pick in marked} == {chosen[0]}
        rows = groups(draw_weights(weights, genotype, chosen=chosen), "row")
        assert [row.get("data-pick") for row in rows if "bold" in xml.tostring(row).decode()] == [picked]


def test_the_table_shows_the_weights_and_frames_the_choice():
    weights, genotype = weights_of(4), GENOTYPES["SNAS"]
    rows = groups(draw_weights(weights, genotype), "row")
    assert len(rows) == 28
    for row in rows:
        kind, *pair = row.get("data-pick").split()
        table = weights[kind][edges().index((int(pair[0]), int(pair[1])))]
        numbers = [float(part.text) for part in list(row.iter(f"{SVG}text"))[1:]]  # the first is the row's name
        np.testing.assert_allclose(numbers, table, atol=0.00501)
    framed = sum(part.get("class") == "framed" for row in rows for part in row.iter(f"{SVG}rect"))
    assert framed == len(genotype.normal) + len(genotype.reduce)


def test_titles_are_escaped():
    text = draw_genotype(GENOTYPES["SNAS"], title='a <b> & "c"')
    assert any(part.text == 'a <b> & "c"' for part in xml.fromstring(text).iter(f"{SVG}text"))


def test_only_clickable_pictures_have_buttons():
    weights, genotype = weights_of(4), GENOTYPES["SNAS"]
    for draw in (lambda **o: draw_genotype(genotype, **o), lambda **o: draw_weights(weights, **o)):
        assert "tabindex" not in draw() and draw(clickable=True).count('tabindex="0" role="button" aria-label="') >= 16


def test_every_variable_has_a_colour_on_light_and_dark_pages():
    text = draw_genotype(GENOTYPES["PDARTS"], weights=weights_of(4), chosen=("normal", 0, 2), other=GENOTYPES["SNAS"])
    text += draw_weights(weights_of(4), GENOTYPES["PDARTS"])
    light, dark = theme_sheet().split('[data-jp-theme-light="false"]')
    used = {part.split(",")[0] for part in text.split("var(")[1:]}
    assert used and all(f"{name}: #" in light and f"{name}: #" in dark for name in used)


def test_mistakes():
    with pytest.raises(UserError, match="no theme 'dim'"):
        draw_genotype(GENOTYPES["SNAS"], theme="dim")
    with pytest.raises(ValueError, match="cannot have 13 rows"):
        draw_weights({kind: np.zeros((13, 7)) for kind in CELLS})


def test_a_genotype_in_words():
    cell = [("sep_conv_3x3", 0, 2)]
    words = "sep_conv_3x3 from input 0 to node 2"
    assert describe(Genotype(cell, cell)) == f"normal cell: {words}; reduction cell: {words}"


def test_drawing_does_not_plot():
    code = "import sys, ssnas_colab.plots.genotype; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
