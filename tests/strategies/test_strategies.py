"Each strategy against its paper's definition, and all of them through the runner."

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from ssnas_colab.core.basics import Diverged, UserError
from ssnas_colab.core.seeding import derived_seed
from ssnas_colab.experiment.interrupts import Stopped
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.baselines import random_genotype
from ssnas_colab.models.stages import (
    DRAWN_BLOCKS,
    DRAWN_DEPTHS,
    DRAWN_EXPANSIONS,
    GROWTHS,
    KERNELS,
    Block,
    StageGenotype,
    random_stages,
)
from ssnas_colab.strategies.controller import Controller, Policy
from ssnas_colab.strategies.evolution import Evolution
from ssnas_colab.strategies.grow_trim import GrowTrim, ranking
from ssnas_colab.strategies.halving import Asha, Halving, rungs
from ssnas_colab.strategies.runner import STRATEGIES, choose, front, pick, plan_scores, plot_candidates, run_search
from ssnas_colab.strategies.space import Candidate, CellSpace, Proposal, StageSpace


def weight(genotype):
    "Edges or blocks that carry weights."
    if isinstance(genotype, StageGenotype):
        return sum(len(stage.blocks) for stage in genotype.stages)
    return sum(edge.op.startswith(("sep", "dil")) for edge in genotype.normal + genotype.reduce)


def sizes(genotype):
    return {n: 1000 * u * (1 + weight(genotype)) for n, u in (("parameters", 1), ("macs", 10), ("memory", 0.1))}


def score(genotype, steps, seed):
    noise = np.random.default_rng(derived_seed(str(genotype), steps, seed)).normal() * 0.01
    return weight(genotype) + noise


SPACES = {"cells": CellSpace(sizes), "stages": StageSpace(sizes)}
SPACE = SPACES["cells"]


def search(path, strategy, candidates=9, score=score, space="cells", **options):
    run = Run.open(path, {})
    options = {"quiet": True} | options
    return run_search(strategy, SPACES[space], score, run, candidates=candidates, steps=8, seed=3, **options)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("candidates", [2, 3, 9])
@pytest.mark.parametrize("space", SPACES)
def test_every_strategy_runs_from_two_candidates_and_goes_on_after_a_kill(tmp_path, name, candidates, space):
    whole = search(tmp_path / "whole", name, candidates, space=space)
    if name not in ("halving", "asha"):  # which score some again
        assert len(whole["candidates"]) == candidates
    calls = []

    def killed(*job):
        calls.append(job)
        if len(calls) % 3 == 0:
            raise KeyboardInterrupt
        return score(*job)

    for _ in range(100):
        try:
            again = search(tmp_path / "killed", name, candidates, killed, space)
            break
        except KeyboardInterrupt:
            pass
    assert json.dumps(again) == json.dumps(whole) and len(calls) >= 3
    assert whole["pick"]["number"] in {row["number"] for row in whole["candidates"]}


def test_a_time_budget_stops_and_another_session_goes_on(tmp_path):
    from ssnas_colab.experiment.interrupts import stopping

    with pytest.raises(Stopped), stopping(1e-9):
        search(tmp_path / "a", "random")
    assert search(tmp_path / "a", "random") == search(tmp_path / "b", "random")


@pytest.mark.parametrize("budget", [{"parameters": 15_000}, {"macs": 150_000}, {"memory": 1400}])
@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("space", SPACES)
def test_one_budget_alone_is_an_upper_bound(tmp_path, name, budget, space):
    for row in search(tmp_path, name, space=space, budgets=budget)["candidates"]:
        assert row["macs"] <= 150_000 and row["parameters"] <= 15_000


