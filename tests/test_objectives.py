"Barlow Twins, SimCLR and zero-one losses against their definitions, written out here without sharing any code."

import math

import numpy as np
import pytest
import torch

from ssnas_colab.core.objectives import Projector, barlow_twins_loss, nt_xent_loss, zero_one_loss


def barlow_twins_by_definition(z1, z2, lambda_):
    z1, z2 = ((z - z.mean(0)) / np.sqrt(((z - z.mean(0)) ** 2).mean(0)) for z in (z1, z2))
    loss = 0.0
    for i in range(z1.shape[1]):
        for j in range(z2.shape[1]):
            c = sum(z1[b, i] * z2[b, j] for b in range(len(z1))) / len(z1)
            loss += (1 - c) ** 2 if i == j else lambda_ * c**2
    return loss


def pair(batch, width, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(batch, width))
    return base + 0.5 * rng.normal(size=base.shape), 3 * base + rng.normal(size=base.shape) - 7


@pytest.mark.parametrize("batch, width", [(16, 5), (5, 16), (8, 8), (2, 3)])
@pytest.mark.parametrize("lambda_", [0.0051, 0.0, 1.5])
def test_barlow_twins_is_its_definition(batch, width, lambda_):
    z1, z2 = pair(batch, width)
    loss = barlow_twins_loss(torch.tensor(z1), torch.tensor(z2), lambda_, eps=0.0)
    assert loss.dtype == torch.float64 and loss.ndim == 0
    np.testing.assert_allclose(loss.item(), barlow_twins_by_definition(z1, z2, lambda_), rtol=1e-10, atol=1e-10)
    if batch > 2:  # the default eps is far below the variances here
        loss = barlow_twins_loss(torch.tensor(z1), torch.tensor(z2), lambda_)
        np.testing.assert_allclose(loss.item(), barlow_twins_by_definition(z1, z2, lambda_), rtol=2e-7)


def test_barlow_twins_by_hand():
    # Two images, D = 2, standardised to +-1: c = [[1, -1], [1, -1]], so 0 + 4 on the diagonal and 1 + 1 beside it.
    z1, z2 = torch.tensor([[1.0, 5.0], [-1.0, 3.0]]), torch.tensor([[2.0, 0.0], [0.0, 9.0]])
    np.testing.assert_allclose(barlow_twins_loss(z1, z2, 0.1).item(), 4 + 0.1 * 2, rtol=1e-6)
    # Four images, two uncorrelated dimensions seen alike twice: the perfect answer costs nothing.
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert abs(barlow_twins_loss(z, 10 * z).item()) < 1e-12


@pytest.mark.parametrize("batch, width", [(7, 4), (4, 7)])
def test_barlow_twins_gradient_by_finite_differences(batch, width):
    z = [torch.tensor(v, requires_grad=True) for v in pair(batch, width)]
    assert torch.autograd.gradcheck(lambda a, b: barlow_twins_loss(a, b, 0.3), z)
    gradient = torch.autograd.grad(barlow_twins_loss(*z, 0.3), z)[0][1, 2].item()
    z1, z2 = (v.detach().numpy().copy() for v in z)
    z1[1, 2] += 1e-5
    above = barlow_twins_by_definition(z1, z2, 0.3)
    z1[1, 2] -= 2e-5
    np.testing.assert_allclose(gradient, (above - barlow_twins_by_definition(z1, z2, 0.3)) / 2e-5, rtol=1e-5)


