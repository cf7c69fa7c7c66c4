"""What is reported: against MedMNIST's own evaluator, scikit-learn's own averages, and by hand where a class is absent.

And the intervals: seeded, paired, within classes, and as wide as they say."""

import json
import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk

from ssnas_colab.training.metrics import (
    auc_per_class,
    balanced_accuracy,
    expected_calibration_error,
    macro_auc,
    paired_test_seeds,
    recall_intervals,
    report_metrics,
)  # fmt: skip


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def example(count, classes, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    targets = rng.choice(classes, size=count, p=softmax(-0.4 * np.arange(classes)[None])[0])
    logits = rng.normal(size=(count, classes)) + 1.2 * np.eye(classes)[targets]
    return softmax(logits).astype(dtype), targets


def labels(count, classes, seed=0):
    rng = np.random.default_rng(seed)
    targets = (rng.random((count, classes)) < 0.2).astype(np.uint8)
    logits = rng.normal(size=(count, classes)) + 1.5 * targets - 1
    return (1 / (1 + np.exp(-logits))).astype(np.float32), targets


@pytest.mark.parametrize(
    "flag, classes", [("pneumoniamnist", 2), ("dermamnist", 7), ("retinamnist", 5), ("chestmnist", 14)]
)
def test_equal_to_medmnist(tmp_path, flag, classes):
    medmnist = pytest.importorskip("medmnist")
    task = "multi-label" if flag == "chestmnist" else "single-label"
    assert len(medmnist.INFO[flag]["label"]) == classes
    scores, targets = (labels if task == "multi-label" else example)(400, classes)
    kept = targets if task == "multi-label" else targets[:, None]
    np.savez(tmp_path / f"{flag}.npz", test_labels=kept)
    theirs = medmnist.Evaluator(flag, "test", root=str(tmp_path)).evaluate(scores)
    ours = report_metrics(scores, kept, task)
    np.testing.assert_allclose(ours["macro_auc"], theirs.AUC, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours["accuracy"], theirs.ACC, rtol=0, atol=1e-9)


def test_two_classes_take_the_second_score():
    # In float32, 1 - 1e-9 and 1 - 2e-9 are both 1: the first class's scores tie where the second's do not.
    scores = np.array([[1, 1e-9], [1, 2e-9], [1, 3e-9], [1, 4e-9]], dtype=np.float32)
    report = report_metrics(scores, np.array([0, 0, 1, 1]), "single-label")
    assert report["macro_auc"] == 1.0 and report["auc_per_class"] == [0.5, 1.0]


def test_single_label_agrees_with_scikit_learn():
    scores, targets = example(500, 6)
    report = report_metrics(scores, targets, "single-label", list("abcdef"))
    chosen = scores.argmax(1)
    assert report["confusion"] == sk.confusion_matrix(targets, chosen).tolist()
    expected = {
        "accuracy": sk.accuracy_score(targets, chosen),
        "balanced_accuracy": sk.balanced_accuracy_score(targets, chosen),
        "macro_f1": sk.f1_score(targets, chosen, average="macro"),
        "macro_auc": sk.roc_auc_score(targets, scores.astype(float), multi_class="ovr", average="macro"),
        "mean_average_precision": sk.average_precision_score(np.eye(6)[targets], scores, average="macro"),
        "recall_per_class": sk.recall_score(targets, chosen, average=None),
        "count_per_class": np.bincount(targets),
    }
    for key, value in expected.items():
        np.testing.assert_allclose(report[key], value, rtol=1e-6, err_msg=key)
    assert report["class_names"] == list("abcdef")


def test_multi_label_agrees_with_scikit_learn():
    scores, targets = labels(300, 5)
    report = report_metrics(scores, targets, "multi-label")
    chosen = scores > 0.5
    columns = list(zip(targets.T, chosen.T, strict=True))
    expected = {
        "accuracy": np.mean([sk.accuracy_score(t, c) for t, c in columns]),
        "balanced_accuracy": np.mean([sk.balanced_accuracy_score(t, c) for t, c in columns]),
        "macro_f1": sk.f1_score(targets, chosen, average="macro"),
        "macro_auc": sk.roc_auc_score(targets, scores, average="macro"),
        "mean_average_precision": sk.average_precision_score(targets, scores, average="macro"),
        "recall_per_class": sk.recall_score(targets, chosen, average=None),
        "count_per_class": targets.sum(0),
    }
    for key, value in expected.items():
        np.testing.assert_allclose(report[key], value, rtol=1e-9, err_msg=key)
    assert report["confusion"] is None


def test_a_class_absent_from_the_split_is_none_and_left_out():
    scores, targets = example(300, 4)
    scores, targets = scores[targets != 2], targets[targets != 2]
    report = report_metrics(scores, targets, "single-label", train_counts=[101, 100, 19, 20])
    for key in ("recall_per_class", "auc_per_class", "average_precision_per_class"):
        assert report[key][2] is None and all(isinstance(report[key][k], float) for k in (0, 1, 3))
    recall, auc = report["recall_per_class"], report["auc_per_class"]
    np.testing.assert_allclose(report["balanced_accuracy"], (recall[0] + recall[1] + recall[3]) / 3)
    np.testing.assert_allclose(report["macro_auc"], (auc[0] + auc[1] + auc[3]) / 3)
    f1 = sk.f1_score(targets, scores.argmax(1), labels=[0, 1, 3], average="macro")
    np.testing.assert_allclose(report["macro_f1"], f1)
    assert report["many_shot_accuracy"] == recall[0] and report["few_shot_accuracy"] is None
    np.testing.assert_allclose(report["medium_shot_accuracy"], (recall[1] + recall[3]) / 2)


def test_a_single_class_has_no_auc():
    report = report_metrics(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0]), "single-label")
    assert report["macro_auc"] is None and report["auc_per_class"] == [None, None]
    assert report["recall_per_class"] == [0.5, None] and report["balanced_accuracy"] == 0.5


