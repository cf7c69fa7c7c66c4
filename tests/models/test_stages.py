"""The space of stages: what is written is what is read, and what is built keeps to every budget."""

import hashlib
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refusal import refused

from ssnas_colab.models.genotype import GENOTYPES, genotype_from_json, load_genotype, parse_genotype, summary
from ssnas_colab.models.network import Network, activation_bytes, count_macs, count_parameters, stage_sizes
from ssnas_colab.models.stages import (
    STAGE_GENOTYPES,
    Block,
    Stage,
    StageGenotype,
    macro_genotype,
    mutate_stages,
    random_stages,
    stem_stride_for,
)
from ssnas_colab.plots.genotype import draw_genotype, plot_genotype

MBCONV = StageGenotype(tuple(Stage((Block(),) * count, 2.0**i, 2) for i, count in enumerate([1, 3, 2])))
CELL = Stage((Block("cell", genotype=GENOTYPES["FairDARTS_b"]),), 1.0, 2)
WITH_CELL = StageGenotype((CELL, Stage((Block(),), 2.0, 2)))


def walked(seed):
    "A genotype a few steps away from a drawn one."
    genotype = random_stages(seed)
    for step in range(seed % 7):
        genotype = mutate_stages(genotype, step)
    return genotype


@pytest.mark.parametrize("seed", range(40))
def test_what_is_written_is_read(seed):
    genotype = walked(seed)
    assert StageGenotype.from_json(genotype.to_json()) == genotype == parse_genotype(str(genotype))
    assert json.loads(genotype.to_json())["space"] == "stages" and len(summary(genotype)) <= 100


def test_cells_in_stages_and_genotypes_of_either_kind_are_read(tmp_path):
    for genotype in (WITH_CELL, MBCONV, GENOTYPES["DARTS_V2"], macro_genotype("01201202")):
        assert genotype_from_json(genotype.to_json()) == genotype == parse_genotype(str(genotype))
        (tmp_path / "genotype.json").write_text(genotype.to_json())
        assert load_genotype(tmp_path) == genotype
    (tmp_path / "genotype.json").write_text('{"space": "trees", "stages": []}')
    refused("'trees'", act=lambda: load_genotype(tmp_path))


