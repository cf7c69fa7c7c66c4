"Searches that are killed, that use several processes, and whose candidates diverge; what is told on the way."

import json
import math
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from refusal import refused

from ssnas_colab.core.basics import Diverged, UserError
from ssnas_colab.experiment.interrupts import Stopped, stopping
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.genotype import GENOTYPES, genotype_from_json
from ssnas_colab.strategies import controller, runner
from ssnas_colab.strategies.controller import Controller
from ssnas_colab.strategies.runner import STRATEGIES, run_search, take
from ssnas_colab.strategies.space import ATTEMPTS, Filled, NetworkScore, Proposal, StageSpace, draws

MINE = '''
import hashlib, os, time

def fits(genotype):
    blocks = sum(len(stage.blocks) for stage in genotype.stages)
    return {"parameters": 1000 * blocks, "macs": 10_000 * blocks}

def score(genotype, steps, seed):
    time.sleep(float(os.environ.get("SLEEP", 0)))
    return int(hashlib.sha256(f"{genotype} {steps} {seed}".encode()).hexdigest()[:6], 16) / 1e6

def dies(genotype, steps, seed):
    os._exit(3)
'''
COMMAND = """
import sys
import mine
from ssnas_colab.experiment.run import Run
from ssnas_colab.strategies.runner import run_search
from ssnas_colab.strategies.space import StageSpace
run = Run.open("run", {})
run_search("evolution", StageSpace(mine.fits), "mine:score", run, candidates=9, steps=2, processes=int(sys.argv[1]))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    import mine

    yield mine
    del sys.modules["mine"]


def toy(mine, path, strategy="evolution", score="mine:score", candidates=9, **options):
    options = {"steps": 2, "quiet": True} | options
    return run_search(strategy, StageSpace(mine.fits), score, Run.open(path, {}), candidates=candidates, **options)


def children(pid):
    "Process ids of the children of a process that are alive."
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc")
def test_a_search_that_is_killed_goes_on_and_leaves_no_worker(tmp_path, mine):
    rng, left = random.Random(), []
    for processes in (2, 1):
        environment = {**os.environ, "SLEEP": "0.2"}
        command = [sys.executable, "-c", COMMAND, str(processes)]
        one = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
        done = len(list(tmp_path.glob("run/candidates/*.json")))
        while len(list(tmp_path.glob("run/candidates/*.json"))) < done + 2:
            assert one.poll() is None
            time.sleep(0.02)
        time.sleep(0.3 * rng.random())
        workers = children(one.pid)
        assert one.poll() is None and len(workers) >= (2 if processes == 2 else 0)
        one.kill()
        one.wait()
        left.append(len(list(tmp_path.glob("run/candidates/*.json"))))
        end = time.monotonic() + 20
        while any(map(alive, workers)):
            assert time.monotonic() < end, "the workers outlive the process that they work for"
            time.sleep(0.05)
    assert 2 <= left[0] < left[1] <= 9
    assert json.dumps(toy(mine, tmp_path / "run")) == json.dumps(toy(mine, tmp_path / "whole"))


def test_bits_depend_neither_on_processes_nor_on_threads(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (80, 1, 8, 8), np.uint8)
    fits, found = Filled(4, {"parameters": 5_000}, (1, 8, 8)), []
    before = torch.get_num_threads()
    for processes, threads in ((1, 1), (1, 3), (2, 2)):
        torch.set_num_threads(threads)
        try:
            run, score = Run.open(tmp_path / f"{processes} {threads}", {}), NetworkScore(fits, images)
            options = {"candidates": 3, "steps": 1, "processes": processes, "quiet": True}
            found.append(json.dumps(run_search("halving", StageSpace(fits), score, run, **options)))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    assert found[0] == found[1] == found[2] and '"rank"' in found[0] and "its rank is" in found[0]


def test_a_worker_that_dies_is_told_in_a_sentence(tmp_path, mine):
    with pytest.raises(UserError, match="repeat it with fewer, what is scored is kept"):
        toy(mine, tmp_path / "run", score="mine:dies", processes=2)


def test_what_was_scored_is_not_scored_again_and_another_search_is_refused(tmp_path, mine):
    calls = []

    class Same:
        "Always the same genotype."

        def __init__(self, space, candidates, steps, seed):
            self.space, self.candidates = space, candidates

        def propose(self, history):
            same = Proposal(lambda attempt: self.space.draw(1))
            return [same] * min(2, self.candidates - len(history))

    def score(*job):
        calls.append(job)
        return mine.score(*job)

    found = toy(mine, tmp_path / "run", Same, score, 6)
    assert len(found["candidates"]) == 6 and len(calls) == 3 == len({job[1:] for job in calls})
    with pytest.raises(UserError, match="is of another search"):
        toy(mine, tmp_path / "run", "random", score, 6)
    with pytest.raises(UserError, match="0.json is of another search"):
        toy(mine, tmp_path / "run", Same, score, 6, seed=1)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("lost", [-math.inf, math.nan, math.inf])
@pytest.mark.filterwarnings("ignore:search. candidate .* plus infinity")
def test_candidates_that_diverge_are_null_and_the_search_goes_on(tmp_path, mine, strategy, lost):
    def score(genotype, steps, seed):
        value = mine.score(genotype, steps, seed)
        return lost if int(1e6 * value) % 3 else value

    found = toy(mine, tmp_path / "run", strategy, score, 12)
    text = json.dumps(found, allow_nan=False)
    rows = {row["number"]: row for row in found["candidates"]}
    assert '"score": null' in text and rows[found["pick"]["number"]]["score"] is not None
    assert all(rows[row["number"]]["score"] is not None for row in found["pick"]["finalists"])
    assert all(rows[number]["score"] is not None for number in found["front"])
    assert runner.plot_candidates(found).axes[0].get_ylabel() == "score"
    assert runner.plot_candidates(found | {"score": "naswot"}).axes[0].get_ylabel() == "score: naswot"
    assert json.dumps(toy(mine, tmp_path / "run", strategy, score, 12)) == json.dumps(found)
    with pytest.raises(Diverged, match="None of the .* candidates has a score"):
        toy(mine, tmp_path / "none", strategy, lambda *job: lost, 4)


def test_the_controller_stays_finite_and_its_choices_those_it_made():
    space = StageSpace(lambda genotype: {})
    asked = Controller(space, 12, 1, 0, batch=3)
    values = [-math.inf] * 3 + [1.0, -math.inf, 2.0] + [-5.0, 0.0, -math.inf]
    history = [runner.Candidate(i, None, 1, 0, value, {}) for i, value in enumerate(values)]
    assert all(p.isfinite().all() for p in asked.learned(history).parameters())
    first = asked.choices(asked.learned(history[:6]), 6, 0)
    step = asked.learned(history[:6])  # a worse one later does not change what was learned until then
    assert asked.choices(step, 6, 0) == first
    pairs = zip(asked.learned(history[:3]).parameters(), asked.learned([]).parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)  # nothing to learn from where none has a score


def test_stopping_is_heard_between_two_candidates(tmp_path, mine):
    with stopping(time_budget=3600) as stop:
        told = []

        def tell(one):
            told.append(one.number)
            stop.signal = "it was told to"

        history = [runner.Candidate(i, StageSpace(None).draw(i), 1, 0, 0.0, {}) for i in range(5)]
        run = Run.open(tmp_path / "run", {})
        with runner.Scorer(mine.score, run, stop, 1, tell) as go, pytest.raises(Stopped, match="it was told to"):
            go([(f"{one.number}.json", one) for one in history])
    assert told == [0] and run.has("0.json") and not run.has("1.json")


def test_scores_have_to_be_numbers(tmp_path, mine):
    for i, value in enumerate(("much", None, {"rank": 1.0}, {"score": "much"}, torch.eye(2), np.eye(2), 10**400)):
        with pytest.raises(UserError, match="score of candidate 0 is .*: it must give a number"):
            toy(mine, tmp_path / str(i), "random", lambda *job: value)  # noqa: B023
    found = toy(mine, tmp_path / "torch", "random", lambda *job: torch.tensor(2.0))
    assert {row["score"] for row in found["candidates"]} == {2.0}


def test_any_candidate_may_be_taken(tmp_path, mine):
    found = json.loads(json.dumps(toy(mine, tmp_path / "run")))
    assert take(found, 3) == genotype_from_json(json.dumps(found["candidates"][3]["genotype"]))
    with pytest.raises(UserError, match="no candidate 9: they are 0 to 8, and the front is "):
        take(found, 9)


def test_a_terminal_hears_of_each_tenth_and_a_notebook_sees_it(tmp_path, mine, capsys, monkeypatch):
    toy(mine, tmp_path / "run", quiet=False)
    told = capsys.readouterr().out.splitlines()
    assert len(told) > 2 and "candidates scored, the best is number" in told[0] and "was taken" in told[-1]
    toy(mine, tmp_path / "run", quiet=False)
    assert len(capsys.readouterr().out.splitlines()) == 1  # nothing was scored
    toy(mine, tmp_path / "quiet")
    assert not capsys.readouterr().out
    drawn = []

    class Picture(runner.LivePicture):
        def __init__(self, draw, quiet):
            super().__init__(draw, quiet=quiet, seconds=0)
            self.live = not quiet

        def update(self, epoch_end=False, last=False):
            drawn.append(self.draw())

    monkeypatch.setattr(runner, "LivePicture", Picture)
    toy(mine, tmp_path / "seen", quiet=False)
    assert len(drawn) > 9 and "taken" in str([text.get_text() for text in drawn[-1].legends[0].get_texts()])
    assert "scored" not in capsys.readouterr().out.splitlines()[0][:20]


class Tight(StageSpace):
    "A space in which only draws fit, and only every third of them."

    def __init__(self, every=3):
        super().__init__(self.sizes)
        self.every, self.drawn, self.seeds = every, {}, []

    def sizes(self, genotype):
        fits = self.drawn.get(str(genotype), 1) % self.every == 0
        return {"parameters": 90 if fits else 200, "macs": 1000}

    def draw(self, seed):
        genotype = super().draw(seed)
        self.drawn[str(genotype)] = seed
        return genotype


@pytest.fixture
def few_attempts(monkeypatch):
    "A tenth of the attempts at a proposal, of which each of the controller's is a walk through its policy."
    monkeypatch.setattr(runner, "choose", partial(runner.choose, attempts=10))
    for module in (runner, controller):
        monkeypatch.setattr(module, "ATTEMPTS", 10)


@pytest.mark.parametrize("strategy", ["controller", "evolution"])
def test_a_proposal_that_fits_nowhere_is_drawn_from_the_space_instead(tmp_path, mine, strategy, few_attempts):
    def search(path, score=mine.score):
        options = {"candidates": 8, "steps": 2, "quiet": True, "budgets": {"parameters": 100}}
        return run_search(strategy, Tight(), score, Run.open(path, {}), **options)

    def killed(genotype, steps, seed):
        calls.append(genotype)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return mine.score(genotype, steps, seed)

    found, calls = search(tmp_path / "whole"), []
    attempts = [row["attempt"] for row in found["candidates"]]
    assert len(attempts) == 8 and all(row["parameters"] == 90 for row in found["candidates"])
    assert min(attempts[2:] if strategy == "evolution" else attempts) >= runner.ATTEMPTS
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "killed", killed)
    assert json.dumps(search(tmp_path / "killed")) == json.dumps(found)  # remade from the numbers of the attempts
    assert json.dumps(search(tmp_path / "whole", None)) == json.dumps(found)


def test_a_search_is_refused_only_where_draws_of_the_space_fit_no_more(tmp_path, mine):
    def search():
        options = {"candidates": 8, "steps": 2, "quiet": True, "budgets": {"parameters": 100}}
        run_search("controller", Tight(every=1 << 70), mine.score, Run.open(tmp_path / "run", {}), **options)

    refused("tried for one candidate fits", "the smallest has 200 parameters", "raise max_parameters", act=search)


def test_the_controller_is_not_paid_for_what_it_did_not_choose():
    space, unlike = StageSpace(lambda genotype: {}), Controller(StageSpace(lambda genotype: {}), 12, 1, 0, batch=2)
    values = [(1.0, 3), (5.0, ATTEMPTS + 7), (2.0, 0), (3.0, 1)]
    history = [runner.Candidate(i, space.draw(i), 1, 0, value, {}, a) for i, (value, a) in enumerate(values)]
    paid = [runner.Candidate(0, None, 1, 0, 1.0, {}, 3), runner.Candidate(1, None, 1, 0, 1.0, {}, 0), *history[2:]]
    pairs = zip(unlike.learned(history).parameters(), unlike.learned(paid).parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)  # the worst until then, for its first choices


class Own:
    "A strategy of one's own that proposes whatever it is told to."

    gives = []

    def __init__(self, space, candidates, steps, seed):
        self.space = space

    def propose(self, history):
        return self.gives


def proposing(gives):
    return type("Own", (Own,), {"gives": gives})


WRONG = {
    "constructor": (type("Short", (), {"__init__": lambda self, space: None}), "Short is no class that takes"),
    "no propose": (type("Dumb", (Own,), {"propose": None}), "Dumb has no propose"),
    "no class": (3, "strategy int is no class"),
    "numbers": (proposing([1, 2]), "a list with int: it must give a list of Proposal"),
    "generator": (proposing(iter([Proposal(lambda attempt: None)])), "gives list_iterator: it must give a list"),
    "none": (proposing(None), "proposed nothing"),
    "empty": (proposing([]), "proposed nothing"),
    "no genotype": (proposing([Proposal(lambda attempt: 3)]), "strategy proposed int as candidate 0"),
    "another space": (proposing([Proposal(lambda attempt: GENOTYPES["SNAS"])]), "a Genotype as candidate 0, but"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_strategy_of_ones_own_is_refused_in_a_sentence(tmp_path, mine, name):
    strategy, *words = WRONG[name]
    refused(*words, act=lambda: toy(mine, tmp_path / "run", strategy))


def test_a_wrong_space_of_ones_own_is_refused_in_a_sentence(tmp_path, mine):
    def search(space, strategy="random", score=mine.score, **options):
        options = {"candidates": 3, "steps": 1, "quiet": True} | options
        run_search(strategy, space, score, Run.open(tmp_path / "run", {}), **options)

    class Plain:
        def draw(self, seed):
            return StageSpace(None).draw(seed)

    space = Plain()
    refused("The space object lacks draw(seed) and fits(genotype)", act=lambda: search(object()))
    refused("The space Plain lacks fits(genotype)", act=lambda: search(space))
    space.fits = mine.fits
    for strategy, lacks in (("evolution", "mutate"), ("controller", "options and build"), ("grow_trim", "moves")):
        refused("The space Plain lacks", lacks, act=lambda: search(space, strategy))  # noqa: B023
    space.fits = lambda genotype: {"parameters": 3}
    refused("does not say the macs of a genotype", act=lambda: search(space))
    space.fits = lambda genotype: {"parameters": "3", "macs": 3}
    refused("gives parameters as str", act=lambda: search(space, budgets={"parameters": 9}))
    space.fits = lambda genotype: 3
    refused("fits of the space gives int", act=lambda: search(space))
    space.fits, space.draw = mine.fits, lambda seed: None
    refused("The space drew NoneType as candidate 0: it must be a genotype", act=lambda: search(space))
    refused("The space drew NoneType", act=lambda: draws(space, 0, 0, 1)[0].make(0))
    space.draw = Plain().draw
    refused("The score does not take (genotype, steps, seed)", act=lambda: search(space, score=lambda genotype: 1.0))
    search(space)


def test_what_a_score_tells_beside_it_may_lack_and_may_not_take_a_name_of_the_searchs(tmp_path, mine):
    def sometimes(genotype, steps, seed):
        value = mine.score(genotype, steps, seed)
        return {"score": value} | ({"sparse": value} if int(1e6 * value) % 2 else {})

    found = toy(mine, tmp_path / "some", "random", sometimes, 12)
    rows, told = found["candidates"], found["pick"]["finalists"]
    assert 0 < sum("sparse" in row for row in rows) < 12 and 0 < sum("sparse" in row for row in told) < 4
    for name in ("of", "steps", "seconds", "number", "scores", "macs"):
        def taken(*job):
            return {"score": 1.0, name: 2.0}  # noqa: B023

        refused(f"The score gives {name}, which", act=lambda: toy(mine, tmp_path / name, "random", taken))  # noqa: B023


def test_plus_infinity_is_told_and_huge_scores_are_scores(tmp_path, mine):
    with pytest.warns(UserWarning, match="candidate 0 has the score plus infinity, which counts as lost"):
        with pytest.raises(Diverged):
            toy(mine, tmp_path / "inf", "random", lambda *job: math.inf)

    def huge(genotype, steps, seed):
        return (1 if mine.score(genotype, steps, seed) > 8 else -1) * 1.7e308

    for strategy in STRATEGIES:
        found = toy(mine, tmp_path / strategy, strategy, huge, 12)
        json.dumps(found, allow_nan=False)
        assert found["pick"]["noise"] == 0 or 1e307 < found["pick"]["noise"] < math.inf


def test_budgets_are_numbers_above_0(tmp_path, mine):
    for most in (0, -1, math.inf, math.nan, "3"):
        words = f"The budget of macs is {most!r}: it must be a number above 0"
        refused(words, act=lambda: toy(mine, tmp_path / "run", "random", budgets={"macs": most}))  # noqa: B023
        refused(words, act=lambda: Filled(4, {"macs": most}, (1, 8, 8)))  # noqa: B023
