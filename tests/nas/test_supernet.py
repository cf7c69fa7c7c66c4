"The supernet against its definition, `ReferenceSupernet`: a loop over cells, edges and operations."

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ssnas_colab.core.basics import UserError
from ssnas_colab.models.baselines import random_genotype
from ssnas_colab.models.genotype import PRIMITIVES, edges
from ssnas_colab.models.operations import FactorizedReduce, ReLUConvBN
from ssnas_colab.nas.relaxations import RELAXATIONS, FairRelaxation, one_hot
from ssnas_colab.nas.supernet import FusedSearchCell, Supernet

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from supernet_reference import ReferenceSupernet  # noqa: E402
from supernet_speed import cost  # noqa: E402

BLENDS = ("fair", "darts", "partial", "path", "gumbel")  # those that are learned through the supernet's gradient


def both(relaxation="fair", **sizes):
    "The reference and the shipped supernet in float64 with the same parameters and random alphas."
    plain = ReferenceSupernet(relaxation=relaxation, **sizes).double()
    for alphas in plain.alphas.values():
        torch.nn.init.normal_(alphas, std=2)
    shipped = Supernet(relaxation=relaxation, **sizes).double()
    missing = shipped.load_state_dict(plain.state_dict(), strict=False)
    assert all(".pools." in name for name in missing.missing_keys) and missing.missing_keys
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in shipped.named_parameters()]
    return plain, shipped


def test_the_skeleton():
    "Reduction at a third and two thirds of the depth, doubled width there, and a first input that is halved after it."
    net, sizes = ReferenceSupernet(width=4, depth=6, nodes=2, in_channels=1), []
    for cell in net.cells:
        cell.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 32) and net.feature_width == 32
    assert net.kinds == ["normal", "normal", "reduce", "normal", "reduce", "normal"]
    assert sizes == [(8, 8, 8), (8, 8, 8), (16, 4, 4), (16, 4, 4), (32, 2, 2), (32, 2, 2)]
    assert [isinstance(cell.first, FactorizedReduce) for cell in net.cells] == [False] * 3 + [True, False, True]
    assert all(isinstance(cell.second, ReLUConvBN) for cell in net.cells)
    assert [set(cell.strides[:2]) for cell in net.cells] == [{1}, {1}, {2}, {1}, {2}, {1}]
    assert net.stem[0].weight.shape == (12, 1, 3, 3) and all(set(cell.strides[2:]) == {1} for cell in net.cells)


PLAIN, LAST = torch.contiguous_format, torch.channels_last
CASES = [  # in_channels, width, depth, nodes, size, layout
    (3, 4, 3, 4, (8, 8), PLAIN),
    (3, 4, 3, 4, (8, 8), LAST),
    (1, 3, 4, 3, (9, 9), LAST),
    (1, 2, 5, 2, (7, 10), PLAIN),
    (1, 2, 3, 2, (7, 10), LAST),
    (2, 4, 3, 2, (5, 5), PLAIN),
    (3, 2, 1, 4, (6, 6), LAST),
]


