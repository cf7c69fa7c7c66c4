"The derivation stage: what it leaves in a run, what repeating it does, and what it refuses."

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from refusal import refused

from ssnas_colab.core.basics import UserError
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.baselines import random_genotype
from ssnas_colab.models.genotype import EDGES, PRIMITIVES, Edge, Genotype
from ssnas_colab.models.network import Network
from ssnas_colab.models.stages import random_stages
from ssnas_colab.stages.derivation import derive_stage, genotype_over_time, unchanged_since

KINDS = ("normal", "reduce")
CELL = [("sep_conv_3x3", 0, 2), ("dil_conv_5x5", 1, 2), ("skip_connect", 2, 3), ("max_pool_3x3", 0, 5)]


def alphas_of(*on, epochs=2, off=-4.0, yes=4.0):
    "Alphas of both cells, rising from 0 to `yes` for the edges `on` and falling to `off` for all others."
    last = np.full((14, 7), off, np.float32)
    for op, source, target in on:
        last[EDGES.index((source, target)), PRIMITIVES.index(op)] = yes
    rows = np.linspace(0, 1, epochs + 1, dtype=np.float32)[:, None, None] * last
    return {kind: rows.copy() for kind in KINDS}


def run_with(path, alphas, **changes):
    "A run with `alphas` where a search would leave them."
    run = Run.open(path, {"data": "none"})
    run.save_arrays("alphas.npz", **alphas)
    run.save_json("search.json", {"width": 4, "depth": 5, "nodes": 4, "relaxation": "fair", "history": []} | changes)
    return run


