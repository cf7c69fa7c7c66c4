"Derivation against a plain reference and against cells worked out by hand."

import warnings

import numpy as np
import pytest
import torch

from ssnas_colab.models.genotype import EDGES, PRIMITIVES, Genotype, edges
from ssnas_colab.nas.derive import derive

KINDS = ("normal", "reduce")


def weights_of(*on, dtype=np.float64, rest=0.05):
    "Both cells: 0.95 for a convolution from each input into node 2; `on`: (op, source, target, weight); else `rest`."
    table = np.full((14, 7), rest, dtype)
    table[:2, 3] = 0.95
    for op, source, target, weight in on:
        table[EDGES.index((source, target)), PRIMITIVES.index(op)] = weight
    return {kind: table.copy() for kind in KINDS}


ALWAYS = [("sep_conv_3x3", 0, 2), ("sep_conv_3x3", 1, 2)]


def plain(genotype, kind="normal"):
    return [tuple(edge) for edge in getattr(genotype, kind)]


def reference(table, nodes, max_edges, least):
    "By sorting all (weight, order) pairs in Python numbers."
    cell = []
    for target in range(2, 2 + nodes):
        offers = []
        for source in range(target):
            row = edges(nodes).index((source, target))
            weight, column = max((float(table[row, c]), -c) for c in range(7))
            offers.append((-weight, source, -column))
        for weight, source, column in sorted(offers)[:max_edges]:
            if -weight >= least:
                cell.append((target, source, PRIMITIVES[column]))
    return [(op, source, target) for target, source, op in sorted(cell)]


@pytest.mark.parametrize("nodes, max_edges", [(4, 2), (4, 1), (4, 5), (2, 2), (6, 3)])
def test_against_reference(nodes, max_edges):
    rng = np.random.default_rng(nodes * 10 + max_edges)
    for _ in range(50):  # coarse numbers, so that many are equal
        tables = {kind: rng.integers(0, 9, (len(edges(nodes)), 7)) / 8 for kind in KINDS}
        tables["normal"][0, 3] = tables["reduce"][1, 4] = 1.0  # so that no fallback is needed
        options = {"nodes": nodes, "max_edges": max_edges}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            threshold, top = derive(tables, threshold=0.75, **options), derive(tables, method="top2", **options)
        for kind in KINDS:
            assert plain(threshold, kind) == reference(tables[kind], nodes, max_edges, 0.75)
            assert plain(top, kind) == reference(tables[kind], nodes, max_edges, -1)
        assert threshold.normal_concat == top.reduce_concat == tuple(range(2, 2 + nodes))


def test_empty_node_gets_no_edge():
    genotype = derive(weights_of(("dil_conv_5x5", 2, 5, 0.9)))
    assert plain(genotype) == plain(genotype, "reduce") == [*ALWAYS, ("dil_conv_5x5", 2, 5)]
    assert genotype.normal_concat == (2, 3, 4, 5) and genotype.used("normal")[1] == (2, 5)


def test_one_operation_an_edge_and_the_strongest_edges():
    on = [("sep_conv_5x5", 1, 5, 0.90), ("max_pool_3x3", 1, 5, 0.93)]
    on += [("skip_connect", 0, 5, 0.89), ("skip_connect", 4, 5, 0.99)]
    expected = [("max_pool_3x3", 1, 5), ("skip_connect", 4, 5)]
    assert plain(derive(weights_of(*on))) == ALWAYS + expected
    assert plain(derive(weights_of(*on), max_edges=1)) == [ALWAYS[0], expected[1]]


