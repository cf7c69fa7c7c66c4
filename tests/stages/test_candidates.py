"A search by a strategy, from the command to the report: what it keeps, what goes on, what is taken, what is refused."

import io
import json
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
from refusal import refused

from ssnas_colab.cli import main
from ssnas_colab.config import evaluation_config, pipeline_config, search_config
from ssnas_colab.core.basics import UserError
from ssnas_colab.experiment.forecast import status_text
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.genotype import Genotype, load_genotype
from ssnas_colab.models.network import Network, count_macs, count_parameters
from ssnas_colab.models.stages import StageGenotype, random_stages
from ssnas_colab.stages.derivation import derive_stage, derived_by
from ssnas_colab.stages.evaluation import _contestants, compared, random_rivals
from ssnas_colab.stages.loader import load_data
from ssnas_colab.stages.pipeline import fork_run, open_with_data, run_estimate
from ssnas_colab.stages.search import describe_search, search, search_estimate

FEW = {"candidates": 4, "score_steps": 2, "device": "cpu"}
MACS, PARAMETERS = 150_000, 60_000


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", imbalance_factor=10)


@pytest.fixture(scope="module")
def searched(digits, tmp_path_factory):
    "A finished search of stages; its settings are those of a command that was never given."
    config = pipeline_config(
        "digits", space="stages", max_macs=MACS, max_parameters=PARAMETERS, device="cpu",
        search={"candidates": 4, "score_steps": 1},
    )  # fmt: skip
    run = Run.open(tmp_path_factory.mktemp("searched") / "run", config)
    search(digits, run, config["search"], quiet=True)
    return run


def copy_of(run, path):
    "A run with the files of another."
    for file in run.path.rglob("*"):
        if file.is_file():
            (path / file.relative_to(run.path)).parent.mkdir(parents=True, exist_ok=True)
            (path / file.relative_to(run.path)).write_bytes(file.read_bytes())
    return Run.open(path)


def test_every_candidate_is_within_the_budgets_and_kept(searched, digits):
    found = searched.load_json("search.json")
    assert len(found["candidates"]) == 4 and found["strategy"] == "evolution" and found["seconds"] > 0
    assert found["settings"]["candidates"] == 4 and "warmup" not in found["settings"]
    for row in found["candidates"]:
        genotype = load_genotype_text(row["genotype"])
        net = Network(genotype, 10, in_channels=1, width=row["width"])
        assert (count_parameters(net), count_macs(net, (1, 8, 8))) == (row["parameters"], row["macs"])
        assert row["parameters"] <= PARAMETERS and row["macs"] <= MACS
        assert max(row["parameters"] / PARAMETERS, row["macs"] / MACS) >= 0.85
    assert searched.facts("search")["steps"] == 4 * 1 + 2 * 2 * 4  # the finalists twice, four times as long
    assert (searched.path / "search.png").read_bytes().startswith(b"\x89PNG")


def load_genotype_text(parts):
    return StageGenotype.from_json(json.dumps(parts))


def test_a_search_that_was_killed_goes_on_to_the_same(searched, digits, tmp_path):
    found = searched.load_json("search.json")
    again = copy_of(searched, tmp_path / "again")
    for name in ("finished/search.json", "search.json", "candidates/2.json", "finalists/1.json"):
        (again.path / name).unlink()
    kept = (again.path / "candidates/0.json").stat().st_mtime_ns
    assert "search, 3 candidates scored" in status_text(again) and "next: search (under way)" in status_text(again)
    made = search(digits, again, again.config["search"], quiet=True)
    same = ("candidates", "front", "pick", "why")
    assert {name: made[name] for name in same} == {name: found[name] for name in same}
    assert (again.path / "candidates/0.json").stat().st_mtime_ns == kept


