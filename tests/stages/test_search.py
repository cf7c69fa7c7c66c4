"The search: what it may see, what it keeps, how it ends. (That it decides without freezing: nbs/02_search.ipynb.)"

import dataclasses
import shutil
import sys
import warnings
from functools import cache

import numpy as np
import pytest
import torch

from ssnas_colab.config import search_config
from ssnas_colab.core.basics import UserError
from ssnas_colab.data.augment import pixel_statistics
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.baselines import random_genotype
from ssnas_colab.models.network import Network
from ssnas_colab.nas.bilevel import Searcher
from ssnas_colab.nas.monitor import CollapseRule, ConvergenceRule, decided_share
from ssnas_colab.nas.relaxations import RELAXATIONS, zero_one_loss
from ssnas_colab.stages.derivation import derive_stage
from ssnas_colab.stages.loader import load_data
from ssnas_colab.stages.search import search
from ssnas_colab.training.ssl_losses import OBJECTIVES

TINY = {"width": 4, "depth": 3, "batch_size": 16, "steps": 2, "embedding": 16, "device": "cpu"}
SMALL = TINY | {"nodes": 2, "batch_size": 8}  # a third of the operations
LONGER = SMALL | {"steps": 4}

# What is asserted here are numbers: to paint the picture of a search takes as long as some steps.
pytestmark = pytest.mark.usefixtures("unpainted")


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", imbalance_factor=10)


def alphas_of(images, path, **changes):
    return search(images, Run.open(path, {}), SMALL, quiet=True, **changes).arrays()


@pytest.fixture(scope="module")
def straight(digits, tmp_path_factory):
    "From a relaxation to the folder of a search by it, to be copied before it is changed, and its alphas."
    folder = tmp_path_factory.mktemp("straight")

    @cache
    def made(relaxation):
        return folder / relaxation, alphas_of(digits, folder / relaxation, relaxation=relaxation)

    return made


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_labels_do_not_change_a_bit(digits, straight, tmp_path, relaxation):
    changes = {"relaxation": relaxation}
    straight = straight(relaxation)[1]
    shuffled = {split: np.random.default_rng(0).permutation(labels) for split, labels in digits.labels.items()}
    others = {"shuffled": dataclasses.replace(digits, labels=shuffled)}
    if relaxation in ("fair", "sampled"):
        others["absent"] = dataclasses.replace(digits, labels={}, task="unlabelled", class_names=())
        others["an array"] = digits.images["train"]
    for name, data in others.items():
        found = alphas_of(data, tmp_path / name, policy=digits.policy, **changes)
        for kind in straight:
            np.testing.assert_array_equal(straight[kind], found[kind], err_msg=name)


def test_a_policy_goes_on_and_is_told(digits, tmp_path, monkeypatch):
    "ENAS: stopped near the end and continued it ends with the same bits; its alphas are what the LSTM draws."
    changes, step = {"relaxation": "enas", "steps": 6, "warmup": 0.5, "alpha_learning_rate": 0.5}, Searcher.__call__
    straight = alphas_of(digits, tmp_path / "straight", **changes)

    def stops(self, step_seed, done):
        if done > 0.6:
            raise KeyboardInterrupt
        return step(self, step_seed, done)

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit, UserError)):
        patch.setattr(Searcher, "__call__", stops)
        patch.setattr("ssnas_colab.training.loop.CHECKPOINT_SECONDS", 0.0)
        alphas_of(digits, tmp_path / "stopped", **changes)
    again = alphas_of(digits, tmp_path / "stopped", **changes)
    for kind, rows in straight.items():
        np.testing.assert_array_equal(rows, again[kind])
        half = len(rows) // 2
        assert (rows[:half] == 0).all() and np.isfinite(rows).all()  # the weights warm up
        assert not np.array_equal(rows[-2], rows[-1])


def test_other_seeds_and_other_images_change_the_alphas(digits, straight, tmp_path):
    straight = straight("fair")[1]["normal"]
    assert not np.array_equal(straight, alphas_of(digits, tmp_path / "seed", seed=1)["normal"])
    assert not np.array_equal(straight, alphas_of(digits.images["train"][::-1], tmp_path / "images")["normal"])


def test_what_a_run_keeps(digits, tmp_path):
    run = Run.open(tmp_path / "run", {})
    history = search(digits, run, TINY, quiet=True)
    kept, facts = run.load_arrays("alphas.npz"), run.load_json("search.json")
    epochs = len(facts["history"])
    for kind in ("normal", "reduce"):
        assert kept[kind].shape == (epochs + 1, 14, 7) and kept[kind].dtype == np.float32
        np.testing.assert_array_equal(kept[kind], history.arrays()[kind])
        assert not np.array_equal(kept[kind][0], kept[kind][-1])
    assert facts["depth"] == 3 and facts["settings"]["policy"] == "medical" and run.has("search.png")
    row = facts["history"][-1]
    assert {"loss", "alpha_loss", "objective_gradient", "zero_one_gradient", "zero_one_weight", "decided"} <= set(row)
    weights = {kind: torch.sigmoid(torch.from_numpy(kept[kind][-1])) for kind in kept}
    assert row["zero_one"] == pytest.approx(zero_one_loss(weights).item()) and row["decided"] == decided_share(weights)


def test_a_finished_search_is_not_done_again(digits, straight, monkeypatch):
    path, first = straight("fair")
    monkeypatch.setattr(Searcher, "__call__", lambda *_: pytest.fail("a step was taken"))
    again = alphas_of(digits, path)
    np.testing.assert_array_equal(first["normal"], again["normal"])


def test_statistics_of_pixels():
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 5), dtype=np.uint8)
    mean, std = pixel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std((0, 2, 3)), rtol=1e-12)


