"The drawings of cells and weights: every edge is there, nothing touches a name, colours hold on any page."

import io
import random
import subprocess
import sys
import xml.etree.ElementTree as xml
from dataclasses import replace

import numpy as np
import pytest

from ssnas_colab.core.basics import UserError
from ssnas_colab.models.genotype import GENOTYPES, PRIMITIVES, Edge, Genotype, edges
from ssnas_colab.models.network import stage_sizes
from ssnas_colab.models.stages import STAGE_GENOTYPES, Block, Stage, StageGenotype, macro_genotype, random_stages
from ssnas_colab.plots.genotype import (
    CELLS,
    HALF,
    TALL,
    describe,
    describe_block,
    draw_genotype,
    draw_weights,
    lanes,
    name_box,
    plot_genotype,
    route,
)
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


def test_both_pictures_name_the_nodes_alike_and_point_every_edge_at_its_end():
    genotype = GENOTYPES["FairDARTS_b"]
    drawn = xml.fromstring(draw_genotype(genotype))
    arrows = [part.get("points") for part in drawn.iter(f"{SVG}polygon")]
    for kind in CELLS:
        cell = getattr(genotype, kind)
        for edge, lane in lanes(cell).items():
            x, y = route(edge, lane)[-1]
            assert f"{x - 8:g},{y - 4.5:g} {x + 1:g},{y:g} {x - 8:g},{y + 4.5:g}" in arrows
    assert len(arrows) == sum(len(getattr(genotype, kind)) for kind in CELLS)
    texts = [text for axes in plot_genotype(genotype).axes for text in axes.texts]
    named = [text.get_text() for text in texts if text.get_gid() == "node"]
    written = ["".join(text.itertext()) for text in drawn.iter(f"{SVG}text")]
    assert named.count("input 0") == named.count("out") == 2 and set(named) < set(written)


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


def test_an_edge_that_is_there_twice_is_drawn_once_and_says_so():
    drawn = groups(draw_genotype(GENOTYPES["NASNet"]), "edge")
    told = [part.get("data-pick") for part in drawn if part.get("data-op") == "avg_pool_3x3"]
    assert told.count("normal 0 5") == 1
    [title] = [part[0].text for part in drawn if part.get("data-pick") == "normal 0 5"]
    assert ", twice" in title and "2 avg 3x3" in draw_genotype(GENOTYPES["NASNet"])


def test_weights_beside_operations_that_they_lack():
    "A table has the search's seven; an edge of another operation is drawn without a weight."
    drawn = groups(draw_genotype(GENOTYPES["AmoebaNet"], weights=weights_of(5)), "edge")
    titles = {part.get("data-op"): part[0].text for part in drawn}
    assert "weight" not in titles["sep_conv_7x7"].split(":")[0] and "weight" in titles["avg_pool_3x3"].split(":")[0]


DIFFERENT = StageGenotype(
    (Stage((Block("basic"), Block(kernel=7, squeeze_excite=True), Block("skip")), 1.0, 1),
     Stage((Block("cell", genotype=GENOTYPES["SNAS"]), Block(shortcut="same")), 1.5, 2),
     Stage((Block(shortcut="same"),), 3.0, 1)), stem_stride=4, head=2.0,
)  # fmt: skip
OF_STAGES = {**STAGE_GENOTYPES, "macro": macro_genotype("01201202"), "different": DIFFERENT, "drawn": random_stages(4)}


@pytest.mark.parametrize("name", OF_STAGES)
def test_blocks_are_drawn_to_scale_and_costs_add_up(name):
    genotype = OF_STAGES[name]
    sizes = stage_sizes(genotype, 12, 5, 1, (64, 96))
    drawn = groups(draw_genotype(genotype, sizes=sizes, title=name), "block")
    places = [(i, j) for i, stage in enumerate(genotype.stages) for j in range(len(stage.blocks))]
    assert [part.get("data-pick") for part in drawn] == [f"stage {i} {j}" for i, j in places]
    bars, side = [list(part.iter(f"{SVG}rect"))[-1] for part in drawn], 1.0
    units = [float(bar.get("width")) / genotype.stages[i].width for bar, (i, _) in zip(bars, places, strict=True)]
    np.testing.assert_allclose(units, units[0], rtol=0.02, atol=0.006)
    for part, bar, (i, j) in zip(drawn, bars, places, strict=True):
        side /= genotype.stages[i].stride if j == 0 else 1
        assert float(bar.get("height")) == pytest.approx(96 * side, abs=0.01)
        assert part[0].text == describe_block(genotype, i, j)
    texts = [part.text for part in xml.fromstring(draw_genotype(genotype, sizes=sizes)).iter(f"{SVG}text")]
    assert all(f"{row['parameters']:,}" in texts and f"{row['macs'] / 1e6:.2f} M" in texts for row in sizes)
    assert f"base width 12: {sum(row['parameters'] for row in sizes):,} parameters" in texts[0]


def test_blocks_are_described_by_what_they_are():
    for (i, j), words in {
        (0, 0): "stage 1, block 1 of 3: basic 3x3, a shortcut around it;",
        (0, 1): "stage 1, block 2 of 3: mbconv 7x7, expansion 3, with squeeze-excite, a shortcut around it;",
        (0, 2): "stage 1, block 3 of 3: skip;",
        (1, 0): "stage 2, block 1 of 2, which halves the image: cell;",
        (1, 1): "without squeeze-excite, a shortcut around it;",
        (2, 0): "no shortcut, since width or size change;",
    }.items():
        assert words in describe_block(DIFFERENT, i, j)
    assert describe(DIFFERENT).startswith("stage 1: 1 x basic 3x3, 1 x mbconv 7x7, expansion 3, 1 x skip of width 1; ")


def test_stages_that_differ_are_underlaid_and_the_chosen_block_is_marked():
    one, light = STAGE_GENOTYPES["resnet18"], paint("light")
    other = StageGenotype((*one.stages[:2], Stage((Block("basic"), Block("basic", 5)), 4.0, 2), one.stages[3]))

    def marked(text, of, colour):
        return [part.get("data-pick") for part in groups(text, of) if light[colour].encode() in xml.tostring(part)]

    text = draw_genotype(one, other=other, chosen=("stage", 1, 0), theme="light")
    assert marked(text, "block", "differs") == ["stage 2 1"] and marked(text, "row", "differs") == ["stage 2 0"]
    assert marked(text, "block", "chosen") == ["stage 1 0"] == marked(text, "row", "chosen")
    assert marked(draw_genotype(one, other=one, theme="light"), "block", "differs") == []
    other = replace(one, stem_stride=2, head=4.0)  # neither is in both
    found = [draw_genotype(a, other=b, theme="light").count(light["differs"]) for a, b in ((one, other), (other, one))]
    assert found == [2 + 1, 4 + 1]  # bar and row of the stem, of one also of the head, and the legend
    assert light["differs"] not in draw_genotype(one, other=GENOTYPES["SNAS"], theme="light")
    assert light["differs"] not in draw_genotype(GENOTYPES["SNAS"], other=one, theme="light")
    assert "tabindex" not in text and draw_genotype(one, clickable=True).count('tabindex="0"') == 8 + 4


@pytest.mark.parametrize("name", OF_STAGES)
def test_words_of_a_figure_of_stages_do_not_meet(name):
    figure = plot_genotype(OF_STAGES[name], title=name)
    figure.savefig(io.BytesIO(), dpi=figure.dpi)  # which lays it out
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 2 * len(OF_STAGES[name].stages) and figure.get_suptitle() == name
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
