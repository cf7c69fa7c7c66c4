"Folds: every image is tested once, classes are even and groups whole, and what is pooled is what was said."

import dataclasses
import json

import jsonschema
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import ssnas_colab.stages.evaluation as evaluation
from ssnas_colab import cli
from ssnas_colab.config import evaluation_config
from ssnas_colab.core.basics import UserError
from ssnas_colab.core.forms import report_schema
from ssnas_colab.reports.compare import over_folds
from ssnas_colab.reports.verdict import verdict
from ssnas_colab.stages.evaluation import evaluate, evaluation_parts, folds_of
from ssnas_colab.stages.loader import load_data
from ssnas_colab.training.metrics import paired_test_seeds

from .searched import below, searched_run

pytestmark = pytest.mark.usefixtures("unpainted_module")
TINY = {
    "recipe": "scratch", "finetune_steps": 2, "batch_size": 64, "embedding": 16, "max_parameters": 4_000,
    "random_genotypes": 1, "resnet18": False, "mobilenet": False, "published": (), "equal_macs": (), "device": "cpu",
    "folds": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def few(data, count=400):
    "The first images of each split, in proportion."
    cut = {split: slice(0, round(count * len(x) / 1797)) for split, x in data.images.items()}
    parts = ("images", "labels", "indices")
    return dataclasses.replace(data, **{p: {s: getattr(data, p)[s][at] for s, at in cut.items()} for p in parts})


def places(data, *splits):
    return np.concatenate([data.indices[split] for split in splits])


def test_every_image_is_tested_once_and_classes_are_even(digits):
    folds = list(folds_of(digits, 5, seed=3))
    every = places(digits, "train", "val", "test")  # the loader drew the test images: they are dealt, too
    assert sorted(np.concatenate([fold.indices["test"] for fold in folds])) == sorted(every)
    for fold in folds:
        assert sorted(places(fold, "train", "val", "test")) == sorted(every)  # nothing twice, nothing lost
        shares = np.bincount(fold.labels["test"]) - np.bincount(np.concatenate([*digits.labels.values()])) / 5
        assert np.abs(shares).max() <= 1 and 0.08 < len(fold.images["val"]) / len(every) < 0.1
        at = {place: k for k, place in enumerate(digits.indices["train"])}
        for image, label, place in zip(
            *(getattr(fold, p)["test"] for p in ("images", "labels", "indices")), strict=True
        ):
            if place in at:
                assert (image == digits.images["train"][at[place]]).all()
                assert label == digits.labels["train"][at[place]]
    again = list(folds_of(digits, 5, seed=3))
    assert all((one.indices["test"] == two.indices["test"]).all() for one, two in zip(folds, again, strict=True))
    assert any(
        (a.indices["test"][:9] != b.indices["test"][:9]).any() for a, b in zip(folds, folds_of(digits, 5), strict=True)
    )


def test_a_test_set_that_was_set_apart_stays_apart(digits):
    for apart in (dataclasses.replace(digits, drawn=("val",)), load_data("digits", imbalance_factor=10)):
        for fold in folds_of(apart, 3):
            assert set(places(fold, "train", "val", "test")) == set(places(apart, "train", "val"))


def test_groups_and_what_has_no_label(digits):
    groups = np.arange(len(places(digits, "train", "val", "test"))) // 3
    labels = digits.labels | {
        "train": np.where(np.arange(len(digits.labels["train"])) < 100, -1, digits.labels["train"])
    }
    data = dataclasses.replace(digits, groups=groups, labels=labels)
    unknown, tested = set(digits.indices["train"][:100]), []
    for fold in folds_of(data, 4):
        of = {split: set(groups[fold.indices[split]]) for split in ("train", "val", "test")}
        assert not of["test"] & (of["train"] | of["val"]) and not of["val"] & of["train"]
        assert all((fold.labels[split] >= 0).all() for split in ("val", "test"))
        assert len(unknown & set(fold.indices["train"])) > 50
        tested += fold.indices["test"].tolist()
    assert len(tested) == len(set(tested)) == len(groups) - 100


def test_several_labels_are_dealt_by_the_rarest(digits):
    def marks(y):
        return np.stack([y % 2 == 0, y < 3, (y == 0) & (np.arange(len(y)) % 5 == 0)], 1).astype(np.uint8)

    labels = {split: marks(y) for split, y in digits.labels.items()}
    data = dataclasses.replace(digits, labels=labels, task="multi-label", class_names=("even", "small", "rare"))
    counts = np.array([fold.labels["test"].sum(0) for fold in folds_of(data, 4)])
    assert np.ptp(counts[:, 2]) <= 1 and (counts.sum(0) == np.concatenate([*labels.values()]).sum(0)).all()


def test_too_many_folds_are_refused_before_any_work(digits, tmp_path, capsys):
    labels = digits.labels | {split: np.where(y == 7, 1, y) for split, y in digits.labels.items()}
    labels["train"][:6] = 7
    data = dataclasses.replace(digits, labels=labels)
    with pytest.raises(UserError, match="7 folds need 7 images of a class, but 7 has 6: ask for fewer"):
        evaluate(data, searched_run(tmp_path / "run", depth=2), TINY | {"folds": 7})
    assert not (tmp_path / "run" / "fold_1").exists()
    assert cli.main(["run", str(tmp_path / "no"), "--folds", "2"]) == 2
    assert "from 3 to 20" in capsys.readouterr().err


def by_hand(right, of):
    "Wilson's interval from its formula."
    z, p = norm.ppf(0.975), right / of
    middle, half = p + z**2 / (2 * of), z * np.sqrt(p * (1 - p) / of + z**2 / (4 * of**2))
    return [(middle - half) / (1 + z**2 / of), (middle + half) / (1 + z**2 / of)]


def test_what_is_pooled_is_what_was_said():
    rng, folds = np.random.default_rng(0), []
    for size in (60, 50, 40):
        labels = rng.permutation(np.arange(size) % 2)
        scores = {}
        for name, good in (("searched", 2.0), ("resnet_small", 0.2)):
            p = 1 / (1 + np.exp(-(good * (2 * labels - 1) + rng.normal(size=size))))
            scores[name] = np.stack([1 - p, p], 1)
        models = {
            name: {
                "balanced_accuracy": balanced_accuracy_score(labels, of.argmax(1)),
                "accuracy": 0.5,
                "macro_auc": None,
            }
            for name, of in scores.items()
        }
        folds.append({"labels": labels, "scores": scores, "models": models})
    found = over_folds("single-label", ("no", "yes"), folds)
    labels = np.concatenate([fold["labels"] for fold in folds])
    assert found["count"] == 3 and found["images"] == 150
    for name, model in found["models"].items():
        answers = np.concatenate([fold["scores"][name].argmax(1) for fold in folds])
        each, pooled = [fold["models"][name]["balanced_accuracy"] for fold in folds], model["pooled"]
        assert model["mean"]["balanced_accuracy"] == pytest.approx(np.mean(each))
        assert model["spread"]["balanced_accuracy"] == pytest.approx(np.std(each, ddof=1))
        assert model["mean"]["macro_auc"] is None
        assert pooled["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, answers))
        np.testing.assert_allclose(pooled["accuracy_interval"], by_hand((answers == labels).sum(), 150))
        for k in (0, 1):
            right, of = ((answers == k) & (labels == k)).sum(), (labels == k).sum()
            np.testing.assert_allclose(pooled["recall_interval_per_class"][k], by_hand(right, of))
        areas = [roc_auc_score(fold["labels"], fold["scores"][name][:, 1]) for fold in folds]
        low, high = pooled["macro_auc_interval"]
        assert pooled["macro_auc"] == pytest.approx(np.mean(areas)) and low < pooled["macro_auc"] < high
        spread = np.sqrt(sum(a * (1 - a) / 12 for a in areas))  # roughly: it is a bootstrap's
        assert 0.01 < high - low < 4 * spread
    own, other = ([np.concatenate([f["scores"][n].argmax(1) for f in folds])] for n in ("searched", "resnet_small"))
    difference = found["differences"]["resnet_small"]
    expected = paired_test_seeds(labels, own, other)
    assert tuple(difference[key] for key in ("difference", "low", "high", "p")) == expected
    assert difference["p_corrected"] == difference["p"] < 0.05


def test_a_run_with_folds_goes_on_and_tells(digits, tmp_path, monkeypatch):
    data, run, honest = few(below(digits, 4)), searched_run(tmp_path / "run", depth=2), evaluation.evaluate_network

    def cut(name, make, data, run, *more):
        if run.path.name == "fold_2" and name == "resnet_small":
            raise KeyboardInterrupt
        return honest(name, make, data, run, *more)

    monkeypatch.setattr(evaluation, "evaluate_network", cut)
    with pytest.raises(KeyboardInterrupt):
        evaluate(data, run, TINY, quiet=True)
    assert run.has("fold_2/models/searched.json") and not run.has("report.json")
    before = (run.path / "fold_1/models/searched.json").stat().st_mtime_ns
    monkeypatch.setattr(evaluation, "evaluate_network", honest)
    report = evaluate(data, run, TINY, quiet=True)
    assert (run.path / "fold_1/models/searched.json").stat().st_mtime_ns == before
    found = report["folds"]
    assert found["count"] == 3 and found["test_dealt"] and not found["grouped"]
    assert list(found["models"]) == ["searched", "resnet_small"]  # what can be paid for as often
    assert found["images"] == sum(len(x) for x in data.images.values())
    jsonschema.Draft202012Validator(report_schema()).validate(json.loads(json.dumps(report)))
    seconds = sum(run.inner(f"fold_{k}").facts("evaluation")["seconds"] for k in (1, 2, 3))
    assert report["costs"]["folds"] == found["seconds"] == pytest.approx(seconds, abs=0.05)
    assert report["seconds"] == pytest.approx(sum(report["stage_seconds"].values()), abs=0.05)
    assert f"In 3 folds of {found['images']} images it has" in verdict(report)
    for text in (run.load_text("report.md"), run.load_text("report.html")):
        assert "were dealt into 3 folds" in text and "balanced accuracy, mean over folds" in text
        assert "training of the networks of all folds" in text
        assert "it has seen images that the folds test" in text
    parts = [part.stage for part in evaluation_parts(data, run, evaluation_config(TINY))]
    assert {"fold_1/finetune/searched", "fold_3/finetune/resnet_small"} < set(parts)
    assert not any("random_0" in part for part in parts if part.startswith("fold_"))
