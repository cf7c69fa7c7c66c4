"Several seeds become one report, and several runs one table: numbers by hand, and refusals of what does not belong."

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest

from ssnas_colab.core.basics import UserError
from ssnas_colab.reports.compare import aggregate, compare, seeds_of

from .hand_made import as_markdown
from .made_up import example_report

FIRST_RUNS = sorted((Path(__file__).parents[2] / "nbs/research/first_runs").glob("*/report.json"))


def model(accuracy, few=None, **more):
    return {
        "parameters": 400_000, "macs": 5_000_000, "latency_ms": 2.0, "seconds": 10.0, "best_epoch": 3,
        "validation": {"balanced_accuracy": accuracy, "macro_auc": None}, "accuracy": accuracy, "loss": "focal",
        "balanced_accuracy": accuracy, "macro_auc": 0.9, "few_shot_accuracy": few, "seed": 7,
        "genotype": f"G{accuracy}", "width": 12, "recall_per_class": [accuracy, None], "count_per_class": [5, 0],
        "confusion": [[1, 2], [0, 0]], "recall_interval_per_class": [[accuracy - 0.1, accuracy + 0.1], None],
        "class_names": ["a", "b"],
    } | more  # fmt: skip


def report(accuracy=0.5, seed=0, few=None, **more):
    counts = {"train": [10, 5], "test": [5, 0]}
    return {
        "models": {"searched": model(accuracy, few), "resnet18": model(accuracy - 0.1, few, parameters=11_000_000)},
        "curves": {"searched": {"validation": [accuracy]}},
        "data": {
            "name": "hand-made", "task": "single-label", "class_names": ["a", "b"], "counts": counts, "channels": 1,
            "images": {"train": 15, "test": 5}, "size": [8, 8], "imbalance_factor": 2.0, "policy": "natural",
            "set_aside": 0,
        },
        "settings": {"preset": "quick", "seed": seed, "search": {"steps": 10, "seed": seed}},
        "seeds": [seed], "searched_once": False, "recipe": "scratch", "seconds": 30.0,
        "stage_seconds": {"search": 20.0, "evaluation": 10.0}, "versions": {"torch": "2.14"}, "device": "cpu",
        "threads": 1,
    } | more  # fmt: skip


def test_means_spreads_and_sums_are_those_by_hand():
    first = report(0.5)
    before = copy.deepcopy(first)
    made = aggregate([first, report(0.6, 1), report(0.8, 2)], {"resnet18": {"difference": 0.1}})
    assert first == before and json.loads(json.dumps(made)) == made
    own = made["models"]["searched"]
    assert own["accuracy"] == own["validation"]["balanced_accuracy"] == pytest.approx(1.9 / 3)
    assert own["spread"]["accuracy"] == pytest.approx(np.std([0.5, 0.6, 0.8], ddof=1))
    assert own["spread"]["macro_auc"] == 0
    assert own["recall_per_class"] == [pytest.approx(1.9 / 3), None] and own["count_per_class"] == [5, 0]
    assert own["recall_interval_per_class"][0] == pytest.approx([1.9 / 3 - 0.1, 1.9 / 3 + 0.1])
    assert own["recall_interval_per_class"][1] is None and own["validation"]["macro_auc"] is None
    assert own["confusion"] == [[3, 6], [0, 0]] and own["genotype"] == "G0.5" and own["width"] == 12
    assert own["parameters"] == 400_000 and own["loss"] == "focal" and "seed" not in own
    assert [(one["seed"], one["accuracy"], one["genotype"]) for one in own["seeds"]] == [
        (0, 0.5, "G0.5"), (1, 0.6, "G0.6"), (2, 0.8, "G0.8"),
    ]  # fmt: skip
    assert made["seeds"] == [0, 1, 2] and made["seconds"] == 90 and made["stage_seconds"]["search"] == 60
    assert made["curves"] == first["curves"] and made["differences"] == {"resnet18": {"difference": 0.1}}
    assert "None" not in as_markdown(made | {"differences": {}})


def test_a_metric_that_some_seeds_lack_is_averaged_over_the_others_and_counted():
    made = aggregate([report(0.5, 0, 0.2), report(0.6, 1), report(0.8, 2, 0.4)])
    own = made["models"]["searched"]
    assert own["few_shot_accuracy"] == pytest.approx(0.3) and own["counted"] == {"few_shot_accuracy": 2}
    assert own["spread"]["few_shot_accuracy"] == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert "30.0 ± 14.1 % (2 of 3 seeds)" in as_markdown(made)
    own = aggregate([report(0.5), report(0.6, 1, 0.3)])["models"]["searched"]  # one seed alone has no spread
    assert own["few_shot_accuracy"] == 0.3 and "few_shot_accuracy" not in own["spread"]
    own = aggregate([report(0.5), report(0.6, 1)])["models"]["searched"]
    assert own["few_shot_accuracy"] is None and "counted" not in own


def test_parameters_of_different_genotypes_are_rounded_means():
    reports = [report(0.5), report(0.6, 1)]
    reports[1]["models"]["searched"] |= {"parameters": 400_001, "macs": 5_000_003}
    own = aggregate(reports)["models"]["searched"]
    assert own["parameters"] == 400_000 and own["macs"] == 5_000_002 and isinstance(own["parameters"], int)


