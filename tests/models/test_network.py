"Operations, cells and networks against published sizes and a functional reference written out here."

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssnas_colab.core.basics import UserError
from ssnas_colab.models.baselines import MobileNet, ResNet, ShuffleNet
from ssnas_colab.models.genotype import GENOTYPES, KNOWN_OPERATIONS, PRIMITIVES, PUBLISHED_SIZES, Edge, Genotype
from ssnas_colab.models.network import (
    AuxiliaryHead,
    Cell,
    Network,
    activation_bytes,
    count_macs,
    count_parameters,
    plan_cells,
    sizes_of,
    widest,
)
from ssnas_colab.models.operations import CELL_OPERATIONS, OPERATIONS, DropPath, FactorizedReduce

# name: (parameters, millions of MACs), width 36, depth 20, 10 classes, one 32x32 image
PUBLISHED = {
    "DARTS_V2": (3_349_342, 528.36),
    "PDARTS": (3_433_798, 532.17),
    "SNAS": (2_661_382, 422.22),
    "FairDARTS_a": (2_360_782, 371.46),
    "FairDARTS_b": (3_407_878, 536.49),
    "NASNet": (3_830_950, 603.45),
    "AmoebaNet": (3_145_078, 488.93),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    parameters, macs = PUBLISHED[name]
    counted = sizes_of(lambda: Network(GENOTYPES[name], 10), (3, 32, 32), ["parameters", "macs"])
    assert counted["parameters"] == parameters
    assert round(counted["macs"] / 1e6, 2) == macs
    assert PUBLISHED_SIZES[name] == (parameters, counted["macs"])


def test_every_published_genotype_has_its_sizes():
    assert set(PUBLISHED_SIZES) == set(PUBLISHED) == set(GENOTYPES)


def test_darts_printed_sizes_of_nasnet_and_amoebanet():
    "DARTS' paper prints 3.1 M for both, trained by its code; NASNet-A's own smallest has width 32, AmoebaNet-A's 36."
    sizes = [count_parameters(Network(GENOTYPES[name], 10, width=w)) for name, w in (("NASNet", 32), ("AmoebaNet", 36))]
    assert [round(size / 1e6, 1) for size in sizes] == [3.1, 3.1]


def test_auxiliary_head_size_and_fairdarts_printed_sizes():
    assert count_parameters(AuxiliaryHead(576, 10)) == 476_426
    # FairDARTS' paper prints 2.83 M and 3.88 M, cut off after two digits.
    sizes = [count_parameters(Network(GENOTYPES[f"FairDARTS_{k}"], 10, auxiliary=True)) for k in "ab"]
    assert [int(size / 1e4) / 100 for size in sizes] == [2.83, 3.88]


def batch_norm(x, weights):
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    scale, shift = next(weights), next(weights)
    return (x - mean) / torch.sqrt(variance + 1e-5) * scale[:, None, None] + shift[:, None, None]


def reference_operation(name, x, stride, weights):
    "One operation in training mode; takes its parameters from the iterator `weights` in the order of their use."
    if name == "max_pool_3x3":
        return F.max_pool2d(x, 3, stride, 1)
    if name == "avg_pool_3x3":  # the border counts only pixels that are there
        inside = F.avg_pool2d(torch.ones_like(x), 3, stride, 1)
        return F.avg_pool2d(x, 3, stride, 1) / inside
    if name == "skip_connect":
        return x if stride == 1 else reference_reduce(x, weights)
    if name == "conv_7x1_1x7":
        wide, tall = next(weights), next(weights)
        x = F.conv2d(F.pad(F.relu(x), (3, 3)), wide)[..., ::stride]
        return batch_norm(F.conv2d(F.pad(x, (0, 0, 3, 3)), tall)[:, :, ::stride], weights)
    kernel = int(name[-1])
    dilation = 2 if name.startswith("dil") else 1
    for step in (stride, 1) if name.startswith("sep") else (stride,):
        depthwise, pointwise = next(weights), next(weights)
        x = F.conv2d(F.relu(x), depthwise, None, step, dilation * (kernel // 2), dilation, x.shape[1])
        x = batch_norm(torch.einsum("oc,bchw->bohw", pointwise[:, :, 0, 0], x), weights)
    return x


def reference_reduce(x, weights):
    x = F.relu(x)
    one, two = next(weights)[:, :, 0, 0], next(weights)[:, :, 0, 0]
    height, width = x.shape[2:]
    beyond = torch.zeros(*x.shape[:2], height + 1, width + 1, dtype=x.dtype)
    beyond[:, :, :height, :width] = x
    rows, columns = -(-height // 2), -(-width // 2)
    even, moved = x[:, :, ::2, ::2], beyond[:, :, 1::2, 1::2][:, :, :rows, :columns]
    halves = [torch.einsum("oc,bchw->bohw", weight, half) for weight, half in ((one, even), (two, moved))]
    return batch_norm(torch.cat(halves, 1), weights)


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (5, 6), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", KNOWN_OPERATIONS)
def test_operations_against_reference(name, stride, size):
    torch.manual_seed(0)
    operation = CELL_OPERATIONS[name](4, stride).double()
    for parameter in operation.parameters():  # no scale of 1 and shift of 0 that would hide an error
        nn.init.normal_(parameter)
    x = torch.randn(3, 4, *size, dtype=torch.float64)
    expected = reference_operation(name, x, stride, iter(operation.parameters()))
    torch.testing.assert_close(operation(x), expected, rtol=1e-9, atol=1e-9)
    assert expected.shape[2:] == tuple(-(-s // stride) for s in size)


def test_operation_order_is_that_of_the_alphas():
    assert tuple(OPERATIONS) == PRIMITIVES and tuple(CELL_OPERATIONS) == KNOWN_OPERATIONS


MIXED = Genotype(
    normal=(
        Edge("sep_conv_3x3", 0, 2),
        Edge("dil_conv_5x5", 1, 2),
        Edge("avg_pool_3x3", 2, 3),
        Edge("skip_connect", 0, 5),
        Edge("max_pool_3x3", 0, 5),
    ),
    reduce=(
        Edge("skip_connect", 1, 2),
        Edge("sep_conv_5x5", 0, 2),
        Edge("dil_conv_3x3", 2, 3),
        Edge("avg_pool_3x3", 0, 4),
    ),
    normal_concat=(2, 3, 4, 5),
    reduce_concat=(2, 3, 4, 5),
)


def test_an_edge_that_is_there_twice_counts_double():
    twice = Genotype([("avg_pool_3x3", 0, 2), ("avg_pool_3x3", 0, 2), ("skip_connect", 1, 3)], [], [2, 3], [])
    cell = Cell(*twice.used("normal"), (3, 3), 3)
    cell.inputs["0"] = cell.inputs["1"] = nn.Identity()
    a, b = torch.randn(2, 2, 3, 5, 5)
    expected = torch.cat([2 * reference_operation("avg_pool_3x3", a, 1, None), b], 1)
    torch.testing.assert_close(cell(a, b), expected)


@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
def test_network_against_reference(size):
    "Different multipliers of the two cells, an empty node, two operations on one edge, an odd size."
    torch.manual_seed(1)
    network = Network(MIXED, 3, in_channels=1, width=3, depth=4).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(4, 1, *size, dtype=torch.float64)
    weights = iter(network.parameters())
    first = second = batch_norm(F.conv2d(x, next(weights), None, 1, 1), weights)
    for i in range(4):  # reduction cells: 4 // 3 = 1 and 8 // 3 = 2
        edges, concat = (MIXED.reduce, (2, 3, 4)) if i in (1, 2) else (MIXED.normal, (2, 3, 5))
        if i in (2, 3):
            a = reference_reduce(first, weights)
        else:
            a = batch_norm(F.conv2d(F.relu(first), next(weights)), weights)
        states = {0: a, 1: batch_norm(F.conv2d(F.relu(second), next(weights)), weights)}
        for edge in sorted(edges, key=lambda edge: edge.target):
            stride = 2 if i in (1, 2) and edge.source < 2 else 1
            result = reference_operation(edge.op, states[edge.source], stride, weights)
            states[edge.target] = states.get(edge.target, 0) + result
        first, second = second, torch.cat([states[node] for node in concat], 1)
    features = second.flatten(2).mean(2)
    torch.testing.assert_close(network.features(x), features, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(network(x), features @ next(weights).T + next(weights), rtol=1e-8, atol=1e-8)
    assert next(weights, None) is None and network.feature_width == 3 * 12


@pytest.mark.parametrize("name", GENOTYPES)
@pytest.mark.parametrize("channels, size", [(1, (8, 8)), (1, (28, 28)), (3, (31, 18)), (3, (1, 1))])
def test_sizes_of_images(name, channels, size):
    network = Network(GENOTYPES[name], 6, in_channels=channels, width=4, depth=4, auxiliary=True, drop_path=0.3)
    x = torch.randn(3, channels, *size)
    logits, head = network(x)
    (logits.square().sum() + head.square().sum()).backward()
    assert logits.shape == head.shape == (3, 6)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
    with torch.no_grad():
        logits, features = network.eval()(x), network.features(x)
    assert features.shape == (3, network.feature_width) and logits.shape == (3, 6)
    torch.testing.assert_close(logits, network.classifier(features))


def test_reduction_cells_and_depths():
    for depth, expected in ((1, {0}), (2, {0, 1}), (3, {1, 2}), (5, {1, 3}), (8, {2, 5}), (20, {6, 13})):
        plan = plan_cells(GENOTYPES["SNAS"], 4, depth)
        assert {i for i, cell in enumerate(plan) if cell["kind"] == "reduce"} == expected
        assert Network(GENOTYPES["SNAS"], 2, width=4, depth=depth).eval()(torch.zeros(1, 3, 8, 8)).shape == (1, 2)


def test_cells_that_nothing_reads_are_not_built():
    genotype = Genotype((Edge("sep_conv_3x3", 0, 2),), (Edge("max_pool_3x3", 0, 2),), (2,), (2,))
    network = Network(genotype, 3, width=4, depth=6, auxiliary=True)  # the head sits on cell 4
    assert sorted(network.cells) == list("012345")
    network = Network(genotype, 3, width=4, depth=6)
    assert sorted(network.cells) == list("135")
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_empty_cell_is_refused():
    empty = Genotype((Edge("skip_connect", 3, 4),), (Edge("skip_connect", 0, 2),), (2, 3, 4), (2,))
    with pytest.raises(UserError, match="normal cell"):
        Network(empty, 10)
    with pytest.raises(UserError, match="1 or more"):
        Network(GENOTYPES["SNAS"], 10, width=0)


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.rand(5000, 2, 3, 3, dtype=torch.float64) + 1
    dropped = DropPath(0.4)(x)
    kept = dropped[:, 0, 0, 0] != 0
    assert abs(kept.double().mean().item() - 0.6) < 4 * np.sqrt(0.24 / 5000)
    torch.testing.assert_close(dropped[kept], x[kept] / 0.6)
    assert (dropped[~kept] == 0).all()


def test_drop_path_costs_nothing_where_it_is_off():
    x = torch.randn(2, 3, 8, 8)
    network = Network(GENOTYPES["FairDARTS_a"], 4, width=4, depth=3)
    state = torch.get_rng_state()
    network(x)
    assert torch.equal(torch.get_rng_state(), state)
    network.set_drop_path(0.5)
    network.eval()(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(network.train()(x), network(x))
    for wrong in (-0.1, 1.0):
        with pytest.raises(UserError, match="drop_path"):
            network.set_drop_path(wrong)


def test_drop_path_leaves_identities_alone():
    cell = Cell((Edge("skip_connect", 0, 2), Edge("skip_connect", 1, 2)), (2,), (3, 3), 3)
    cell.inputs["0"] = cell.inputs["1"] = nn.Identity()
    a, b = torch.randn(2, 50, 3, 4, 4)
    torch.testing.assert_close(cell(a, b, DropPath(0.9)), a + b, rtol=0, atol=0)


def test_auxiliary_head_pools_as_darts_at_8x8():
    torch.manual_seed(0)
    head = AuxiliaryHead(6, 5).eval()
    x = torch.randn(2, 6, 8, 8)
    pooled = F.avg_pool2d(F.relu(x), 5, stride=3, padding=0, count_include_pad=False)
    torch.testing.assert_close(head(x), head.body(pooled))
    assert head(torch.randn(2, 6, 3, 2)).shape == (2, 5)


@pytest.mark.parametrize("name", GENOTYPES)
def test_within_is_the_widest_that_fits(name):
    network = Network.within(GENOTYPES[name], 10, auxiliary=True, drop_path=0.1)
    assert network.depth == 8 and network.drop.probability == 0.1
    assert next(network.parameters()).device.type == "cpu"
    with torch.device("meta"):
        plain, wider = (Network(GENOTYPES[name], 10, width=network.width + more, depth=8) for more in (0, 1))
    assert count_parameters(plain) <= 413_850 < count_parameters(wider)


def test_to_look_for_a_width_draws_nothing_and_within_takes_it():
    state = torch.get_rng_state()
    width = widest(lambda width: Network(GENOTYPES["SNAS"], 10, width=width, depth=8), 413_850)
    assert torch.equal(torch.get_rng_state(), state)
    assert Network.within(GENOTYPES["SNAS"], 10).width == width


def test_within_says_when_nothing_fits():
    with pytest.raises(UserError, match="max_parameters=100"):
        Network.within(GENOTYPES["SNAS"], 10, max_parameters=100)


def test_counts_by_hand():
    layers = nn.Sequential(
        nn.Conv2d(6, 9, (3, 1), stride=2, padding=(1, 0), groups=3),
        nn.BatchNorm2d(9),
        nn.Flatten(),
        nn.Linear(9 * 12, 7),
    ).double()
    layers[1].eval()
    assert count_parameters(layers) == 9 * 2 * 3 + 9 + 18 + 9 * 12 * 7 + 7
    # 5x8 image: 3x4 results, each the sum of 3 * 1 * 2 products
    assert count_macs(layers, (6, 5, 8)) == 3 * 4 * 9 * 6 + 9 * 12 * 7
    assert layers.training and layers[0].training and not layers[1].training
    assert not layers[0]._forward_hooks
    scripted = nn.Sequential(nn.Conv2d(3, 4, 1), torch.jit.script(nn.Conv2d(4, 4, 1)))
    for count in (count_macs, activation_bytes):
        with pytest.raises(UserError, match="before torch.jit.script"):
            count(scripted)


def macs_by_definition(module, shape):
    "MACs from the layers' definitions: a number of the output is a sum over one unit's weights."
    found = []

    def count(layer, inputs, output):
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
            found.append(output.shape[1] * output.shape[2] * output.shape[3] * fan_in)
        else:
            found.append(layer.in_features * layer.out_features)

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    parameter = next(module.parameters())
    with torch.no_grad():
        module.eval()(torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype))
    for hook in hooks:
        hook.remove()
    return sum(found)


EVERY = tuple(Edge(name, i % 2, 2 + i % 3) for i, name in enumerate(KNOWN_OPERATIONS))
NETWORKS = {
    "every operation": lambda channels: Network(
        Genotype(EVERY, EVERY, (2, 3, 4), (2, 3, 4)), 10, in_channels=channels, width=4, depth=4
    ),
    "with head": lambda channels: Network(
        GENOTYPES["FairDARTS_a"], 7, in_channels=channels, width=5, depth=4, auxiliary=True, drop_path=0.3
    ),
    "resnet": lambda channels: ResNet((2, 2, 2, 2), 4, 3, channels),
    "mobilenet": lambda channels: MobileNet(10, channels, 0.3),
    "shufflenet": lambda channels: ShuffleNet(10, channels, 24),
}  # fmt: skip


@pytest.mark.parametrize("kind", NETWORKS)
def test_counts_are_those_of_the_definition(kind):
    "Depthwise and grouped convolutions, strides, dilation and sizes that do not divide."
    for channels, sizes in ((3, ((31, 17), (9, 5), (1, 1))), (1, ((8, 8),))):
        network = NETWORKS[kind](channels)
        for size in sizes:
            assert count_macs(network, (channels, *size)) == macs_by_definition(network, (channels, *size))


@pytest.mark.parametrize("kind", ["every operation", "shufflenet"])
def test_counts_are_the_same_of_any_numbers_and_of_none(kind):
    network = NETWORKS[kind](1)
    expected = macs_by_definition(network, (1, 13, 13))
    assert all(count_macs(network.to(dtype), (1, 13, 13)) == expected for dtype in (torch.float64, torch.bfloat16))
    assert count_macs(network.to("meta"), (1, 13, 13)) == expected


@pytest.mark.parametrize("kind", ["with head", "mobilenet"])
def test_a_count_leaves_nothing_behind(kind):
    network = NETWORKS[kind](3).train()
    network.classifier.eval()
    before, drawn = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    modes = [part.training for part in network.modules()]
    count_macs(network)
    assert torch.equal(torch.get_rng_state(), drawn) and [part.training for part in network.modules()] == modes
    after = network.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_a_failed_count_leaves_the_module_as_it_was():
    layer = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(RuntimeError):
        count_macs(layer, (1, 4, 4))
    assert layer.training and not layer[0]._forward_hooks


def test_factorized_reduce_with_odd_channels():
    assert FactorizedReduce(3, 5)(torch.randn(2, 3, 7, 6)).shape == (2, 5, 4, 3)


def test_a_budget_of_latency_draws_nothing_from_the_caller():
    torch.manual_seed(0)
    before, options = torch.get_rng_state(), {"max_latency": 1000, "max_parameters": 3000, "input_size": (8, 8)}
    sizes_of(lambda: Network(GENOTYPES["FairDARTS_a"], 10, width=2, depth=3), (3, 8, 8), ["latency"])
    assert torch.equal(torch.get_rng_state(), before)
    first, second = (Network.within(GENOTYPES["FairDARTS_a"], 7, depth=3, **options) for _ in range(2))
    assert first.width == second.width
