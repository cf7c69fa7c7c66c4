"Losses that know the class counts: against formulas in float64, and at the point where theory says they are least."

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit, logsumexp

from ssnas_colab.core.basics import UserError
from ssnas_colab.training.class_losses import (
    LDAM,
    LOSSES,
    Asymmetric,
    BalancedSoftmax,
    ClassBalanced,
    CosineLinear,
    CrossEntropy,
    Focal,
    InverseFrequency,
    LogitAdjustment,
    adjust_logits,
    choose_tau,
    class_loss,
    predict_scores,
)

RNG = np.random.default_rng(0)
LOGITS, TARGETS = RNG.normal(size=(9, 4)), np.array([0, 1, 2, 3, 0, 0, 1, 2, 0])
PRESENT = RNG.integers(0, 2, size=(9, 4))
COUNTS, TOTAL = np.array([400, 80, 15, 5]), 1000
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
TRUE = SOFTMAX[np.arange(9), TARGETS]  # the probability of the truth
P = expit(LOGITS)
ONES = np.ones(4)


def single(loss):
    return loss(torch.tensor(LOGITS), torch.tensor(TARGETS)).item()


def several(loss):
    values = [loss(torch.tensor(LOGITS), torch.tensor(PRESENT).to(kind)).item() for kind in (torch.uint8, torch.bool)]
    assert values[0] == values[1]
    return values[0]


def same(ours, formula):
    np.testing.assert_allclose(ours, formula, rtol=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_logit_adjustment_is_its_formula(tau):
    adjusted = LOGITS + tau * np.log(COUNTS / 500)
    same(single(LogitAdjustment(COUNTS, tau=tau)), (logsumexp(adjusted, 1) - adjusted[np.arange(9), TARGETS]).mean())
    share = COUNTS / TOTAL
    p = expit(LOGITS + tau * np.log(share / (1 - share)))
    expected = -np.mean(PRESENT * np.log(p) + (1 - PRESENT) * np.log(1 - p))
    same(several(LogitAdjustment(COUNTS, "multi-label", TOTAL, tau)), expected)


def test_the_default_is_the_same_bits_as_ever():
    generator = torch.Generator().manual_seed(3)
    logits, targets = torch.randn(64, 4, generator=generator), torch.randint(4, (64,), generator=generator)
    prior = (torch.tensor(COUNTS, dtype=torch.float64) / COUNTS.sum()).log()
    expected = F.cross_entropy(logits + prior.float(), targets)
    assert torch.equal(class_loss("logit_adjustment", COUNTS)(logits, targets), expected)
    present, share = torch.rand(64, 4, generator=generator) < 0.3, torch.tensor(COUNTS, dtype=torch.float64)
    odds = (share / (TOTAL - share)).log().float()
    expected = F.binary_cross_entropy_with_logits(logits + odds, present.float())
    assert torch.equal(class_loss("logit_adjustment", COUNTS, "multi-label", TOTAL)(logits, present), expected)


def test_cross_entropy_is_its_formula():
    same(single(CrossEntropy(COUNTS)), -np.log(TRUE).mean())
    same(several(CrossEntropy(COUNTS, "multi-label")), -np.log(np.where(PRESENT, P, 1 - P)).mean())


def test_balanced_softmax_is_its_formula_and_logit_adjustment():
    share = COUNTS * np.exp(LOGITS)
    same(single(BalancedSoftmax(COUNTS)), -np.log(share[np.arange(9), TARGETS] / share.sum(1)).mean())
    same(single(BalancedSoftmax(COUNTS)), single(LogitAdjustment(COUNTS)))


@pytest.mark.parametrize("beta", [0.9, 0.99, 0.9999])
def test_class_balanced_is_its_formula(beta):
    weights = (1 - beta) / (1 - beta**COUNTS)
    weights = 4 * weights / weights.sum()
    same(single(ClassBalanced(COUNTS, beta=beta)), np.mean(weights[TARGETS] * -np.log(TRUE)))
    found, missing = (1 - beta) / (1 - beta**COUNTS), (1 - beta) / (1 - beta ** (TOTAL - COUNTS))
    found, missing = 2 * found / (found + missing), 2 * missing / (found + missing)
    expected = -np.mean(found * PRESENT * np.log(P) + missing * (1 - PRESENT) * np.log(1 - P))
    same(several(ClassBalanced(COUNTS, "multi-label", TOTAL, beta)), expected)


def test_weighted_is_inverse_counts_and_chexnet():
    weights = 4 / COUNTS / (1 / COUNTS).sum()
    same(single(InverseFrequency(COUNTS)), np.mean(weights[TARGETS] * -np.log(TRUE)))
    share = COUNTS / TOTAL
    expected = -np.mean((1 - share) * PRESENT * np.log(P) + share * (1 - PRESENT) * np.log(1 - P))
    same(several(InverseFrequency(COUNTS, "multi-label", TOTAL)), 2 * expected)
    near = single(ClassBalanced(COUNTS, beta=1 - 1e-9))  # the limit of the effective number is the count
    np.testing.assert_allclose(near, single(InverseFrequency(COUNTS)), rtol=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 5.0])