@pytest.mark.parametrize("channels, width, depth, nodes, size, layout", CASES)
def test_same_as_the_definition(channels, width, depth, nodes, size, layout):
    "Features, gradients of every parameter and of the image, and running statistics."
    torch.manual_seed(depth)
    definition, net = both(width=width, depth=depth, nodes=nodes, in_channels=channels)
    net = net.to(memory_format=layout)
    image = torch.randn(4, channels, *size, dtype=torch.float64)
    images = [image.clone().requires_grad_(), image.to(memory_format=layout, copy=True).requires_grad_()]
    results = [definition(images[0]), net(images[1])]
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-9)
    direction = torch.randn_like(results[0])
    for result in results:
        (result * direction).sum().backward()
    torch.testing.assert_close(images[0].grad, images[1].grad, rtol=1e-5, atol=1e-9)
    pairs = list(zip(definition.parameters(), net.parameters(), strict=True))
    assert len(pairs) > 100
    for expected, got in pairs:
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(net.eval()(images[1]), definition.eval()(images[0]), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("name", PRIMITIVES)
@pytest.mark.parametrize("edge", [0, 1, 6])
def test_one_hot_weight_gives_exactly_that_operation(name, reduction, edge):
    "One weight is 1, all others 0: the edge's target is that operation of the edge's source, every other node is 0."
    torch.manual_seed(0)
    cell = FusedSearchCell((5, 5), 4, reduction=reduction)
    a, b = torch.randn(2, 3, 5, 7, 7)
    source, target = edges()[edge]
    weights = torch.zeros(14, 7)
    weights[edge, PRIMITIVES.index(name)] = 1
    state = (cell.first(a), cell.second(b))[source]
    stride = 2 if reduction else 1
    if name == "max_pool_3x3":
        expected = F.batch_norm(F.max_pool2d(state, 3, stride, 1), None, None, training=True)
    elif name == "avg_pool_3x3":
        pooled = F.avg_pool2d(state, 3, stride, 1, count_include_pad=False)
        expected = F.batch_norm(pooled, None, None, training=True)
    elif name == "skip_connect" and not reduction:
        expected = state
    else:
        expected = cell.operations[edge][name](state)
    output = cell(a, b, weights)
    nodes = dict(zip(range(2, 6), output.split(4, 1), strict=True))
    assert torch.equal(nodes.pop(target), expected)
    assert all((node == 0).all() for node in nodes.values())


def test_forced_weights_replace_the_alphas():
    torch.manual_seed(0)
    net = Supernet(width=2, depth=3, in_channels=1)
    x = torch.randn(2, 1, 8, 8)
    own = {kind: weights.detach() for kind, weights in net.weights().items()}
    assert torch.equal(net(x), net(x, weights=own))
    swapped = {"normal": own["reduce"], "reduce": own["normal"]}
    assert not torch.equal(net(x), net(x, weights=swapped))
    net(x, weights=own).sum().backward()
    assert all(alphas.grad is None for alphas in net.alphas.values())


def test_shapes_and_groups():
    for nodes, channels, size in ((4, 1, (8, 8)), (4, 3, (28, 28)), (3, 3, (11, 6))):
        net = Supernet(width=3, depth=3, nodes=nodes, in_channels=channels)
        rows = sum(range(2, nodes + 2))
        assert net(torch.randn(2, channels, *size)).shape == (2, net.feature_width) == (2, nodes * 12)
        assert [tuple(alphas.shape) for alphas in net.alphas.values()] == [(rows, 7), (rows, 7)]
        assert list(net.alphas) == ["normal", "reduce"]
        every = {id(parameter) for parameter in net.parameters()}
        groups = [{id(p) for p in group} for group in (net.weight_parameters(), net.alpha_parameters())]
        assert groups[0] | groups[1] == every and not groups[0] & groups[1]
    net = Supernet()
    assert sum(alphas.numel() for alphas in net.alpha_parameters()) == 196 and net.feature_width == 256
    assert not any(isinstance(m, torch.nn.BatchNorm2d) and m.affine for m in net.cells.modules())


def test_initial_alphas_are_small_and_seeded():
    torch.manual_seed(5)
    first = Supernet(width=2, depth=3)
    torch.manual_seed(5)
    second = Supernet(width=2, depth=3)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    values = torch.cat([alphas.detach().flatten() for alphas in first.alpha_parameters()])
    assert 0.8e-3 < values.std().item() < 1.2e-3 and values.abs().max() < 5e-3


def test_fair_relaxation_is_the_sigmoid():
    alphas = torch.tensor([[0.0, 100.0, -100.0, 1.0]], dtype=torch.float64)
    expected = torch.tensor([[0.5, 1.0, 0.0, 0.7310585786300049]], dtype=torch.float64)
    torch.testing.assert_close(FairRelaxation().weights(alphas), expected)
    assert set(RELAXATIONS) >= {"fair"}


@pytest.mark.parametrize("level", ["weights", "alphas", None])
@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
@pytest.mark.parametrize("relaxation", BLENDS)
def test_same_in_every_relaxation_and_level(relaxation, size, level):
    torch.manual_seed(0)
    plain, shipped = both(relaxation, width=4, depth=3, in_channels=1, nodes=2)
    shipped = shipped.to(memory_format=torch.channels_last)
    image, results = torch.randn(3, 1, *size, dtype=torch.float64), []
    for net in (plain, shipped):
        torch.manual_seed(1)
        if level is None:
            results.append(net(image))
        else:
            with net.learning(level):
                results.append(net(image))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-9)
    direction, touched = torch.randn_like(results[0]), 0
    for result in results:
        (result * direction).sum().backward()
    for (name, a), b in zip(plain.named_parameters(), shipped.parameters(), strict=True):
        a, b = (torch.zeros_like(p) if p.grad is None else p.grad for p in (a, b))
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9, msg=name)
        touched += int(a.abs().sum() > 0)
    assert touched >= 2


