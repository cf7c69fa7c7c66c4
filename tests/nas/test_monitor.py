"What is watched during a search: figures against their definitions, rules that fire and rules that do not."

import base64
import itertools
import json
import math

import numpy as np
import pytest
import torch

from ssnas_colab.core.basics import Diverged
from ssnas_colab.models.genotype import GENOTYPES, Genotype
from ssnas_colab.nas.monitor import (
    CollapseRule,
    ConvergenceRule,
    Divergence,
    LivePicture,
    effective_rank,
    mean_jaccard,
    parameterless_share,
    weights_entropy,
)


def rank_by_definition(z):
    z = np.asarray(z, dtype=np.float64)
    eigenvalues = np.linalg.eigvalsh(np.cov(z, rowvar=False) if z.shape[1] > 1 else np.atleast_2d(np.var(z)))
    values = np.sqrt(np.clip(eigenvalues, 0, None))
    share = values / values.sum()
    return math.exp(-sum(p * math.log(p) for p in share if p > 0))


@pytest.mark.parametrize("batch, width", [(64, 5), (64, 1), (200, 32)])
def test_effective_rank_is_its_definition(batch, width):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(batch, width)) * np.geomspace(1, 0.05, width) + rng.normal(size=width)
    np.testing.assert_allclose(effective_rank(z), rank_by_definition(z), rtol=1e-9)
    np.testing.assert_allclose(effective_rank(torch.tensor(z).float()), rank_by_definition(z), rtol=1e-4)
    np.testing.assert_allclose(effective_rank(1e6 * z + 3), effective_rank(z), rtol=1e-6)


def test_effective_rank_at_its_ends():
    for value in (0.0, 0.1, -1e30, 1e-30):
        assert effective_rank(torch.full((50, 8), value)) == 0.0
    row = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    assert effective_rank(row.expand(100, 64)) == 0.0  # the same embedding for all, not the same number
    line = torch.linspace(-1, 2, 40)[:, None] * row
    np.testing.assert_allclose(effective_rank(line), 1.0, rtol=1e-3)
    np.testing.assert_allclose(effective_rank(torch.cat([torch.eye(6), -torch.eye(6)])), 6.0, rtol=1e-5)
    assert 6.5 < effective_rank(torch.randn(8, 500, generator=torch.Generator().manual_seed(1))) <= 7.001  # B - 1
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.nan], [0.0, 1.0]])))
    half = torch.randn(30, 4, generator=torch.Generator().manual_seed(2)).bfloat16().requires_grad_()
    assert effective_rank(half) == effective_rank(half.detach().float())
    for wrong in (torch.zeros(3), torch.zeros(1, 4), torch.zeros(4, 0)):
        with pytest.raises(ValueError, match="effective_rank needs"):
            effective_rank(wrong)


def test_effective_rank_is_blind_to_an_offset_far_larger_than_the_spread():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(100, 4))
    np.testing.assert_allclose(effective_rank(torch.tensor(z + 50).float()), effective_rank(z), rtol=1e-3)


def test_parameterless_share_of_a_genotype_counts_used_edges_only():
    # 3 -> 4 is not used: nothing arrives at 3.
    genotype = Genotype([("sep_conv_3x3", 0, 2), ("skip_connect", 3, 4)], [("max_pool_3x3", 1, 2)])
    assert parameterless_share(genotype) == 0.5
    assert parameterless_share(Genotype([], [])) == 1.0
    assert parameterless_share(GENOTYPES["DARTS_V2"]) == 10 / 16


def test_weights_entropy():
    def bits(p):
        return -sum(q * math.log2(q) for q in (p, 1 - p) if q)

    w = {"normal": torch.tensor([[0.5, 0.9], [0.0, 1.0]], requires_grad=True), "reduce": torch.tensor([[0.2, 0.3]])}
    expected = (bits(0.5) + bits(0.9) + bits(0.2) + bits(0.3)) / 6
    assert weights_entropy(w) == pytest.approx(expected, rel=1e-6)
    logits = torch.randn(14, 8, generator=torch.Generator().manual_seed(0)).double()
    share = logits.softmax(1)
    expected = np.mean([-sum(p * math.log(p) for p in row) / math.log(8) for row in share.tolist()])
    assert weights_entropy({"normal": share}, "softmax") == pytest.approx(expected, rel=1e-9)
    edge = torch.rand(14, 1, generator=torch.Generator().manual_seed(1)).double()
    assert weights_entropy({"normal": share * edge}, "softmax") == pytest.approx(expected, rel=1e-9)
    assert weights_entropy({"normal": torch.full((3, 8), 1 / 8)}, "softmax") == pytest.approx(1.0)
    assert weights_entropy({"normal": torch.zeros(3, 8)}, "softmax") == 0.0
    with pytest.raises(ValueError, match="not the alphas"):
        weights_entropy({"normal": torch.tensor([[2.0, -1.0]])})