def files(run):
    return {path.relative_to(run.path): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_artefacts(tmp_path):
    run = run_with(tmp_path / "run", alphas_of(*CELL))
    genotype = derive_stage(run)
    assert [tuple(edge) for edge in genotype.normal] == [tuple(edge) for edge in genotype.reduce] == CELL
    assert Genotype.from_json((run.path / "genotype.json").read_text()) == genotype
    assert (run.path / "genotype.png").read_bytes().startswith(b"\x89PNG")
    facts = json.loads((run.path / "derivation.json").read_text())
    kept = facts.pop("kept")
    assert [row[:4] for row in kept] == [[kind, *edge] for kind in ("normal", "reduce") for edge in CELL]
    assert all(row[4] == pytest.approx(0.982, abs=1e-3) for row in kept)
    # after one of two epochs the weights are sigmoid(2) = 0.88 and sigmoid(-2) = 0.12: decided, and over the threshold
    assert facts == {
        "method": "threshold", "threshold": 0.85, "max_edges": 2, "epoch": 2, "decided": 1.0,
        "edges": {"normal": 4, "reduce": 4}, "unchanged_since": 1, "warnings": [],
    }  # fmt: skip
    assert run.finished("derivation")


def test_sigmoid_and_share_of_decided(tmp_path):
    alphas = alphas_of(*CELL)
    logit = np.log(0.85 / 0.15)
    alphas["normal"][-1, 0, 3], alphas["normal"][-1, 1, 6] = logit + 1e-3, logit - 1e-3
    run = run_with(tmp_path / "run", alphas)
    genotype = derive_stage(run)
    assert Edge("sep_conv_3x3", 0, 2) in genotype.normal and Edge("dil_conv_5x5", 1, 2) not in genotype.normal
    assert run.load_json("derivation.json")["decided"] == pytest.approx(195 / 196)


def test_an_edge_that_the_search_made_less_likely_is_kept_with_a_word(tmp_path):
    "Of two edges into a node the search wants one alone; the second is the best of what it pushed down."
    alphas = np.zeros((3, 14, 7), np.float32)
    alphas[-1, 0, 3], alphas[-1, 1, 6] = 5, -0.1  # into node 2: the rest stays as it was, at 0, but lower still
    alphas[-1, 1, :6] = -0.5
    alphas[-1, 0, [0, 1, 2, 4, 5, 6]] = -1
    run = run_with(tmp_path / "run", {"normal": alphas, "reduce": np.zeros_like(alphas)}, relaxation="sampled")
    with pytest.warns(UserWarning, match="less likely: dil_conv_5x5 from input 1 to node 2 in the normal cell"):
        derive_stage(run)
    facts = run.load_json("derivation.json")
    assert facts["method"] == "top2" and facts["kept"][0][:4] == ["normal", "dil_conv_5x5", 1, 2]
    assert len(facts["warnings"]) == 1 and facts["warnings"][0].count("from input") == 1


def test_repeating_reads_what_is_there(tmp_path):
    run = run_with(tmp_path / "run", alphas_of(*CELL))
    first = derive_stage(run)
    before = files(run)
    (run.path / "alphas.npz").unlink()  # not needed any more
    del before[(run.path / "alphas.npz").relative_to(run.path)]
    assert derive_stage(Run.open(run.path)) == first and files(run) == before


def test_a_stage_killed_before_its_record_ends_with_the_same_bytes(tmp_path):
    run = run_with(tmp_path / "run", alphas_of(*CELL))
    derive_stage(run)
    before = files(run)
    for name in ("finished/derivation.json", "derivation.json", "genotype.png"):
        (run.path / name).unlink()
    derive_stage(run)
    after = files(run)
    assert before.keys() == after.keys()
    assert {name.name for name in before if before[name] != after[name]} <= {"derivation.json"}  # its time has moved on
    assert before[Path("derivation.json")] == after[Path("derivation.json")]


def test_other_settings_until_something_is_built(tmp_path):
    run = run_with(tmp_path / "run", alphas_of(*CELL))
    run.finish("data")
    run.finish("search", seconds=1.0)
    first = derive_stage(run)
    assert len(derive_stage(run, method="top2").normal) == 8
    assert derive_stage(run) == first
    run.checkpoints.save("pretrain", {"step": torch.ones(1)}, epoch=0, step=3)
    before = files(run)
    with pytest.raises(UserError, match="max_edges: 2 -> 1.*pretrain"):
        derive_stage(run, max_edges=1)
    assert files(run) == before and derive_stage(run) == first


def test_missing_or_unfinished_search(tmp_path):
    run = Run.open(tmp_path / "run", {"data": "none"})
    with pytest.raises(UserError, match="search.json"):
        derive_stage(run)
    run.save_arrays("alphas.npz", **alphas_of(*CELL))  # a search in the middle: alphas of some epochs, no record
    with pytest.raises(UserError, match="search.json"):
        derive_stage(run)
    run.save_json("search.json", {"nodes": 4, "relaxation": "fair"})
    (run.path / "alphas.npz").unlink()
    with pytest.raises(UserError, match="alphas.npz"):
        derive_stage(run)
    assert not run.has("genotype.json") and not run.finished("derivation")


@pytest.mark.parametrize(
    "options, word",
    [({"method": "treshold"}, "did you mean 'threshold'"), ({"threshold": "x"}, "finite"), ({"max_edges": 0}, "max")],
)
def test_settings_out_of_range(tmp_path, options, word):
    run = run_with(tmp_path / "run", alphas_of(*CELL))
    before = files(run)
    with pytest.raises(UserError, match=word):
        derive_stage(run, **options)
    assert files(run) == before


def test_a_diverged_search_and_an_unknown_relaxation(tmp_path):
    alphas = alphas_of(*CELL)
    alphas["reduce"][-1, 3, 2] = np.nan
    with pytest.raises(UserError, match="not finite"):
        derive_stage(run_with(tmp_path / "diverged", alphas))
    with pytest.raises(UserError, match="'foul'.*fair"):
        derive_stage(run_with(tmp_path / "foul", alphas_of(*CELL), relaxation="foul"))


def test_warnings_are_given_and_recorded(tmp_path):
    run = run_with(tmp_path / "run", alphas_of(("skip_connect", 0, 2), yes=1.0))
    with pytest.warns(UserWarning) as caught:
        genotype = derive_stage(run)
    said = [str(warning.message) for warning in caught]
    assert len(said) == 3 and said == run.load_json("derivation.json")["warnings"]
    assert genotype.normal == (Edge("skip_connect", 0, 2),)


def test_genotype_over_time_is_quiet():
    alphas = alphas_of(*CELL, epochs=4)  # sigmoid(1), (2), (3), (4): over 0.85 from the second epoch on
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        story = genotype_over_time(alphas)
    assert [len(genotype.normal) for genotype in story] == [1, 1, 4, 4, 4]
    assert unchanged_since(story) == 2
    assert all(len(genotype.normal) == 8 for genotype in genotype_over_time(alphas, method="top2"))
    lenient = genotype_over_time(alphas, threshold=0.7)
    assert [len(genotype.normal) for genotype in lenient] == [1, 4, 4, 4, 4]


def test_every_search_gives_a_network_that_can_be_built(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(200):
        scale, shift = rng.choice([0.01, 1, 5, 50]), rng.choice([-60, -3, 0, 3])
        alphas = {kind: (scale * rng.normal(size=(1, 14, 7)) + shift).astype(np.float32) for kind in KINDS}
        alphas["normal"][0, np.array([source < 2 for source, _ in EDGES])] -= rng.choice([0, 20])
        [genotype] = genotype_over_time(alphas)
        assert all(genotype.used(kind)[0] and genotype.used(kind)[1] for kind in KINDS)
    network = Network(genotype, 3, in_channels=1, width=4, depth=3)
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_a_genotype_of_another_space_is_refused(tmp_path):
    "Whether it stands in the record of the search or in the run's genotype.json."
    cells, stages = random_genotype(0), random_stages(0)

    def scored(name, genotype, space):
        sizes = {"score": 1.0, "parameters": 1, "macs": 1, "genotype": genotype.to_dict()}
        rows = [{"number": number} | sizes for number in range(2)]
        how = {"space": space, "strategy": "random", "score": "depth", "why": "It is."}
        found = how | {"candidates": rows, "front": [0], "pick": {"number": 0}}
        run = Run.open(tmp_path / name, {"data": "none"})
        run.save_json("search.json", found)
        return run

    for name, own, other, space in (("a", cells, stages, "cells"), ("b", stages, cells, "stages")):
        run = scored(name, own, space)
        assert derive_stage(run) == own == derive_stage(run)
        run.save_text("genotype.json", other.to_json())
        refused(run.path, f"searched {space}", act=lambda run=run: derive_stage(run))
        run.save_text("genotype.json", '{"space": "trees"}')
        refused(run.path, "could not be read", act=lambda run=run: derive_stage(run))
        assert derive_stage(scored(f"{name} of its own", other, "my:Space")) == other
        run = scored(f"{name} wrong", other, space)
        refused(run.path, f"searched {space}", act=lambda run=run: derive_stage(run))
        assert not run.has("genotype.json")
        refused("no candidate 7", act=lambda run=run: derive_stage(run, pick=7))
    run = run_with(tmp_path / "alphas", alphas_of(*CELL))
    derive_stage(run)
    run.save_text("genotype.json", stages.to_json())
    refused(run.path, "searched cells", act=lambda: derive_stage(run))
