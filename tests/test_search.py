"The search: what it may see, what it keeps, and that it decides without freezing."

import dataclasses

import numpy as np
import pytest
import torch

from ssnas_colab.core.objectives import zero_one_loss
from ssnas_colab.core.runs import Run, UserError
from ssnas_colab.core.training import Moment
from ssnas_colab.core.views import pixel_statistics
from ssnas_colab.loader import load_data
from ssnas_colab.search import Balance, Bilevel, SearchConfig, decided_share, search, search_config

TINY = {"width": 2, "depth": 3, "batch_size": 32, "steps": 6, "embedding": 16, "device": "cpu"}


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", imbalance_factor=10)


def alphas_of(images, path, **changes):
    return search(images, Run.open(path, {}), TINY, quiet=True, **changes).arrays()


def test_labels_do_not_change_a_bit(digits, tmp_path):
    straight = alphas_of(digits, tmp_path / "straight")
    shuffled = {split: np.random.default_rng(0).permutation(labels) for split, labels in digits.labels.items()}
    others = {
        "shuffled": dataclasses.replace(digits, labels=shuffled),
        "absent": dataclasses.replace(digits, labels={}, task="unlabelled", class_names=()),
        "an array": digits.images["train"],
    }
    for name, data in others.items():
        found = alphas_of(data, tmp_path / name, policy=digits.policy)
        for kind in straight:
            np.testing.assert_array_equal(straight[kind], found[kind], err_msg=name)


def test_other_seeds_and_other_images_change_the_alphas(digits, tmp_path):
    straight = alphas_of(digits, tmp_path / "straight")["normal"]
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


def test_a_finished_search_is_not_done_again(digits, tmp_path, monkeypatch):
    run = Run.open(tmp_path / "run", {})
    first = search(digits, run, TINY, quiet=True).arrays()
    monkeypatch.setattr(Bilevel, "__call__", lambda *_: pytest.fail("a step was taken"))
    again = search(digits, run, TINY, quiet=True).arrays()
    np.testing.assert_array_equal(first["normal"], again["normal"])


def test_it_decides_at_the_end_and_is_not_frozen_at_the_beginning(digits, tmp_path):
    run = Run.open(tmp_path / "run", {})
    alphas = search(digits, run, TINY | {"steps": 100}, quiet=True).arrays()
    rows = run.load_json("search.json")["history"]
    assert rows[-1]["decided"] >= 0.9
    early = len(rows) // 4
    assert rows[early]["decided"] < 0.1
    assert np.abs(alphas["normal"][early] - alphas["normal"][0]).mean() > 0.05  # but it moves
    changed = np.sign(alphas["normal"][1]) != np.sign(alphas["normal"][-1])
    assert changed.mean() > 0.1  # the first epoch's signs are not the verdict


def test_the_upper_gradient_is_the_stated_sum(digits):
    config = SearchConfig(**TINY, policy="medical")
    level = Bilevel(digits.images["train"], config)
    seen = {}

    class Watched(Balance):
        def combine(self, objective, decide, ratio):
            seen.update(objective=objective, decide=decide, ratio=ratio)
            return super().combine(objective, decide, ratio)

    level.balance = Watched()
    level(Moment(0, "search", 0, 0), done=0.9)
    alphas = level.net.alpha_parameters()
    assert seen["ratio"] == config.ratio
    together = torch.cat([a.grad.flatten() for a in alphas])
    objective, decide = (torch.cat([g.flatten() for g in seen[name]]) for name in ("objective", "decide"))
    torch.testing.assert_close(together, objective / objective.norm() + config.ratio * decide / decide.norm())


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