def test_focal_is_its_formula(gamma):
    same(single(Focal(COUNTS, gamma=gamma)), np.mean((1 - TRUE) ** gamma * -np.log(TRUE)))
    p = np.where(PRESENT, P, 1 - P)
    same(several(Focal(COUNTS, "multi-label", gamma=gamma)), np.mean((1 - p) ** gamma * -np.log(p)))


@pytest.mark.parametrize("gamma_set, gamma_missing, shift", [(0.0, 4.0, 0.05), (1.0, 2.0, 0.3), (0.0, 0.0, 0.0)])
def test_asymmetric_is_its_formula(gamma_set, gamma_missing, shift):
    q = np.maximum(P - shift, 0)
    positive, negative = (1 - P) ** gamma_set * np.log(P), q**gamma_missing * np.log(1 - q)
    expected = -np.mean(PRESENT * positive + (1 - PRESENT) * negative)
    same(several(Asymmetric(COUNTS, "multi-label", TOTAL, gamma_set, gamma_missing, shift)), expected)
    if shift == 0:
        same(several(Asymmetric(COUNTS, gamma_missing=0.0, shift=0.0)), several(CrossEntropy(COUNTS, "multi-label")))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_ldam_is_its_formula_and_defers_its_weights(scale):
    margins = scale * 0.5 * (5 / COUNTS) ** 0.25  # C such that the rarest class has 0.5
    lowered = LOGITS.copy()
    lowered[np.arange(9), TARGETS] -= margins[TARGETS]
    costs = logsumexp(lowered, 1) - lowered[np.arange(9), TARGETS]
    weights = 1e-4 / (1 - 0.9999**COUNTS)
    weights *= 4 / weights.sum()
    loss = LDAM(COUNTS, scale=scale)
    late = weights[TARGETS] * costs
    for progress, expected in ((0, costs), (0.79, costs), (0.8, late), (1, late)):
        same(single(loss.at(progress)), expected.mean())
    same(single(loss), single(loss.at(1)))  # asking for the start has not changed the loss itself
    half = LDAM([100, 0, 1]).margins  # a class never seen: no more than the largest margin
    np.testing.assert_allclose(half, [30 * 0.5 / 100**0.25, 15, 15])


def test_the_cosine_layer_knows_directions_alone():
    torch.manual_seed(0)
    layer, x = CosineLinear(6, 4), torch.randn(20, 6)
    expected = 30 * F.cosine_similarity(x[:, None], layer.weight[None], dim=2)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(7 * x), expected)


def test_the_least_adjusted_loss_leaves_the_likelihood_in_the_logits():
    # 3 possible images x 2 classes with p(image | class) known: over the whole population the gradient of the adjusted
    # loss vanishes where logits = log p(image | class), that is where the classes are judged as if equally common.
    likelihood = np.array([[0.6, 0.1], [0.3, 0.2], [0.1, 0.7]])
    prior = np.array([0.95, 0.05])

    def gradient(loss, logits, targets):
        logits = torch.tensor(logits, requires_grad=True)
        risk = 0
        for image in range(3):
            for k in range(2):
                risk = risk + likelihood[image, k] * prior[k] * loss(logits[image : image + 1], targets[k])
        return torch.autograd.grad(risk, logits)[0].abs().max()

    classes, present = [torch.tensor([0]), torch.tensor([1])], [torch.tensor([[0]]), torch.tensor([[1]])]
    assert gradient(LogitAdjustment([95, 5]), np.log(likelihood), classes) < 1e-12
    assert gradient(BalancedSoftmax([95, 5]), np.log(likelihood), classes) < 1e-12
    assert gradient(InverseFrequency([95, 5]), np.log(likelihood), classes) < 1e-12  # weights have the same best answer
    assert gradient(CrossEntropy([95, 5]), np.log(likelihood), classes) > 0.1
    evidence = np.log(likelihood[:, 1:] / likelihood[:, :1])
    assert gradient(LogitAdjustment([5], "multi-label", 100), evidence, present) < 1e-12
    assert gradient(InverseFrequency([5], "multi-label", 100), evidence, present) < 1e-12
    assert gradient(CrossEntropy([5], "multi-label"), evidence, present) > 0.1


def test_a_class_without_images_counts_as_half_an_image():
    expected = np.log(np.exp([np.log(8 / 8.5), np.log(0.5 / 8.5)]).sum()) - np.log(0.5 / 8.5)
    same(LogitAdjustment([8, 0])(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1])).item(), expected)
    loss = LogitAdjustment([0, 10], "multi-label", 10)(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1, 0]]))
    same(loss.item(), np.log(20))  # p = 0.5/10 for what was never seen, both ways
    same(InverseFrequency([8, 0]).weights, 2 * np.array([1 / 8, 2]) / (1 / 8 + 2))


