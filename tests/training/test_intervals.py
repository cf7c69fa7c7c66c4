"Bootstrap intervals: seeded, paired, within classes, and as wide as they say."

import numpy as np
import pytest
from sklearn import metrics as sk

from ssnas_colab.training.metrics import bootstrap_interval, paired_difference, paired_difference_seeds, report_metrics

LABELS = np.repeat(np.arange(4), [200, 90, 40, 10])


def answers(rng, chance, labels=LABELS):
    return np.where(rng.random(len(labels)) < np.asarray(chance)[labels], labels, (labels + 1) % 4)


A = answers(np.random.default_rng(0), [0.9, 0.8, 0.7, 0.7])
B = answers(np.random.default_rng(1), [0.9, 0.6, 0.5, 0.2])


def test_the_values_are_scikit_learns():
    assert bootstrap_interval(LABELS, A)[0] == pytest.approx(sk.balanced_accuracy_score(LABELS, A), abs=1e-12)
    assert bootstrap_interval(LABELS, A, "accuracy")[0] == pytest.approx(sk.accuracy_score(LABELS, A), abs=1e-12)
    expected = sk.balanced_accuracy_score(LABELS, A) - sk.balanced_accuracy_score(LABELS, B)
    assert paired_difference(LABELS, A, B)[0] == pytest.approx(expected, abs=1e-12)


def test_the_same_seed_gives_the_same_interval():
    shown = paired_difference(LABELS, A, B, "balanced_accuracy", 7)
    assert shown == paired_difference(LABELS, A, B, "balanced_accuracy", 7)
    assert shown != paired_difference(LABELS, A, B, "balanced_accuracy", 8)
    assert all(type(value) is float for value in shown)


def test_the_width_is_that_of_the_textbook():
    # Balanced accuracy is a mean of independent shares: its variance is a sum, and so is that of a difference.
    def variance(values):
        return sum(values[LABELS == k].var() / (LABELS == k).sum() for k in range(4)) / 16

    for shown, each in (
        (bootstrap_interval(LABELS, A, resamples=4000), (A == LABELS).astype(float)),
        (paired_difference(LABELS, A, B, resamples=4000), (A == LABELS) * 1.0 - (B == LABELS)),
    ):
        np.testing.assert_allclose(shown[2] - shown[1], 2 * 1.96 * np.sqrt(variance(each)), rtol=0.06)


def test_what_both_get_wrong_cancels():
    difficult = np.random.default_rng(3).random(len(LABELS)) < 0.4
    a, b = (np.where(difficult, (LABELS + 2) % 4, x) for x in (A, LABELS))
    high = paired_difference(LABELS, a, b)[2]
    own = [bootstrap_interval(LABELS, x) for x in (a, b)]
    assert own[0][2] > own[1][1] and high < 0  # their own intervals overlap, the difference is clear


def test_a_rare_class_is_in_every_resample():
    seen = []
    labels = np.array([0] * 50 + [3])
    bootstrap_interval(labels, labels, lambda t, p: seen.append(np.bincount(t).tolist()) or 0.0, resamples=200)
    assert seen == [[50, 0, 0, 1]] * 201


def test_several_seeds():
    same = paired_difference_seeds(LABELS, [A, A, A], [B, B, B], resamples=4000)
    one = paired_difference(LABELS, A, B, resamples=4000)
    assert same[0] == pytest.approx(one[0])
    np.testing.assert_allclose(same, one, atol=0.015)  # three times the same network tells no more than one
    rng = np.random.default_rng(5)
    apart = [answers(rng, chance) for chance in ([0.95] * 4, [0.7] * 4, [0.45] * 4)]
    mixed = paired_difference_seeds(LABELS, apart, [B, B, B])
    assert mixed[0] == pytest.approx(np.mean([paired_difference(LABELS, a, B, resamples=1)[0] for a in apart]))
    assert mixed[2] - mixed[1] > 1.5 * (same[2] - same[1])  # the luck of training is in the interval


def test_several_labels_and_functions_of_scores():
    rng = np.random.default_rng(0)
    truth = (rng.random((300, 3)) < [0.5, 0.2, 0.05]).astype(np.uint8)
    good, poor = truth + rng.normal(size=truth.shape) * 0.6, truth + rng.normal(size=truth.shape) * 1.5
    difference, low, high = paired_difference(truth, good > 0.5, poor > 0.5)
    tables = [report_metrics(x, truth, "multi-label")["balanced_accuracy"] for x in (good, poor)]
    assert difference == pytest.approx(tables[0] - tables[1]) and 0 < low < difference < high

    def area(labels, scores):
        return report_metrics(scores, labels, "multi-label")["macro_auc"]

    assert paired_difference(truth, good, poor, area, resamples=50)[1] > 0


def test_resamples_where_the_metric_is_undefined_are_left_out():
    truth = np.array([[1], [0], [0], [0]])  # one image in three resamples has no such label, or nothing but
    value, low, high = bootstrap_interval(truth, truth)
    assert (value, low, high) == (1.0, 1.0, 1.0)
    assert bootstrap_interval(truth * 0, truth) == (None, None, None)
    assert paired_difference(truth * 0, truth, truth) == (None, None, None)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"predictions_b": B[:-1]}, "same images"),
        ({"predictions_b": np.eye(4)[B]}, "same images"),
        ({"labels": [], "predictions_a": [], "predictions_b": []}, "same images"),
        ({"metric": "auc"}, "balanced_accuracy, accuracy"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(**({"labels": LABELS, "predictions_a": A, "predictions_b": B} | change))
    with pytest.raises(ValueError, match="for each seed"):
        paired_difference_seeds(LABELS, [A, A], [B])
