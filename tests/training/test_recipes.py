"The recipes: what each trains, who sees which images and labels, and that an epoch's order is drawn once."

import contextlib
import dataclasses

import numpy as np
import pytest
import torch

import ssnas_colab.training.loop as loop
import ssnas_colab.training.recipes as recipes
from ssnas_colab.config import RECIPES, SAMPLERS, evaluation_config
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.genotype import GENOTYPES
from ssnas_colab.models.network import Network
from ssnas_colab.stages.loader import load_data
from ssnas_colab.training.loop import make_schedule
from ssnas_colab.training.recipes import RECIPE_FUNCTIONS, Trainer, pretrain
from ssnas_colab.training.samplers import sampled_order

TINY = {"pretrain_steps": 6, "finetune_steps": 12, "batch_size": 32, "embedding": 16, "device": "cpu"}


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", imbalance_factor=10)


def small(data):
    options = {"width": 4, "depth": 2, "in_channels": data.channels}
    return lambda: Network(GENOTYPES["FairDARTS_a"], data.num_classes, **options)


def trainer_of(data, path, **changes):
    return Trainer("searched", small(data), data, Run.open(path, {}), evaluation_config(TINY | changes), quiet=True)


def test_every_recipe_of_the_settings_is_a_function():
    assert tuple(RECIPE_FUNCTIONS) == RECIPES


def test_pretraining_reads_no_label(digits, tmp_path):
    states = []
    for i, labels in enumerate([digits.labels, {k: v[::-1].copy() for k, v in digits.labels.items()}]):
        made = trainer_of(dataclasses.replace(digits, labels=labels), tmp_path / str(i))
        pretrain(made)
        states.append(made.net.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_scratch_skips_pretraining(digits, tmp_path):
    made = trainer_of(digits, tmp_path / "run", recipe="scratch")
    assert made.run()["pretraining"] == [] and not made.experiment.finished("pretrain/searched")


def test_retraining_leaves_the_features_alone(digits, tmp_path, monkeypatch):
    made, seen = trainer_of(digits, tmp_path / "run", recipe="crt"), {}
    learn = recipes.learn

    def watched(trainer, stage, loss, sampler, frozen=False):
        before = made.outputs(made.net.features, "val")
        history = learn(trainer, stage, loss, sampler, frozen)
        seen[stage] = sampler, bool((made.outputs(made.net.features, "val") == before).all())
        return history

    monkeypatch.setattr(recipes, "learn", watched)
    assert set(made.run()) == {"pretraining", "finetuning", "retraining"}
    assert seen == {"finetune": ("natural", False), "retrain": ("class_balanced", True)}


def test_a_balanced_sampler_shows_the_rare_class_as_often(digits, tmp_path):
    changes = {"sampler": "class_balanced", "pretrain_steps": 0, "finetune_steps": 20}
    made, shown = trainer_of(digits, tmp_path / "run", **changes), []
    batches = made.batches

    def watched(*a):
        batch = batches(*a)
        return lambda *at: shown.append(batch(*at)) or shown[-1]

    made.batches = watched
    made.run()
    counts = np.bincount(digits.labels["train"][torch.cat(shown).numpy()], minlength=10)
    assert max(digits.counts()) / min(digits.counts()) > 5 and counts.max() / counts.min() < 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_order_that_is_held_is_the_order_drawn_anew(digits, tmp_path, sampler):
    made, size = trainer_of(digits, tmp_path / "run", seed=4), 32
    labels = digits.labels["train"]
    batch = made.batches("retrain", sampler, size)
    for epoch, step in [(0, 0), (0, 1), (3, 0), (3, 5), (2, 1), (0, 1)]:  # a guard may send training back
        anew = sampled_order(sampler, labels, 4, "retrain", epoch)[step * size : (step + 1) * size]
        found = batch(epoch, step)
        assert found.dtype == torch.int64 and (found.numpy() == anew).all()
    hidden = dataclasses.replace(digits, labels={split: 0 * y for split, y in digits.labels.items()})
    blind = trainer_of(hidden, tmp_path / "blind", seed=4).batches("retrain", sampler, size)
    same = (blind(1, 0) == batch(1, 0)).all()
    assert bool(same) == (sampler == "natural")  # which reads no label


@pytest.mark.parametrize("sampler, name", [("natural", "epoch_order"), ("class_balanced", "sampled_order")])
def test_the_order_of_an_epoch_is_drawn_once(digits, tmp_path, monkeypatch, sampler, name):
    drawn, honest = [], getattr(recipes, name)
    monkeypatch.setattr(recipes, name, lambda *keys: drawn.append(keys[-2:]) or honest(*keys))
    monkeypatch.setattr(recipes, "make_schedule", lambda *sizes, least_epochs: make_schedule(*sizes, 4))
    made = trainer_of(digits, tmp_path / "run", recipe="scratch", sampler=sampler, finetune_steps=8)
    history = made.run()["finetuning"]
    steps = recipes.schedules(made.config, len(digits.images["train"]))["finetune"].steps_per_epoch
    assert steps > 1 and len(history) > 1 and drawn == [("finetune", epoch) for epoch in range(len(history))]


def test_a_training_that_was_killed_ends_with_the_same_bits(digits, tmp_path, monkeypatch):
    straight = trainer_of(digits, tmp_path / "straight", sampler="square_root")
    histories = straight.run()
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    honest, taken = loop.Fit.advance, []

    def killed_at_every_fifth_step(training, *a):
        taken.append(training.stage)
        if len(taken) % 5 == 0:
            raise KeyboardInterrupt
        honest(training, *a)

    monkeypatch.setattr(loop.Fit, "advance", killed_at_every_fifth_step)
    found = None
    while found is None:
        made = trainer_of(digits, tmp_path / "killed", sampler="square_root")
        with contextlib.suppress(KeyboardInterrupt):
            found = made.run()
    assert found == histories and len(taken) > 18 and set(taken) == {"pretrain/searched", "finetune/searched"}
    ends = straight.net.state_dict(), made.net.state_dict()
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_scores_are_those_of_float32_whatever_training_computes_in(digits, tmp_path):
    "The features of a network that has hardly learned differ by less than bfloat16 can tell."
    found = []
    for precision in ("bfloat16", "float32"):  # the second finds all done
        made = trainer_of(digits, tmp_path / "run", precision=precision, recipe="linear_probe")
        made.run()
        found.append(made.scores("test"))
    np.testing.assert_array_equal(*found)


def test_ldam_learns_cosines_and_post_hoc_moves_the_scores(digits, tmp_path):
    made = trainer_of(digits, tmp_path / "ldam", loss="ldam", pretrain_steps=0)
    made.run()
    assert made.outputs(made.net, "val").abs().max() <= made.net.classifier.scale + 1e-3
    made = trainer_of(digits, tmp_path / "hoc", loss="cross_entropy", post_hoc=True, pretrain_steps=0)
    made.run()
    assert made.tau is not None
    adjusted, made.tau = made.scores("test"), None if made.tau else 1.0
    assert not np.allclose(adjusted, made.scores("test"))