def jaccard(a, b):
    return mean_jaccard([a, b])


def test_jaccard():
    a = Genotype([("sep_conv_3x3", 0, 2), ("skip_connect", 1, 2), ("sep_conv_3x3", 3, 4)], [("max_pool_3x3", 0, 2)])
    b = Genotype([("sep_conv_5x5", 0, 2), ("skip_connect", 1, 2)], [("max_pool_3x3", 0, 2), ("skip_connect", 0, 2)])
    # used, with operations: {n sep3 02, n skip 12, r max 02} and {n sep5 02, n skip 12, r max 02, r skip 02}
    assert jaccard(a, b) == jaccard(b, a) == (2 / 5, 1.0)
    swapped = Genotype(a.reduce, a.normal)
    assert jaccard(a, swapped).operations == 0.0  # the same edge in the other kind of cell is another edge
    assert jaccard(a, a) == (1.0, 1.0) and jaccard(Genotype([], []), Genotype([], [])) == (1.0, 1.0)
    genotypes = list(GENOTYPES.values())
    pairs = [jaccard(x, y) for x, y in itertools.combinations(genotypes, 2)]
    mean = mean_jaccard(iter(genotypes))
    assert mean.operations == pytest.approx(np.mean([p.operations for p in pairs]))
    assert mean.edges == pytest.approx(np.mean([p.edges for p in pairs])) and mean.operations < mean.edges
    with pytest.raises(ValueError, match="at least one"):
        mean_jaccard(genotypes[:1])


def fired(rule, rows):
    "(epoch, sentence) of the first time that the rule speaks, its state sent through JSON before every epoch."
    for epoch, row in enumerate(rows):
        state = json.loads(json.dumps(rule.state_dict()))
        rule = type(rule)(**{k: v for k, v in vars(rule).items() if k not in state})
        rule.load_state_dict(state)
        if told := rule.update(row):
            return epoch, told
    return None


def rows(shares=(), ranks=()):
    return [{"parameterless": s, "rank": r} for s, r in zip(shares, ranks, strict=True)]


def test_collapse_by_parameter_free_edges():
    epoch, told = fired(CollapseRule(patience=2, warmup=3), rows([1.0] * 9, [5.0] * 9))
    assert epoch == 4 and told == "collapse: 100% of the genotype's edges have no parameters (limit 80%) for 2 epochs"
    broken = [1.0, 1.0, 0.8] * 5  # never three in a row, and 0.8 is at the limit, not above
    assert fired(CollapseRule(warmup=0), rows(broken, [5.0] * 15)) is None
    assert fired(CollapseRule(warmup=0, patience=2), rows(broken, [5.0] * 15))[0] == 1
    assert fired(CollapseRule(parameterless=1.0, warmup=0), rows([1.0] * 15, [5.0] * 15)) is None
    assert fired(CollapseRule(warmup=15), rows([1.0] * 15, [0.0] * 15)) is None


def test_collapse_by_rank():
    epoch, told = fired(CollapseRule(warmup=1), rows([0.3] * 9, [1.2] * 9))
    assert epoch == 3 and told == "collapse: the embeddings' effective rank is 1.20 (limit 1.5) for 3 epochs"
    assert fired(CollapseRule(warmup=0), rows([0.3] * 9, [1.0, 1.0, 1.5] * 3)) is None


def test_convergence():
    def history(genotypes, decided):
        return [{"genotype": g, "decided": d} for g, d in zip(genotypes, decided, strict=True)]

    epoch, told = fired(ConvergenceRule(epochs=3), history("abbbbbb", [1.0] * 7))
    assert epoch == 4 and told.startswith("convergence: the genotype is unchanged for 3 epochs and 100.0% of")
    assert fired(ConvergenceRule(epochs=3), history("aaabaaab", [1.0] * 8)) is None
    assert fired(ConvergenceRule(epochs=3), history("a" * 9, [0.98] * 9)) is None
    assert fired(ConvergenceRule(epochs=3), history("a" * 9, [0.98] * 6 + [0.99] * 3))[0] == 6