def test_labels_never_or_always_set():
    scores = np.array([[0.9, 0.2, 0.7], [0.4, 0.3, 0.6], [0.2, 0.1, 0.2]])
    targets = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]])
    report = report_metrics(scores, targets, "multi-label")
    assert report["auc_per_class"] == [0.5, None, None] and report["macro_auc"] == 0.5
    assert report["recall_per_class"] == [0.5, None, pytest.approx(2 / 3)]
    assert report["balanced_accuracy"] == 0.75  # (1/2 + 1) / 2 of the one label that is both set and not
    np.testing.assert_allclose(report["accuracy"], (2 / 3 + 1 + 2 / 3) / 3)


def test_everything_is_ready_for_json():
    for scores, targets in (example(60, 5), labels(60, 5)):
        task = "single-label" if targets.ndim == 1 else "multi-label"
        report = report_metrics(scores, targets, task, train_counts=np.array([300, 50, 20, 5, 1]))
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        for value in report.values():
            assert value is None or type(value) in (float, list)


def test_balanced_accuracy_of_answers_is_that_of_the_report():
    scores, targets = example(300, 5)
    scores, targets = scores[targets != 2], targets[targets != 2]  # some answers name the absent class
    assert (scores.argmax(1) == 2).any()
    found = report_metrics(scores, targets)["balanced_accuracy"]
    np.testing.assert_allclose(balanced_accuracy(targets, scores.argmax(1)), found, rtol=1e-12)
    scores, targets = labels(300, 4)
    targets[:, 1] = 0  # a label that no image has
    found = report_metrics(scores, targets, "multi-label")["balanced_accuracy"]
    np.testing.assert_allclose(balanced_accuracy(targets, scores > 0.5), found, rtol=1e-12)
    assert balanced_accuracy(targets * 0, scores > 0.5) is None
    with pytest.raises(ValueError, match="one shape"):
        balanced_accuracy(targets, targets[:, 0])


def test_recall_intervals_are_wilsons():
    scores, targets = example(400, 4)
    several, present = labels(300, 4)
    for report, truth, chosen in (
        (report_metrics(scores, targets), np.eye(4)[targets] > 0, np.eye(4)[scores.argmax(1)] > 0),
        (report_metrics(several, present, "multi-label"), present > 0, several > 0.5),
    ):
        z = 1.959963984540054
        for k, (low, high) in enumerate(report["recall_interval_per_class"]):
            n = truth[:, k].sum()
            right = (truth & chosen)[:, k].sum()
            middle, half = (right + z**2 / 2) / (n + z**2), z / (n + z**2) * np.sqrt(right * (n - right) / n + z**2 / 4)
            np.testing.assert_allclose([low, high], [middle - half, middle + half], rtol=1e-9)
            theirs = binomtest(int(right), int(n)).proportion_ci(method="wilson")
            assert (low, high) == (theirs.low, theirs.high) and type(low) is float is type(high)
            assert low < report["recall_per_class"][k] < high