WRONG = [
    "[]", "{", '{"space": "stages"}', '{"space": "stages", "stages": []}', '{"space": "stages", "stages": 7}',
    '{"space": "stages", "stages": [{"blocks": []}]}', '{"space": "stages", "stages": [{"blocks": [{}]}]}',
    '{"space": "stages", "stages": [{"blocks": [{"kind": "conv"}]}]}',
    '{"space": "stages", "stages": [{"blocks": [{"kind": "mbconv", "kernel": 4}]}]}',
    '{"space": "stages", "stages": [{"blocks": [{"kind": "mbconv", "expansion": 1e9}]}]}',
    '{"space": "stages", "stages": [{"blocks": [{"kind": "mbconv"}], "width": 1e999}]}',
    '{"space": "stages", "stages": [{"blocks": [{"kind": "mbconv"}], "stride": 3}]}',
    '{"space": "stages", "stages": [{"blocks": [{"kind": "cell"}]}]}',
    '{"space": "stages", "stages": [{"blocks": [{"kind": "basic", "more": 1}]}]}',
    '{"space": "stages", "stages": [{"blocks": [{"kind": ["mbconv"]}]}]}',
    '{"space": "stages", "stages": [{"blocks": [{"kind": "mbconv", "kernel": 3.0}]}]}',
    '{"space": "stages", "stages": [{"blocks": [{"kind": "mbconv", "expansion": true}]}]}',
    '{"space": "stages", "stages": [{"blocks": [{"kind": "basic"}], "stride": true}]}',
    '{"space": "stages", "stem_stride": 1.0, "stages": [{"blocks": [{"kind": "basic"}]}]}',
    '{"space": "stages", "stages": [{"blocks": [{"kind": "basic", "squeeze_excite": true}]}]}',
    '{"space": "stages", "stages": [{"blocks": [{"kind": "mb\\nconv"}]}]}',
    json.dumps({"space": "stages", "stages": [{"blocks": [{"kind": "basic"}], "width": 10**400}]}),
    json.dumps({"space": "stages", "stages": [{"blocks": [{"kind": "basic"}] * 65}]}),
    json.dumps({"space": "stages", "stages": [{"blocks": [{"kind": "basic"}]}] * 17}),
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_no_network_can_be_is_one_sentence(text):
    with pytest.raises(ValueError) as caught:
        genotype_from_json(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("block", [
    Block("basic", expansion=6), Block("basic", squeeze_excite=True), Block("basic", shortcut="same"),
    Block("skip", 5), Block("skip", shortcut="same"), Block("cell", 5, genotype=GENOTYPES["SNAS"]),
])  # fmt: skip
def test_what_a_kind_of_block_does_not_heed_is_refused_not_forgotten(block):
    with pytest.raises(ValueError, match=f"a block of stage 2 must be left out where the kind is {block.kind}"):
        StageGenotype((Stage((Block(),)), Stage((block,))))


@pytest.mark.parametrize("text, words", [
    ('{"space": "cells", "normal": []}', "'cells'.*no such key"),
    ('{"space": "stages", "stages": [{"blocks": [{"kind": "mbconv", "expand": 6}]}]}', "'expand': .*'expansion'"),
    ('{"space": "stages", "stages": [{"block": [{"kind": "mbconv"}]}]}', "Stage 1 .*'block': .*'blocks'"),
    ('{"space": "stages", "stages": [{"blocks": [{"kernel": 3}]}]}', "stage 1 lacks kind"),
    ('{"space": "stages", "stages": [{"blocks": {"kind": "basic"}}]}', "the blocks of stage 1 must be a list"),
    ('{"space": "stages", "stages": [{"blocks": [{"kind": null}]}]}', "kind of a block of stage 1 .*, not None"),
    ('{"space": "stages", "stages": [{"blocks": [{"kind": ["skip"]}]}]}', "kind of a block .*not \\['skip'\\]"),
    ('{"space": "stages", "stages": [{"blocks": [{"kind": "mbconv", "squeeze_excite": 1}]}]}', "true or false, not 1"),
    ('{"space": "stages", "stages": []}', "stages must be 1 to 16, not 0"),
])  # fmt: skip
def test_what_is_wrong_in_a_file_is_named(text, words):
    with pytest.raises(ValueError, match=words):
        genotype_from_json(text)


def growths(stages):
    return [b.width / a.width for a, b in zip(stages, stages[1:])]


def is_a_stage_more_or_less(before, after):
    "Whether one of them is the other without a stage, and what the rest is, how it grows and halves is as it was."
    short, long = sorted((before.stages, after.stages), key=len)
    for i in range(len(long)):
        rest = [*long[:i], *long[i + 1 :]]
        kept = growths(long)
        kept = kept[1:] if i == 0 else kept[: i - 1] + kept[i:]
        same = [stage.blocks for stage in rest] == [stage.blocks for stage in short]
        halving = [stage.stride for stage in short] == [long[0].stride, *[2] * (len(short) - 1)]
        if same and halving and kept == pytest.approx(growths(short)) and short[0].width == long[0].width:
            return len(long) == len(short) + 1
    return False


def test_a_change_adds_and_removes_stages_within_three_and_four():
    found = set()
    for seed in range(300):
        before = walked(seed)
        after = mutate_stages(before, seed)
        found.add((len(before.stages), len(after.stages)))
        if len(after.stages) > len(before.stages):  # the new one is a copy of the one before it
            i = next(i for i, stage in enumerate(after.stages) if before.stages[i : i + 1] != (stage,))
            assert after.stages[i].blocks == after.stages[i - 1].blocks and after.stages[i].stride == 2
    assert found == {(3, 3), (3, 4), (4, 4), (4, 3)}
    six = STAGE_GENOTYPES["mobilenet_v2"]
    assert {len(mutate_stages(six, seed).stages) for seed in range(60)} == {5, 6}
    one = StageGenotype((Stage((Block(),)),))
    assert {len(mutate_stages(one, seed).stages) for seed in range(60)} == {1, 2}


def test_a_change_is_one_change_and_comes_from_the_seed():
    for seed in range(100):
        before = walked(seed)
        after = mutate_stages(before, seed)
        assert after != before and after == mutate_stages(before, seed)
        growth = [b.width / a.width for a, b in zip(after.stages, after.stages[1:])]
        assert all(0.999 < one < 2.001 for one in growth)
        if len(after.stages) != len(before.stages):
            assert is_a_stage_more_or_less(before, after)
            continue
        changed = [i for i, (a, b) in enumerate(zip(before.stages, after.stages, strict=True)) if a.blocks != b.blocks]
        widths = [a.width != b.width for a, b in zip(before.stages, after.stages, strict=True)]
        strides = [a.stride != b.stride for a, b in zip(before.stages, after.stages, strict=True)]
        assert (len(changed) == 1) + any(widths) + any(strides) == 1 and not any(strides[1:])


@pytest.mark.parametrize("genotype", [MBCONV, WITH_CELL, STAGE_GENOTYPES["mobilenet_v2"], random_stages(5)])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 33, 47)])
def test_networks_train_on_images_of_any_size(genotype, shape):
    torch.manual_seed(0)
    net = Network(genotype, 5, in_channels=shape[0], width=8)
    images = torch.rand(4, *shape)
    loss = torch.nn.functional.cross_entropy(net(images), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters())
    assert net.eval().features(images).shape == (4, net.feature_width)
    again = Network(genotype, 5, in_channels=shape[0], width=8)
    again.load_state_dict(net.state_dict())
    assert (again.eval()(images) == net(images)).all()


