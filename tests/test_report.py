"What the report says of a run: each way a comparison can end, on hand-made numbers, with nothing missing made up."

import copy
import json
import math
import re

import numpy as np
import pytest
from matplotlib.text import Text

from ssnas_colab.core.report import plot_report, report_markdown, verdict


def model(value, parameters=400_000, classes=4, test=25, auc=0.9):
    recall = [None if value is None else value] * classes
    return {
        "parameters": parameters, "macs": 50_000_000, "seconds": 12.5, "best_epoch": 3,
        "validation": {"balanced_accuracy": value, "macro_auc": auc}, "accuracy": value, "balanced_accuracy": value,
        "macro_auc": auc, "macro_f1": value, "mean_average_precision": value, "recall_per_class": recall,
        "auc_per_class": [auc] * classes, "confusion": None, "count_per_class": [test] * classes,
        "class_names": [f"c{k}" for k in range(classes)], "many_shot_accuracy": value, "few_shot_accuracy": None,
    }  # fmt: skip


def report(searched=0.8, small=0.7, large=0.75, randoms=(0.6, 0.7), task="single-label", classes=4, train=None):
    train = train or [100 * (classes - k) for k in range(classes)]
    models = {"searched": model(searched, classes=classes)}
    models |= {} if large == "absent" else {"resnet18": model(large, 11_200_000, classes)}
    models |= {} if small == "absent" else {"resnet_small": model(small, 410_000, classes)}
    models |= {f"random_{i}": model(value, 390_000, classes) for i, value in enumerate(randoms)}
    counts = {"train": train, "val": [5] * classes, "test": [25] * classes}
    return {
        "models": models,
        "data": {
            "name": "hand-made", "task": task, "class_names": [f"c{k}" for k in range(classes)], "counts": counts,
            "images": {split: sum(n) for split, n in counts.items()}, "size": [28, 30], "channels": 1,
            "imbalance_factor": 4.0, "policy": "medical", "set_aside": 3,
        },
        "settings": {"preset": "quick", "seed": 5, "search": {"epochs": 20, "weight": {"zero_one": 2.5}}},
        "seconds": 240.0, "stage_seconds": {"search": 90.0, "searched": 30.0},
        "versions": {"ssnas_colab": "0.1.0", "torch": "2.14.1", "python": "3.11"}, "device": "cpu",
    }  # fmt: skip


def test_a_win_is_said_with_all_numbers():
    said = verdict(report())
    assert "\n" not in said
    assert "searched network (0.40 M parameters) has a balanced accuracy of 80.0 %" in said
    assert "higher than the narrowed ResNet's 70.0 % (0.41 M parameters)" in said
    assert "better than 2 of 2 random genotypes (0: 60.0 %, 1: 70.0 %; mean 65.0 %, range 60.0 % to 70.0 %)" in said
    assert "ResNet-18 has 75.0 %, lower than" in said and "28 times fewer parameters (0.40 M against 11.20 M)" in said
    assert "Not measured" not in said and "at random" not in said


def test_a_loss_is_said_plainly():
    said = verdict(report(0.5, 0.7, 0.75, (0.6, 0.4)))
    assert "lower than the narrowed ResNet's 70.0 %" in said and "ResNet-18 has 75.0 %, higher than" in said
    assert "better than 1 of 2" in said
    assert "Random genotype 0 does better: here drawing at random did no worse than searching." in said
    said = verdict(report(0.5, randoms=(0.5, 0.6, 0.7)))
    assert "better than 0 of 3" in said
    assert "Random genotype 0 does as well and random genotypes 1 and 2 do better: here" in said


@pytest.mark.parametrize("value, words", [(0.6, "better"), (0.8, "not better"), (0.9, "not better")])
def test_one_random_genotype(value, words):
    said = verdict(report(0.8, randoms=(value,)))
    assert f"It is {words} than the one random genotype measured (0: {100 * value:.1f} %)" in said
    assert ("drawing at random" in said) == (value >= 0.8) and "range" not in said