@pytest.mark.parametrize("batch, width", [(32, 2048), (128, 64)])
def test_float32_agrees_with_float64_and_autocast_changes_nothing(batch, width):
    z1, z2 = (torch.tensor(v) for v in pair(batch, width))
    exact = barlow_twins_loss(z1, z2).item()
    z1, z2 = z1.float().requires_grad_(), z2.float()
    plain = barlow_twins_loss(z1, z2)
    np.testing.assert_allclose(plain.item(), exact, rtol=1e-5)
    expected = torch.autograd.grad(plain, z1)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = barlow_twins_loss(z1, z2)
        contrastive = nt_xent_loss(z1, z2)
    assert inside.dtype == contrastive.dtype == torch.float32
    assert torch.equal(inside, plain) and torch.equal(torch.autograd.grad(inside, z1)[0], expected)
    assert torch.equal(contrastive, nt_xent_loss(z1, z2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_stay_finite(dtype):
    z1, z2 = (torch.tensor(v).to(dtype).requires_grad_() for v in pair(16, 2048))
    for loss in (barlow_twins_loss(z1, z2), nt_xent_loss(z1, z2)):
        loss.backward()
        assert loss.dtype == torch.float32 and loss.isfinite() and z1.grad.isfinite().all()


def test_a_dead_dimension_costs_one_and_has_a_finite_gradient():
    z1, z2 = (torch.tensor(v) for v in pair(16, 3))
    whole = barlow_twins_loss(z1, z2).item()
    dead1, dead2 = (torch.cat([v, torch.full((16, 1), 4.0)], 1).requires_grad_() for v in (z1, z2))
    loss = barlow_twins_loss(dead1, dead2)
    loss.backward()
    np.testing.assert_allclose(loss.item(), whole + 1, rtol=1e-9)
    assert dead1.grad.isfinite().all()


def test_scale_and_shift_of_an_embedding_do_not_matter():
    z1, z2 = (torch.tensor(v) for v in pair(16, 6))
    torch.testing.assert_close(barlow_twins_loss(100 * z1 - 3, z2), barlow_twins_loss(z1, z2), rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", [barlow_twins_loss, nt_xent_loss])
def test_wrong_pairs_are_refused_in_a_sentence(loss):
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(4, 2\)"):
        loss(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="at least 2 images"):
        loss(torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="batch, width"):
        loss(torch.zeros(4, 3, 2), torch.zeros(4, 3, 2))


def test_nt_xent_by_hand():
    # Two images whose views coincide and are at right angles: e^2 against two others at e^0, four times alike.
    z = torch.tensor([[3.0, 0.0], [0.0, 0.1]], dtype=torch.float64)
    np.testing.assert_allclose(nt_xent_loss(z, z).item(), math.log(math.exp(2) + 2) - 2, rtol=1e-12)
    np.testing.assert_allclose(nt_xent_loss(z, z, temperature=1.0).item(), math.log(math.e + 2) - 1, rtol=1e-12)
    with pytest.raises(ValueError, match="temperature"):
        nt_xent_loss(z, z, temperature=0)


def test_nt_xent_gradient_by_finite_differences():
    assert torch.autograd.gradcheck(nt_xent_loss, [torch.tensor(v, requires_grad=True) for v in pair(4, 3)])


def test_zero_one_loss_values_bounds_and_gradient():
    w = torch.tensor([0.1, 0.5, 0.9, 1.0], dtype=torch.float64, requires_grad=True)
    loss = zero_one_loss(w)
    np.testing.assert_allclose(loss.item(), -(0.16 + 0 + 0.16 + 0.25) / 4, rtol=1e-12)
    loss.backward()
    np.testing.assert_allclose(w.grad, -2 * np.array([-0.4, 0, 0.4, 0.5]) / 4, rtol=1e-12)
    assert zero_one_loss(torch.ones(14, 7)).item() == -0.25
    weights = {"normal": torch.full((14, 7), 0.5), "reduce": torch.zeros(7)}
    np.testing.assert_allclose(zero_one_loss(weights).item(), -0.25 * 7 / 105, rtol=1e-6)
    with pytest.raises(ValueError, match="no weights"):
        zero_one_loss({})


def test_projector_shape_and_size():
    projector = Projector(144)
    assert projector.width == 2048
    assert sum(p.numel() for p in projector.parameters()) == 144 * 2048 + 2 * 2048 + 2048 * 2048
    assert Projector(6, width=5, layers=1)(torch.zeros(3, 6)).shape == (3, 5)
    assert Projector(6, width=5, layers=3)(torch.randn(3, 6)).shape == (3, 5)
    with pytest.raises(ValueError, match="layers=0"):
        Projector(6, layers=0)
