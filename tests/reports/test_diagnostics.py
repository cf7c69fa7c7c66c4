"What a report says of thresholds, curves, calibration and mistakes, against scikit-learn and formulas."

import copy
import dataclasses
import json

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.dummy import DummyClassifier

from ssnas_colab.core.basics import UserError
from ssnas_colab.core.forms import require_form_of
from ssnas_colab.data.summary import known_images
from ssnas_colab.experiment.run import Run
from ssnas_colab.reports.build import differences, report_view
from ssnas_colab.reports.compare import aggregate, compare
from ssnas_colab.reports.diagnostics import (
    GRID,
    confident_mistakes,
    diagnose,
    operating_table,
    people_sentences,
    prior_metrics,
    read_prevalence,
)
from ssnas_colab.reports.figures import plot_diagnostics, plot_mistakes
from ssnas_colab.reports.pages import report_markdown, report_page
from ssnas_colab.stages.loader import load_data
from ssnas_colab.training.comparisons import auc_difference
from ssnas_colab.training.metrics import report_metrics

from .made_up import example_report

CLASSES = ["no finding", "nodule", "mass"]


def scores_and_truth(classes=3, images=240, seed=0, decimals=2):
    "Scores with ties, and the truth."
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, images)
    logits = rng.normal(0, 1, (images, classes)) + 1.3 * np.eye(classes)[truth]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return scores.round(decimals), truth


def with_diagnostics(report, classes=None):
    "A made-up report whose networks kept their scores."
    report = copy.deepcopy(report)
    for i, model in enumerate(report["models"].values()):
        count = len(report["data"]["class_names"])
        scores, truth = scores_and_truth(count, 400, seed=i)
        names, kept = report["data"]["class_names"], {"temperature": 1.4, "thresholds": [0.3] * count}
        model |= kept | diagnose(scores, truth, "single-label", names, **kept)
    report["floor"] = {"accuracy": 0.3, "balanced_accuracy": 0.1, "macro_auc": 0.5}
    report["mistakes"] = [{"truth": "a", "answer": "b", "score": 0.9876}]
    return report


def test_rates_at_a_threshold_are_those_of_a_confusion_matrix():
    scores, truth = scores_and_truth()
    found = diagnose(scores, truth, "single-label", CLASSES, temperature=1.0, thresholds=[0.3001, 0.4001, None])
    assert [point["class"] for point in found["operating_points"]] == [0, 1]
    calibrated = scores / scores.sum(1, keepdims=True)  # a temperature of 1 makes them add up to 1
    for point in found["operating_points"]:
        k = point["class"]
        tn, fp, fn, tp = sk.confusion_matrix(truth == k, calibrated[:, k] >= point["threshold"]).ravel()
        assert (point["tp"], point["fn"], point["tn"], point["fp"]) == (tp, fn, tn, fp)
        shares = {"sensitivity": (tp, tp + fn), "specificity": (tn, tn + fp), "ppv": (tp, tp + fp)}
        for key, (hits, of) in shares.items():
            z, share = 1.959963984540054, hits / of
            middle, root = share + z * z / (2 * of), z * np.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
            wilson = [share, *((middle + sign * root) / (1 + z * z / of) for sign in (-1, 1))]
            np.testing.assert_allclose(point[key], wilson, rtol=1e-9)


@pytest.mark.parametrize("decimals", [1, 6])
def test_curves_lie_on_those_of_scikit_learn(decimals):
    scores, truth = scores_and_truth(2, decimals=decimals)
    found, grid = diagnose(scores, truth, "single-label", ["no", "yes"], thresholds=[0.5, 0.5]), np.linspace(0, 1, GRID)
    false, true, _ = sk.roc_curve(truth, scores[:, 1], drop_intermediate=False)
    reached = np.array([true[false <= x + 1e-12].max() for x in grid])
    assert (np.array(found["roc"]) >= reached - 1e-4).all()
    if decimals == 6:  # without ties it is a staircase
        np.testing.assert_allclose(found["roc"], reached, atol=1e-4)
    assert np.trapezoid(found["roc"], grid) == pytest.approx(sk.auc(false, true), abs=0.01)
    precision, recall, _ = sk.precision_recall_curve(truth, scores[:, 1], drop_intermediate=False)
    wanted = [precision[np.flatnonzero(recall >= x - 1e-12)[-1]] for x in grid[1:]]  # from the highest recall down
    np.testing.assert_allclose(found["precision_recall"][1:], wanted, atol=1e-4)
    [_, (area, low, high)] = found["auc_interval_per_class"]
    assert low < area < high and area == pytest.approx(sk.roc_auc_score(truth, scores[:, 1]))
    points = [point["class"] for point in found["operating_points"]]
    assert points == [1]  # of two classes one is asked for