def test_values_that_print_alike_are_ties():
    said = verdict(report(0.8, 0.80004, 0.79996, (0.80001, 0.7)))
    assert "the same as the narrowed ResNet's 80.0 %" in said and "80.0 %, the same as the searched" in said
    assert "better than 1 of 2" in said and "Random genotype 0 does as well" in said


@pytest.mark.parametrize("gone", ["absent", None])
def test_a_control_that_is_missing_or_not_measured_is_not_beaten(gone):
    said = verdict(report(small=gone, large=gone, randoms=()))
    assert "Not measured, and so not compared: the narrowed ResNet, random genotypes, ResNet-18." in said
    assert not re.search("higher|lower|better|times fewer", said)
    said = verdict(report(randoms=(0.6, None)))
    assert "one random genotype measured (0: 60.0 %)" in said and "not compared: random genotype 1." in said


def test_nothing_is_said_of_a_searched_network_without_a_measure():
    for empty in (report(None), report() | {"models": {"resnet18": model(0.7)}}):
        said = verdict(empty)
        assert said == "The searched network has no balanced accuracy on the test set, so nothing can be said about it."


def test_the_uncertainty_is_binomial_per_class():
    made = report()
    own = made["models"]["searched"]
    own["recall_per_class"], own["count_per_class"] = [0.9, 0.5, None, 1.0], [100, 10, 0, 7]
    error = math.sqrt(0.09 / 100 + 0.25 / 10 + 0) / 3
    assert f"(about ±{100 * error:.1f} points" in verdict(made)
    assert verdict(made).startswith("On the test set") and "This is one seed: " in verdict(made).split(". ")[-1]
    own["recall_per_class"] = [1.0, 0.0, None, 1.0]
    assert "±" not in verdict(made) and verdict(made).endswith("means nothing.")


def test_differences_within_the_uncertainty_are_named():
    said = verdict(report(0.80, 0.79, 0.60, (0.82, 0.3)))  # standard error: sqrt(4 * 0.16 / 25) / 4 = 0.04
    assert "±4.0 points" in said
    assert said.endswith("means nothing, as here those from the narrowed ResNet and random genotype 0.")
    assert verdict(report(0.80, 0.79, 0.60, ())).endswith("means nothing, as here that from the narrowed ResNet.")
    assert verdict(report(0.80, 0.70, 0.60, (0.3,))).endswith("means nothing.")


def test_multi_label_is_judged_by_macro_auc():
    made = report(0.1, task="multi-label")
    made["models"]["searched"]["macro_auc"] = 0.95
    said = verdict(made)
    assert "macro AUC of 0.950" in said and "higher than the narrowed ResNet's 0.900" in said
    assert "better than 2 of 2" in said
    assert "±" not in said and "balanced" not in said
    page = report_markdown(made)
    assert "| mean average precision |" in page and "“no” to every label would have an accuracy of 75.0 %" in page


def test_more_parameters_than_resnet18_is_said_so():
    made = report()
    made["models"]["searched"]["parameters"] = 22_400_000
    assert "2.0 times more parameters (22.40 M against 11.20 M)" in verdict(made)