def test_recall_intervals_of_absent_and_of_perfect_classes():
    truth = np.array([[1, 0, 0], [1, 0, 1], [1, 0, 0]], bool)
    chosen = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 0]], bool)
    [low, high], absent, [nothing, some] = recall_intervals(truth, chosen)
    z = 1.959963984540054
    assert high == 1.0 and low == pytest.approx(3 / (3 + z**2)) and absent is None
    assert nothing == 0.0 and some == pytest.approx(z**2 / (1 + z**2))
    for count in (1, 2, 36, 5000):  # all right, or none: the recall is an end of its interval, which the figures need
        truth, chosen = np.ones((count, 2), bool), np.ones((count, 1), bool) & [True, False]
        [low, high], [nothing, some] = recall_intervals(truth, chosen)
        assert high == 1.0 and 0 < low < 1 and nothing == 0.0 and 0 < some < 1
    narrow, wide = (recall_intervals(truth, chosen, confidence)[0] for confidence in (0.8, 0.99))
    assert wide[0] < narrow[0]


def test_areas_are_scikit_learns_to_the_bit():
    rng = np.random.default_rng(0)
    for count, kind in [(3, np.float32), (40, np.float16), (500, np.float16), (500, np.float32), (500, np.float64)]:
        truth = (rng.random((count, 12)) < rng.uniform(0.02, 0.9, 12)).astype(np.uint8)
        truth[0], truth[1] = 0, 1
        scores = (rng.normal(size=truth.shape) + truth).astype(kind)
        expected = [float(sk.roc_auc_score(t, s)) for t, s in zip(truth.T, scores.T, strict=True)]
        assert auc_per_class(truth, scores) == expected and macro_auc(truth, scores) == np.mean(expected)
    truth[:, 0], truth[:, 1] = 0, 1
    assert auc_per_class(truth, scores)[:3] == [None, None, expected[2]]
    assert macro_auc(truth, scores) == np.mean(expected[2:]) and macro_auc(truth * 0, scores) is None
    assert report_metrics(scores, truth, "multi-label")["macro_auc"] == macro_auc(truth, scores)


def test_calibration_error_is_its_formula():
    scores, targets = example(500, 4, dtype=np.float64)
    top, right, total = scores.max(1), scores.argmax(1) == targets, 0.0
    for low in np.arange(15) / 15:
        inside = (top > low) & (top <= low + 1 / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - top[inside].mean())
    np.testing.assert_allclose(expected_calibration_error(scores, targets), total, rtol=1e-9)
    np.testing.assert_allclose(report_metrics(scores, targets)["expected_calibration_error"], total, rtol=1e-9)


