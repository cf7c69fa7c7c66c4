"The sizes and the scores of real networks, and what is loaded by name."

import pickle

import numpy as np
import pytest
import torch

from ssnas_colab.core.basics import UserError, load_named
from ssnas_colab.core.seeding import derived_seed
from ssnas_colab.experiment.run import Run
from ssnas_colab.models import network as models
from ssnas_colab.models.network import Network, activation_bytes, count_macs, count_parameters
from ssnas_colab.nas.scores import network_scores
from ssnas_colab.strategies.runner import choose, run_search
from ssnas_colab.strategies.space import SPACES, Filled, NetworkScore, Proposal

SHAPE = (3, 8, 8)


@pytest.mark.parametrize("budgets", [{"parameters": 30_000}, {"macs": 4e5}, {"parameters": 50_000, "memory": 6e4}])
@pytest.mark.parametrize("name", SPACES)
def test_filled_networks_are_the_widest_within_all_budgets(name, budgets):
    fits = Filled(7, budgets, SHAPE, depth=3)
    for seed in range(2 if name == "stages" else 1):
        genotype = SPACES[name](fits).draw(seed)
        found = fits(genotype)
        network = Network(genotype, 7, width=found["width"], depth=3)
        real = {"parameters": count_parameters(network), "macs": count_macs(network, SHAPE)}
        real |= {"memory": activation_bytes(network, SHAPE)} if "memory" in budgets else {}
        assert found == {"width": found["width"]} | real
        most = {f"max_{name}": budgets.get(name) for name in ("parameters", "macs", "memory")}
        assert Network.within(genotype, 7, input_size=SHAPE[1:], depth=3, **most).width == found["width"]
        assert all(real[name] <= most for name, most in budgets.items())
        wider = fits(genotype)["width"] + 1
        assert any(fits.size(genotype, wider, name) > most for name, most in budgets.items())


def test_where_nothing_fits_the_smallest_is_told():
    space = SPACES["stages"](Filled(7, {"parameters": 100, "macs": 1e9}, SHAPE))
    least = min(count_parameters(Network(space.draw(attempt), 7, width=1)) for attempt in range(5))
    told = f"the smallest has {least:,} parameters, more than the 100 parameters allowed: raise max_parameters"
    with pytest.raises(UserError, match=told):
        choose(Proposal(space.draw), space, space.fits.budgets, attempts=5)
    with pytest.raises(UserError, match="at least one of them, not none"):
        Filled(7, {}, SHAPE)
    drawn, few = space.draw(0), {"parameters": 30_000}
    assert Filled(7, few | {"macs": 1e300}, SHAPE)(drawn) == Filled(7, few, SHAPE)(drawn)
    with pytest.raises(UserError, match="at least one of them, not mac"):
        Filled(7, {"mac": 1}, SHAPE)


def test_latency_is_measured_once_for_a_shape_and_only_with_its_budget(monkeypatch, tmp_path):
    asked = []

    def latency(network, shape, device):
        asked.append((str(network.genotype), network.width))
        return network.width / 10 + len(asked) / 1e6  # never twice the same, as a clock

    monkeypatch.setattr(models, "latency", latency)
    fits = Filled(7, {"parameters": 30_000}, SHAPE)
    assert "latency" not in fits(SPACES["stages"](fits).draw(0)) and not asked
    fits = Filled(7, {"latency": 1.25, "parameters": 30_000}, SHAPE)

    def score(genotype, steps, seed, width):
        assert (str(genotype), width) in asked
        return -steps

    def search(spaces, fits, score):
        options = {"candidates": 2, "steps": 2, "quiet": True}
        return run_search("random", spaces(fits), score, Run.open(tmp_path, {}), **options)

    found = search(SPACES["stages"], fits, score)
    assert len(asked) == len(set(asked)) and all(row["latency"] <= 1.25 for row in found["candidates"])
    assert "least latency" in found["why"]
    before = len(asked)
    assert search(SPACES["stages"], Filled(7, fits.budgets, SHAPE), None) == found and len(asked) == before


def test_a_budget_of_latency_is_looked_for_from_width_1_up(monkeypatch):
    asked = []

    def latency(network, shape, device):
        asked.append((network.width, torch.get_num_threads()))
        return 1.0 + network.width / 10

    monkeypatch.setattr(models, "latency", latency)
    genotype, before = SPACES["stages"](None).draw(0), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        fits = Filled(5, {"latency": 0.5, "macs": 1e12}, SHAPE)
        torch.set_num_threads(1)  # as where candidates are scored
        assert fits(genotype)["width"] == 1 and fits.size(genotype, 1, "latency") == 1.1
        assert asked == [(1, 3)] and torch.get_num_threads() == 1  # refused at once, and with the run's threads
        asked.clear()
        assert Filled(6, {"latency": 1.65, "macs": 1e12}, SHAPE)(genotype)["width"] == 6
        assert max(width for width, _ in asked) < 16 and {threads for _, threads in asked} == {1}
    finally:
        torch.set_num_threads(before)


def test_a_score_is_that_of_the_network_drawn_by_the_seed(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (80, *SHAPE), np.uint8)
    space = SPACES["stages"](fits := Filled(7, {"parameters": 3_000}, SHAPE))
    genotype, state = space.draw(0), torch.get_rng_state()
    score = NetworkScore(fits, images)
    found = score(genotype, 1, 5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(derived_seed(5, "weights at the start"))
    network = Network(genotype, 7, width=fits(genotype)["width"])
    expected = network_scores(network, images, scores=("barlow_twins", "rank"), steps=1, seed=5)
    assert found == {"score": expected["barlow_twins"][1], "rank": expected["rank"][1]}
    assert score(genotype, 1, 6) != found and list(NetworkScore(fits, images, "naswot")(genotype, 1, 5)) == ["score"]
    again = pickle.loads(pickle.dumps(score))
    assert again(genotype, 1, 5) == found and not pickle.loads(pickle.dumps(fits)).known

    on_disk = np.memmap(tmp_path / "images", np.uint8, "w+", 64, (90, *SHAPE))[5:85]
    on_disk[:] = images
    packed = pickle.dumps(NetworkScore(fits, on_disk))
    assert len(packed) < 2000 and np.array_equal(pickle.loads(packed).images, images)


def test_scores_are_refused_before_any_work():
    fits = Filled(7, {"parameters": 3_000}, SHAPE)
    with pytest.raises(UserError, match="at least 64 images, but got 63"):
        NetworkScore(fits, np.zeros((63, *SHAPE), np.uint8))
    with pytest.raises(UserError, match="did you mean 'barlow_twins'"):
        NetworkScore(fits, np.zeros((64, *SHAPE), np.uint8), "barlow_twin")


def test_names_of_ones_own_are_looked_for_in_the_folder_and_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [one for one in __import__("sys").path if one])
    (tmp_path / "my_strategies.py").write_text("class Climb:\n    pass\n\nnumber = 3\n")
    (tmp_path / "my_broken_ones.py").write_text("class Climb\n")
    assert load_named("my_strategies:Climb", {}, "strategy").__name__ == "Climb"
    for name in ("my_strategies:Climbs", "my_broken_ones:Climb", "my_missing:Climb", ":Climb", "my_strategies:"):
        with pytest.raises(UserError, match="cannot be loaded .*: name it as module:Name"):
            load_named(name, {}, "strategy")
    with pytest.raises(UserError, match="is int, which cannot be called"):
        load_named("my_strategies:number", {}, "strategy")
