"Losses that know the class counts: against formulas in float64, and at the point where theory says they are least."

import numpy as np
import pytest
import torch

from ssnas_colab.core.rebalancing import (
    LOSSES,
    BinaryCrossEntropy,
    CrossEntropy,
    LogitAdjustment,
    MultiLabelLogitAdjustment,
    class_loss,
    predict_scores,
)
from ssnas_colab.core.runs import UserError

RNG = np.random.default_rng(0)
LOGITS, TARGETS = RNG.normal(size=(9, 4)), np.array([0, 1, 2, 3, 0, 0, 1, 2, 0])
PRESENT = RNG.integers(0, 2, size=(9, 4))
COUNTS = np.array([400, 80, 15, 5])


def single(loss):
    return loss(torch.tensor(LOGITS), torch.tensor(TARGETS)).item()


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_logit_adjustment_is_its_formula(tau):
    adjusted = LOGITS + tau * np.log(COUNTS / 500)
    expected = np.mean([np.log(np.exp(row).sum()) - row[k] for row, k in zip(adjusted, TARGETS, strict=True)])
    np.testing.assert_allclose(single(LogitAdjustment(COUNTS, tau)), expected, rtol=1e-12)


def test_cross_entropy_is_its_formula():
    expected = np.mean([np.log(np.exp(row).sum()) - row[k] for row, k in zip(LOGITS, TARGETS, strict=True)])
    np.testing.assert_allclose(single(CrossEntropy(COUNTS)), expected, rtol=1e-12)


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_multi_label_losses_are_their_formula(tau):
    share = COUNTS / 1000
    p = 1 / (1 + np.exp(-(LOGITS + tau * np.log(share / (1 - share)))))
    expected = -np.mean(PRESENT * np.log(p) + (1 - PRESENT) * np.log(1 - p))
    loss = MultiLabelLogitAdjustment(COUNTS, 1000, tau)(torch.tensor(LOGITS), torch.tensor(PRESENT).byte())
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-12)
    if tau == 0:
        plain = BinaryCrossEntropy(COUNTS, 1000)(torch.tensor(LOGITS), torch.tensor(PRESENT).bool())
        np.testing.assert_allclose(plain.item(), expected, rtol=1e-12)


def test_the_least_adjusted_loss_leaves_the_likelihood_in_the_logits():
    # 3 possible images x 2 classes with p(image | class) known: over the whole population the gradient of the adjusted
    # loss vanishes where logits = log p(image | class), that is where the classes are judged as if equally common.
    likelihood = np.array([[0.6, 0.1], [0.3, 0.2], [0.1, 0.7]])
    prior = np.array([0.95, 0.05])
    for loss, least in ((LogitAdjustment([95, 5]), True), (CrossEntropy([95, 5]), False)):
        logits = torch.tensor(np.log(likelihood), requires_grad=True)
        risk = 0
        for image in range(3):
            for k in range(2):
                chance = likelihood[image, k] * prior[k]
                risk = risk + chance * loss(logits[image : image + 1], torch.tensor([k]))
        (gradient,) = torch.autograd.grad(risk, logits)
        assert (gradient.abs().max() < 1e-12) == least
    logits = torch.tensor(np.log(likelihood[:, 1:] / likelihood[:, :1]), requires_grad=True)
    loss, risk = MultiLabelLogitAdjustment([5], 100), 0
    for image in range(3):
        for k in range(2):
            chance = likelihood[image, k] * prior[k]
            risk = risk + chance * loss(logits[image : image + 1], torch.tensor([[k]]))
    assert torch.autograd.grad(risk, logits)[0].abs().max() < 1e-12


def test_a_class_without_images_counts_as_half_an_image():
    expected = np.log(np.exp([np.log(8 / 8.5), np.log(0.5 / 8.5)]).sum()) - np.log(0.5 / 8.5)
    loss = LogitAdjustment([8, 0])(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1]))
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-12)
    loss = MultiLabelLogitAdjustment([0, 10], 10)(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[1, 0]]))
    np.testing.assert_allclose(loss.item(), np.log(20), rtol=1e-12)  # p = 0.5/10 for what was never seen, both ways


@pytest.mark.parametrize("name, task", list(LOSSES))
def test_one_signature_float32_and_gradients(name, task):
    loss = class_loss(name, COUNTS.tolist(), task, total=500)
    targets = torch.tensor(TARGETS if task == "single-label" else PRESENT)
    logits = torch.tensor(LOGITS, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits)
    value = loss(logits.bfloat16(), targets)
    assert value.dtype == torch.float32 and value.ndim == 0
    wide = loss(logits.detach(), targets)  # the offset has not lost digits by being used in float32 before
    assert torch.equal(wide, class_loss(name, COUNTS, task, total=500)(logits.detach(), targets))


def test_bad_counts_names_and_shapes_in_a_sentence():
    for counts in ([], [0, 0], [3, -1], [1, float("nan")]):
        with pytest.raises(ValueError, match="counts must be"):
            LogitAdjustment(counts)
    for total in (None, 0, 399):
        with pytest.raises(ValueError, match="at least 400"):
            class_loss("logit_adjustment", COUNTS, "multi-label", total)
    with pytest.raises(ValueError, match="made for 4 classes"):
        LogitAdjustment(COUNTS)(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(UserError, match="did you mean 'cross_entropy'"):
        class_loss("crossentropy", COUNTS, "single-label")
    with pytest.raises(UserError, match="unlabelled"):
        class_loss("cross_entropy", COUNTS, "unlabelled")


def test_scores():
    logits = torch.tensor([[0.0, 1.0, -2.0]], dtype=torch.float64)
    e = np.exp([0.0, 1.0, -2.0])
    np.testing.assert_allclose(predict_scores(logits, "single-label")[0], e / e.sum(), rtol=1e-12)
    np.testing.assert_allclose(predict_scores(logits, "multi-label")[0], e / (1 + e), rtol=1e-12)
    assert predict_scores(logits.half(), "single-label").dtype == torch.float32
