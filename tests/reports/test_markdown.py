"What the report says and draws of a run: each way a comparison can end, with nothing missing made up."

import copy
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from ssnas_colab.core.basics import UserError
from ssnas_colab.reports.example import example_report
from ssnas_colab.reports.figures import plot_confusion, plot_curves, plot_report
from ssnas_colab.reports.markdown import report_markdown
from ssnas_colab.reports.verdict import shown, verdict

FIRST_RUNS = sorted((Path(__file__).parents[2] / "nbs/research/first_runs").glob("*/report.json"))


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


def difference(value, low, high, metric="balanced_accuracy"):
    return {"metric": metric, "difference": value, "low": low, "high": high, "seeds": 1}


def of_seeds(made, differences, seeds=3, **more):
    "The hand-made report as if it were the mean over seeds."
    for one in made["models"].values():
        one["seeds"] = [{"seed": s} for s in range(seeds)]
        one["spread"] = {"balanced_accuracy": 0.012}
    return made | {"seeds": list(range(seeds)), "differences": differences, "searched_once": False} | more


def test_one_seed_gives_intervals_where_there_are_some():
    apart = {"resnet18": difference(0.05, 0.01, 0.09), "resnet_small": difference(0.1, -0.02, 0.2)}
    said = verdict(report() | {"differences": apart | {"random": difference(0.15, 0.1, 0.2)}})
    assert said.startswith("On the test set the searched network") and "±" not in said
    assert "ResNet-18 +5.0 points [+1.0, +9.0], the narrowed ResNet +10.0 points [−2.0, +20.0], the random" in said
    assert "Not shown, since the interval holds 0: any difference from the narrowed ResNet." in said
    assert said.endswith("This is one seed: the intervals know the luck of the test images, not that of training.")
    undefined = {"resnet18": difference(0.05, None, None)}
    assert verdict(report() | {"differences": undefined}) == verdict(report())


def test_several_seeds_begin_with_what_was_shown():
    found = {
        "resnet18": difference(0.05, -0.01, 0.09), "resnet_small": difference(0.1, 0.05, 0.2),
        "random": difference(0.15, 0.1, 0.2), "random_0": difference(0.1, -0.1, 0.2),
    }  # fmt: skip
    said = verdict(of_seeds(report(), found))
    assert said.startswith(
        "Shown over 3 seeds: the searched network (0.40 M parameters) has a higher balanced accuracy than the narrowed "
        "ResNet and the random genotypes. Not shown: any difference from ResNet-18."
    )
    assert "has 80.0 ± 1.2 % (mean ± standard deviation)" in said and "Random genotype" not in said
    assert "28 times fewer parameters than ResNet-18 (0.40 M against 11.20 M)" in said
    assert said.endswith("Every seed searched anew; with 3 seeds intervals are, if anything, too narrow.")
    once = verdict(of_seeds(report(), found, 8, searched_once=True))
    assert once.endswith("One search served all seeds, so the luck of the search is not in the intervals.")


def test_a_higher_mean_without_an_interval_is_not_a_result():
    found = {"resnet18": difference(0.05, -0.01, 0.1), "resnet_small": difference(0.1, -0.001, 0.2)}
    found["random"] = difference(0.15, 0.0004, 0.2)  # prints as 0.0
    said = verdict(of_seeds(report(), found))
    assert said.startswith("Nothing was shown over 3 seeds: any difference in balanced accuracy between the searched")
    assert "ResNet-18, the narrowed ResNet and the random genotypes may be chance." in said
    assert "That searching beats drawing at random is not shown." in said and "higher" not in said
    assert verdict(of_seeds(report(), {})).startswith("Nothing was shown over 3 seeds: there is no interval")
    assert "without an interval: ResNet-18" in verdict(of_seeds(report(), {"resnet_small": difference(0.1, 0.05, 0.2)}))


def test_random_genotypes_that_do_as_well_are_said_plainly_over_seeds():
    found = {"random": difference(-0.02, -0.05, 0.02)}
    said = verdict(of_seeds(report(0.7, randoms=(0.72, 0.71)), found))
    assert "The random genotypes do as well (they have 71.5 % on average): drawing at random did no worse" in said
    said = verdict(of_seeds(report(0.7, randoms=(0.8, 0.78)), {"random": difference(-0.1, -0.15, -0.05)}))
    assert said.split(". ")[0].endswith("has a lower balanced accuracy than the random genotypes")
    assert "drawing at random beat searching" in said
    said = verdict(of_seeds(report(0.7, randoms=(0.75, 0.5)), {"random": difference(0.07, 0.05, 0.1)}))
    assert "Random genotype 0 does better by the mean over the seeds." in said and "is not shown" not in said


