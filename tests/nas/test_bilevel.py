"A step of both levels: what moves, by which gradient, and on which images."

import copy
import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from ssnas_colab.config import SearchConfig
from ssnas_colab.core.seeding import StepSeed, epoch_order
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.baselines import random_genotype
from ssnas_colab.nas import bilevel
from ssnas_colab.nas.bilevel import GradientBalancer, HalvedImages, ReinforceStep, Searcher
from ssnas_colab.stages.loader import load_data
from ssnas_colab.stages.search import current_genotype, search
from ssnas_colab.training.loop import make_schedule
from ssnas_colab.training.samplers import balanced_order

TINY = {"width": 2, "depth": 3, "nodes": 2, "batch_size": 32, "steps": 6, "embedding": 16, "device": "cpu"}
SAMPLED = TINY | {"relaxation": "sampled", "samples": 2}


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", imbalance_factor=10)


def test_the_gradient_of_the_alphas_is_the_stated_sum(digits):
    config = SearchConfig(**TINY, policy="medical")
    searcher = Searcher(digits.images["train"], config)
    seen = {}

    class Watched(GradientBalancer):
        def combine(self, objective, decide, ratio):
            seen.update(objective=objective, decide=decide, ratio=ratio)
            return super().combine(objective, decide, ratio)

    searcher.alpha_step.balancer = Watched()
    searcher(StepSeed(0, "search", 0, 0), done=0.9)
    alphas = searcher.net.alpha_parameters()
    assert seen["ratio"] == config.ratio
    together = torch.cat([a.grad.flatten() for a in alphas])
    objective, decide = (torch.cat([g.flatten() for g in seen[name]]) for name in ("objective", "decide"))
    torch.testing.assert_close(together, objective / objective.norm() + config.ratio * decide / decide.norm())


@pytest.mark.parametrize(("relaxation", "rate"), [("sampled", 0.2), ("enas", 0.01)])
def test_drawn_genotypes_become_what_the_objective_prefers(digits, relaxation, rate):
    "With a loss that counts skip connections, the search must learn to avoid them."
    own = {"relaxation": relaxation, "alpha_learning_rate": rate, "steps": 150, "policy": "medical"}
    searcher = Searcher(digits.images["train"], SearchConfig(**TINY | own))
    assert isinstance(searcher.alpha_step, ReinforceStep)
    searcher.loss = lambda batch, weights: sum(table[:, 2].sum() for table in weights.values()) / 16
    searcher.weight_step = lambda batch, step_seed: 0.0
    batch = searcher.halves.batch(StepSeed(0, "search", 0, 0), 1)  # of which that loss sees nothing
    searcher.halves.batch = lambda step_seed, half: batch
    last = searcher.schedule.steps_per_epoch - 1
    for step in range(150):
        searcher(StepSeed(0, "search", step, last), step / 150)
    found = current_genotype(searcher.net)
    assert all(edge.op != "skip_connect" for edge in found.normal + found.reduce)


def test_micro_batches_add_up(digits):
    "The gradient with two micro-batches is the mean of their gradients."
    searcher = Searcher(digits.images["train"], SearchConfig(**TINY, policy="medical", clip=1e9))
    step_seed = StepSeed(0, "search", 0, 0)
    batch = searcher.halves.batch(step_seed, 0)
    gradients = []
    for part in (slice(0, 16), slice(16, 32)):
        searcher.weight_optimizer.zero_grad()
        views = [view[part] for view in batch[0]]
        searcher.loss((views, None)).backward()
        gradients.append(searcher.net.stem[0].weight.grad.clone())
    searcher.config = dataclasses.replace(searcher.config, accumulate=2)
    searcher.engine.apply = lambda optimizer, clip: None
    searcher.weight_step(batch, step_seed)
    torch.testing.assert_close(searcher.net.stem[0].weight.grad, sum(gradients) / 2)


@pytest.fixture
def draws(monkeypatch):
    "Counts how often an epoch's order is drawn, by how."
    counted = Counter()

    def counting(name):
        whole = getattr(bilevel, name)

        def draw(*arguments, **options):
            counted[name] += 1
            return whole(*arguments, **options)

        return draw

    for name in ("epoch_order", "balanced_order"):
        monkeypatch.setattr(bilevel, name, counting(name))
    return counted