@pytest.mark.parametrize("bad", [math.nan, math.inf, torch.tensor(math.nan), np.float32(math.nan)])
def test_divergence_of_values_that_are_not_finite(bad):
    policy = Divergence()
    good = {"epoch": 3, "loss": 1.0, "genotype": "x", "rank": None}
    assert policy.update(good) is None and policy.factor == 1
    told = policy.update(good | {"alpha_loss": bad})
    assert told.startswith("divergence: alpha_loss is not finite in epoch 4: back to the last good checkpoint with ")
    assert "with half the learning rate" in told
    assert policy.factor == 0.5 and "retry 1 of 2" in told
    assert policy.update(good) is None
    assert "times 0.25" in policy.update(good | {"loss": bad}) and policy.factor == 0.25
    with pytest.raises(Diverged, match="loss is not finite in epoch 4 after 2 returns .* lower learning rate"):
        policy.update(good | {"loss": bad})
    with pytest.raises(Diverged, match="after 0 returns"):
        Divergence(retries=0).update({"loss": bad})


def test_divergence_by_size():
    policy = Divergence(limit=10)
    for loss in (3.0, 2.0, 1.0, 27.0):  # the running mean: 3, 2.9, 2.71, and then higher
        assert policy.update({"loss": loss}) is None
    assert "loss is 27.2, more than 10 times its best (2.71)" in policy.update({"loss": torch.tensor(27.2)})
    settled = Divergence(limit=10)
    for loss in [2.3] + [1e-4] * 200:
        assert settled.update({"loss": loss}) is None
    assert settled.update({"loss": 1.0}) is None  # far above the best, but not above where it began
    assert settled.update({"loss": 2.4})


def test_going_back_does_not_forget_that_one_went_back():
    policy = Divergence()
    policy.update({"loss": 1.0})
    checkpoint = json.loads(json.dumps(policy.state_dict()))
    for factor in (0.5, 0.25):
        policy.update({"loss": math.nan})
        policy.load_state_dict(checkpoint)
        assert policy.factor == factor and policy.best == 1.0
    fresh = Divergence()
    fresh.load_state_dict(json.loads(json.dumps(policy.state_dict())))
    assert fresh.factor == 0.25
    with pytest.raises(Diverged):
        fresh.update({"loss": math.nan})


class Screen:
    "Stands in for IPython's display: keeps what was shown, and what replaced it."

    def __init__(self):
        self.shown, self.replaced = [], []

    def __call__(self, image, display_id):
        assert display_id is True
        self.shown.append(image)
        return self

    def update(self, image):
        self.replaced.append(image)


@pytest.fixture
def clock(monkeypatch):
    time = [100.0]
    monkeypatch.setattr("ssnas_colab.nas.monitor.time.monotonic", lambda: time[0])
    return time


def figure():
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(1, 1))[0]


def test_live_picture_shows_one_picture_and_replaces_it(clock):
    from matplotlib import pyplot

    screen, before = Screen(), pyplot.get_fignums()
    picture = LivePicture(figure, seconds=5, display=screen)
    assert picture.update()
    assert not picture.update()
    clock[0] += 4
    assert not picture.update() and picture.update(epoch_end=True)
    clock[0] += 4.9
    assert not picture.update()
    clock[0] += 0.2
    assert picture.update() and picture.update(last=True)
    assert len(screen.shown) == 1 and len(screen.replaced) == 3
    data = screen.replaced[-1].data
    assert (base64.b64decode(data) if isinstance(data, str) else data).startswith(b"\x89PNG")
    assert pyplot.get_fignums() == before


def test_live_picture_takes_a_tenth_of_the_time(clock):
    def slow():
        clock[0] += 3
        return figure()

    picture = LivePicture(slow, seconds=5, display=Screen())
    assert picture.update(epoch_end=True)
    clock[0] += 29
    assert not picture.update(epoch_end=True) and not picture.update()
    clock[0] += 1
    assert picture.update(epoch_end=True) and picture.update(last=True)


def test_live_picture_does_nothing_in_a_terminal_or_when_quiet():
    def never():
        raise AssertionError("drawn")

    screen = Screen()
    assert not LivePicture(never).update(last=True)  # pytest is no notebook
    assert not LivePicture(never, quiet=True, display=screen).update(last=True) and not screen.shown


def test_a_drawing_that_fails_costs_a_warning_and_is_not_tried_again():
    tried = []

    def broken():
        tried.append(1)
        raise KeyError("loss")

    picture = LivePicture(broken, display=Screen())
    with pytest.warns(UserWarning, match="switched off.*KeyError"):
        assert not picture.update()
    assert not picture.update(last=True) and len(tried) == 1