@pytest.mark.parametrize("name, task", list(LOSSES))
def test_one_signature_float32_and_gradients(name, task):
    loss = class_loss(name, COUNTS.tolist(), task, total=500)
    targets = torch.tensor(TARGETS if task == "single-label" else PRESENT)
    logits = torch.tensor(LOGITS, requires_grad=True)
    for progress in (0, 1):
        assert torch.autograd.gradcheck(lambda x, p=progress: loss.at(p)(x, targets), logits)
    value = loss(logits.bfloat16(), targets)
    assert value.dtype == torch.float32 and value.ndim == 0
    wide = loss(logits.detach(), targets)  # the offset has not lost digits by being used in float32 before
    assert torch.equal(wide, class_loss(name, COUNTS, task, total=500)(logits.detach(), targets))
    huge = torch.tensor([[200.0, -200.0, 0.0, 0.0], [-200.0, 200.0, 0.0, 0.0]], requires_grad=True)
    targets = torch.tensor([1, 1]) if task == "single-label" else torch.tensor([[0, 1, 0, 1], [0, 1, 1, 0]])
    (gradient,) = torch.autograd.grad(loss(huge, targets), huge)
    assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_bad_counts_names_and_shapes_in_a_sentence():
    for counts in ([], [0, 0], [3, -1], [1, float("nan")]):
        with pytest.raises(ValueError, match="counts must be"):
            LogitAdjustment(counts)
    for name in ("logit_adjustment", "weighted", "class_balanced"):
        for total in (None, 0, 399):
            with pytest.raises(ValueError, match="at least 400"):
                class_loss(name, COUNTS, "multi-label", total)
    with pytest.raises(ValueError, match="made for 4 classes"):
        LogitAdjustment(COUNTS)(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(UserError, match="did you mean 'cross_entropy'"):
        class_loss("crossentropy", COUNTS, "single-label")
    with pytest.raises(UserError, match="no multi-label loss is called 'ldam'"):
        class_loss("ldam", COUNTS, "multi-label", TOTAL)
    with pytest.raises(UserError, match="unlabelled"):
        class_loss("cross_entropy", COUNTS, "unlabelled")
    with pytest.raises(ValueError, match="single-label loss: choose another"):
        LDAM(COUNTS, "multi-label", TOTAL)
    with pytest.raises(ValueError, match="progress"):
        LDAM(COUNTS).at(1.1)
    with pytest.raises(ValueError, match="beta"):
        ClassBalanced(COUNTS, beta=1.5)


def test_scores():
    logits = torch.tensor([[0.0, 1.0, -2.0]], dtype=torch.float64)
    e = np.exp([0.0, 1.0, -2.0])
    same(predict_scores(logits, "single-label")[0], e / e.sum())
    same(predict_scores(logits, "multi-label")[0], e / (1 + e))
    assert predict_scores(logits.half(), "single-label").dtype == torch.float32


def test_post_hoc_takes_away_what_the_loss_puts_in():
    logits, targets = torch.tensor(LOGITS), torch.tensor(TARGETS)
    for tau in (0.5, 1.0):
        back = adjust_logits(logits, COUNTS, tau=tau)
        same(LogitAdjustment(COUNTS, tau=tau)(back, targets).item(), F.cross_entropy(logits, targets).item())
    share = COUNTS / TOTAL
    same(adjust_logits(logits, COUNTS, "multi-label", TOTAL), LOGITS - np.log(share / (1 - share)))


def gaussian(count, seed, prior):
    "Logits of the best classifier there is, and labels: two classes, one number an image."
    rng = np.random.default_rng(seed)
    labels = rng.choice(2, size=count, p=prior)
    x = rng.normal(size=count) + 1.5 * labels
    return torch.tensor(np.stack([-(x**2) / 2, -((x - 1.5) ** 2) / 2], 1) + np.log(prior)), torch.tensor(labels)


def test_tau_is_chosen_where_theory_has_it_and_ties_go_to_one():
    logits, labels = gaussian(20_000, 0, [0.95, 0.05])
    assert 0.7 <= choose_tau(logits, labels, [950, 50]) <= 1.3
    odds = logits[:, 1:] - logits[:, :1]
    assert 0.7 <= choose_tau(odds, labels[:, None], [50], "multi-label", 1000) <= 1.3
    sure = torch.tensor([[90.0, 0.0], [0.0, 90.0]])  # every tau is right
    assert choose_tau(sure, torch.tensor([0, 1]), [99, 1]) == 1.0
    sharp = logits * 2  # twice too sure of everything, the prior too
    assert 1.6 <= choose_tau(sharp, labels, [950, 50]) <= 2.4
