"What is said of a run: each way a comparison can end, by the interval alone, with nothing missing made up."

import json
import math
import re
from pathlib import Path

import pytest

from ssnas_colab.reports.build import differences_table, models_table
from ssnas_colab.reports.verdict import JUDGED, Best, balanced_interval, mark_best, significance, verdict
from ssnas_colab.reports.verdict import verdict_sentences as sentences

from .hand_made import as_markdown, difference, model, of_seeds, report
from .made_up import example_report

LONG_RUNS = sorted((Path(__file__).parents[2] / "nbs/research/does_it_hold").glob("*/report.json"))


def judged(made, **differences):
    "The report with paired intervals: resnet18=(0.05, 0.01, 0.09)."
    return made | {"differences": {name: difference(*three) for name, three in differences.items()}}


BETTER, ALIKE, WORSE = B, S, W = (0.1, 0.02, 0.2), (0.1, -0.02, 0.2), (-0.1, -0.2, -0.02)


@pytest.mark.parametrize(
    "resnet18, small, random, first",
    [
        (B, B, B, "✓ Take the searched network: it is better than A, B and R"),
        (S, B, S, "✓ Take the searched network: it is better than B, and cannot be told apart from A and R"),
        (S, S, S, "– Choose by size and work: the searched network cannot be told apart from A, B and R"),
        (W, B, S, "– Take the searched network where 0.40 M parameters must do, else A: the searched network "
         "is better than B and worse than A, and cannot be told apart from R"),
        (B, W, S, "✗ Take B: the searched network is better than A and worse than B, and cannot be told "
         "apart from R"),
        (B, B, W, "✗ Take a random genotype, which costs no search: the searched network is better than A "
         "and B and worse than R"),
    ],
)  # fmt: skip
def test_the_first_sentence_is_one_to_act_on(resnet18, small, random, first):
    made = judged(report(), resnet18=resnet18, resnet_small=small, random=random)
    for letter, name in (("A", "ResNet-18"), ("B", "the narrowed ResNet"), ("R", "the random genotypes")):
        first = re.sub(rf"\b{letter}\b", name, first)
    first += " (balanced accuracy)."
    assert sentences(made)[0] == first and as_markdown(made).split("\n\n")[1] == f"**{first}**"
    quick = made | {"settings": {"preset": "quick"}}
    assert sentences(quick)[0].startswith("– The quick preset shows the whole way and proves nothing: before you")
    assert sentences(quick)[1].startswith("In this try the searched network ")


@pytest.mark.parametrize("make", [report, lambda: report(0.5), lambda: of_seeds(report(), {})])
def test_without_an_interval_there_are_numbers_and_no_judgement(make):
    made = make()
    said = verdict(made)
    assert said.startswith("– Nothing is judged: no difference from a control has an interval, and numbers alone")
    assert not re.search("better|worse|higher|lower|told apart|beat|too narrow", said)
    assert "Without an interval, and so not judged: ResNet-18 75.0 % (11.20 M parameters), the narrowed ResNet" in said
    assert verdict(made | {"differences": {"resnet18": difference(0.05, None, None)}}) == said


@pytest.mark.parametrize("path", LONG_RUNS, ids=lambda path: path.parent.name)
def test_the_words_are_those_of_the_table(path):
    made = json.loads(path.read_text())
    said = " ".join(sentences(made)[:2])
    for (name, found), row in zip(made["differences"].items(), differences_table(made)[1], strict=True):
        assert row[1].endswith(JUDGED[significance(found)]), name
    for sign, word in ((1, "better than"), (-1, "worse than"), (0, "told apart")):
        signs = {n: significance(d) for n, d in made["differences"].items() if not n.startswith("random_")}
        assert (word in said) == (sign in signs.values())