def batches(searcher, epoch, step):
    "What a step of both levels sees."
    return [searcher.halves.batch(StepSeed(searcher.config.seed, "search", epoch, step), half) for half in (0, 1)]


def test_an_order_is_drawn_once_an_epoch(digits, draws):
    searcher = Searcher(digits.images["train"], SearchConfig(**TINY | {"batch_size": 8}, policy="medical"))
    assert draws.pop("epoch_order") == 1  # the halves
    for epoch in range(3):
        for step in range(10):
            batches(searcher, epoch, step)
        assert draws == {"epoch_order": 2 * (epoch + 1)}
    searcher.cluster(random_genotype(0, nodes=2), epoch=2)
    for step in range(10, 20):
        batches(searcher, 2, step)
    assert draws == {"epoch_order": 6, "balanced_order": 2}


def test_a_search_draws_three_orders_an_epoch(digits, draws, tmp_path, monkeypatch, unpainted):
    "One for each half, and one for the batch that is watched, the first epoch's; however many steps there are."
    monkeypatch.setattr(Searcher, "weight_step", lambda searcher, batch, step_seed: torch.zeros(()))  # has its batch
    monkeypatch.setattr(bilevel, "make_schedule", lambda *sizes, least_epochs: make_schedule(*sizes, 4))
    for steps in (4, 8):
        draws.clear()
        run = Run.open(tmp_path / str(steps), {})
        search(digits, run, SAMPLED | {"steps": steps, "batch_size": 4}, quiet=True)
        epochs = len(run.load_json("search.json")["history"])
        assert epochs == 4 and draws == {"epoch_order": 1 + 3 * epochs - 1}


def test_the_held_order_is_the_one_that_would_be_drawn(digits):
    "At any step, after clustering in mid-epoch, and after going back to a state with other clusters or none."
    searcher = Searcher(digits.images["train"], SearchConfig(**TINY, policy="medical", seed=3, clusters=4))

    def drawn_anew(half, epoch):
        keys, clusters = (3, "search", half, epoch), searcher.halves.clusters.of
        if clusters is None:
            return epoch_order(len(searcher.halves.positions[half]), *keys)
        return balanced_order(clusters[half], None, *keys)

    def check():
        for epoch in (0, 0, 1, 0, 7):
            for half in (0, 1, 0):
                np.testing.assert_array_equal(searcher.halves.order(half, epoch), drawn_anew(half, epoch))

    check()
    states = []
    for seed in (0, 1):
        states.append(copy.deepcopy(searcher.halves.clusters.state_dict()))
        searcher.cluster(random_genotype(seed, nodes=2), epoch=seed)
        check()
    first, second = states[1]["of"], searcher.halves.clusters.state_dict()["of"]
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for state in reversed(states):
        searcher.halves.clusters.load_state_dict(state)
        check()


@pytest.mark.parametrize("changes", [{"relaxation": "fair"}, {"cluster_every": 2, "clusters": 4}])
def test_a_search_ends_with_the_bits_of_one_that_draws_at_every_step(digits, tmp_path, monkeypatch, unpainted, changes):
    "Also where it diverged in mid-run, after clustering, and went back."
    whole, held, lost = Searcher.__call__, HalvedImages._held, []

    def step(self, step_seed, done):
        values = whole(self, step_seed, done)
        bad = step_seed.epoch == 3 and self.factor() == 1.0
        lost.append(bad)
        return values | ({"loss": float("nan")} if bad else {})

    def always_anew(self, half, epoch):
        self._orders.clear()
        return held(self, half, epoch)

    monkeypatch.setattr(Searcher, "__call__", step)
    found = []
    for name in ("held", "anew"):
        run = Run.open(tmp_path / name, {})
        with pytest.warns(UserWarning, match="half the learning rate"):
            found.append(search(digits, run, SAMPLED | {"steps": 5, "batch_size": 8}, quiet=True, **changes).arrays())
        assert any(lost)
        lost.clear()
        monkeypatch.setattr(HalvedImages, "_held", always_anew)
    for kind in found[0]:
        np.testing.assert_array_equal(found[0][kind], found[1][kind])