def test_the_pick_or_another(searched, tmp_path):
    found, run = searched.load_json("search.json"), copy_of(searched, tmp_path / "run")
    taken = found["pick"]["number"]
    genotype = derive_stage(run)
    assert genotype == load_genotype(run.path) == load_genotype_text(found["candidates"][taken]["genotype"])
    assert run.load_json("derivation.json") == {"pick": taken, "why": found["why"], "warnings": []}
    assert (run.path / "genotype.png").is_file() and derive_stage(run) == genotype
    run.save_json("data.json", {"class_names": [*"0123456789"], "size": [8, 8], "channels": 1})
    code, shown, _ = say("show", str(run.path), "--json")
    shown, row = json.loads(shown), found["candidates"][taken]
    assert code == 0 and {name: shown["network"][name] for name in ("parameters", "macs", "width")} == {
        name: row[name] for name in ("parameters", "macs", "width")
    }
    assert [one["number"] for one in shown["search"]["front"]] == found["front"] and shown["search"]["taken"] == taken
    assert f"  {taken}: " in (told := say("show", str(run.path))[1]) and f"{row['parameters']:,} parameters" in told
    other = next(row["number"] for row in found["candidates"] if row["number"] != taken)
    assert derive_stage(run, pick=other) == load_genotype_text(found["candidates"][other]["genotype"])
    assert "by hand" in run.load_json("derivation.json")["why"]
    run.save_json("search.json", found | {"front": [taken]})  # none that it holds is hidden, and unlike steps are told
    assert f"  {other}: " in (told := say("show", str(run.path))[1]) and ", taken" in told and "after" not in told
    assert "and the one that was taken" in told and Run.open(run.path).search_summary()["pick"]["number"] == other
    rows = [row | {"steps": 9} if row["number"] == other else row for row in found["candidates"]]
    run.save_json("search.json", found | {"front": [taken], "candidates": rows})
    assert f"  {taken}: " in (told := say("show", str(run.path))[1]) and "after 9 steps" in told
    rows = [row | {"score": None} if row["number"] == other else row for row in found["candidates"]]
    run.save_json("search.json", found | {"front": [taken], "candidates": rows})
    assert f"  {other}: no score" in say("show", str(run.path))[1]
    run.save_json("search.json", found)
    for options in ({"method": "top2"}, {"threshold": 0.5}, {"max_edges": 2}):
        refused(next(iter(options)), "candidates", act=lambda options=options: derive_stage(run, **options))
    refused("no candidate 99", act=lambda: derive_stage(run, pick=99))
    run.save_json("search.json", {name: value for name, value in found.items() if name != "pick"})
    refused("search.json", "pick", act=lambda: derive_stage(run))
    run.save_json("search.json", found)
    run.finish("pretrain/searched")
    refused("pick", "pretrain/searched", act=lambda: derive_stage(run, pick=taken))
    assert derived_by(run) == {"pick": other} and derive_stage(run, **derived_by(run)) == load_genotype(run.path)


def test_a_supernet_has_no_candidates(tmp_path):
    run = Run.open(tmp_path / "run", {})
    run.save_json("search.json", {"relaxation": "fair", "nodes": 4})
    refused("pick", "supernet", act=lambda: derive_stage(run, pick=0))


def test_cells_are_searched_by_strategies_too(digits, tmp_path, unpainted):
    run, options = Run.open(tmp_path / "run", {}), {"space": "cells", "strategy": "random", "depth": 3}
    options |= {"candidates": 2, "score_steps": 1}
    found = search(digits, run, search_config(FEW | options), budgets={"parameters": 20_000}, quiet=True)
    assert found["depth"] == 3 and isinstance(derive_stage(run), Genotype)


def test_random_networks_fill_the_budgets_as_candidates_do(searched, digits):
    config = evaluation_config(searched.config["evaluation"], random_genotypes=2)
    genotype = load_genotype_text(searched.load_json("search.json")["candidates"][0]["genotype"])
    drawn = random_rivals(genotype, digits, config, 8)
    assert list(drawn) == ["random_0", "random_1"] and len(set(map(str, drawn.values()))) == 2
    made = compared(genotype, digits, config, 8)
    for name in drawn:
        net = made[name]()
        macs, parameters = count_macs(net, (1, 8, 8)), count_parameters(net)
        assert macs <= MACS and parameters <= PARAMETERS and max(macs / MACS, parameters / PARAMETERS) >= 0.85
    assert random_rivals(genotype, digits, config, 8) == drawn