def test_calibration_error_is_small_where_scores_are_chances():
    rng = np.random.default_rng(0)
    chances = rng.random((40_000, 2))
    happened = rng.random(chances.shape) < chances
    assert expected_calibration_error(chances, happened, "multi-label") < 0.01
    bold = np.clip(0.5 + 2 * (chances - 0.5), 0, 1)
    assert expected_calibration_error(bold, happened, "multi-label") > 0.1
    assert expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0.0
    assert expected_calibration_error(np.array([[1.5, 0.0]]), np.array([0])) is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"targets": np.zeros(3, int)}, "at least one image"),
        ({"scores": np.zeros((0, 3)), "targets": np.zeros(0, int)}, "at least one image"),
        ({"scores": np.full((4, 3), np.nan)}, "4 of 4 images"),
        ({"targets": np.array([0, 1, 2, 3])}, r"0\.\.2"),
        ({"class_names": ["a", "b"]}, "2 class names"),
        ({"task": "unlabelled"}, "'unlabelled'"),
        ({"train_counts": [1, 2]}, "2 classes"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(change, message):
    good = {"scores": np.eye(3)[[0, 1, 2, 0]], "targets": np.array([0, 1, 2, 0]), "task": "single-label"}
    with pytest.raises(ValueError, match=message):
        report_metrics(**(good | change))


LABELS = np.repeat(np.arange(4), [200, 90, 40, 10])


def answers(rng, chance, labels=LABELS):
    return np.where(rng.random(len(labels)) < np.asarray(chance)[labels], labels, (labels + 1) % 4)


A = answers(np.random.default_rng(0), [0.9, 0.8, 0.7, 0.7])
B = answers(np.random.default_rng(1), [0.9, 0.6, 0.5, 0.2])


def paired_difference(labels, predictions_a, predictions_b, *more, **options):
    return paired_test_seeds(labels, [predictions_a], [predictions_b], *more, **options)[:3]


def test_the_values_are_scikit_learns():
    assert balanced_accuracy(LABELS, A) == pytest.approx(sk.balanced_accuracy_score(LABELS, A), abs=1e-12)
    expected = sk.balanced_accuracy_score(LABELS, A) - sk.balanced_accuracy_score(LABELS, B)
    assert paired_difference(LABELS, A, B)[0] == pytest.approx(expected, abs=1e-12)


def test_the_same_seed_gives_the_same_interval():
    shown = paired_difference(LABELS, A, B, balanced_accuracy, 7)
    assert shown == paired_difference(LABELS, A, B, balanced_accuracy, 7)
    assert shown != paired_difference(LABELS, A, B, balanced_accuracy, 8)
    assert all(type(value) is float for value in shown)


def test_the_width_is_that_of_the_textbook():
    # Balanced accuracy is a mean of independent shares: its variance is a sum, and so is that of a difference.
    def variance(values):
        return sum(values[LABELS == k].var() / (LABELS == k).sum() for k in range(4)) / 16

    wrong = (LABELS + 1) % 4  # against this, the difference is the metric itself
    for shown, each in (
        (paired_difference(LABELS, A, wrong, resamples=4000), (A == LABELS).astype(float)),
        (paired_difference(LABELS, A, B, resamples=4000), (A == LABELS) * 1.0 - (B == LABELS)),
    ):
        np.testing.assert_allclose(shown[2] - shown[1], 2 * 1.96 * np.sqrt(variance(each)), rtol=0.06)


def test_what_both_get_wrong_cancels():
    difficult = np.random.default_rng(3).random(len(LABELS)) < 0.4
    a, b = (np.where(difficult, (LABELS + 2) % 4, x) for x in (A, LABELS))
    high = paired_difference(LABELS, a, b)[2]
    own = [paired_difference(LABELS, x, (LABELS + 1) % 4) for x in (a, b)]  # the second is always wrong
    assert own[0][2] > own[1][1] and high < 0  # their own intervals overlap, the difference is clear


def test_a_rare_class_is_in_every_resample():
    seen = []
    labels = np.array([0] * 50 + [3])
    paired_difference(labels, labels, labels, lambda t, p: seen.append(np.bincount(t).tolist()) or 0.0, resamples=200)
    assert seen == [[50, 0, 0, 1]] * 402


def test_several_seeds():
    same = paired_test_seeds(LABELS, [A, A, A], [B, B, B], resamples=4000)[:3]
    one = paired_difference(LABELS, A, B, resamples=4000)
    assert same[0] == pytest.approx(one[0])
    np.testing.assert_allclose(same, one, atol=0.015)  # three times the same network tells no more than one
    rng = np.random.default_rng(5)
    apart = [answers(rng, chance) for chance in ([0.95] * 4, [0.7] * 4, [0.45] * 4)]
    mixed = paired_test_seeds(LABELS, apart, [B, B, B])[:3]
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
    assert paired_difference(truth, truth, 1 - truth) == (1.0, 1.0, 1.0)
    assert paired_difference(truth * 0, truth, truth) == (None, None, None)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"predictions_b": B[:-1]}, "same images"),
        ({"predictions_b": np.eye(4)[B]}, "one shape"),
        ({"labels": [], "predictions_a": [], "predictions_b": []}, "same images"),
    ],
)
def test_answers_that_do_not_fit_are_refused_in_a_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(**({"labels": LABELS, "predictions_a": A, "predictions_b": B} | change))
    with pytest.raises(ValueError, match="for each seed"):
        paired_test_seeds(LABELS, [A, A], [B])[:3]


def test_p_of_the_paired_bootstrap_is_about_that_of_a_normal_test():
    "Balanced accuracy is the mean of the classes' mean differences, so its variance can be written down."
    rng, ps = np.random.default_rng(0), []
    for gain in (0.0, 0.03, 0.06, 0.1):
        labels = np.repeat([0, 1], [300, 100])
        a, b = (np.where(rng.random(400) < share, labels, 1 - labels) for share in (0.75 + gain, 0.75))
        each = (a == labels).astype(float) - (b == labels)
        parts = [each[labels == k] for k in (0, 1)]
        error = math.sqrt(sum(part.var() / len(part) for part in parts)) / 2
        normal = 2 * NormalDist().cdf(-abs(np.mean([part.mean() for part in parts])) / error)
        ps.append((paired_test_seeds(labels, [a], [b])[3], normal))
    np.testing.assert_allclose(*zip(*ps, strict=True), atol=0.04)
    assert paired_test_seeds(LABELS, [LABELS], [(LABELS + 1) % 3])[3] == pytest.approx(2 / 2001)