def test_the_other_controls_are_named():
    made = report()
    made["models"] |= {"mobilenet_v3_small": model(0.9, 1_500_000), "DARTS_V2": model(0.6), "FairDARTS_b": model(None)}
    said = verdict(made)
    assert "MobileNetV3-small has 90.0 % (1.50 M parameters), higher than the searched network; the published" in said
    assert "genotype DARTS_V2 has 60.0 % (0.40 M parameters), lower than the searched network." in said
    assert "not compared: the published genotype FairDARTS_b." in said
    assert "| DARTS_V2 (published) | 400,000 |" in report_markdown(made)


def test_over_seeds_the_tables_have_spread_and_intervals():
    made = example_report(classes=5, seeds=3, mobilenet=0.05, published=("DARTS_V2",))
    page = report_markdown(made)
    own = made["models"]["searched"]
    values = [seed["accuracy"] for seed in own["seeds"]]
    assert f"| {100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f} % |" in page
    low, high = np.mean([seed["recall_interval_per_class"][0] for seed in own["seeds"]], axis=0)
    assert f" [{100 * low:.1f}, {100 * high:.1f}] |" in page and "means over the seeds" in page
    assert "| calibration error |" in page and "| latency (ms) |" in page and "over 3 seeds (0, 1, 2)" in page
    words = {1: "better", -1: "worse", 0: "not shown"}
    assert re.search(rf"\| all random genotypes \| .* \| {words[shown(made['differences']['random'])]} \|", page)
    assert "the same recipe, pretrain+finetune:" in page and "read once for each seed" in page
    own["counted"] = {"macro_auc": 2}
    assert f"{own['macro_auc']:.3f} ± {own['spread']['macro_auc']:.3f} (2 of 3 seeds)" in report_markdown(made)


@pytest.mark.parametrize("path", FIRST_RUNS, ids=lambda path: path.parent.name)
def test_old_reports_are_still_read(path):
    made = json.loads(path.read_text())
    page = report_markdown(made)
    assert page.count("## ") == 5 and "None" not in page and "latency" not in page and "±" not in page.split("##")[1]
    assert len(drawn(plot_report(made)).axes) == 2 and plot_confusion(made)
    with pytest.raises(UserError, match="There are no training curves"):
        plot_curves(made)


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


def test_error_bars_are_the_spread_over_seeds_else_the_standard_error():
    made = report(0.8, "absent", "absent", ())
    [bar] = plot_report(made).axes[0].containers
    ends = bar.lines[2][0].get_segments()[0][:, 1]
    assert np.allclose((ends[1] - ends[0]) / 2, math.sqrt(4 * 0.16 / 25) / 4)
    [bar] = plot_report(of_seeds(made, {})).axes[0].containers
    assert np.allclose(np.diff(bar.lines[2][0].get_segments()[0][:, 1]) / 2, 0.012)


def test_intervals_of_the_recalls_are_drawn_for_the_searched_network():
    made = example_report(classes=5)
    [bars] = plot_report(made).axes[1].containers
    ends = np.sort([np.sort(segment[:, 1]) for segment in bars.lines[2][0].get_segments()], axis=0)
    assert np.allclose(ends, np.sort(made["models"]["searched"]["recall_interval_per_class"], axis=0))


def test_rows_of_the_confusion_matrix_are_shares_from_the_largest_class():
    made = report(classes=3, train=[10, 300, 20])
    made["models"]["searched"]["confusion"] = [[0, 1, 3], [0, 5, 5], [0, 0, 0]]
    ax = drawn(plot_confusion(made)).axes[0]
    shares = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert np.allclose(shares, [[0.5, 0.5, 0], [np.nan] * 3, [0.25, 0.75, 0]], equal_nan=True)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c1", "c2", "c0"]
    assert sorted(text.get_text() for text in ax.texts) == sorted(["50", "50", "·", "25", "75", "·"])
    for name in ("resnet18", "nothing"):
        with pytest.raises(UserError, match=f"no confusion matrix of {name}"):
            plot_confusion(made, name)
    many = report(classes=30)
    many["models"]["searched"]["confusion"] = np.eye(30, dtype=int).tolist()
    assert not plot_confusion(many).axes[0].texts


def test_curves_leave_out_panels_that_no_model_has():
    curves = {"searched": {"finetuning_loss": [2.0, 1.0], "validation": [0.1, None]}, "resnet18": {}}
    left, right = plot_curves({"curves": curves}).axes
    assert left.lines[0].get_ydata().tolist() == [2.0, 1.0] and np.isnan(right.lines[0].get_ydata()[1])
    for nothing in ({}, {"curves": {}}, {"curves": {"searched": {"validation": []}}}):
        with pytest.raises(UserError, match="evaluate again"):
            plot_curves(nothing)


def test_class_names_are_not_read_as_mathematics():
    made = example_report(classes=3)
    made["data"]["class_names"] = ["$x^$", "100 $", r"\frac"]
    drawn(plot_report(made))
    drawn(plot_confusion(made))
