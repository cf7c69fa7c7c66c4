"""No step of a training waits for the device, and each asks it for little.

The device `meta` stands in for a GPU: its tensors have no numbers, so whoever wants to see one has to ask, and is seen.
"""

import types
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ssnas_colab.config import evaluation_config, search_config
from ssnas_colab.core.seeding import StepSeed
from ssnas_colab.data import augment
from ssnas_colab.data.augment import pixel_statistics
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.baselines import ResNet
from ssnas_colab.models.genotype import GENOTYPES
from ssnas_colab.models.network import Network
from ssnas_colab.nas import scores
from ssnas_colab.nas.bilevel import Searcher
from ssnas_colab.stages.loader import ImageData
from ssnas_colab.training import loop, recipes

STEPS = 12
SEARCH = {"width": 4, "depth": 3, "nodes": 1, "batch_size": 8, "steps": 400, "embedding": 16, "policy": "natural"}
TRAIN = {"batch_size": 8, "embedding": 16, "pretrain_steps": 100, "finetune_steps": 100}


class Asked(TorchDispatchMode):
    "What the device was asked for, by name; `waits`: what would make a GPU wait, by name, in its order."

    def __init__(self):
        super().__init__()
        self.count, self.waits = Counter(), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, kwargs, there = function.__name__, kwargs or {}, [a for a in args if isinstance(a, torch.Tensor)]
        meta = any(a.is_meta for a in there) or torch.device(kwargs.get("device") or "cpu").type == "meta"
        if not meta:
            return function(*args, **kwargs)
        self.count[name] += not function.is_view
        if name == "_local_scalar_dense.default":
            return self.wait(name, 1.0)
        if name == "_to_copy.default" and torch.device(kwargs.get("device") or "meta").type == "cpu":
            return self.wait("read", torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype))
        sent = name in ("_to_copy.default", "copy_.default") and any(a.is_cpu and a.numel() > 1 for a in there)
        if sent and not kwargs.get("non_blocking") or name in ("nonzero.default", "lift_fresh.default"):
            self.wait(name)
        if name == "index.Tensor" and any(i is not None and (i.is_cpu or i.dtype == torch.bool) for i in args[1]):
            self.wait(name)
        quick = self.quick(name, args, kwargs)
        return function(*args, **kwargs) if quick is None else quick

    def wait(self, name, result=None):
        self.waits.append(name)
        return result

    def quick(self, name, args, kwargs):
        "The shapes of what PyTorch works out in a hundred operations on `meta`."
        if name == "native_batch_norm.default":
            return torch.empty_like(args[0]), *args[0].new_empty(2, args[0].shape[1])
        if name == "native_batch_norm.out":
            return tuple(kwargs[each] for each in ("out", "save_mean", "save_invstd"))
        if name == "native_batch_norm_backward.default":
            return torch.empty_like(args[1]), *args[1].new_empty(2, args[1].shape[1])
        return torch.empty_like(args[0]) if name == "grid_sampler_2d.default" else None


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = {s: rng.integers(0, 256, (400, 3, 8, 8), dtype=np.uint8) for s in ("train", "val", "test")}
    labels = {s: rng.integers(0, 4, 400) for s in images}
    return ImageData("made up", "single-label", images, labels, tuple("abcd"), {}, "natural")


@pytest.fixture
def drawn(monkeypatch):
    "Nothing can be drawn on `meta`: draws are made up there."
    honest, generator = torch.rand, StepSeed.generator

    def draw(*size, device=None, **options):
        there = device is not None and torch.device(device).type == "meta"
        return torch.empty(*size, device=device) if there else honest(*size, device=device, **options)

    monkeypatch.setattr(torch, "rand", draw)
    monkeypatch.setattr(augment, "_check", lambda *a: None)
    monkeypatch.setattr(StepSeed, "generator", lambda seed, device="cpu", purpose="": generator(seed, "cpu", purpose))


def assert_no_waits(step, run, first=0.0, of_a_step=lambda done: []):
    """Nothing is waited for in 12 steps, but `of_a_step`, and every ten steps for the values of these.

    The step before them, `first` of the way, puts in its place what never changes.
    """
    training = loop.Fit(run, "s", {}, 0, 9, 50)
    for number in range(STEPS + 1):
        done = first + (1 - first) * number / (STEPS + 1)
        with Asked() as asked:
            training.advance(step(StepSeed(0, "s", 0, number), done), None)
        expected = of_a_step(done)
        if number:
            assert asked.waits[: len(expected)] == expected, number
            looks = asked.waits[len(expected) :]
            assert set(looks) == ({"read"} if (number + 1) % loop.LOOK_STEPS == 0 else set()) and len(looks) <= 5


@pytest.mark.parametrize("relaxation", ["fair", "sampled"])
def test_a_step_of_the_search_waits_for_nothing(data, tmp_path, drawn, relaxation):
    "But for `sampled`, once it learns: which networks come next follows from the losses of these."
    config = search_config("colab", **SEARCH, relaxation=relaxation, device="meta", precision="float32")
    with Asked():
        searcher = Searcher(data.images["train"], config)
    run, learns = Run.open(tmp_path / "run", {}), relaxation == "sampled"
    assert_no_waits(searcher, run, of_a_step=lambda done: ["read"] if learns and done >= config.warmup else [])


@pytest.mark.parametrize("objective", scores.OBJECTIVES)
def test_the_training_before_a_score_waits_for_nothing(data, drawn, monkeypatch, objective):
    like = types.SimpleNamespace(**vars(torch))
    like.Generator = lambda device: torch.Generator()
    monkeypatch.setattr(scores, "torch", like)
    images = data.images["train"]
    how = {"policy": "natural", "seed": 0, "statistics": pixel_statistics(images)}
    network = ResNet((1, 1), 4).to("meta")
    with Asked() as asked:
        steps = scores.train_briefly(network, (images, np.arange(300)), objective, (1, 1 + STEPS), **how)
        next(steps)  # puts in its place what never changes
        asked.waits.clear()
        next(steps)
    assert not asked.waits


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "retrain"])
def test_a_step_of_training_waits_for_nothing(data, tmp_path, drawn, monkeypatch, stage):
    config = evaluation_config("colab", **TRAIN, loss="ldam", device="meta", precision="float32")
    run, seen = Run.open(tmp_path / "run", {}), []
    monkeypatch.setattr(recipes, "fit", lambda run, place, state, step, **how: seen.append(
        assert_no_waits(step, run, 0.5)))
    monkeypatch.setattr(recipes.Best, "restore", lambda best: None)
    make = lambda: Network(GENOTYPES["FairDARTS_a"], 4, width=4, depth=2)  # noqa: E731
    trainer = recipes.Trainer("it", make, data, run, config, quiet=True)
    if stage == "pretrain":
        recipes.pretrain(trainer)
    else:
        recipes.learn(trainer, stage, "ldam", "natural", frozen=stage == "retrain")
    assert seen