def test_without_a_budget_of_parameters_no_network_is_narrowed_to_it(searched, digits):
    config = evaluation_config(searched.config["evaluation"], max_parameters=None, published=())
    genotype = load_genotype_text(searched.load_json("search.json")["candidates"][0]["genotype"])
    made = compared(genotype, digits, config, 8)
    assert "resnet_small" not in made and count_macs(made["searched"](), (1, 8, 8)) <= MACS


def test_widths_that_were_measured_are_kept(searched, digits, tmp_path, monkeypatch):
    from ssnas_colab.models import network
    from ssnas_colab.stages import evaluation

    pace = [1.0]
    monkeypatch.setattr(network, "latency", lambda net, *_, **__: pace[0] * net.width)
    run, genotype = copy_of(searched, tmp_path / "run"), derive_stage(copy_of(searched, tmp_path / "other"))
    config = evaluation_config(
        searched.config["evaluation"], max_latency=5.5, equal_macs=(), published=("SNAS",), random_genotypes=0
    )
    first = evaluation._widths(run, genotype, digits, config, 8)
    assert first["searched"] == 5 and first["SNAS"] <= 5
    pace[0] = 2.0  # another machine, or a busy one
    monkeypatch.setattr(network, "_LATENCIES", {})
    assert evaluation._widths(run, genotype, digits, config, 8) == first
    assert compared(genotype, digits, config, 8, first)["searched"]().width == 5
    assert evaluation._widths(run, genotype, digits, evaluation_config(config, max_latency=None), 8) == {}


def test_large_images_come_in_through_a_stem_that_steps(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 64, 64), np.uint8)
    run = Run.open(tmp_path / "run", {})
    for strategy in ("random", "controller"):
        options = {"space": "stages", "strategy": strategy, "score": "macs", "candidates": 2, "device": "cpu"}
        run = Run.open(tmp_path / strategy, {})
        found = search(images, run, budgets={"macs": 2e6}, quiet=True, **options)
        assert {row["genotype"]["stem_stride"] for row in found["candidates"]} == {2}
        assert "without training" in found["why"] and run.facts("search")["steps"] == 0
    told = search_estimate(images, space="stages", score="macs", candidates=2, device="cpu", budgets={"macs": 2e6})
    assert told["steps"] == 0 and "scored by macs, without training\n" in describe_search(told)


