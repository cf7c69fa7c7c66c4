"""The space of stages: what is written is what is read, and what is built keeps to every budget."""

import json
import os
from pathlib import Path

import pytest
import torch
from refusal import refused

from ssnas_colab.models.genotype import GENOTYPES, genotype_from_json, load_genotype, parse_genotype, summary
from ssnas_colab.models.network import Network, activation_bytes, count_macs, count_parameters
from ssnas_colab.models.stages import (
    STAGE_GENOTYPES,
    Block,
    Stage,
    StageGenotype,
    macro_genotype,
    mutate_stages,
    random_stages,
)

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
    json.dumps({"space": "stages", "stages": [{"blocks": [{"kind": "basic"}], "width": 10**400}]}),
    json.dumps({"space": "stages", "stages": [{"blocks": [{"kind": "basic"}] * 65}]}),
    json.dumps({"space": "stages", "stages": [{"blocks": [{"kind": "basic"}]}] * 17}),
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_no_network_can_be_is_one_sentence(text):
    with pytest.raises(ValueError) as caught:
        genotype_from_json(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_change_is_one_change_and_comes_from_the_seed():
    for seed in range(100):
        before = walked(seed)
        after = mutate_stages(before, seed)
        assert after != before and after == mutate_stages(before, seed)
        changed = [i for i, (a, b) in enumerate(zip(before.stages, after.stages, strict=True)) if a.blocks != b.blocks]
        widths = [a.width != b.width for a, b in zip(before.stages, after.stages, strict=True)]
        strides = [a.stride != b.stride for a, b in zip(before.stages, after.stages, strict=True)]
        assert (len(changed) == 1) + any(widths) + any(strides) == 1 and not any(strides[1:])
        growth = [b.width / a.width for a, b in zip(after.stages, after.stages[1:])]
        assert all(0.999 < one < 2.001 for one in growth)


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


@pytest.mark.parametrize("budgets", [
    {"max_macs": 2_000_000}, {"max_parameters": 50_000}, {"max_memory": 300_000},
    {"max_macs": 3_000_000, "max_parameters": 60_000, "max_memory": 600_000},
])  # fmt: skip
@pytest.mark.parametrize("genotype", [MBCONV, GENOTYPES["FairDARTS_a"]])
def test_budgets_are_upper_bounds_that_are_filled(genotype, budgets):
    given = {"max_parameters": None, "depth": 3, "in_channels": 1, "input_size": (16, 16)} | budgets

    def costs(net):
        shape = (1, 16, 16)
        measured = {"max_parameters": count_parameters(net), "max_macs": count_macs(net, shape)}
        return measured | {"max_memory": activation_bytes(net, shape)}

    net = Network.within(genotype, 4, **given)
    assert all(costs(net)[name] <= most for name, most in budgets.items())
    wider = Network(genotype, 4, width=net.width + 1, depth=3, in_channels=1)
    assert any(costs(wider)[name] > most for name, most in budgets.items())


def test_latency_is_a_budget_that_is_measured(monkeypatch):
    from ssnas_colab.models import network

    asked = []
    monkeypatch.setattr(network, "latency", lambda net, shape, device: asked.append(net.width) or net.width / 10)
    net = Network.within(MBCONV, 4, max_parameters=None, max_latency=1.25, input_size=(16, 16))
    assert net.width == 12 and len(asked) == len(set(asked)) < 12
    asked.clear()
    Network.within(MBCONV, 4, max_macs=10**6, input_size=(16, 16))
    assert not asked


def test_budgets_that_nothing_fits_say_the_smallest_size():
    refused("max_macs=10", "MACs", act=lambda: Network.within(MBCONV, 4, max_macs=10, input_size=(16, 16)))
    refused("max_memory=10", act=lambda: Network.within(MBCONV, 4, max_memory=10, input_size=(16, 16)))
    refused("input_size", act=lambda: Network.within(MBCONV, 4, max_macs=10**6))
    refused("budget", act=lambda: Network.within(MBCONV, 4, max_parameters=None))
    refused("cells", act=lambda: Network(MBCONV, 4, auxiliary=True))
    refused("cells", act=lambda: Network(MBCONV, 4).set_drop_path(0.2))


@pytest.mark.parametrize("width", [1, 2, 3])
def test_narrow_networks_with_cells_run(width):
    two = StageGenotype((CELL, Stage((Block("cell", genotype=GENOTYPES["FairDARTS_a"]),) * 2, 2.0, 2)))
    assert Network(two, 4, width=width).eval()(torch.rand(2, 3, 16, 16)).shape == (2, 4)
