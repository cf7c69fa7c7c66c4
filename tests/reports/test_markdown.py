"The report as Markdown holds what a reader needs, of reports of every age."

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest

from ssnas_colab.core.basics import UserError
from ssnas_colab.reports.figures import confusion_picture, plot_curves, plot_report
from ssnas_colab.reports.verdict import JUDGED, SYMBOLS, significance, verdict_sentences

from .hand_made import as_markdown, drawn, report
from .made_up import example_report

FIRST_RUNS = sorted((Path(__file__).parents[2] / "nbs/research/first_runs").glob("*/report.json"))


def test_over_seeds_the_tables_have_spread_and_intervals():
    made = example_report(classes=5, seeds=3, mobilenet=0.05, published=("DARTS_V2",))
    page = as_markdown(made)
    own = made["models"]["searched"]
    values = [seed["accuracy"] for seed in own["seeds"]]
    assert f"| {100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f} % |" in page
    low, high = np.mean([seed["recall_interval_per_class"][0] for seed in own["seeds"]], axis=0)
    assert f" [{100 * low:.1f}, {100 * high:.1f}] |" in page and "means over the seeds" in page
    assert "| calibration error |" in page and "| latency (ms) |" in page and "over 3 seeds (0, 1, 2)" in page
    sign = significance(made["differences"]["random"])
    assert re.search(rf"\| all random genotypes \| {SYMBOLS[sign]} {JUDGED[sign]} \|", page)
    assert "the same recipe, pretrain+finetune:" in page and "read once for each seed" in page
    own["counted"] = {"macro_auc": 2}
    assert f"{own['macro_auc']:.3f} ± {own['spread']['macro_auc']:.3f} (2 of 3 seeds)" in as_markdown(made)


@pytest.mark.parametrize("path", FIRST_RUNS, ids=lambda path: path.parent.name)
def test_old_reports_are_still_read(path):
    made = json.loads(path.read_text())
    page = as_markdown(made)
    assert page.count("## ") == 7 and "None" not in page and "latency" not in page and "±" not in page.split("##")[1]
    assert len(drawn(plot_report(made)).axes) == 2 and confusion_picture(made)
    with pytest.raises(UserError, match="There are no training curves"):
        plot_curves(made)


def test_the_page_holds_what_a_reader_needs():
    made = json.loads(json.dumps(report()))
    made["models"]["searched"] |= {"genotype": "Genotype(normal=[])", "width": 12, "depth": 8}
    before = copy.deepcopy(made)
    page = as_markdown(made)
    assert made == before
    first, *rest = verdict_sentences(made)
    title = "# hand-made: a searched network and its controls"
    assert page.split("\n\n")[:3] == [title, f"**{first}**", " ".join(rest)]
    for text in (
        "](report.png)",
        "| ResNet, narrowed | 70.0 % | **50.00** | 410,000 | 70.0 % | **0.900** | 0.700 | 70.0 % | 12 |",
        "| c0 | 400 | 25 | 80.0 % | 75.0 % | 70.0 % | 60.0 % | 70.0 % |",
        "28 x 30 pixels, 1 channel;",
        "set aside as unreadable: 3",
        "always answers “c0”, the largest class in training, would have an accuracy of 25.0 %",
        "1,000 training, 20 validation, 100 test",
        "- run: preset cpu, seed 5",
        "- search: epochs 20, weight.zero_one 2.5",
        "4 min 0 s in all on cpu (search 1 min 30 s, searched 30 s)",
        "ssnas_colab 0.1.0, torch 2.14.1, python 3.11",
        "Validation chose the epoch of each model; the test set was read once.",
        "(width 12, depth 8):\n\n```\nGenotype(normal=[])\n```",
        "Imbalance factor in training (largest class / smallest): 4.",
    ):
        assert text in page, text
    assert "few-shot recall" not in page and "None" not in page


def test_classes_are_listed_from_the_largest_and_cut_in_the_middle():
    made = report(classes=100, train=list(range(1, 101)))
    rows = re.findall(r"^\| (c\d+|…) \|", as_markdown(made), re.M)
    assert rows == [f"c{k}" for k in range(99, 89, -1)] + ["…"] + [f"c{k}" for k in range(9, -1, -1)]
    assert len(re.findall(r"^\| c\d+ \|", as_markdown(report(classes=20)), re.M)) == 20


def test_a_class_name_cannot_break_the_table():
    made = report()
    made["data"]["class_names"][0] = "a|b"
    assert "| a\\|b | 400 |" in as_markdown(made)