def test_decisions_reach_what_a_draw_reaches():
    space = SPACES["stages"]
    blocks = [Block("basic")] + [
        Block("mbconv", k, e, s) for k in KERNELS for e in DRAWN_EXPANSIONS for s in (False, True)
    ]  # fmt: skip
    made = {space.build([i % n for n in space.options]) for i in range(2000)}
    rng = np.random.default_rng(0)
    made |= {space.build([int(rng.integers(n)) for n in space.options]) for _ in range(2000)}
    for found in (made, {space.draw(seed) for seed in range(3000)}):
        stages = [stage for one in found for stage in one.stages]
        assert {stage.blocks[0] for stage in stages} == set(blocks)
        assert {(len(one.stages), one.stages[0].stride) for one in found} == {(n, s) for n in (3, 4) for s in (1, 2)}
        assert all(len(set(stage.blocks)) == 1 and len(stage.blocks) in DRAWN_DEPTHS for stage in stages)
        pairs = [pair for one in found for pair in zip(one.stages, one.stages[1:], strict=False)]
        assert {round(b.width / a.width, 9) for a, b in pairs} == set(GROWTHS) and all(b.stride == 2 for _, b in pairs)
    drawn = random_stages(5)  # any draw is some list of choices
    kinds, rest = list(DRAWN_BLOCKS), drawn.stages
    choices = [len(rest) - 3, rest[0].stride - 1]
    for i, stage in enumerate((*rest, rest[-1])[:4]):
        one, before = stage.blocks[0], rest[max(i - 1, 0)].width
        choices += [kinds.index((one.kind, one.kernel))]
        choices += [DRAWN_EXPANSIONS.index(one.expansion), int(one.squeeze_excite), len(stage.blocks) - 1]
        choices += [GROWTHS.index(stage.width / before)] if i else []
    assert space.build(choices) == drawn


def test_moves_of_stages_stay_in_the_drawn_space_and_undo_each_other():
    space = SPACES["stages"]
    for seed in range(20):
        genotype = space.draw(seed)
        grown, trimmed = space.moves(genotype)
        for one in grown + trimmed:
            block = one.stages[0].blocks[0]
            assert all(len(stage.blocks) in DRAWN_DEPTHS for stage in one.stages) and block.kernel in KERNELS
            assert all(b.expansion in DRAWN_EXPANSIONS for stage in one.stages for b in stage.blocks)
        assert all(genotype in space.moves(one)[1] for one in grown)
        assert all(genotype in space.moves(one)[0] for one in trimmed)
        assert grown and np.linalg.norm(space.features(genotype) - space.features(grown[0])) > 0


def test_half_empty_proposals_are_drawn_again_and_the_fullest_is_kept():
    class Toy:
        def fits(self, genotype):
            return {"parameters": genotype}

    found = choose(Proposal(lambda a: [10, 120, 90, 99][a]), Toy(), {"parameters": 100})
    assert found[0] == 90 and found[2] == 2
    assert choose(Proposal(lambda a: 7), Toy(), {})[2] == 0  # no budget: nothing is half empty
    tried = []
    found = choose(Proposal(lambda a: tried.append(a) or (50 if a == 7 else 20)), Toy(), {"parameters": 100})
    assert found[0] == 50 and found[2] == 7 and len(tried) == 100
    with pytest.raises(UserError, match="the smallest has 150 parameters, more than the 100 parameters allowed"):
        choose(Proposal(lambda a: 250 - a), Toy(), {"parameters": 100}, attempts=101)
    with pytest.raises(UserError, match="does not say the latency"):
        choose(Proposal(lambda a: 1), Toy(), {"latency": 1})
    for most, count in ((100, 13), (20, 10)):  # ten of over ten times are enough
        tried = []
        make = Proposal(lambda a, tried=tried: tried.append(a) or (250 - a if a < 12 else 90))
        if count == 13:
            assert choose(make, Toy(), {"parameters": most})[1]["parameters"] == 90
        else:
            with pytest.raises(UserError, match="the smallest has 241"):
                choose(make, Toy(), {"parameters": most})
        assert len(tried) == count


def test_any_of_several_budgets_may_be_the_one_that_is_full():
    class Toy:
        def fits(self, genotype):
            return dict(zip(("parameters", "macs"), genotype, strict=True))

    limits = {"parameters": 100, "macs": 10}
    tried = [(84, 8), (90, 11), (20, 9), (99, 10)]  # half empty, too much, full
    assert choose(Proposal(lambda a: tried[a]), Toy(), limits)[2] == 2
    assert choose(Proposal(lambda a: tried[a], fixed=True), Toy(), limits)[2] == 0


@pytest.mark.parametrize("count, steps", [(2, 5), (3, 10), (8, 6), (40, 25)])
def test_halving_is_that_of_the_paper(count, steps):
    alive, spent, expected = count, 0, []
    for _ in range(math.ceil(math.log2(count))):
        spent += max(1, math.floor(count * steps / (alive * math.ceil(math.log2(count)))))
        expected.append((alive, spent))
        alive = math.ceil(alive / 2)
    assert rungs(count, steps) == expected and alive == 1