def test_mistakes_are_sentences(digits, tmp_path):
    with pytest.raises(UserError, match="at least 4 images"):
        search(digits.images["train"][:3], Run.open(tmp_path / "run", {}), TINY)
    with pytest.raises(UserError, match="did you mean 'width'"):
        search_config({"widht": 3})
    with pytest.raises(UserError, match="no preset"):
        search_config("slow")


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_every_relaxation_searches_to_a_genotype(straight, tmp_path, relaxation):
    path, alphas = straight(relaxation)
    run = Run.open(shutil.copytree(path, tmp_path / "run"))
    genotype = derive_stage(run)
    assert run.load_json("derivation.json")["method"] == RELAXATIONS[relaxation].derivation
    assert Network(genotype, 10, in_channels=1, width=4, depth=3)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert alphas["normal"].shape[2] == RELAXATIONS[relaxation].columns
    row = run.load_json("search.json")["history"][-1]
    assert 0 <= row["decided"] <= 1 and np.isfinite([row["gap"], row["rank"], row["entropy"]]).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("relaxation", ["fair", "sampled"])
def test_every_objective_searches_to_a_genotype(digits, tmp_path, objective, relaxation):
    run = Run.open(tmp_path / "run", {})
    search(digits, run, SMALL | {"steps": 1}, quiet=True, relaxation=relaxation, objective=objective)
    assert derive_stage(run).normal and run.load_json("search.json")["settings"]["objective"] == objective


def test_supervised_reads_the_labels_and_says_so_without(digits, tmp_path):
    changes = {"objective": "supervised", "relaxation": "sampled"}
    straight = alphas_of(digits, tmp_path / "straight", **changes)["normal"]
    rolled = {split: np.roll(labels, 7) for split, labels in digits.labels.items()}
    other = alphas_of(dataclasses.replace(digits, labels=rolled), tmp_path / "rolled", **changes)["normal"]
    assert not np.array_equal(straight, other)
    with pytest.raises(UserError, match="needs labels"):
        alphas_of(digits.images["train"], tmp_path / "none", **changes)


def test_warmup_leaves_the_alphas_alone(digits, tmp_path):
    for relaxation in ("fair", "sampled"):
        rows = alphas_of(digits, tmp_path / relaxation, relaxation=relaxation, warmup=0.5, steps=4)["normal"]
        assert np.array_equal(rows[0], rows[len(rows) // 2]) and not np.array_equal(rows[0], rows[-1])


def test_a_converged_search_stops_and_says_so(digits, tmp_path, monkeypatch):
    module = sys.modules["ssnas_colab.stages.search"]
    rule = ConvergenceRule(epochs=1, decided=0.0)
    monkeypatch.setattr(module, "_rules", lambda config, epochs: {"convergence": rule})
    monkeypatch.setattr(module, "current_genotype", lambda net: random_genotype(0, nodes=2))
    run = Run.open(tmp_path / "run", {})
    search(digits, run, LONGER, quiet=True)
    found = run.load_json("search.json")
    assert found["stopped"].startswith("convergence") and found["epoch"] == len(found["history"]) == 2


def test_after_a_collapse_the_best_epoch_counts(digits, tmp_path, monkeypatch):
    rule = CollapseRule(parameterless=-1.0, patience=3, warmup=0)
    monkeypatch.setattr(sys.modules["ssnas_colab.stages.search"], "_rules", lambda config, epochs: {"collapse": rule})
    run = Run.open(tmp_path / "run", {})
    search(digits, run, LONGER, quiet=True)
    found = run.load_json("search.json")
    assert found["stopped"].startswith("collapse") and len(found["history"]) == 3
    values = [row["derived"] for row in found["history"]]
    assert found["epoch"] == found["best_epoch"] == 1 + values.index(min(values))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        derive_stage(run)
    assert run.load_json("derivation.json")["epoch"] == found["best_epoch"]


def test_a_search_that_diverges_goes_back_with_half_the_learning_rate(digits, tmp_path):
    run, calls = Run.open(tmp_path / "run", {}), []
    whole = Searcher.__call__

    def step(self, step_seed, done):
        values = whole(self, step_seed, done)
        calls.append(self.weight_optimizer.param_groups[0]["lr"])
        return values | ({"loss": float("nan")} if step_seed.epoch == 2 and self.factor() == 1.0 else {})

    with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning, match="half the learning rate"):
        patch.setattr(Searcher, "__call__", step)
        search(digits, run, LONGER, quiet=True)
    rows = run.load_json("search.json")["history"]
    assert [row["epoch"] for row in rows] == list(range(len(rows))) and len(calls) == len(rows) + 1
    assert calls[3] == pytest.approx(calls[2] / 2)


def test_even_clusters_survive_a_restart(digits, tmp_path):
    "A search with clustering, stopped in the middle, ends with the bits of one that was not."
    changes = {"relaxation": "sampled", "cluster_every": 2, "clusters": 4, "steps": 4}
    images = digits.images["train"][:128]
    straight = alphas_of(images, tmp_path / "straight", **changes)
    whole, steps = Searcher.__call__, []

    def step(self, step_seed, done):
        steps.append(step_seed)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return whole(self, step_seed, done)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Searcher, "__call__", step)
        patch.setattr("ssnas_colab.training.loop.CHECKPOINT_SECONDS", 0.0)
        alphas_of(images, tmp_path / "stopped", **changes)
    again = alphas_of(images, tmp_path / "stopped", **changes)
    assert all(np.array_equal(straight[kind], again[kind]) for kind in straight)
    plain = alphas_of(images, tmp_path / "plain", relaxation="sampled", steps=4)
    assert not np.array_equal(plain["normal"], straight["normal"])
