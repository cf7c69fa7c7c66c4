"Genotypes: the published ones as printed, both ways of writing, what is refused, what is used, the picture."

import ast
import itertools
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from refusal import refused

from ssnas_colab.models.genotype import EDGES, GENOTYPES, PRIMITIVES, Edge, Genotype, edges, load_genotype, summary
from ssnas_colab.plots.genotype import plot_genotype


@pytest.fixture(scope="module")
def published():
    folder = os.environ.get("SSNAS_TEST_DATA")
    if not folder:
        pytest.skip("SSNAS_TEST_DATA is not set: published_genotypes.json cannot be found")
    return json.loads((Path(folder) / "published_genotypes.json").read_text())


def by_hand(printed, kind):
    "Edges and concatenation of a printed genotype, read through the syntax tree alone."
    call = ast.parse(printed, mode="eval").body
    values = {keyword.arg: keyword.value for keyword in call.keywords}
    found = []
    for position, item in enumerate(ast.literal_eval(values[kind])):
        found.append((item[0], item[-1], item[1] if len(item) == 3 else position // 2 + 2))
    return tuple(found)


def test_published_texts(published):
    assert {*published, "NASNet", "AmoebaNet"} == set(GENOTYPES)  # of the last two there is no printed text
    for name, entry in published.items():
        genotype = Genotype.parse(entry["printed"])
        assert genotype == GENOTYPES[name]
        assert genotype.normal == by_hand(entry["printed"], "normal")
        assert genotype.reduce == by_hand(entry["printed"], "reduce")
        assert genotype.normal_concat == genotype.reduce_concat == (2, 3, 4, 5)
        if name.startswith("FairDARTS"):
            assert str(genotype) == entry["printed"]


@pytest.mark.parametrize("name", GENOTYPES)
def test_round_trips(name):
    genotype = GENOTYPES[name]
    assert Genotype.parse(str(genotype)) == genotype and Genotype.parse(f"\n{name} = {genotype}\n") == genotype
    assert Genotype.from_json(genotype.to_json()) == genotype == Genotype.from_json(json.dumps(genotype.to_dict()))
    assert pickle.loads(pickle.dumps(genotype)) == genotype and hash(genotype) == hash(Genotype.parse(str(genotype)))
    assert all(type(edge) is Edge for edge in genotype.normal + genotype.reduce)


def test_json_is_plain():
    genotype = Genotype([Edge("skip_connect", 1, 3)], [("dil_conv_5x5", 0, 2)], range(2, 4), [3, 2])
    expected = {
        "normal": [["skip_connect", 1, 3]],
        "normal_concat": [2, 3],
        "reduce": [["dil_conv_5x5", 0, 2]],
        "reduce_concat": [3, 2],
    }
    assert genotype.to_dict() == json.loads(genotype.to_json()) == expected
    assert "normal_concat=range(2, 4)" in str(genotype) and "reduce_concat=[3, 2]" in str(genotype)


def test_search_space():
    assert len(EDGES) == 14 and EDGES == edges(4) and 2 * len(EDGES) * len(PRIMITIVES) == 196
    assert edges(2) == ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def test_used_is_transitive_and_in_any_order():
    cell = [
        Edge("skip_connect", 4, 5),  # 4 is fed by 3 alone, and 3 by nothing
        Edge("sep_conv_3x3", 3, 4),
        Edge("dil_conv_3x3", 2, 6),
        Edge("max_pool_3x3", 1, 2),
    ]
    genotype = Genotype(cell, [])
    assert genotype.normal_concat == genotype.reduce_concat == (2, 3, 4, 5, 6)
    assert genotype.used("normal") == (tuple(cell[2:]), (2, 6))
    assert genotype.used("reduce") == ((), ())
    assert GENOTYPES["FairDARTS_a"].used("normal") == (GENOTYPES["FairDARTS_a"].normal, (2, 4, 5))
    with pytest.raises(ValueError, match="'normal' or 'reduce'"):
        genotype.used("normals")


CELL = "normal=[('skip_connect', 2, 0)], normal_concat=range(2, 6), reduce=[], reduce_concat=[2]"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "must be one expression"),
        (None, "must be one expression"),
        ("Genotype(", "must be one expression"),
        ("Genotype([], [2], [], [2])", "must be one expression"),
        (f"Genotype({CELL}); print(1)", "must be one expression"),
        (f"Genotype(**dict({CELL}))", "must be one expression"),
        (f"Other({CELL})", "must be one expression"),
        ("(" * 5000, "must be one expression"),
        ("Genotype(normal=[])", "lacks normal_concat and reduce and reduce_concat"),
        (f"Genotype({CELL}, reduced=[])", "'reduced': did you mean 'reduce'"),
        (f"Genotype({CELL})".replace("[2]", "open('x')"), r"open\('x'\)"),
        (f"Genotype({CELL})".replace("[2]", "[i for i in range(2)]"), "for i in range"),
        (f"Genotype({CELL})".replace("[2]", "range(2, 3, 1)"), r"range\(2, 3, 1\)"),
        (f"Genotype({CELL})".replace("[2]", "range(2, 10**99)"), r"10 \*\* 99"),
        (f"Genotype({CELL})".replace("[2]", f"range(2, {10**99})"), "reduce_concat must name nodes from 2 to 63"),
        (f"Genotype({CELL})".replace("[2]", "[2, 2]"), "reduce_concat must name nodes"),
        (f"Genotype({CELL})".replace("[2]", "[1]"), "reduce_concat must name nodes"),
        (f"Genotype({CELL})".replace("[2]", "2"), "reduce_concat must be a list"),
        (f"Genotype({CELL})".replace("[2]", "[2.5]"), "whole number"),
        (f"Genotype({CELL})".replace("2, 0", "0, 2"), "later one"),
        (f"Genotype({CELL})".replace("2, 0", "1, 0"), "later one"),
        (f"Genotype({CELL})".replace("2, 0", "64, 0"), "later one"),
        (f"Genotype({CELL})".replace("skip_connect", "skip_conect"), "did you mean 'skip_connect'"),
        (f"Genotype({CELL})".replace("'skip_connect'", "7"), "unknown operation"),
        (f"Genotype({CELL})".replace("2, 0)]", "0)]"), "two for each node"),
        (f"Genotype({CELL})".replace("2, 0)]", "2, 0), ('skip_connect', 0)]"), "two for each node"),
        (f"Genotype({CELL})".replace("2, 0)]", "2, 0), ('skip_connect', 2, 0)]"), "twice: keep one"),
        (f"Genotype({CELL})".replace("2, 0)]", "2, 0)" + ", ('avg_pool_3x3', 2, 0)" * 3 + "]"), "three times"),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        Genotype.parse(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


GOOD = {"normal": [["skip_connect", 0, 2]], "normal_concat": [2], "reduce": [], "reduce_concat": [2]}


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not the JSON of a genotype"),
        (None, "not the JSON of a genotype"),
        ("[" * 100_000, "not the JSON of a genotype"),
        ("[1, 2]", "must be an object"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "reduce"}), "lacks reduce:"),
        (json.dumps({**GOOD, "nrmal": []}), "'nrmal': did you mean 'normal'"),
        (json.dumps({**GOOD, "normal": {"a": 1}}), "normal cell's edges must be a list"),
        (json.dumps({**GOOD, "normal": ["skip_connect"]}), r"must be \(operation, source, target\)"),
        (json.dumps({**GOOD, "reduce": [["sep_conv_3x4", 0, 2]]}), "did you mean 'sep_conv_3x3'"),
        (json.dumps({**GOOD, "reduce": [["skip_connect", True, 2]]}), "source must be a whole number, not True"),
        (json.dumps({**GOOD, "reduce": [["skip_connect", 0, "2"]]}), "target must be a whole number, not '2'"),
        (json.dumps({**GOOD, "reduce": [["skip_connect", -1, 2]]}), "later one"),
        (json.dumps({**GOOD, "reduce_concat": "23"}), "reduce_concat must be a list"),
    ],
)
def test_json_refuses(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        Genotype.from_json(text)
    assert "\n" not in str(caught.value)


def test_load_genotype_from_a_file_and_a_run(tmp_path):
    genotype = GENOTYPES["FairDARTS_b"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "genotype.json").write_text(genotype.to_json() + "\n", encoding="utf-8")
    assert load_genotype(tmp_path / "run") == load_genotype(str(tmp_path / "run" / "genotype.json")) == genotype
    code = f"from ssnas_colab.models.genotype import load_genotype; load_genotype({str(tmp_path / 'run')!r})"
    heavy = "import sys; print(sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{code}; {heavy}"], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_load_genotype_refuses_in_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "genotype.json").write_text(json.dumps({**GOOD, "reduce": [["sep_conv_3x4", 0, 2]]}))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "folder" / "genotype.json").mkdir(parents=True)
    for name, why in [
        ("nowhere", "does not exist"), ("nowhere/genotype.json", "does not exist"), ("empty", "no genotype.json"),
        ("broken", "'sep_conv_3x3'"), ("picture.png", "could not be read"), ("folder", "no genotype.json"),
        ("x" * 5000, "does not exist"),
    ]:  # fmt: skip
        refused(name[:60], why, act=lambda name=name: load_genotype(tmp_path / name))
    (tmp_path / "empty" / "genotype.json").touch()
    refused("empty", "could not be read", act=lambda: load_genotype(tmp_path / "empty"))