def test_halving_promotes_the_better_half():
    asked, history, before = Halving(SPACE, 11, 6, 3), [], None
    for count, steps in rungs(11, 6):
        batch = asked.propose(history)
        if before:  # unlike what they had in the rungs before, and unlike the order they were proposed in
            better = sorted(before, key=lambda one: one.score)[len(before) // 2 :]
            assert {str(one.make(0)) for one in batch} == {str(one.genotype) for one in better}
        assert len(batch) == count and {one.steps for one in batch} == {steps}
        values = np.random.default_rng(count).permutation(count)
        before = [
            Candidate(len(history) + i, one.make(0), steps, 0, float(value), {})
            for i, (one, value) in enumerate(zip(batch, values, strict=True))
        ]
        history += before
    assert asked.propose(history) == []


@pytest.mark.parametrize("candidates, steps", [(2, 1), (12, 20), (24, 20)])
@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_planned_is_what_is_scored(tmp_path, name, candidates, steps):
    *planned, (count, longer) = plan_scores(name, SPACE, candidates, steps)
    asked, history, rng = STRATEGIES[name](SPACE, candidates, steps, 0), [], np.random.default_rng(0)
    while batch := asked.propose(history):
        for one in batch:
            more = rng.normal(), sizes(genotype := one.make(0))
            history.append(Candidate(len(history), genotype, one.steps or steps, 0, *more))
    made, expected = (sum(one.steps for one in history)), sum(count * steps for count, steps in planned)
    assert made == expected if name != "asha" else expected <= made <= 2 * expected
    assert {steps for _, steps in planned} == {one.steps for one in history}

    def again(finalists):
        assert len(finalists) == count and {one.steps for one in finalists} == {longer}
        return finalists

    pick(history, again, steps, 0)


def scored(count):
    return [Candidate(i, g := random_genotype(i), 1, 0, score(g, 1, 0), sizes(g)) for i in range(count)]


def test_evolution_ages_by_one_change_of_the_best_of_a_sample():
    history = scored(12)
    history[0] = dataclasses.replace(history[0], score=1e9)  # the best is too old to be a parent
    asked = Evolution(SPACE, 30, 1, 0, population=5, sample=5, brood=1)
    for number in range(30):
        parent = asked.parent(history, number)
        rng = np.random.default_rng(derived_seed(0, "sample", number))
        sample = [history[-5:][i] for i in rng.integers(5, size=5)]
        assert parent == sorted(sample, key=lambda one: one.score)[-1] and parent.number >= 7
    [proposal] = asked.propose(history)
    parent = asked.parent(history, 12).genotype
    for attempt in range(20):
        child = proposal.make(attempt)
        before, after = parent.normal + parent.reduce, child.normal + child.reduce
        [(old, new)] = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
        assert (old.op == new.op) != (old.source == new.source) and old.target == new.target


def test_controller_takes_the_gradient_of_reinforce():
    asked = Controller(SPACE, 8, 1, 0, batch=2)
    history = [Candidate(i, None, 1, 0, value, {}) for i, value in enumerate([1.0, 3.0])]
    before, after = asked.learned([]), asked.learned(history)
    total = 0
    for one in history:  # baseline 2: the mean of the first batch
        chosen = asked.choices(before, one.number, 0)
        total = total + (one.score - 2.0) * before.walk(choices=chosen)[1] / 2
    total.backward()
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        if old.grad is None:  # the last embedding leads nowhere
            continue
        moved, strong = (new - old).detach(), old.grad.abs() > 1e-5
        assert torch.equal(moved[strong].sign(), old.grad[strong].sign())  # uphill, by Adam's first step


def test_the_controllers_baseline_is_a_moving_average(monkeypatch):
    asked = Controller(SPACE, 8, 1, 0, batch=2, rate=0.5, decay=0.9)
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)  # whose step is the gradient
    values = [1.0, 3.0, 5.0, 9.0, 4.0, 8.0]
    history = [Candidate(i, None, 1, 0, value, {}) for i, value in enumerate(values)]
    before, after, total = asked.learned(history[:4]), asked.learned(history), 0
    before.zero_grad()
    for one in history[4:]:  # 2, of which a tenth became 7
        total = total + (one.score - 2.5) * before.walk(choices=asked.choices(before, one.number, 0))[1] / 2
    total.backward()
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        if old.grad is not None:
            assert torch.allclose(new, old + 0.5 * old.grad, atol=1e-6)