def test_one_seed_stays_as_it_is_and_order_of_putting_together_does_not_matter():
    one = report()
    assert aggregate([one]) == one and "spread" not in aggregate([one])["models"]["searched"]
    three = [report(0.5), report(0.6, 1), report(0.8, 2)]
    assert aggregate([aggregate(three[:2]), three[2]]) == aggregate(three)


def changed(made, *path, to):
    "A copy of the report with another value in one place."
    place = made = copy.deepcopy(made)
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return made


@pytest.mark.parametrize(
    "other, words",
    [
        (changed(report(0.6, 1), "settings", "search", "steps", to=11), "settings .*: search.steps is 10 and 11$"),
        (changed(report(0.6, 1), "settings", "search", "new", to=1), "search.new is not set and 1$"),
        (changed(report(0.6, 1), "recipe", to="knn"), "recipe is scratch and knn$"),
        (changed(report(0.6, 1), "data", "name", to="other"), "data .*: name is hand-made and other$"),
        (changed(report(0.6, 1), "data", "counts", "train", to=[9, 5]), "data .*: counts"),
        (changed(report(0.6, 1), "models", to={"searched": model(0.6)}), "same models: resnet18 is missing from some"),
        (report(0.6, 0), "of seed 0: each seed counts once"),
        ({"data": {}}, "Report 2 is not the report of an evaluation"),
    ],
)
def test_what_does_not_belong_together_is_named(other, words):
    with pytest.raises(UserError, match=words):
        aggregate([report(), other])


def test_no_report_is_refused():
    for function in (aggregate, compare):
        with pytest.raises(UserError, match="There is no report"):
            function({} if function is not aggregate else [])
    with pytest.raises(UserError, match="^runs/x is not the report"):
        compare({"runs/x": {"models": {}}})


def cells(text, first):
    "The cells of the table's row that begins with `first`."
    [row] = re.findall(rf"^\| {re.escape(first)} \|(.*) \|$", text, re.M)
    return [cell.strip() for cell in row.split(" | ")]


def test_runs_that_differ_by_the_seed_alone_share_a_row():
    wider = changed(report(0.9, 1), "settings", "search", "steps", to=20)
    text = compare({"a": report(0.5), "b": report(0.7, 1), "long": wider})
    assert cells(text, "a, b")[:3] == ["60.0 ± 14.1 %", "**5.00**", "**400,000**"]
    assert cells(text, "long")[0] == "**90.0 % [80.0, 100.0]**" and cells(text, "long")[-1] == "seed 1"
    assert cells(text, "a, b")[-2:] == ["50.0 ± 14.1 %", "2: 0, 1"] and "different sets" not in text
    assert cells(text, "search.steps") == ["10", "20"] and "search.seed" not in text
    assert "| run | balanced accuracy | MACs (M) | parameters | accuracy |" in text


def test_the_sign_of_the_interval_stands_beside_a_control_and_seeds_only_where_they_tell_something():
    apart = {"metric": "balanced_accuracy", "difference": 0.1, "low": 0.02, "high": 0.2}
    text = compare({"a": report() | {"differences": {"resnet18": apart}}, "b": report(0.6)})
    assert cells(text, "a")[-1] == "40.0 % ✓" and cells(text, "b")[-1] == "50.0 %"
    assert "✓ the searched network is better" in text and "seed" not in text
    assert "no sign" not in compare({"a": report(), "b": report(0.6)})


def test_repetitions_and_runs_with_other_models_are_rows_of_their_own():
    text = compare({"a": report(0.5), "again": report(0.5)})
    assert cells(text, "a") == cells(text, "again") and "All settings are the same." in text
    models = {"searched": model(0.6), "random_0": model(0.2), "random_1": model(0.4)}
    fewer = changed(report(0.6, 1), "models", to=models)
    text = compare({"a": report(0.5), "b": fewer})
    assert cells(text, "a")[-3:-1] == ["40.0 %", "–"]
    assert cells(text, "b")[-3:] == ["–", "30.0 % (mean of 2)", "seed 1"]


def test_data_sets_are_not_mixed():
    other = changed(report(0.6, 1), "data", "name", to="o|ther")
    text = compare({"a": report(0.5), "b": other})
    assert text.startswith("These runs are on 2 different sets of data, whose numbers do not compare.")
    assert text.index("## hand-made") < text.index("| a |") < text.index("## o|ther") < text.index("| b |")


def test_versions_and_devices_that_differ_are_listed():
    other = report(0.6, 1) | {"versions": {"torch": "2.11"}, "device": "cuda", "threads": 2}
    other["settings"]["search"]["steps"] = 20
    text = compare({"a": report(0.5), "b|c": other})
    assert cells(text, "version of torch") == ["2.14", "2.11"] and cells(text, "device") == ["cpu", "cuda"]
    assert "b\\|c" in text


def test_reports_of_several_seeds_and_old_ones_compare():
    several = example_report(classes=3, seeds=2, task="multi-label")
    text = compare({"several": several, "third": example_report(classes=3, seed=2, task="multi-label")})
    assert cells(text, "several, third")[-1] == "3: 0, 1, 2" and "| run | macro AUC | few-shot recall | MACs" in text
    old = {path.parent.name: json.loads(path.read_text()) for path in FIRST_RUNS}
    assert (
        "None" not in compare(old)
        and "seed" not in compare(old)
        and [seeds_of(made) for made in old.values()] == [[0], [0]]
    )