def test_labels_that_nobody_knows_count_for_nothing():
    scores, truth = scores_and_truth()
    labels = np.eye(3, dtype=np.int8)[truth]
    labels[::3, 1] = -1
    found = diagnose(scores, labels, "multi-label", CLASSES, thresholds=[0.3, 0.4, 0.5])
    known = labels[:, 1] >= 0
    point = found["operating_points"][1]
    assert sum(point[key] for key in ("tp", "fn", "tn", "fp")) == known.sum()
    assert found["auc_interval_per_class"][1][0] == pytest.approx(sk.roc_auc_score(labels[known, 1], scores[known, 1]))
    wrong = confident_mistakes(scores, labels, "multi-label", CLASSES)
    assert len(wrong) == int((labels >= 0).sum() - ((scores > 0.5) == labels)[labels >= 0].sum())
    assert [row["score"] for row in wrong] == sorted((row["score"] for row in wrong), reverse=True)
    assert {row["truth"] for row in wrong} & {"no nodule", "nodule"}


def test_the_floor_is_a_classifier_of_shares():
    data = load_data("digits", imbalance_factor=10)
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((len(data.labels["train"]), 1)), data.labels["train"])
    wanted = report_metrics(dummy.predict_proba(np.zeros((len(data.labels["test"]), 1))), data.labels["test"])
    found = prior_metrics(data.labels["test"], data.task, data.class_names, data.counts(), known_images(data))
    for key in ("accuracy", "balanced_accuracy", "macro_auc", "mean_average_precision", "expected_calibration_error"):
        assert found[key] == pytest.approx(wanted[key]), key


def test_a_report_shows_all_of_it_and_says_what_is_missing():
    made = with_diagnostics(example_report(classes=4, seeds=1))
    made["data"]["policy"] = "natural"
    require_form_of("report.json", json.loads(json.dumps(made)))
    view = report_view(made)
    text, page = report_markdown(view), report_page(view)
    for told in ("threshold", "sensitivity", "calibration error before", "98.8 %", "class frequencies alone", "Youden"):
        assert told in text and told in page, told
    assert view.people[0].startswith("Of 100 images like these") and view.people[0] in page
    assert page.count("<img") == 8 and len(operating_table(made)[1]) == 4
    assert "fewer than ten" not in view.operating_note
    made["data"]["counts"]["val"][2] = 9
    assert "Validation had fewer than ten images of class 2:" in report_view(made).operating_note
    del made["models"]["random_0"]["operating_points"]
    assert "Without operating points, curves and calibration: random genotype 0" in report_view(made).operating_note
    old = report_view(example_report(classes=4, seeds=1))
    assert not old.people and not old.operating[1] and "kept no scores" in old.operating_note
    with pytest.raises(UserError, match="kept its scores"):
        plot_diagnostics(example_report(classes=4, seeds=1))


def test_two_classes_have_a_row_a_network_and_patients():
    made = with_diagnostics(example_report(classes=2, seeds=1))
    made["data"] |= {"class_names": ["covid", "normal"], "policy": "chest"}
    for model in made["models"].values():
        scores, truth = scores_and_truth(2)
        kept = {"temperature": 1.0, "thresholds": [0.4, 0.6], "prevalence": {0: 0.001}}
        model |= diagnose(scores, truth, "single-label", ["covid", "normal"], **kept)
    head, rows = operating_table(made)
    assert head[0] == "model" and len(rows) == len(made["models"]) and made["models"]["searched"]["roc"]
    [told] = people_sentences(made)
    assert told.startswith("Of 1,000 patients like these 1 has covid")
    assert "covid: 0.1 %" in report_view(made).operating_note


def test_seeds_become_one():
    reports = [with_diagnostics(example_report(classes=3, seeds=1, seed=seed)) for seed in (0, 1)]
    reports[1]["models"]["searched"]["operating_points"][0]["sensitivity"] = [1.0, 1.0, 1.0]
    first = reports[0]["models"]["searched"]["operating_points"][0]["sensitivity"][0]
    both = aggregate(reports)
    model = both["models"]["searched"]
    assert model["operating_points"][0]["sensitivity"][0] == pytest.approx((first + 1) / 2)
    assert model["reliability"] == reports[0]["models"]["searched"]["reliability"]
    assert len(model["roc"]) == GRID and "roc" not in model["seeds"][0]
    require_form_of("report.json", json.loads(json.dumps(both)))
    assert "means over 2 seeds, each network at its own threshold" in report_markdown(report_view(both))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.02", "of no class, and there are several: write NAME=0.02"),
        ("flu=0.1", "no class 'flu'"),
        ("mass=1", "between 0 and 1"),
        ("mass=often", "between 0 and 1"),
    ],
)
def test_a_prevalence_that_means_nothing(text, said):
    with pytest.raises(UserError, match=said):
        read_prevalence(text, "single-label", tuple(CLASSES))