@pytest.mark.parametrize("level", ["weights", "alphas"])
def test_one_level_at_a_time(level):
    torch.manual_seed(0)
    net, head = Supernet(width=2, depth=3, in_channels=1), torch.nn.Linear(16, 4)
    head.bias.requires_grad_(False)
    x = torch.randn(2, 1, 8, 8)
    groups = {"weights": [*net.weight_parameters(), head.weight], "alphas": net.alpha_parameters()}
    head(net(x)[:, :16]).square().sum().backward()
    both = {name: [parameter.grad.clone() for parameter in group] for name, group in groups.items()}
    net.zero_grad(set_to_none=True)
    head.zero_grad(set_to_none=True)
    with net.learning(level, head):
        head(net(x)[:, :16]).square().sum().backward()
    resting = groups["alphas" if level == "weights" else "weights"]
    assert all(parameter.grad is None for parameter in resting)
    for parameter, expected in zip(groups[level], both[level], strict=True):
        torch.testing.assert_close(parameter.grad, expected)
    with pytest.raises(ZeroDivisionError), net.learning(level, head):
        raise ZeroDivisionError
    assert all(p.requires_grad for p in net.parameters()) and head.weight.requires_grad and net.level is None
    assert not head.bias.requires_grad
    with pytest.raises(ValueError, match="choose 'weights' or 'alphas'"), net.learning("alpha"):
        pass


def test_weight_zero_is_not_computed_and_counts_as_zero():
    torch.manual_seed(0)
    plain, shipped = both("fair", width=2, depth=3, in_channels=1)
    x = torch.randn(2, 1, 9, 9, dtype=torch.float64)
    torch.manual_seed(3)
    tables = {kind: torch.rand(14, 7).double() * (torch.rand(14, 7) < 0.3) for kind in ("normal", "reduce")}
    torch.testing.assert_close(plain(x, tables), shipped(x, tables))
    norm = shipped.cells[0].operations[0]["sep_conv_3x3"].norm
    tables["normal"][:, 3] = 0
    before = norm.running_mean.clone()
    shipped(x, tables)
    assert torch.equal(norm.running_mean, before), "an operation of weight 0 ran"
    tables["normal"][0, 3] = 0.1
    shipped(x, tables)
    assert not torch.equal(norm.running_mean, before)
    active = {kind: torch.rand(14, 7) < 0.5 for kind in tables}
    own = {kind: table.detach() * active[kind] for kind, table in shipped.weights().items()}
    torch.testing.assert_close(shipped(x, active=active), plain(x, own))
    for net in (plain, shipped):
        net(x, active=active).square().sum().backward()
    for kind in tables:
        torch.testing.assert_close(plain.alphas[kind].grad, shipped.alphas[kind].grad)
        assert (shipped.alphas[kind].grad[~active[kind]] == 0).all()


def test_the_bars_that_do_not_depend_on_the_machine():
    "At most half of the reference's operations, and 60 % of the bytes it keeps, over a step of both levels."
    torch.manual_seed(0)
    views = torch.randn(2, 4, 3, 16, 16)
    plain, shipped = ReferenceSupernet(width=4, depth=3), Supernet(width=4, depth=3)
    shipped = shipped.to(memory_format=torch.channels_last)
    levels = "weights", "alphas"
    costs = [2 * [cost(plain, views, None)], [cost(shipped, views, level) for level in levels]]  # plain knows no levels
    operations, kept = ([sum(c[i] for c in pair) for pair in costs] for i in (0, 1))
    assert operations[1] <= 0.5 * operations[0], operations
    assert kept[1] <= 0.6 * kept[0], kept