def test_ties_by_order():
    on = [("dil_conv_5x5", s, 5, 0.9) for s in range(5)] + [("avg_pool_3x3", s, 5, 0.9) for s in range(5)]
    assert plain(derive(weights_of(*on)))[2:] == [("avg_pool_3x3", 0, 5), ("avg_pool_3x3", 1, 5)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("threshold", [0.85, 0.9, 0.1, 0.95])
def test_equal_to_the_threshold_is_enough(dtype, threshold):
    exact = dtype(threshold)
    on = [("sep_conv_3x3", 0, 3, exact), ("sep_conv_3x3", 0, 4, np.nextafter(exact, dtype(0)))]
    tables = weights_of(*on, dtype=dtype)
    for table in tables.values():
        table[0, 3] = 1
    kept = plain(derive(tables, threshold=threshold))
    assert ("sep_conv_3x3", 0, 3) in kept and ("sep_conv_3x3", 0, 4) not in kept


def test_nothing_reaches_the_threshold():
    table = np.full((14, 7), 0.1)
    table[13, 3], table[6, 4] = 0.8, 0.7  # 4 to 5 is stronger, but no input leads there; row 6 is 1 to 4
    with pytest.warns(UserWarning, match="normal cell stays: the .*, sep_conv_5x5 from input 1 to node 4 with 0.7"):
        genotype = derive({"normal": table, "reduce": weights_of()["reduce"]})
    assert plain(genotype) == [("sep_conv_5x5", 1, 4)] and plain(genotype, "reduce") == ALWAYS


def test_fallback_into_a_full_node():
    table = np.full((14, 7), 0.1)
    table[11:14, 3] = 0.90, 0.88, 0.99  # into 5 from 2, 3 and 4
    table[10, 5] = 0.5  # from 1
    with pytest.warns(UserWarning, match="dil_conv_3x3 from input 1 to node 5 with 0.5") as caught:
        genotype = derive({"normal": table, "reduce": weights_of()["reduce"]})
    assert plain(genotype) == [("dil_conv_3x3", 1, 5), ("sep_conv_3x3", 4, 5)]
    assert caught[0].filename == __file__ and table.max() == 0.99


def test_all_skips_stay_with_a_warning_for_the_normal_cell():
    skips = np.full((14, 7), 0.05)
    skips[:, 2] = 0.95
    expected = [("skip_connect", source, target) for target in range(2, 6) for source in (0, 1)]
    for method in ("threshold", "top2"):
        with pytest.warns(UserWarning, match="no operation with parameters, only skip_connect") as caught:
            genotype = derive({"normal": skips, "reduce": skips}, method=method)
        assert plain(genotype) == plain(genotype, "reduce") == expected and len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plain(derive({**weights_of(), "reduce": skips}), "reduce") == expected


def test_top2_fills_every_node_and_ignores_none():
    rng = np.random.default_rng(3)
    tables = {kind: rng.uniform(0.05, 0.1, (14, 7)) for kind in KINDS}
    genotype = derive(tables, method="top2")
    for kind in KINDS:
        assert [edge.target for edge in getattr(genotype, kind)] == [2, 2, 3, 3, 4, 4, 5, 5]
    none = {kind: np.column_stack([table, rng.uniform(0, 1, 14)]) for kind, table in tables.items()}
    assert derive(none, method="top2") == genotype


def test_any_finite_table_gives_a_network():
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for scale in (0.0, 0.3, 0.9, 1.0, 1e30):
            tables = {kind: rng.uniform(-1, 1, (14, 7)) * scale for kind in KINDS}
            for method in ("threshold", "top2"):
                genotype = derive(tables, method=method)
                assert all(genotype.used(kind)[1] for kind in KINDS)
                assert Genotype.from_json(genotype.to_json()) == genotype


def test_what_can_be_read():
    tables = weights_of(("dil_conv_5x5", 2, 5, 0.9), dtype=np.float32)
    expected = derive(tables)
    for convert in (np.ndarray.tolist, torch.tensor, lambda table: torch.nn.Parameter(torch.tensor(table))):
        assert derive({kind: convert(table) for kind, table in tables.items()}) == expected
    assert derive({kind: (table > 0.8).astype(int) for kind, table in tables.items()}) == expected
    assert derive({kind: table > 0.8 for kind, table in tables.items()}) == expected


TABLE = weights_of()["normal"]


@pytest.mark.parametrize(
    "weights, options, message",
    [
        ({"normal": TABLE}, {}, "'normal' and 'reduce'"),
        (TABLE, {}, "'normal' and 'reduce'"),
        ({"normal": TABLE, "reduce": TABLE.T}, {}, r"reduce cell have the shape \(7, 14\).*\(14, 7\)"),
        ({"normal": TABLE[None], "reduce": TABLE}, {}, r"\(1, 14, 7\)"),
        ({"normal": TABLE[:, [*range(7), 0]], "reduce": TABLE}, {}, r"\(14, 8\): 4 nodes need \(14, 7\)"),
        ({"normal": TABLE[:, :6], "reduce": TABLE}, {"method": "top2"}, r"need \(14, 7\) or \(14, 8\)"),
        ({"normal": TABLE, "reduce": TABLE}, {"nodes": 5}, r"5 nodes need \(20, 7\)"),
        ({"normal": TABLE, "reduce": np.where(TABLE > 0.9, np.nan, TABLE)}, {}, r"edge 0 \(0 to 2\), column 3"),
        ({"normal": TABLE * np.inf, "reduce": TABLE}, {}, "not finite"),
        ({"normal": TABLE + 1j, "reduce": TABLE}, {}, "real numbers"),
        ({"normal": [[1], [1, 2]], "reduce": TABLE}, {}, "real numbers"),
        ({"normal": None, "reduce": TABLE}, {}, "real numbers"),
        ({"normal": TABLE, "reduce": TABLE}, {"method": "top"}, "did you mean 'top2'"),
        ({"normal": TABLE, "reduce": TABLE}, {"threshold": np.nan}, "finite number"),
        ({"normal": TABLE, "reduce": TABLE}, {"max_edges": 1.5}, "max_edges"),
        ({"normal": TABLE, "reduce": TABLE}, {"nodes": 0}, "nodes"),
    ],
)
def test_refuses(weights, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        derive(weights, **options)
    assert "\n" not in str(caught.value)