def test_the_best_of_a_column_is_bold_whoever_has_it_and_ties_are():
    made = report(0.7, 0.8, 0.8, (0.6, None))
    head, rows = models_table(made)
    assert head[:4] == ["model", "balanced accuracy", "MACs (M)", "parameters"] and rows[0][0] == "▸ searched"
    bold = {name: [row[0] for row in rows if isinstance(row[head.index(name)], Best)] for name in head}
    assert bold["balanced accuracy"] == ["ResNet-18", "ResNet, narrowed"]
    assert bold["parameters"] == ["random genotype 0", "random genotype 1"] and not bold["seconds"]
    assert "| **80.0 %** |" in as_markdown(made) and "| 70.0 % |" in as_markdown(made)
    made["models"]["resnet18"] |= {"balanced_accuracy": 0.9, "counted": {"balanced_accuracy": 1}, "seeds": [{}, {}]}
    rows = models_table(made)[1]
    assert [row[0] for row in rows if isinstance(row[1], Best)] == ["ResNet, narrowed"]  # 0.9 is of fewer seeds
    assert not any(isinstance(text, Best) for text in mark_best(["a", "–"], [1, None]))
    head, rows = models_table(example_report(classes=4))
    assert head[1:3] == ["balanced accuracy", "few-shot recall"] and all(row[1].endswith("]") for row in rows)


def test_the_interval_of_a_balanced_accuracy_is_that_of_its_recalls():
    own = {"balanced_accuracy": 0.6, "recall_per_class": [0.9, 0.3, None]}
    own["recall_interval_per_class"] = [[0.8, 0.95], [0.1, 0.6], None]
    low, high = balanced_interval(own)
    assert low == pytest.approx(0.6 - math.hypot(0.1, 0.2) / 2)
    assert high == pytest.approx(0.6 + math.hypot(0.05, 0.3) / 2)
    for other in ({"balanced_accuracy": 0.7}, {"seeds": [{}, {}]}, {"recall_interval_per_class": None}):
        assert balanced_interval(own | other) is None  # of labels; over seeds; old


@pytest.mark.parametrize("gone", ["absent", None])
def test_a_control_that_is_missing_or_not_measured_is_not_beaten(gone):
    said = verdict(report(small=gone, large=gone, randoms=()))
    assert "Not measured, and so not compared: the narrowed ResNet, random genotypes, ResNet-18." in said
    assert said.startswith("– Nothing is judged: no control was measured") and not re.search("better|times fewer", said)
    said = verdict(judged(report(randoms=(0.6, None)), random=BETTER))
    assert "not compared: random genotype 1." in said and "better than the random genotypes" in said


def test_nothing_is_said_of_a_searched_network_without_a_measure():
    for empty in (report(None), report() | {"models": {"resnet18": model(0.7)}}):
        said = "– The searched network has no balanced accuracy on the test set, so nothing can be said about it."
        assert verdict(empty) == said


def test_the_uncertainty_is_binomial_per_class():
    made = report()
    own = made["models"]["searched"]
    own["recall_per_class"], own["count_per_class"] = [0.9, 0.5, None, 1.0], [100, 10, 0, 7]
    error = math.sqrt(0.09 / 100 + 0.25 / 10 + 0) / 3
    assert f"(about ±{100 * error:.1f} points" in verdict(made) and "This is one seed: " in sentences(made)[-1]
    own["recall_per_class"] = [1.0, 0.0, None, 1.0]
    assert "±" not in verdict(made) and verdict(made).endswith("means nothing.")


def test_differences_within_the_uncertainty_are_named():
    said = verdict(report(0.80, 0.79, 0.60, (0.82, 0.3)))  # standard error: sqrt(4 * 0.16 / 25) / 4 = 0.04
    assert "±4.0 points" in said
    assert said.endswith("means nothing, as here those from the narrowed ResNet and random genotype 0.")
    assert verdict(report(0.80, 0.79, 0.60, ())).endswith("means nothing, as here that from the narrowed ResNet.")
    assert verdict(report(0.80, 0.70, 0.60, (0.3,))).endswith("means nothing.")


