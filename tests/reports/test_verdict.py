"What is said of a run: each way a comparison can end, with nothing missing made up."

import math
import re

import pytest

from ssnas_colab.reports.verdict import verdict

from .hand_made import as_markdown, difference, model, of_seeds, report


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
    assert "| DARTS_V2 (published) | 400,000 |" in as_markdown(made)


def test_multi_label_is_judged_by_macro_auc():
    made = report(0.1, task="multi-label")
    made["models"]["searched"]["macro_auc"] = 0.95
    said = verdict(made)
    assert "macro AUC of 0.950" in said and "higher than the narrowed ResNet's 0.900" in said
    assert "better than 2 of 2" in said
    assert "±" not in said and "balanced" not in said
    page = as_markdown(made)
    assert "| mean average precision |" in page and "“no” to every label would have an accuracy of 75.0 %" in page


def test_more_parameters_than_resnet18_is_said_so():
    made = report()
    made["models"]["searched"]["parameters"] = 22_400_000
    assert "2.0 times more parameters (22.40 M against 11.20 M)" in verdict(made)
