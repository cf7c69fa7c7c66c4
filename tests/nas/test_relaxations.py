"The relaxations against their papers' definitions, written out here."

import pytest
import torch
import torch.nn.functional as F
from refusal import refused

from ssnas_colab.core.basics import UserError
from ssnas_colab.models.genotype import GENOTYPES, Genotype, edges
from ssnas_colab.nas.relaxations import RELAXATIONS, one_hot, relaxation_of
from ssnas_colab.nas.supernet import FusedSearchCell, Supernet

COLUMNS = {"fair": 7, "darts": 8, "partial": 9, "path": 7, "gumbel": 7}


@pytest.mark.parametrize("name", COLUMNS)
def test_what_all_have(name):
    torch.manual_seed(0)
    relaxation = relaxation_of(name)
    alphas = relaxation.initial(14)
    assert alphas.shape == (14, COLUMNS[name]) and 5e-4 < alphas.std() < 2e-3
    assert relaxation.derivation == ("threshold" if name == "fair" else "top2")
    assert relaxation.needs_zero_one_loss == (name == "fair")
    assert relaxation.channels_share == (4 if name == "partial" else 1)
    table = relaxation.weights(alphas)
    assert table.shape == (14, 8 if name in ("darts", "partial") else 7)
    assert torch.equal(table, relaxation.weights(alphas)), "reading must not draw"
    for level in ("weights", "alphas"):
        torch.manual_seed(1)
        drawn, active = relaxation.sample(alphas, level)
        torch.manual_seed(1)
        again, _ = relaxation.sample(alphas, level)
        assert torch.equal(drawn, again) and drawn.shape == table.shape
        assert active is None or (active.shape == (14, 7) and active.dtype == torch.bool)


def test_names():
    assert RELAXATIONS["fair"] is type(relaxation_of("fair"))
    own = RELAXATIONS["path"]()
    assert relaxation_of(own) is own
    with pytest.raises(UserError, match="choose one of fair, darts, partial, path, gumbel"):
        relaxation_of("drats")


def test_fair_and_darts_by_their_formulas():
    alphas = torch.randn(14, 8, dtype=torch.float64)
    exponentials = alphas.exp()
    expected = exponentials / exponentials.sum(1, keepdim=True)
    torch.testing.assert_close(relaxation_of("darts").weights(alphas), expected)
    torch.testing.assert_close(relaxation_of("fair").weights(alphas), 1 / (1 + (-alphas).exp()))


def test_partial_weights_by_the_formula():
    alphas = torch.randn(14, 9, dtype=torch.float64)
    found = relaxation_of("partial").weights(alphas)
    for row, (_, target) in enumerate(edges()):
        rivals = [r for r, (_, other) in enumerate(edges()) if other == target]
        edge = alphas[row, 8].exp() / alphas[rivals, 8].exp().sum()
        torch.testing.assert_close(found[row], edge * alphas[row, :8].exp() / alphas[row, :8].exp().sum())
    with pytest.raises(ValueError, match="No cell has 13 edges"):
        relaxation_of("partial").weights(alphas[:13])