def test_the_probabilities_of_all_choices_add_up_to_1():
    policy, seen = Policy([2, 3]), 0.0
    for choices in [(a, b) for a in range(2) for b in range(3)]:
        seen += policy.walk(choices=choices)[1].exp().item()
    assert seen == pytest.approx(1.0, abs=1e-5)


def test_grow_trim_stays_within_memory_and_ranks():
    weights = ranking([[0, 1], [1, 1], [2, 1], [3, 1]], [0, 2, 4, 6], decay=1e-9)
    assert weights[0] == pytest.approx(2) and weights[1] == pytest.approx(0)
    history = scored(8)
    best = max(history, key=lambda one: one.score).genotype
    asked = GrowTrim(SPACE, 20, 1, 0, memory=sizes(best)["memory"])
    moves = asked.ranked(history)
    assert moves and all(sizes(one)["memory"] <= sizes(best)["memory"] for one in moves)
    assert any(sizes(one)["memory"] > sizes(best)["memory"] for one in SPACE.moves(best)[0])
    weights = ranking([SPACE.features(one.genotype) for one in history], [one.score for one in history])
    guesses = [float(SPACE.features(one) @ weights) for one in moves]
    assert guesses == sorted(guesses, reverse=True) and guesses[0] > guesses[-1]
    assert [one.make(0) for one in asked.propose(history)] == moves[: asked.round]


def test_a_fast_starter_with_no_room_is_not_picked(tmp_path):
    fast = str(random_genotype(derived_seed(3, "draw", 4, 0)))

    def curve(genotype, steps, seed):
        return 0.4 if str(genotype) == fast else 0.6 * steps / (steps + 8) + score(genotype, 1, 0) / 1000

    found = search(tmp_path / "longer", "random", 16, curve)
    assert max(found["candidates"], key=lambda row: row["score"])["number"] == 4
    assert found["pick"]["number"] != 4 and 4 in {row["number"] for row in found["pick"]["finalists"]}
    assert found["front"] and plot_candidates(found)
    assert search(tmp_path / "no longer", "random", 16, curve, times=1)["pick"]["number"] == 4


def rows(scores, macs, **sizes):
    more = [{k: v[i] for k, v in sizes.items()} for i in range(len(macs))]
    return [Candidate(i, i, 1, 0, s, {"macs": m} | one) for i, (s, m, one) in enumerate(zip(scores, macs, more))]


def again(*values, more=()):
    "A `score_again` that gives these scores, in order."
    def score_again(candidates):
        assert len(candidates) == len(values) and len({one.seed for one in candidates}) == 2
        told = [dict(zip(("rank",), [m])) for m in more] or [{}] * len(values)
        return [
            dataclasses.replace(one, score=value, more=extra)
            for one, value, extra in zip(candidates, values, told, strict=True)
        ]  # fmt: skip

    return score_again


def test_within_the_noise_the_fewest_macs_are_taken():
    four = rows([0, -1, -2, -3], [9, 5, 1, 7])
    found = pick(four, again(1.0, 2.0, 1.4, 1.4), 1, 0)
    assert found["number"] == 1 and found["noise"] == pytest.approx((0.25 / 2) ** 0.5) and found["steps"] == 4
    assert pick(four, again(1.4, 1.4, 1.0, 1.0), 1, 0)["number"] == 0
    assert "scored for 4 steps with two seeds" in found["why"]
    free = pick(four, again(1.0, 2.0, 1.4, 1.4), 1, 0, trains=False)
    assert "scored without training by two seeds" in free["why"] and free["number"] == 1
    finalists = pick(rows(range(17), [1] * 17), again(*[0.0] * 6), 1, 0)["finalists"]
    assert [row["number"] for row in finalists] == [16, 15, 14]


def test_latency_decides_only_where_it_was_measured():
    four = rows([0, -1, -2, -3], [5, 9, 1, 7], latency=[2.0, 1.0, 0.1, 3.0])
    found = pick(four, again(1.0, 2.0, 1.4, 1.4), 1, 0, budgets={"latency": 2.0})
    assert found["number"] == 1 and "least latency (1 ms)" in found["why"] and "50 % of max_latency" in found["why"]
    assert front(four) == [2, 0, 1]  # 1 is the fastest of those that 0 beats in score and MACs
    assert front(rows([0, -1, -2, -3], [5, 9, 1, 7])) == [2, 0]