def test_a_fork_keeps_a_search_of_the_same_budgets_alone(searched, tmp_path):
    def settings(**changes):
        return searched.config | {"evaluation": searched.config["evaluation"] | changes}

    kept = fork_run(searched.path, tmp_path / "kept", settings(loss="cross_entropy"))
    assert kept.finished("search") and kept.load_json("search.json") == searched.load_json("search.json")
    anew = fork_run(searched.path, tmp_path / "anew", settings(max_macs=MACS // 2))
    assert not anew.finished("search")


def test_what_it_would_take(digits):
    found = search_estimate(digits, space="stages", budgets={"parameters": 20_000}, **FEW)
    assert found["steps"] == 4 * 2 + 2 * 2 * 8 and found["seconds"] > 0
    assert "4 candidates by evolution" in describe_search(found)
    halving = search_estimate(digits, strategy="halving", budgets={"parameters": 20_000}, **FEW)
    assert halving["steps"] == 4 * 1 + 2 * 3 + 2 * 2 * 8  # who is promoted is scored from the start


def test_a_budget_that_nothing_fits(digits, tmp_path):
    run = Run.open(tmp_path / "run", {})
    act = lambda: search(digits, run, space="stages", budgets={"macs": 100}, quiet=True, **FEW)  # noqa: E731
    refused("MACs", "max_macs", act=act)


def test_too_few_images_for_a_score(tmp_path, digits):
    run = Run.open(tmp_path / "run", {})
    few = digits.images["train"][:40]
    given = {"space": "stages", "budgets": {"parameters": 9000}, "quiet": True} | FEW
    refused("retrieval needs at least 64", "there are 40", "be none", act=lambda: search(few, run, **given))


def test_only_a_new_run_has_to_be_able_to_begin_and_latency_is_left_to_the_search(tmp_path, digits, monkeypatch):
    measured = pipeline_config("digits", device="cpu", max_parameters=9000, max_macs=None, max_latency=1e-6)
    monkeypatch.setattr("ssnas_colab.models.network.latency", None)
    assert open_with_data(digits, tmp_path / "run", measured, searching=True)[0].has("data.json")
    monkeypatch.setattr("ssnas_colab.stages.pipeline.require_candidates", None)  # a run that was begun goes on
    assert open_with_data(digits, tmp_path / "run", measured, searching=True)[0].has("data.json")


def say(*arguments):
    "The command: its exit code, what it printed, what it complained of."
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(one) for one in arguments])
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("options, words", [
    (["--space", "stage"], ("space", "did you mean 'stages'?\n")),
    (["--strategy", "evolve"], ("strategy", "evolution")),
    (["--space", "stages", "--relaxation", "fair"], ("fair", "cells")),
    (["--space", "stages", "--strategy", "darts"], ("darts", "cells")),
    (["--strategy", "random", "--relaxation", "fair"], ("random", "fair")),
    (["--relaxation", "fair", "--candidates", "5"], ("candidates",)),
    (["--space", "stages", "--set", "search.warmup=0.5"], ("warmup",)),
    (["--space", "stages", "--set", "search.depth=5"], ("depth",)),
    (["--space", "stages", "--score", "nasvot"], ("score", "naswot")),
    (["--strategy", ""], ("strategy ''", "evolution")),
    (["--space", "cells", "--strategy", ""], ("strategy ''", "evolution")),
    (["--score", ""], ("score ''", "retrieval")),
    (["--space", "stages", "--max-macs", "lots"], ("max_macs",)),
    (["--space", "stages", "--max-parameters", "none", "--max-macs", "none"], ("max_parameters", "max_macs")),
    (["--space", "stages", "--candidates", "1"], ("candidates", "from 2 to")),
])  # fmt: skip
def test_what_does_not_go_together_is_one_sentence(tmp_path, options, words):
    code, _, said = say("search", "--out", tmp_path / "run", *options)
    assert code == 2 and said.count("\n") == 1 and said.startswith("ssnas: ") and not (tmp_path / "run").exists()
    for word in words:
        assert word in said, said


@pytest.mark.parametrize("command, images, options, words", [
    ("search", 80, ["--space", "stages", "--max-macs", "100"], ("the smallest has", "max_macs")),
    ("search", 40, ["--space", "stages"], ("at least 64 training images", "there are 40")),
    ("run", 40, ["--strategy", "random"], ("at least 64 training images", "there are 40")),
    ("search", 3, ["--relaxation", "fair"], ("at least 4 images", "got 3")),
])  # fmt: skip
def test_a_search_that_cannot_begin_leaves_no_folder(tmp_path, command, images, options, words):
    "So that the command with another budget, or with more images, is taken."
    rng, parts = np.random.default_rng(0), {}
    for name, count in (("train", images), ("val", 9), ("test", 9)):
        parts[f"{name}_images"] = rng.integers(0, 256, (count, 8, 8), np.uint8)
        parts[f"{name}_labels"] = np.arange(count)[:, None] % 2
    np.savez(tmp_path / "some.npz", **parts)
    places = ["--data", tmp_path / "some.npz", "--out", tmp_path / "run", "--device", "cpu"]
    code, _, said = say(command, *places, *options)
    assert code == 2 and said.count("\n") == 1 and not (tmp_path / "run").exists(), said
    for word in words:
        assert word in said, said