def test_the_prototypes_sizes():
    sizes = {}
    for name, kernel, counts, growth, halved in [("a", 3, [1, 3, 2], 2, True), ("b", 3, [3, 2, 3], 1.5, False),
                                                 ("c", 5, [2, 1, 4, 1], 2, False)]:  # fmt: skip
        block = Block(kernel=kernel)
        stages = [Stage((block,) * n, growth**i, 2 if i or halved else 1) for i, n in enumerate(counts)]
        net = Network.within(StageGenotype(tuple(stages)), 10, max_macs=20_000_000, input_size=(16, 16))
        sizes[name] = round(count_parameters(net) / 1000), round(count_macs(net, (3, 16, 16)) / 1e6, 1)
    assert sizes == {"a": (406, 5.7), "b": (293, 19.8), "c": (411, 9.6)}


def test_nas_bench_macro_is_rebuilt_to_the_digit():
    if "SSNAS_TEST_DATA" not in os.environ:
        pytest.skip("SSNAS_TEST_DATA does not name the folder of real data")
    known = json.loads((Path(os.environ["SSNAS_TEST_DATA"]) / "nas_bench_macro_half.json").read_text())["networks"]
    for digits, facts in list(known.items())[::500]:
        net = Network(macro_genotype(digits), 10, width=32)
        assert (count_parameters(net), count_macs(net)) == (facts["parameters"], facts["multiply_adds"])
    with pytest.raises(ValueError, match="eight digits"):
        macro_genotype("0123")


def test_a_layer_that_is_nothing_is_no_part_and_leaves_the_others_their_names():
    net = Network(macro_genotype("01201202"), 10, width=8)
    names = [[str(i) for i, digit in enumerate(part) if i == 0 or digit != "0"] for part in ("01", "201", "202")]
    assert [list(stage._modules) for stage in net.stages] == names
    images = torch.randn(2, 3, 32, 32)
    assert net.eval().features(images).shape == (2, net.feature_width)


@pytest.mark.parametrize("budgets", [
    {"max_macs": 2_000_000}, {"max_parameters": 50_000}, {"max_memory": 300_000},
    {"max_macs": 3_000_000, "max_parameters": 60_000, "max_memory": 600_000},
])  # fmt: skip
@pytest.mark.parametrize("genotype", [MBCONV, GENOTYPES["FairDARTS_a"]])
def test_budgets_are_upper_bounds_that_are_filled(genotype, budgets):
    given = {"max_parameters": None, "depth": 3, "in_channels": 1, "input_size": (16, 16)} | budgets

    count = {
        "max_parameters": count_parameters,
        "max_macs": lambda net: count_macs(net, (1, 16, 16)),
        "max_memory": lambda net: activation_bytes(net, (1, 16, 16)),
    }
    net = Network.within(genotype, 4, **given)
    assert all(count[name](net) <= most for name, most in budgets.items())
    wider = Network(genotype, 4, width=net.width + 1, depth=3, in_channels=1)
    assert any(count[name](wider) > most for name, most in budgets.items())