def test_pictures_of_mistakes():
    rows = [{"image": 0, "truth": "x" * 40, "answer": "$y$", "score": 0.99}] * 3
    figure = plot_mistakes(np.zeros((3, 3, 8, 8), np.uint8), rows)
    figure.canvas.draw()
    assert len(figure.axes) == 3


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_differences_are_tested_and_corrected(task, tmp_path):
    data, run, rng = load_data("digits"), Run.open(tmp_path / "run", {"seed": 0}), np.random.default_rng(0)
    truth = (data.labels["test"] < 3).astype(np.int64)
    labels = {"test": truth if task == "single-label" else truth[:, None].astype(np.uint8)}
    names = ("many", "few") if task == "single-label" else ("few",)
    data = dataclasses.replace(data, task=task, labels=labels, class_names=names)
    scores = {}
    for name, gain in {"searched": 2.0, "resnet18": 1.2, "random_0": 1.9, "random_1": 1.5}.items():
        score = 1 / (1 + np.exp(1 - rng.normal(gain * truth, 1)))
        scores[name] = np.stack([1 - score, score], 1) if task == "single-label" else score[:, None]
        answers = scores[name].argmax(1) if task == "single-label" else scores[name]
        run.save_arrays(f"models/{name}.npz", answers=answers, test=scores[name], val=scores[name])
    found = differences(data, [run], list(scores))
    areas = found["resnet18"]["auc"] if task == "single-label" else found["resnet18"]
    delong = auc_difference(truth, scores["searched"][:, -1], scores["resnet18"][:, -1])
    assert areas["p"] == pytest.approx(delong[3], rel=1e-6) and areas["difference"] == pytest.approx(delong[0])
    tested = {name: one for name, one in found.items() if "p_corrected" in one}
    assert set(tested) == {"resnet18", "random"} and "p_corrected" not in found["random_0"]
    ps = sorted(one["p"] for one in tested.values())
    corrected = sorted(one["p_corrected"] for one in tested.values())
    assert corrected == pytest.approx([min(1, 2 * ps[0]), max(min(1, 2 * ps[0]), ps[1])])
    require_form_of("report.json", json.loads(json.dumps({"models": {}, "differences": found})))


@pytest.mark.parametrize("classes", [2, 4])
def test_runs_side_by_side_have_the_same_tables(classes):
    "Operating points, areas and corrected p of a comparison are those of each report."
    one = with_diagnostics(example_report(classes=classes, seeds=1))
    for found in one["differences"].values():
        found |= {"p": 0.01, "p_corrected": 0.0421, "seeds": 1}
        found["auc"] = {"difference": 0.0123, "low": -0.01, "high": 0.03, "p": 0.2, "p_corrected": 0.3456}
    other = copy.deepcopy(one)
    other["settings"]["evaluation"] = {"finetune_steps": 9}
    text = compare({"runs/one": one, "runs/other": other})
    head, rows = operating_table(one)
    own = [row for row in rows if str(row[0]).startswith("▸")] if classes == 2 else rows
    for run in ("runs/one", "runs/other"):
        for row in own:
            cells = row[1:] if classes == 2 else row
            assert f"| {run} | {' | '.join(map(str, cells))} |" in text
        count = sum(found["p_corrected"] == 0.0421 for found in one["differences"].values())
        told = [line for line in text.splitlines() if line.startswith(f"| {run} |") and " | 0.042 | " in line]
        assert len(told) == count > 0 and all(line.endswith("| +0.012 [−0.010, +0.030] | 0.346 |") for line in told)
    assert ("AUC" in head) and "Operating points of the searched networks" in text and "p, corrected" in text
    plain = compare({"a": example_report(classes=classes, seeds=1)})
    assert "Operating points" not in plain


def test_labels_whose_scores_lie_close_are_compared_as_they_are(tmp_path):
    "In half precision, in which `answers` are kept, those of a hardly trained network are all the same."
    data, run, rng = load_data("digits"), Run.open(tmp_path / "run", {"seed": 0}), np.random.default_rng(0)
    truth = (data.labels["test"] < 3).astype(np.uint8)[:, None]
    data = dataclasses.replace(data, task="multi-label", labels={"test": truth}, class_names=("few",))
    kept = {}
    for name, gain in {"searched": 3e-5, "resnet18": 0.0}.items():
        kept[name] = (0.5 + gain * truth + 1e-5 * rng.normal(size=truth.shape)).astype(np.float32)
        run.save_arrays(f"models/{name}.npz", answers=kept[name].astype(np.float16), test=kept[name], val=kept[name])
    found = differences(data, [run], list(kept))["resnet18"]
    areas = [sk.roc_auc_score(truth[:, 0], scores[:, 0]) for scores in kept.values()]
    assert found["difference"] == pytest.approx(areas[0] - areas[1]) and found["difference"] > 0.3
    assert found["low"] > 0.3 and found["p"] < 1e-6