def test_a_candidate_that_a_person_took_stays_when_the_run_goes_on(tmp_path, unpainted):
    few = [f"evaluation.{one}" for one in ("pretrain_steps=0", "finetune_steps=2", "resnet18=false", "mobilenet=false")]
    few += ["evaluation.random_genotypes=0", "evaluation.equal_macs=[]"]
    few = [word for one in few for word in ("--set", one)]
    few += ["--candidates", "2", "--score-steps", "1", "--score", "macs", "--device", "cpu", "--quiet"]
    few += ["--max-macs", "0.1M", "--max-parameters", "20k"]
    place = tmp_path / "run"
    assert say("search", place, *few)[0] == 0
    run = Run.open(place)
    other = 1 - run.load_json("search.json")["pick"]["number"]
    assert say("derive", place, "--pick", other)[0] == 0
    code, _, complaint = say("run", "--out", place, *few)
    assert code == 0, complaint
    assert run.load_json("derivation.json")["pick"] == other
    rows = {row["number"]: row for row in run.load_json("search.json")["candidates"]}
    own = run.load_json("report.json")["models"]["searched"]
    assert own["parameters"] == rows[other]["parameters"]
    assert "by hand" in run.load_json("report.json")["search"]["why"]
    (place / "finished/evaluation.json").unlink()
    (place / "report.json").unlink()  # as a kill leaves it
    code, _, complaint = say("run", "--out", place, *few)
    assert code == 0 and run.load_json("report.json")["models"]["searched"]["macs"] == own["macs"], complaint


def test_the_whole_way_by_the_command(tmp_path, unpainted):
    few = ["--set", "evaluation.pretrain_steps=0", "--set", "evaluation.finetune_steps=1"]
    few += ["--set", "evaluation.resnet18=false", "--set", "evaluation.mobilenet=false"]
    few += ["--set", "evaluation.equal_macs=[]", "--set", "evaluation.random_genotypes=0"]
    command = ["--space", "stages", "--strategy", "random", "--candidates", "3", "--score-steps", "1", "--max-macs"]
    command += ["0.15M", "--max-parameters", "60k", "--max-memory", "1", "--device", "cpu", "--quiet", *few]
    code, said, complaint = say("run", "--out", tmp_path / "run", *command)
    assert code == 0, complaint
    assert "## The search" in said and "candidates of the space stages" in said and "(taken)" in said
    report = json.loads((tmp_path / "run/report.json").read_text())
    own = report["models"]["searched"]
    assert own["macs"] <= 150_000 and own["parameters"] <= 60_000 and report["search"]["candidates"] == 3
    assert "(taken)" in (tmp_path / "run/report.html").read_text()
    code, again, _ = say("run", "--out", tmp_path / "run", *command)
    assert code == 0 and said.endswith(again)  # it is finished: the report again
    code, said, _ = say("show", tmp_path / "run")
    assert code == 0 and '"space": "stages"' in said
    run = Run.open(tmp_path / "run")
    with pytest.raises(UserError, match="is built on it"):
        number = report["search"]["taken"]
        derive_stage(run, pick=(number + 1) % 3)


@pytest.mark.parametrize("name", ["strategy", "score", "space"])
def test_what_cannot_be_loaded_is_refused_before_images_are_read(name, tmp_path, digits, monkeypatch):
    def read(*args, **named):
        raise AssertionError("images were read")

    monkeypatch.setattr("ssnas_colab.stages.pipeline.load_data", read)
    config = pipeline_config("digits", search={name: "no.such:Thing"})
    refused(name, "no.such:Thing", "cannot be loaded", act=lambda: open_with_data("digits", tmp_path / "run", config))
    refused(name, "no.such:Thing", "cannot be loaded", act=lambda: run_estimate(digits, tmp_path / "run", config))
    assert not any(tmp_path.iterdir())