def test_the_page_holds_what_a_reader_needs():
    made = json.loads(json.dumps(report()))
    made["models"]["searched"] |= {"genotype": "Genotype(normal=[])", "width": 12, "depth": 8}
    before = copy.deepcopy(made)
    page = report_markdown(made)
    assert made == before
    assert page.split("\n\n")[:2] == ["# hand-made: a searched network and its controls", verdict(made)]
    for text in (
        "](report.png)",
        "| ResNet, narrowed | 410,000 | 50.00 | 70.0 % | 70.0 % | 0.900 | 0.700 | 70.0 % | 12 |",
        "| c0 | 400 | 25 | 80.0 % | 75.0 % | 70.0 % | 60.0 % | 70.0 % |",
        "28 x 30 pixels, 1 channel;",
        "set aside as unreadable: 3",
        "always answers “c0”, the largest class in training, would have an accuracy of 25.0 %",
        "1,000 training, 20 validation, 100 test",
        "- run: preset quick, seed 5",
        "- search: epochs 20, weight.zero_one 2.5",
        "4 min in all on cpu (search 2 min, searched 30.0 s)",
        "ssnas_colab 0.1.0, torch 2.14.1, python 3.11",
        "Validation chose the epoch of each model; the test set was read once.",
        "(width 12, depth 8):\n\n```\nGenotype(normal=[])\n```",
        "Imbalance factor in training (largest class / smallest): 4.",
    ):
        assert text in page, text
    assert "few-shot accuracy" not in page and "None" not in page


def test_classes_are_listed_from_the_largest_and_cut_in_the_middle():
    made = report(classes=100, train=list(range(1, 101)))
    rows = re.findall(r"^\| (c\d+|…) \|", report_markdown(made), re.M)
    assert rows == [f"c{k}" for k in range(99, 89, -1)] + ["…"] + [f"c{k}" for k in range(9, -1, -1)]
    assert len(re.findall(r"^\| c\d+ \|", report_markdown(report(classes=20)), re.M)) == 20


def test_a_class_name_cannot_break_the_table():
    made = report()
    made["data"]["class_names"][0] = "a|b"
    assert "| a\\|b | 400 |" in report_markdown(made)


def drawn(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()
    return figure


def boxes(texts, figure):
    "Where texts stand; lines that tie a label to its point do not count."
    renderer = figure.canvas.get_renderer()
    return [Text.get_window_extent(text, renderer) for text in texts if text.get_text() and text.get_visible()]


@pytest.mark.parametrize("classes, factor", [(2, 9), (3, 30), (10, 100), (20, 1), (100, 100), (4, 12)])
@pytest.mark.parametrize("randoms", [(), (0.8, 0.8), tuple(np.linspace(0.5, 0.8, 12))])
def test_pictures_have_no_overlapping_labels(classes, factor, randoms):
    from matplotlib import pyplot

    train = [round(1000 * factor ** (-k / (classes - 1))) for k in range(classes)]
    figure = drawn(plot_report(report(0.8, 0.8, 0.8, randoms, classes=classes, train=train)))
    assert not pyplot.get_fignums() and figure.dpi == 75
    left, right = figure.axes
    assert len(left.texts) == 3 + len(randoms)
    for texts in (left.texts, right.get_xticklabels() + right.get_xticklabels(minor=True), left.get_xticklabels()):
        found = boxes(texts, figure)
        assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])
    assert (right.get_xscale() == "log") == (factor > 10)
    assert all(left.bbox.y0 - 9 < box.y0 and box.y1 < left.bbox.y1 + 9 for box in boxes(left.texts, figure))
    edge = right.get_tightbbox(figure.canvas.get_renderer())
    assert all(box.x1 <= edge.x0 for box in boxes(left.texts, figure)) and edge.x1 <= figure.bbox.x1


def test_ticks_are_plain_where_all_sizes_are_close():
    left = drawn(plot_report(report(large="absent"))).axes[0]
    assert not any(text.get_text() for text in left.get_xticklabels(minor=True))
    assert [text.get_text() for text in left.get_xticklabels() if text.get_text()]


def test_pictures_of_reports_with_gaps():
    gaps = report(None, None, "absent", (0.5, None))
    gaps["data"]["counts"]["train"][-1] = 0
    alone = report(0.8, "absent", "absent", ())
    none = report(None, "absent", "absent", ())
    for made in (gaps, alone, none, report(task="multi-label")):
        drawn(plot_report(made))
        assert "None" not in report_markdown(made)
    assert [t.get_text() for t in plot_report(gaps).axes[0].texts] == ["random genotype 0  50.0 %"]