def test_one_seed_gives_intervals_where_there_are_some():
    said = verdict(judged(report(), resnet18=(0.05, 0.01, 0.09), resnet_small=ALIKE, random=(0.15, 0.1, 0.2)))
    assert "±" not in said and "Searching beat drawing at random." in said
    assert "ResNet-18 +5.0 points [+1.0, +9.0], the narrowed ResNet +10.0 points [−2.0, +20.0], the random" in said
    assert "28 times fewer parameters than ResNet-18 (0.40 M against 11.20 M)" in said
    assert said.endswith("This is one seed: the intervals know the luck of the test images, not that of training.")


def test_several_seeds_tell_their_spread_and_what_they_cannot_know():
    found = {"resnet18": difference(*ALIKE), "random": difference(0.15, 0.0004, 0.2), "random_0": difference(*BETTER)}
    said = verdict(of_seeds(report(), found))  # an end that prints as 0.0 is 0
    assert said.startswith("– Choose by size and work: the searched network cannot be told apart from ResNet-18 and")
    assert "accuracy of 80.0 ± 1.2 %, mean ± standard deviation over 3 seeds." in said
    assert "That searching beats drawing at random is not shown." in said and "random genotype 0" not in said
    assert "not judged: the narrowed ResNet 70.0 %" in said
    assert said.endswith("Every seed searched anew; with 3 seeds intervals are, if anything, too narrow.")
    once = verdict(of_seeds(report(), found, 8, searched_once=True))
    assert once.endswith("One search served all seeds, so the luck of the search is not in the intervals.")
    said = verdict(of_seeds(report(), {"random": difference(*WORSE)}))
    assert said.startswith("✗ Take a random genotype") and "Drawing at random beat searching." in said


def test_the_other_controls_are_named():
    made = report()
    made["models"] |= {"mobilenet_v3_small": model(0.9, 1_500_000), "DARTS_V2": model(0.6), "FairDARTS_b": model(None)}
    said = verdict(judged(made, mobilenet_v3_small=WORSE, DARTS_V2=BETTER))
    assert "better than the published genotype DARTS_V2 and worse than MobileNetV3-small (balanced accuracy)" in said
    assert "not compared: the published genotype FairDARTS_b." in said
    assert re.search(r"\| DARTS_V2 \(published\) \| 60.0 % .*\| \*?\*?50.00", as_markdown(made))


def test_multi_label_is_judged_by_macro_auc():
    made = report(0.1, task="multi-label")
    made["models"]["searched"]["macro_auc"] = 0.95
    made["differences"] = {"resnet_small": difference(0.05, 0.01, 0.08, "macro_auc")}
    said = verdict(made)
    assert "macro AUC of 0.950" in said and "it is better than the narrowed ResNet (macro AUC)" in said
    assert "the narrowed ResNet +0.050 [+0.010, +0.080]" in said and "balanced" not in said
    page = as_markdown(made)
    assert "| model | macro AUC |" in page and "| mean average precision |" in page
    assert "“no” to every label would have an accuracy of 75.0 %" in page


def test_more_parameters_than_resnet18_is_said_so():
    made = report()
    made["models"]["searched"]["parameters"] = 22_400_000
    assert "2.0 times more parameters than ResNet-18 (22.40 M against 11.20 M)" in verdict(made)