@pytest.mark.parametrize("reduction", [False, True])
def test_partial_cell_by_the_papers_code(reduction):
    "PC-DARTS: a quarter through the operations, the rest beside it, channels shuffled, times the edge's weight."
    torch.manual_seed(0)
    cell = FusedSearchCell((5, 5), 8, reduction=reduction, share=4).double()
    a, b = torch.randn(2, 3, 5, 6, 6, dtype=torch.float64)
    alphas = torch.randn(14, 9, dtype=torch.float64)
    relaxation = relaxation_of("partial")
    states = {0: cell.first(a), 1: cell.second(b)}
    for row, (source, target) in enumerate(edges()):
        stride = 2 if reduction and source < 2 else 1
        through, beside = states[source][:, :2], states[source][:, 2:]
        choice = alphas[row, :8].softmax(0)
        parts = [F.max_pool2d(through, 3, stride, 1), F.avg_pool2d(through, 3, stride, 1, count_include_pad=False)]
        parts = [F.batch_norm(part, None, None, training=True) for part in parts]
        own = cell.operations[row]
        parts.append(through if stride == 1 else own["skip_connect"](through))
        parts += [own[name](through) for name in ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")]
        mixed = sum(weight * part for weight, part in zip(choice[:7], parts, strict=True))
        beside = beside if stride == 1 else F.max_pool2d(beside, 2, 2)
        both = torch.cat([mixed, beside], 1)
        order = [channel for first in range(2) for channel in range(first, 8, 2)]  # 0 2 4 6 1 3 5 7
        rivals = [r for r, (_, other) in enumerate(edges()) if other == target]
        edge = alphas[row, 8].exp() / alphas[rivals, 8].exp().sum()
        states[target] = states.get(target, 0) + edge * both[:, order]
    expected = torch.cat([states[node] for node in range(2, 6)], 1)
    torch.testing.assert_close(cell(a, b, relaxation.weights(alphas)), expected)


@pytest.mark.parametrize("name", ["path", "gumbel"])
def test_drawn_as_often_as_the_softmax_says(name):
    torch.manual_seed(0)
    row = torch.tensor([0.0, 1, 2, -1, 0.5, -2, 0])
    relaxation = relaxation_of(name)
    relaxation.anneal(0.7)
    weights, active = relaxation.sample(row.repeat(40_000, 1), "weights")
    assert set(weights.round(decimals=5).unique().tolist()) == {0.0, 1.0} and (weights.sum(1) - 1).abs().max() < 1e-5
    assert torch.equal(active, weights > 0.5)
    assert (weights.mean(0) - row.softmax(0)).abs().max() < 0.01


def test_path_draws_two_for_the_alphas():
    "Without repetition, with the probabilities of two draws in turn; the gate opens by the share between the two."
    torch.manual_seed(0)
    row = torch.tensor([0.0, 1, 2, -1, 0.5, -2, 0])
    weights, active = relaxation_of("path").sample(row.repeat(40_000, 1), "alphas")
    assert (active.sum(1) == 2).all() and (weights.sum(1) - 1).abs().max() < 1e-5 and (weights[~active] == 0).all()
    p = row.softmax(0)
    pair = active[:, 1] & active[:, 2]
    expected = p[1] * p[2] / (1 - p[1]) + p[2] * p[1] / (1 - p[2])
    assert abs(pair.float().mean() - expected) < 0.01
    assert abs(weights[pair][:, 2].mean() - p[2] / (p[1] + p[2])) < 0.015


def test_path_gradient_by_equation_4():
    "dL/dalpha_i = sum over the two drawn of dL/dg_j p_j (delta_ij - p_i), with p over these two; 0 for the others."
    torch.manual_seed(0)
    alphas = torch.randn(9, 7, dtype=torch.float64, requires_grad=True)
    weights, active = relaxation_of("path").sample(alphas, "alphas")
    of_gates = torch.randn(9, 7, dtype=torch.float64)
    (weights * of_gates).sum().backward()
    for row in range(9):
        drawn = active[row].nonzero().flatten().tolist()
        p = {i: alphas[row, i].detach().exp() for i in drawn}
        p = {i: value / sum(p.values()) for i, value in p.items()}
        for i in range(7):
            expected = sum(of_gates[row, j] * p[j] * (float(i == j) - p[i]) for j in drawn) if i in drawn else 0.0
            torch.testing.assert_close(alphas.grad[row, i], torch.as_tensor(expected, dtype=torch.float64))


def test_the_closed_gate_is_computed_for_its_gradient():
    "In the alphas' step both drawn alphas of an edge get a gradient, though one gate is 0 and adds nothing."
    torch.manual_seed(0)
    net = Supernet(width=4, depth=3, in_channels=1, relaxation="path")
    with net.learning("alphas"):
        net(torch.randn(4, 1, 8, 8)).square().mean().backward()
    for alphas in net.alphas.values():
        assert ((alphas.grad != 0).sum(1) == 2).all()
        assert alphas.grad.sum(1).abs().max() < 1e-4 * alphas.grad.abs().max()  # a softmax over the two


def test_gumbel_gradient_is_the_soft_samples():
    relaxation = relaxation_of("gumbel")
    relaxation.anneal(1.0)
    assert relaxation.temperature == pytest.approx(0.1)
    relaxation.anneal(0.0)
    assert relaxation.temperature == 10
    relaxation.anneal(0.9)
    alphas = torch.randn(9, 7, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(9, 7, dtype=torch.float64)
    torch.manual_seed(2)
    weights, _ = relaxation.sample(alphas, "alphas")
    (found,) = torch.autograd.grad((weights * direction).sum(), alphas)
    torch.manual_seed(2)
    noise = -torch.empty_like(alphas).exponential_().log()
    assert torch.equal(weights.argmax(1), (alphas + noise).argmax(1))
    soft = ((alphas + noise) / relaxation.temperature).softmax(1)
    (expected,) = torch.autograd.grad((soft * direction).sum(), alphas)
    torch.testing.assert_close(found, expected)


def test_a_supernet_refuses_genotypes_that_it_does_not_hold():
    pool = ("avg_pool_3x3", 0, 2)
    for nodes, said, genotype in [
        (4, "avg_pool_3x3 from 0 to 5 is there twice", GENOTYPES["NASNet"]),
        (4, "sep_conv_3x3 from 5 to 6 is none", Genotype([("sep_conv_3x3", 5, 6)], [])),
        (5, "sep_conv_7x7 from 2 to 3 is none", GENOTYPES["AmoebaNet"]),
        (4, "avg_pool_3x3 from 0 to 2 is there twice", Genotype([pool, pool], [pool])),
    ]:
        refused(said, act=lambda genotype=genotype, nodes=nodes: one_hot(genotype, nodes))
    assert one_hot(GENOTYPES["DARTS_V2"])["normal"].sum() == 8