@pytest.mark.parametrize("relaxation", BLENDS)
def test_reduced_precision_in_every_relaxation(relaxation):
    torch.manual_seed(0)
    net = Supernet(width=4, depth=3, nodes=2, relaxation=relaxation).to(memory_format=torch.channels_last)
    for level, group in (("weights", net.weight_parameters()), ("alphas", net.alpha_parameters())):
        with net.learning(level), torch.autocast("cpu", dtype=torch.bfloat16):
            net(torch.randn(4, 3, 12, 12)).float().square().mean().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in group)
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in group)


def test_state_can_be_stored_and_loaded():
    torch.manual_seed(0)
    first, second = (Supernet(width=2, depth=3) for _ in range(2))
    x = torch.randn(2, 3, 9, 9)
    first(x)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(x), second.eval()(x))


def test_reduced_precision_gives_finite_gradients():
    net = Supernet(width=4, depth=3, nodes=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = net(torch.randn(4, 3, 12, 12))
    features.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.alpha_parameters())


def test_mistakes_are_told():
    with pytest.raises(UserError, match="choose one of fair"):
        Supernet(relaxation="softmacks")
    with pytest.raises(UserError, match="take a multiple of 4"):
        Supernet(width=6, relaxation="partial")
    with pytest.raises(UserError, match="1 or more"):
        Supernet(depth=0)


def test_narrow_cells_train_on_images_of_64_pixels():
    "A process of its own: PyTorch's weight gradient of such strided convolutions ends it with a segmentation fault."
    code = """
import torch
from ssnas_colab.models.genotype import GENOTYPES
from ssnas_colab.models.network import Network
from ssnas_colab.models.operations import FactorizedReduce, crashes
from ssnas_colab.nas.supernet import Supernet
torch.manual_seed(0)
nets = Supernet(width=4, depth=3, nodes=2), Network(GENOTYPES["SNAS"], 2, width=4, depth=3)
images = torch.rand(4, 3, 64, 64).to(memory_format=torch.channels_last)
for net in nets:
    net.to(memory_format=torch.channels_last)(images).sum().backward()
layer = FactorizedReduce(8, 8)
x = torch.rand(2, 8, 48, 48, requires_grad=True)
assert crashes(layer.body.even, x) and not crashes(layer.body.even, x[:, :, :40, :40])
mended = torch.autograd.grad((layer(x) ** 3).sum(), [x, *layer.body.parameters()])
plain = torch.cat([layer.body.even(x.relu()), layer.body.moved(x.relu()[:, :, 1:, 1:])], 1)
for one, other in zip(mended, torch.autograd.grad((layer.norm(plain) ** 3).sum(), [x, *layer.body.parameters()])):
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:] or done.returncode


@pytest.mark.parametrize("relaxation", ["fair", "partial", "sampled"])
def test_two_views_in_one_batch_are_two_batches(relaxation):
    "Features, gradients and running statistics to 1e-10 of the largest, in float64; features to 1e-5 in float32."
    torch.manual_seed(0)
    net = Supernet(width=4, depth=3, nodes=2, relaxation=relaxation)
    weights = one_hot(random_genotype(0, nodes=2), 2) if relaxation == "sampled" else None
    views = torch.randn(2, 8, 3, 12, 12)
    with torch.no_grad():
        apart = torch.cat([copy.deepcopy(net)(view, weights) for view in views])
        together = copy.deepcopy(net)(torch.cat([*views]), weights, views=2)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5 * apart.abs().max().item())
    nets = [copy.deepcopy(net).double() for _ in range(2)]
    weights = weights and {kind: table.double() for kind, table in weights.items()}
    views = views.double()
    found = torch.cat([nets[0](view, weights) for view in views]), nets[1](torch.cat([*views]), weights, views=2)
    for one in found:
        (one.square().mean() + one[:8].mean()).backward()
    torch.testing.assert_close(*found, rtol=0, atol=1e-10)
    largest = max(p.grad.abs().max() for p in nets[0].parameters() if p.grad is not None).item()
    for (name, one), other in zip(nets[0].named_parameters(), nets[1].parameters()):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-10 * largest)
    for (name, one), other in zip(nets[0].named_buffers(), nets[1].buffers()):
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