def test_a_correction_for_many_comparisons_decides():
    "An interval that excludes 0 is not enough where the corrected p does not lie below 0.05."
    found = difference(*BETTER) | {"p": 0.02, "p_corrected": 0.06}
    assert significance(found) == 0 and significance(difference(*BETTER)) == 1
    assert significance(found | {"p_corrected": 0.049}) == 1
    assert significance(difference(*WORSE) | {"p": 0.02, "p_corrected": 0.04}) == -1
    assert significance(found | {"p_corrected": None}) is None  # it was not among the comparisons
    made = report() | {"differences": {"resnet18": found, "resnet_small": found | {"p": 0.5, "p_corrected": 0.5}}}
    told = verdict(made)
    assert "cannot be told apart from ResNet-18 and the narrowed ResNet" in told
    assert "Holm's correction for 2 comparisons" in told
    head, rows = differences_table(made)
    assert head[-1] == "p, corrected" and [row[-1] for row in rows] == ["0.060", "0.500"]
    assert "corrected by Holm for the 2 comparisons" in as_markdown(made)
    assert "are not corrected" in as_markdown(judged(report(), resnet18=BETTER))


def test_the_verdict_says_at_which_work():
    made = judged(report(), resnet18=WORSE, resnet_small=ALIKE)
    made["models"]["resnet18"]["macs"] = 90_000_000
    cost = "An image costs it 50.00 M multiply-adds"
    assert f"{cost}, and no network that costs as much or less beats it." in verdict(made)
    made["models"]["resnet18"]["macs"] = 40_000_000
    assert f"{cost}, and at as many or fewer ResNet-18 beats it." in verdict(made)
    made = judged(report(), resnet18=BETTER, resnet_small=ALIKE)  # what costs less and does as well is named at once
    made["models"]["resnet_small"]["macs"] = 20_000_000
    assert "✓ Take the searched network or, for less work, the narrowed ResNet: it is better than" in verdict(made)
    assert "beats it: for less work the narrowed ResNet (20.00 M) cannot be told apart from it." in verdict(made)
    made["models"]["resnet_small"]["macs"] = 46_000_000
    assert "✓ Take the searched network: it" in verdict(made) and "for less work" not in verdict(made)
    made["models"]["resnet_small"]["macs"] = made["models"]["resnet18"]["macs"] = 90_000_000
    assert f"{cost}." in verdict(made | {"differences": {}})


def test_a_pretrained_network_that_wins_is_said_at_once_with_both_sizes():
    probe, fine = "efficientnet_lite0_probe", "efficientnet_lite0_finetuned"
    made = report()
    for name, value in ((probe, 0.85), (fine, 0.9), ("timm_vit_probe", 0.7)):
        what = "what timm calls dino" if name.startswith("timm") else "ImageNet, with labels"
        made["models"][name] = model(value, 3_370_000) | {"macs": 385_000_000, "pretrained": what, "input_size": 224}
    won = judged(made, **{probe: WORSE, fine: WORSE, "timm_vit_probe": BETTER})
    told = "A pretrained network wins: EfficientNet-Lite0 (pretrained, fine-tuned) has 90.0 % with 3.37 M parameters "
    told += "and 385.00 M multiply-adds an image, the searched network 80.0 % with 0.40 M parameters and 50.00 M "
    told += "multiply-adds an image."
    assert sentences(won)[1] == told and told in as_markdown(won)
    assert sentences(won)[0].startswith("– Take the searched network where 0.40 M parameters must do, else Efficient")
    assert sentences(won | {"settings": {"preset": "quick"}})[2] == told
    both = "EfficientNet-Lite0 (pretrained, frozen) and EfficientNet-Lite0 (pretrained, fine-tuned) were trained by "
    for one in (won, judged(made, **{probe: ALIKE, fine: BETTER})):
        assert f"{both}others on ImageNet, with labels, and see images at 224 x 224 pixels." in verdict(one)
        assert "timm's vit (pretrained, frozen) was trained by others on what timm calls dino, and sees" in verdict(one)
    assert "wins" not in verdict(judged(made, **{probe: ALIKE, fine: BETTER})) and "wins" not in verdict(made)
    assert "| EfficientNet-Lite0, pretrained, frozen |" in as_markdown(won)
    assert "trained by others" not in verdict(report())
    assert "Every model that others have not pretrained went through the same recipe" in as_markdown(won)
    assert "Every model went through the same recipe" in as_markdown(report())
