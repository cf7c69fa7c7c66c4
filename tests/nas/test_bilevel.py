"A step of both levels: what moves, by which gradient, and on which images."

import dataclasses

import pytest
import torch

from ssnas_colab.config import SearchConfig
from ssnas_colab.core.seeding import StepSeed
from ssnas_colab.nas.bilevel import GradientBalancer, ReinforceStep, Searcher
from ssnas_colab.stages.loader import load_data
from ssnas_colab.stages.search import current_genotype

TINY = {"width": 2, "depth": 3, "batch_size": 32, "steps": 6, "embedding": 16, "device": "cpu"}


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


def test_sampled_finds_what_the_objective_prefers(digits):
    "With a loss that counts skip connections, the search must learn to avoid them."
    config = SearchConfig(**TINY | {"steps": 150}, relaxation="sampled", policy="medical", alpha_learning_rate=0.2)
    searcher = Searcher(digits.images["train"], config)
    assert isinstance(searcher.alpha_step, ReinforceStep)
    searcher.loss = lambda batch, weights: sum(table[:, 2].sum() for table in weights.values()) / 16
    searcher.weight_step = lambda batch, step_seed: 0.0
    for step in range(150):
        searcher(StepSeed(0, "search", step, 0), step / 150)
    found = current_genotype(searcher.net)
    assert all(edge.op != "skip_connect" for edge in found.normal + found.reduce)


def test_micro_batches_add_up(digits):
    "The gradient with two micro-batches is the mean of their gradients."
    searcher = Searcher(digits.images["train"], SearchConfig(**TINY, policy="medical", clip=1e9))
    step_seed = StepSeed(0, "search", 0, 0)
    batch = searcher.batch(step_seed, 0)
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
