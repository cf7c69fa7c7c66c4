"The losses, and the objectives made of them, against their definitions, written out here without sharing any code."

import math

import numpy as np
import pytest
import torch

from ssnas_colab.core.basics import UserError
from ssnas_colab.nas.relaxations import zero_one_loss
from ssnas_colab.training.ssl_losses import (
    OBJECTIVES,
    Projector,
    barlow_twins_loss,
    make_loss,
    nt_xent_loss,
    vicreg_loss,
)


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
        contrastive, three_terms = nt_xent_loss(z1, z2), vicreg_loss(z1, z2)
    assert inside.dtype == contrastive.dtype == three_terms.dtype == torch.float32
    assert torch.equal(inside, plain) and torch.equal(torch.autograd.grad(inside, z1)[0], expected)
    assert torch.equal(contrastive, nt_xent_loss(z1, z2)) and torch.equal(three_terms, vicreg_loss(z1, z2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_stay_finite(dtype):
    z1, z2 = (torch.tensor(v).to(dtype).requires_grad_() for v in pair(16, 2048))
    for loss in (barlow_twins_loss(z1, z2), nt_xent_loss(z1, z2), vicreg_loss(z1, z2)):
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


@pytest.mark.parametrize("loss", [barlow_twins_loss, nt_xent_loss, vicreg_loss])
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


def vicreg_by_definition(z1, z2, invariance=25.0, variance=25.0, covariance=1.0, eps=1e-4):
    batch, width = z1.shape
    loss = invariance * sum(np.sum((a - b) ** 2) for a, b in zip(z1, z2, strict=True)) / (batch * width)
    for z in (z1, z2):
        c = np.cov(z, rowvar=False, ddof=1).reshape(width, width)
        loss += variance * np.mean([max(0.0, 1 - math.sqrt(c[i, i] + eps)) for i in range(width)])
        loss += covariance * sum(c[i, j] ** 2 for i in range(width) for j in range(width) if i != j) / width
    return loss


def small_pair(batch, width, seed=1):
    "Like `pair`, with deviations on both sides of VICReg's 1."
    return [z * np.linspace(0.1, 0.8, width) for z in pair(batch, width, seed)]


@pytest.mark.parametrize("batch, width", [(16, 5), (5, 16), (8, 8), (2, 3), (4, 1)])
@pytest.mark.parametrize("coefficients", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_vicreg_is_its_definition(batch, width, coefficients):
    z1, z2 = small_pair(batch, width)
    loss = vicreg_loss(torch.tensor(z1), torch.tensor(z2), *coefficients)
    assert loss.dtype == torch.float64 and loss.ndim == 0
    np.testing.assert_allclose(loss.item(), vicreg_by_definition(z1, z2, *coefficients), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch, width", [(7, 4), (4, 7)])
def test_vicreg_gradient_by_finite_differences(batch, width):
    z = [torch.tensor(v, requires_grad=True) for v in small_pair(batch, width)]
    assert torch.autograd.gradcheck(vicreg_loss, z)


def test_vicreg_by_hand_and_at_a_collapse():
    z = torch.tensor([[2.0, 0.0], [-2.0, 0.0]], dtype=torch.float64)  # one dimension varies enough, one not at all
    np.testing.assert_allclose(vicreg_loss(z, z).item(), 2 * 25 * (1 - 0.01) / 2, rtol=1e-12)
    np.testing.assert_allclose(vicreg_loss(z, z + 1).item(), 25 + 2 * 25 * (1 - 0.01) / 2, rtol=1e-12)
    point = torch.full((8, 3), 5.0, requires_grad=True)
    loss = vicreg_loss(point, point)
    loss.backward()
    np.testing.assert_allclose(loss.item(), 2 * 25 * 0.99, rtol=1e-6)
    assert point.grad.isfinite().all()


SELF_SUPERVISED = [name for name in OBJECTIVES if name != "supervised"]


def features(batch=12, width=6, seed=2, dtype=torch.float64):
    return [torch.tensor(v).to(dtype) for v in pair(batch, width, seed)]


def by_definition(name, z1, z2):
    if name == "barlow_twins":
        return barlow_twins_by_definition(z1, z2, 0.0051) / z1.shape[1]
    if name == "vicreg":
        return vicreg_by_definition(z1, z2) / (25 + 25 + 25 + 1 + 1)
    z = [v / math.sqrt(v @ v) for v in (*z1, *z2)]
    total = 0.0
    for i, v in enumerate(z):
        others = [math.exp(v @ w / 0.5) for j, w in enumerate(z) if j != i]
        total -= v @ z[(i + len(z1)) % len(z)] / 0.5 - math.log(sum(others))
    return total / len(z)


@pytest.mark.parametrize("name", SELF_SUPERVISED)
@pytest.mark.parametrize("embedding", [8, 20])
def test_objective_is_its_definition_behind_its_head(name, embedding):
    torch.manual_seed(0)
    objective = make_loss(name, 6, embedding=embedding).double()
    f1, f2 = features()
    z1, z2 = (objective.embed(f).detach().numpy() for f in (f1, f2))
    assert z1.shape == (12, embedding) and not objective.needs_labels
    expected = by_definition(name, z1, z2)
    np.testing.assert_allclose(objective(f1, f2).item(), expected, rtol=1e-5)  # Barlow Twins adds 1e-8 to variances
    # the head sees each view apart, with the batch statistics of that view
    linear, norm, _, last = objective.head
    x = (f1 @ linear.weight.T).detach().numpy()
    x = np.maximum((x - x.mean(0)) / np.sqrt(x.var(0) + norm.eps), 0)
    np.testing.assert_allclose(z1, x @ last.weight.T.detach().numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", SELF_SUPERVISED)
def test_objective_gradient_by_finite_differences(name):
    torch.manual_seed(0)
    objective = make_loss(name, 5, embedding=3).double()
    inputs = [f.requires_grad_() for f in features(6, 5)]
    assert torch.autograd.gradcheck(objective, inputs)


@pytest.mark.parametrize("loss, total", [("cross_entropy", None), ("logit_adjustment", 40)])
@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_supervised_is_its_definition_and_its_gradient(task, loss, total):
    torch.manual_seed(0)
    counts, options = [30, 8, 2], {"loss": loss, "total": total}
    objective = make_loss("supervised", 6, num_classes=3, counts=counts, task=task, **options).double()
    f1, f2 = features()
    labels = torch.arange(12) % 3
    one_hot = torch.eye(3)[labels]
    adjusted = loss == "logit_adjustment"
    share = np.array(counts) / 40
    expected = 0.0
    for f in (f1, f2):
        logits = (f @ objective.head.weight.T + objective.head.bias).detach().numpy()
        if task == "single-label":
            logits = logits + adjusted * np.log(share)
            rows = np.log(np.exp(logits).sum(1)) - logits[np.arange(12), labels]
        else:
            logits = logits + adjusted * np.log(share / (1 - share))
            rows = np.log1p(np.exp(np.where(one_hot > 0, -logits, logits)))
        expected += rows.mean() / 2
    targets = labels if task == "single-label" else one_hot
    np.testing.assert_allclose(objective(f1, f2, targets).item(), expected, rtol=1e-9)
    assert torch.equal(objective(f1, None, targets), objective(f1, f1, targets))
    assert objective.needs_labels and torch.equal(objective.embed(f1), f1)
    inputs = [f.requires_grad_() for f in (f1, f2)]
    assert torch.autograd.gradcheck(lambda a, b: objective(a, b, targets), inputs)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_autocast_and_half_features(name):
    torch.manual_seed(0)
    objective = make_loss(name, 32, embedding=256, num_classes=4)
    f1, f2 = features(64, 32, dtype=torch.float32)
    labels = torch.arange(64) % 4
    plain = objective(f1, f2, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = objective(f1, f2, labels)
    assert plain.dtype == inside.dtype == torch.float32 and plain.ndim == 0
    torch.testing.assert_close(inside, plain, rtol=0.02, atol=0)  # the head's products are rounded, the loss is not
    for dtype in (torch.float16, torch.bfloat16):
        halves = [(30 * f).to(dtype).requires_grad_() for f in (f1, f2)]
        loss = objective(*halves, labels)
        loss.backward()
        assert loss.dtype == torch.float32 and loss.isfinite()
        assert all(f.grad.isfinite().all() and f.grad.any() for f in halves)


@pytest.mark.parametrize("name", SELF_SUPERVISED)
def test_scale_is_of_order_one_and_hardly_depends_on_the_width(name):
    unrelated, values = torch.randn(2, 256, 32, generator=torch.Generator().manual_seed(0)), []
    for embedding in (16, 64, 256, 1024):
        torch.manual_seed(0)
        values.append(make_loss(name, 32, embedding=embedding)(*unrelated).item())
    assert 0.2 < min(values) and max(values) < 10 and max(values) < 1.5 * min(values), values


def test_state_and_projector_of_the_default_objective():
    torch.manual_seed(3)
    objective = make_loss("barlow_twins", 9, embedding=7)
    torch.manual_seed(3)
    projector = Projector(9, 7)
    state = objective.state_dict()
    assert list(state) == [f"head.{key}" for key in projector.state_dict()]
    assert all(torch.equal(state[f"head.{key}"], value) for key, value in projector.state_dict().items())
    other = make_loss("barlow_twins", 9, embedding=7)
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), objective.parameters(), strict=True))


def test_options_reach_the_losses():
    f1, f2 = features()
    for name, option, value in (("barlow_twins", "lambda_", 3.0), ("simclr", "temperature", 0.1),
                                ("vicreg", "covariance", 20.0)):  # fmt: skip
        torch.manual_seed(0)
        usual = make_loss(name, 6, embedding=5).double()
        torch.manual_seed(0)
        changed = make_loss(name, 6, embedding=5, **{option: value}).double()
        assert not torch.isclose(usual(f1, f2), changed(f1, f2))


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"name": "simcrl"}, "'simcrl': did you mean 'simclr'"),
        ({"name": None}, "no objective is called None"),
        ({"name": "simclr", "temprature": 0.1}, "no option 'temprature': did you mean 'temperature'"),
        ({"name": "barlow_twins", "loss": "cross_entropy"}, "'barlow_twins' has no option 'loss'"),
        ({"name": "supervised"}, "needs labels: give num_classes"),
        ({"name": "supervised", "num_classes": 3, "loss": "logit_adjustment"}, "needs the images of each class"),
        ({"name": "supervised", "num_classes": 3, "counts": [1, 2]}, "counts has 2 classes but num_classes is 3"),
        ({"name": "supervised", "num_classes": 3, "loss": "cross-entropi"}, "cross_entropy"),
        ({"name": "supervised", "num_classes": 3, "task": "unlabelled"}, "'unlabelled'"),
        ({"name": "vicreg", "invariance": 0, "variance": 0, "covariance": 0}, "not all 0"),
        ({"name": "vicreg", "variance": -1}, "variance=-1"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        make_loss(in_features=8, **arguments)


def test_supervised_says_that_labels_are_missing():
    with pytest.raises(UserError, match="needs labels"):
        make_loss("supervised", 6, num_classes=3)(*features())