def test_summary():
    genotype = Genotype([Edge("sep_conv_3x3", 0, 2), Edge("skip_connect", 1, 2), Edge("skip_connect", 3, 4)], [])
    assert summary(genotype) == "n: sep3 0>2, skip 1>2 | r: nothing"
    assert all(len(summary(g)) <= 100 and "\n" not in summary(g) for g in GENOTYPES.values())


@pytest.mark.parametrize("name", [*GENOTYPES, "every edge", "one edge, every operation", "empty", "not used"])
def test_picture_has_no_overlapping_texts(name):
    genotypes = {
        **GENOTYPES,
        "every edge": Genotype(*([(PRIMITIVES[(i * k) % 7], *edge) for i, edge in enumerate(EDGES)] for k in (1, 3))),
        "one edge, every operation": Genotype([(op, 1, 4) for op in PRIMITIVES], [(op, 2, 3) for op in PRIMITIVES]),
        "empty": Genotype([], [], [], []),
        "not used": Genotype([("skip_connect", 2, 4), ("sep_conv_3x3", 0, 3)], [("skip_connect", 0, 2)]),
    }
    genotype = genotypes[name]
    figure = plot_genotype(genotype, title=name)
    figure.canvas.draw()
    assert figure.get_suptitle() == name
    for axes, kind in zip(figure.axes, ("normal", "reduce"), strict=True):
        labels = [text for text in axes.texts if text.get_gid() == "edge"]
        assert len(labels) == len(set(getattr(genotype, kind)))
        twice = [edge for edge, times in Counter(getattr(genotype, kind)).items() if times == 2]
        assert sum(label.get_text().startswith("2 ") for label in labels) == len(twice)
        boxes = [text.get_window_extent().padded(3) for text in axes.texts]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
        grey = [text for text in labels if text.get_color() == "#999999"]
        assert len(grey) == len(getattr(genotype, kind)) - len(genotype.used(kind)[0])