def test_latency_is_a_budget_that_is_measured(monkeypatch):
    from ssnas_colab.models import network

    asked = []
    monkeypatch.setattr(network, "latency", lambda net, shape, device: asked.append(net.width) or net.width / 10)
    monkeypatch.setattr(network, "_LATENCIES", {})
    net = Network.within(MBCONV, 4, max_parameters=None, max_latency=1.25, input_size=(16, 16))
    assert net.width == 12 and len(asked) == len(set(asked)) < 12
    asked.clear()
    Network.within(MBCONV, 4, max_macs=10**6, input_size=(16, 16))
    assert not asked


def test_a_latency_is_measured_once_for_a_network_a_shape_and_a_device(monkeypatch):
    from ssnas_colab.models import network

    asked = []
    monkeypatch.setattr(network, "latency", lambda net, shape, device: asked.append(shape) or net.width / 10)
    monkeypatch.setattr(network, "_LATENCIES", {})
    given = {"max_parameters": None, "max_latency": 0.45, "input_size": (16, 16)}

    def measured(genotype=MBCONV, classes=4, **options):
        asked.clear()
        assert Network.within(genotype, classes, **given | options).width == 4
        return len(asked)

    first = measured()
    assert first > 2 and measured() == 0 == measured(genotype_from_json(MBCONV.to_json()))
    assert measured(max_macs=10**9) == 0 and measured(input_size=(16, 17)) == first == measured(classes=5)
    assert measured(in_channels=1) == first == measured(random_stages(1))
    cells = measured(GENOTYPES["SNAS"], depth=3)
    assert cells > 2 and measured(GENOTYPES["SNAS"], depth=3) == 0 < measured(GENOTYPES["SNAS"], depth=4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert measured() == first
    plain = torch.nn.Linear(3, 3)  # nothing says what it is: it is measured each time
    plain.width = 1
    for _ in range(2):
        asked.clear()
        assert network.sizes_of(lambda: plain, (3, 8, 8), ["latency"]) == {"latency": 0.1} and len(asked) == 1


def test_what_a_seed_draws_stays():
    "Searches draw by seed: a draw that changed would change every search that was begun."
    drawn = "".join(random_stages(seed).to_json() for seed in range(100))
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == "384ec91b9f623955"


@pytest.mark.parametrize("side, stride", [(32, 1), (64, 2), (96, 2), (128, 4), (224, 4)])
def test_a_stem_brings_large_images_to_the_size_of_small_ones(side, stride):
    assert stem_stride_for(side) == stem_stride_for((side, 2 * side)) == stem_stride_for([side, side]) == stride
    genotype = random_stages(2, stem_stride_for(side))
    assert replace(genotype, stem_stride=1) == random_stages(2) and mutate_stages(genotype, 3).stem_stride == stride
    assert genotype_from_json(genotype.to_json()) == genotype
    net = Network(genotype, 3, width=4).eval()
    map_of_stem = net.stem(torch.rand(2, 3, side, side))
    assert map_of_stem.shape == (2, 4, side // stride, side // stride) and 32 <= side // stride <= 63
    assert net(torch.rand(2, 3, side, side + 5)).shape == (2, 3)


@pytest.mark.parametrize("stride, side", [(2, 64), (2, 127), (4, 128), (4, 224)])
def test_networks_with_a_stem_that_steps_keep_to_budgets_and_are_drawn(stride, side):
    genotype, budgets = random_stages(4, stride), {"max_macs": 20_000_000, "max_memory": 4_000_000}
    net = Network.within(genotype, 5, **budgets, input_size=(side, side))
    macs = count_macs(net, (3, side, side))
    assert macs <= 20_000_000 and activation_bytes(net, (3, side, side)) <= 4_000_000
    wider = Network(genotype, 5, width=net.width + 1)
    over = count_macs(wider, (3, side, side)) > 20_000_000 or activation_bytes(wider, (3, side, side)) > 4_000_000
    assert over or count_parameters(wider) > 413_850
    plain = count_macs(Network(random_stages(4), 5, width=net.width), (3, side, side))  # at full resolution
    assert plain > 0.9 * stride**2 * macs
    sizes = stage_sizes(genotype, net.width, 5, 3, (side, side))
    assert sizes[0]["size"] == (-(-side // stride),) * 2
    assert f"{sizes[0]['channels']} channels, {-(-side // stride)} x" in draw_genotype(genotype, sizes=sizes)
    assert f"1/{stride} of the side" in draw_genotype(genotype)
    assert any(f"1/{stride * 2} of the side" in text.get_text() for text in plot_genotype(genotype).axes[0].texts)


def test_mobilenet_v3_small_is_nearly_the_published_one():
    "torchvision's has 927,008 parameters before its two linear layers, and 54.9 M MACs there for 224 pixels."
    genotype = STAGE_GENOTYPES["mobilenet_v3_small"]
    *rows, classifier = stage_sizes(genotype, 16, 1000, 3, (224, 224))
    assert abs(sum(row["parameters"] for row in rows) / 927_008 - 1) < 0.01
    assert abs(sum(row["macs"] for row in rows) / 54_896_576 - 1) < 0.01
    assert [(row["channels"], row["size"][0]) for row in rows] == [
        (16, 112), (16, 56), (24, 28), (40, 14), (48, 14), (96, 7), (576, 7)
    ]  # fmt: skip
    assert classifier["channels"] == 1000


def test_budgets_that_nothing_fits_say_the_smallest_size():
    refused("max_macs=10", "MACs", act=lambda: Network.within(MBCONV, 4, max_macs=10, input_size=(16, 16)))
    refused("max_memory=10", act=lambda: Network.within(MBCONV, 4, max_memory=10, input_size=(16, 16)))
    refused("input_size", act=lambda: Network.within(MBCONV, 4, max_macs=10**6))
    refused("budget", act=lambda: Network.within(MBCONV, 4, max_parameters=None))
    for budget in ("max_parameters", "max_macs", "max_memory", "max_latency"):
        for most in (float("nan"), float("inf"), -1, "many"):
            given = {"max_parameters": None, "input_size": (16, 16), budget: most}
            refused(budget[4:], "above 0", act=lambda given=given: Network.within(MBCONV, 4, **given))
    refused("cells", act=lambda: Network(MBCONV, 4, auxiliary=True))
    refused("cells", act=lambda: Network(MBCONV, 4).set_drop_path(0.2))


@pytest.mark.parametrize("most", [math.nan, math.inf, 0, -5, "400k"])
@pytest.mark.parametrize("name", ["parameters", "macs", "memory", "latency"])
def test_a_budget_that_is_none_is_refused_at_once(name, most):
    given = {"max_parameters": None, "input_size": (16, 16)} | {f"max_{name}": most}
    refused(f"budget of {name} is {most!r}", act=lambda: Network.within(MBCONV, 4, **given))


@pytest.mark.parametrize("kind", ["basic", "skip"])
def test_an_expansion_of_1_is_none(kind):
    one = StageGenotype((Stage((Block(kind, expansion=1),)),))
    assert one == StageGenotype((Stage((Block(kind),)),)) == genotype_from_json(one.to_json())
    assert Block("mbconv", expansion=1).expansion == 1


@pytest.mark.parametrize("size", [16, (16,), (3, 16, 16), (0, 16), (16, -1), (16.5, 16), "16", ("16", "16")])
def test_an_input_size_that_is_none_is_refused(size):
    for most in (None, 10**6):
        act = lambda most=most: Network.within(MBCONV, 4, max_macs=most, input_size=size)  # noqa: E731
        refused("input_size", "(height, width)", act=act)


def test_an_input_size_may_be_a_list():
    assert Network.within(MBCONV, 4, max_macs=10**6, input_size=[16, 20]).width > 1


@pytest.mark.parametrize("width", [1, 2, 3])
def test_narrow_networks_with_cells_run(width):
    two = StageGenotype((CELL, Stage((Block("cell", genotype=GENOTYPES["FairDARTS_a"]),) * 2, 2.0, 2)))
    assert Network(two, 4, width=width).eval()(torch.rand(2, 3, 16, 16)).shape == (2, 4)