def test_a_search_that_is_done_goes_on_without_the_class_that_it_was_made_by(digits, tmp_path):
    config = pipeline_config("digits", search={"strategy": "no.such:Thing"})
    Run.open(tmp_path / "run", config).save_json("search.json", {})
    assert open_with_data(digits, tmp_path / "run", config)[0].config["search"]["strategy"] == "no.such:Thing"


def test_cells_by_a_strategy_have_the_nodes_and_the_depth_that_were_asked_for(digits, tmp_path, unpainted):
    "And within all budgets, also where latency has one and the comparison another depth."
    asked = {"nodes": 2, "depth": 3, "candidates": 2, "score": "macs"}
    wanted = {"space": "cells", "strategy": "random", "max_macs": MACS, "max_latency": 1000, "device": "cpu"}
    deeper = pipeline_config("digits", **wanted, search=asked, evaluation={"depth": 8, "equal_macs": ()})
    assert pipeline_config("digits", **wanted, search=asked)["evaluation"]["depth"] is None
    assert pipeline_config("digits", **wanted, search=asked, began="0.5.0")["evaluation"]["depth"] == 5
    run = Run.open(tmp_path / "run", deeper)
    found = search(digits, run, deeper["search"], quiet=True)
    targets = {edge[2] for row in found["candidates"] for edge in row["genotype"]["normal"]}
    assert targets == {2, 3} and found["depth"] == 3
    derive_stage(run)
    made = _contestants(digits, run, evaluation_config(deeper["evaluation"]))["searched"]()
    assert made.depth == 8 and count_macs(made, (1, 8, 8)) <= MACS


def test_a_published_network_that_no_width_makes_small_enough_is_left_out(digits):
    config = evaluation_config("quick", published=("DARTS_V2",), max_macs=12_000, equal_macs=(), random_genotypes=0)
    with pytest.warns(UserWarning, match="DARTS_V2 is not compared: The narrowest network has .* MACs"):
        made = compared(random_stages(0), digits, config, 8)
    assert "DARTS_V2" not in made and "searched" in made


def test_a_space_that_takes_no_fits_is_refused(digits, tmp_path, monkeypatch):
    (tmp_path / "odd_space.py").write_text("class Odd:\n    def __init__(self):\n        pass\n")
    monkeypatch.chdir(tmp_path)
    act = lambda: search_estimate(digits, space="odd_space:Odd", strategy="random", budgets={"macs": MACS}, **FEW)  # noqa: E731
    refused("odd_space:Odd", "does not take fits", act=act)


def test_a_space_and_a_strategy_that_do_not_go_together_are_refused_before_a_folder(digits, tmp_path, monkeypatch):
    (tmp_path / "plain_space.py").write_text(
        "from ssnas_colab.models.stages import random_stages\n\nclass Plain:\n"
        "    def __init__(self, fits):\n        self.fits = fits\n\n"
        "    def draw(self, seed):\n        return random_stages(seed)\n"
    )
    monkeypatch.chdir(tmp_path)
    for strategy, words in (("grow_trim", ("moves", "features")), ("evolution", ("mutate",))):
        options = {"space": "plain_space:Plain", "strategy": strategy}
        config = pipeline_config("digits", device="cpu", max_macs=MACS, **options)
        act = lambda config=config: open_with_data(digits, tmp_path / "run", config, searching=True)  # noqa: E731
        refused("Plain lacks", *words, act=act)
        act = lambda options=options: search_estimate(digits, budgets={"macs": MACS}, **options, **FEW)  # noqa: E731
        refused("Plain lacks", *words, act=act)
        assert not (tmp_path / "run").exists()


def test_an_estimate_is_made_wherever_the_search_finds_a_network(digits):
    tight = {"macs": 4000}  # two of three draws are larger at width 1
    found = search_estimate(digits, space="stages", strategy="random", budgets=tight, **FEW)
    assert found["seconds"] > 0