def test_the_rank_is_told_beside_the_score():
    found = pick(rows([0, -1], [5, 9]), again(1.0, 1.1, 0.2, 0.2, more=[30.0, 32.0, 11.0, 13.0]), 1, 0)
    assert found["finalists"][0]["rank"] == 31 and "its rank is 31, the finalists' go from 12 to 31" in found["why"]


def test_what_left_the_numbers_is_no_finalist():
    gone = -math.inf
    found = pick(rows([gone, 1.0, gone, 0.5, 0.1], [1, 5, 1, 4, 1]), again(1.0, 1.0, gone, 1.0), 1, 0)
    assert [row["number"] for row in found["finalists"]] == [1, 3] and found["number"] == 1
    assert found["finalists"][1]["score"] is None and json.dumps(found, allow_nan=False)
    assert pick(rows([gone, 1.0], [1, 5]), again(1.0, 1.0), 1, 0)["number"] == 1
    found = pick(rows([0.1, 1.0], [1, 5]), again(*[gone] * 4), 1, 0)
    assert found["number"] == 1 and "left the numbers in all of them" in found["why"]
    with pytest.raises(Diverged, match="None of the 2 candidates has a score"):
        pick(rows([gone, gone], [1, 5]), again(), 1, 0)


def test_unknown_strategies_are_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean 'evolution'"):
        search(tmp_path, "evolutoin")
    with pytest.raises(UserError, match="cannot be loaded"):
        search(tmp_path, "no.such:Thing")
    assert search(tmp_path, "ssnas_colab.strategies.random:Random", 2)["candidates"]


def test_decisions_build_every_cell():
    rng = np.random.default_rng(0)
    for _ in range(50):
        genotype = SPACE.build([int(rng.integers(n)) for n in SPACE.options])
        for cell in (genotype.normal, genotype.reduce):
            assert len({(edge.source, edge.target) for edge in cell}) == 8


def by_the_paper(scores, candidates, factor, top, workers):
    """Algorithm 2 of Li 2020, word by word, with workers that all end at the same moment: its (configuration, rung)s.

    scores: (configuration, rung) to what comes out, higher is better.
    """
    done, promoted, fresh, jobs = {}, set(), iter(range(candidates)), []

    def get_job():
        for k in range(top - 1, -1, -1):
            rung = [(value, at) for (at, of), value in done.items() if of == k]
            in_top = [at for _, at in sorted(rung, key=lambda one: -one[0])[: len(rung) // factor]]
            promotable = [at for at in in_top if (at, k) not in promoted]
            if promotable:
                promoted.add((promotable[0], k))
                return promotable[0], k + 1
        drawn = next(fresh, None)
        return None if drawn is None else (drawn, 0)

    while given := [job for job in (get_job() for _ in range(workers)) if job]:
        jobs += given
        done |= {job: scores(*job) for job in given}
    return jobs


@pytest.mark.parametrize("candidates, factor, workers", [(2, 2, 1), (9, 2, 2), (40, 2, 10), (64, 4, 16), (27, 3, 1)])
def test_asha_is_the_papers(candidates, factor, workers):
    rng = np.random.default_rng(candidates)
    table = rng.permutation(candidates * 10).reshape(candidates, 10)

    def scores(at, rung):
        return float(table[at, rung] + 40 * rung)  # unlike from rung to rung

    asked, history, known = Asha(SPACE, candidates, 50, 3, factor=factor, brood=workers), [], {}
    while batch := asked.propose(history):
        assert len(batch) <= workers
        begin = len(history)
        for one in batch:
            genotype, rung = one.make(0), round(math.log(one.steps / asked.least, factor))
            at = known.setdefault(str(genotype), len(known))
            history.append(Candidate(len(history), genotype, one.steps, 0, scores(at, rung), {}))
        for k in range(begin):  # what was proposed stays, whatever is known by now
            assert asked.jobs([one.score for one in history[:k]])[:k] == asked.jobs([h.score for h in history])[:k]
    made = [(known[str(one.genotype)], round(math.log(one.steps / asked.least, factor))) for one in history]
    top = math.floor(math.log(candidates, factor) + 1e-9)
    assert made == by_the_paper(scores, candidates, factor, top, workers) and asked.count == top + 1
    assert {rung for _, rung in made} == set(range(top + 1)) and sum(rung == 0 for _, rung in made) == candidates
    for k in range(top):  # in the end the better part of each rung has gone on
        rung = sorted((at for at, of in made if of == k), key=lambda at: -scores(at, k))
        assert {(at, k + 1) for at in rung[: len(rung) // factor]} <= set(made)
