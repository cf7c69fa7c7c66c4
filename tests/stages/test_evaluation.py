"Stage 4 and the pipeline: who sees which images when, and what the report holds."

import contextlib
import csv
import dataclasses
import io
import json
import math
import shutil
import zipfile
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import ssnas_colab
import ssnas_colab.stages.evaluation as evaluation
import ssnas_colab.stages.pipeline as pipeline
from ssnas_colab import cli, config
from ssnas_colab.config import evaluation_config
from ssnas_colab.core.basics import Diverged, UserError
from ssnas_colab.experiment.run import Run
from ssnas_colab.inference.export import export_run
from ssnas_colab.inference.model import model_facts
from ssnas_colab.inference.predict import load_model
from ssnas_colab.models.baselines import narrow_resnet, random_genotype
from ssnas_colab.models.genotype import GENOTYPES, load_genotype, parse_genotype
from ssnas_colab.models.stages import Block, Stage, StageGenotype
from ssnas_colab.reports.verdict import display_name
from ssnas_colab.stages.evaluation import compared, evaluate, evaluate_seed, evaluation_parts, tuned_rate
from ssnas_colab.stages.loader import data_stage, load_data
from ssnas_colab.training.calibration import fit_temperature, with_temperature
from ssnas_colab.training.operating_points import choose_threshold
from ssnas_colab.training.recipes import Trainer, chosen_by, finetune_rates

from .searched import below, searched_run

TINY = {
    "pretrain_steps": 3, "finetune_steps": 10, "batch_size": 32, "embedding": 16, "max_parameters": 4_000,
    "random_genotypes": 1, "resnet18": False, "mobilenet": False, "published": (), "equal_macs": (), "device": "cpu",
}  # fmt: skip

WHOLE = TINY | {"finetune_rate": 1e-2}  # of the run that most tests share
SHORT = TINY | {"pretrain_steps": 1, "finetune_steps": 2}  # where nothing is asserted of what is learned


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", imbalance_factor=10)


@pytest.fixture(scope="module")
def four(digits):
    return below(digits, 4)


@pytest.fixture(scope="module")
def several(digits):
    "The digits with three labels an image."
    labels = {split: np.stack([y % 2 == 0, y < 3, y == 0], 1).astype(np.uint8) for split, y in digits.labels.items()}
    return dataclasses.replace(digits, labels=labels, task="multi-label", class_names=("even", "small", "nought"))


@contextlib.contextmanager
def watched_reads():
    "The (network, split) pairs that are scored, in order."
    seen, honest = [], Trainer.metrics

    def metrics(self, split, *rest, **how):
        seen.append((self.name, split))
        return honest(self, split, *rest, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "metrics", metrics)
        yield seen


@pytest.fixture
def reads():
    with watched_reads() as seen:
        yield seen


def shrink_presets(patch):
    small = {"width": 2, "depth": 3, "nodes": 1, "steps": 2, "batch_size": 16, "embedding": 16}
    patch.setitem(config.SEARCH_PRESETS, "quick", small)
    patch.setitem(config.EVALUATION_PRESETS, "quick", WHOLE)


@pytest.fixture
def tiny_presets(monkeypatch):
    shrink_presets(monkeypatch)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    "The folder of a run that the command took all the way, what it said, and who read what meanwhile."
    path, said = tmp_path_factory.mktemp("straight") / "run", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), watched_reads() as seen:
        shrink_presets(patch)
        assert cli.main(["run", "--out", str(path), "--quiet", "--device", "cpu"]) == 0
    return path, said.getvalue(), seen


@pytest.fixture
def unforeseen(monkeypatch):
    "How long it is going to take is not foreseen, for which every network would be made and timed beforehand."
    monkeypatch.setattr(evaluation, "_forecast", lambda *_: None)


@pytest.fixture
def evaluated(straight):
    "That run, its report, and who read what."
    run = Run.open(straight[0])
    return run, run.load_json("report.json"), straight[2]


def test_the_report_and_who_reads_the_test_set(digits, evaluated):
    run, report, reads = evaluated
    names = ["searched", "resnet_small", "random_0"]
    assert list(report["models"]) == names
    assert [name for name, split in reads if split == "test"] == names  # once each
    for name, model in report["models"].items():
        assert model["parameters"] <= 4_000 and model["macs"] > 0
        assert len(model["recall_per_class"]) == 10 and 0 <= model["balanced_accuracy"] <= 1
        rows = run.load_json(f"models/{name}.json")["finetuning"]
        values = [chosen_by(row, "single-label") for row in rows]
        assert model["best_epoch"] == int(np.argmax(values)) + 1
    assert report["data"]["counts"]["train"] == digits.counts() and report["models"]["searched"]["depth"] == 3
    assert run.has("report.png") and "balanced accuracy" in run.load_text("report.md")
    with watched_reads() as more:
        again = evaluate_seed(digits, run, evaluation_config(WHOLE), quiet=True)
    assert not more and again["models"] == report["models"] and report["seeds"] == [0]
    assert set(report["differences"]) == {"resnet_small", "random_0", "random"}
    assert report["curves"]["searched"]["validation"] == [row["balanced_accuracy"] for row in rows_of(run, "searched")]


def rows_of(run, name):
    return run.load_json(f"models/{name}.json")["finetuning"]


def test_scores_are_those_of_the_kept_weights(digits, evaluated):
    (run, report, _), config = evaluated, evaluation_config(WHOLE)
    made = compared(load_genotype(run.path), digits, config, 3)
    assert made.keys() == report["models"].keys()
    for name, make in made.items():
        trainer = Trainer(name, make, digits, run, config)
        trainer.net.load_state_dict(run.checkpoints.load(f"models/{name}")["state"]["model"])
        assert trainer.metrics("test")["confusion"] == report["models"][name]["confusion"]


def test_validation_chooses_temperature_and_thresholds_which_a_network_keeps(digits, evaluated):
    run, _, _ = evaluated
    kept, found = run.load_arrays("models/searched.npz"), run.load_json("models/searched.json")
    assert (kept["test"].argmax(1) == kept["answers"]).all() and len(kept["val"]) == len(digits.labels["val"])
    assert found["temperature"] == fit_temperature(kept["val"], digits.labels["val"])
    one = with_temperature(kept["val"], found["temperature"])[:, 3]
    assert found["thresholds"][3] == choose_threshold(one, digits.labels["val"] == 3)
    facts = model_facts(run)
    assert facts["temperature"] == found["temperature"] != 1.0 and facts["thresholds"] == found["thresholds"]
    calibrated = with_temperature(kept["test"], found["temperature"])
    np.testing.assert_allclose(load_model(run).scores(digits.images["test"]), calibrated, atol=1e-4)


def test_fine_tuning_learns(digits, tmp_path):
    config = evaluation_config(TINY | {"pretrain_steps": 0, "finetune_steps": 60, "finetune_rate": 3e-2})
    run, make = searched_run(tmp_path / "run"), compared(GENOTYPES["SNAS"], digits, config, 2)["searched"]
    found = evaluation.evaluate_network("searched", make, digits, run, config, quiet=True)
    assert found["balanced_accuracy"] > 0.7  # ten classes


def test_multi_label_data_goes_all_the_way(several, tmp_path, unpainted, unforeseen):
    run = searched_run(tmp_path / "run")
    report = evaluate(several, run, SHORT, quiet=True)
    assert report["models"]["searched"]["confusion"] is None and report["models"]["searched"]["macro_auc"] > 0.3
    assert report["differences"]["random"]["metric"] == "macro_auc" and run.load_json("report.json") == report
    assert "macro AUC" in run.load_text("report.md")


def test_controls_of_equal_work(four, tmp_path, monkeypatch, unpainted, unforeseen):
    "They are no wider than the searched network's MACs allow, are reported in order, and come back for use."
    options = TINY | {"random_genotypes": 0, "equal_macs": ("resnet", "mobilenet_v3", "shufflenet_v2")}
    options |= {"pretrain_steps": 0, "finetune_steps": 1, "max_parameters": 9_000}
    run = searched_run(tmp_path / "run")
    data_stage(four, run)
    report = evaluate(four, run, options, quiet=True)
    models, keys = report["models"], ["resnet_macs", "mobilenet_v3_macs", "shufflenet_v2_macs"]
    assert list(models) == ["searched", "resnet_small", *keys] and set(keys) < set(report["differences"])
    page = (tmp_path / "run" / "report.md").read_text()
    for key in keys:
        assert 0.6 < models[key]["macs"] / models["searched"]["macs"] <= 1
        assert display_name(key) in page and display_name(key, True) in page and "equal MACs" in display_name(key)
        answered, model = run.load_arrays(f"models/{key}.npz")["answers"], load_model(run, key)
        assert (model.scores(four.images["test"]).argmax(1) == answered).mean() > 0.99
    monkeypatch.setattr(evaluation, "count_macs", lambda *_: 500)
    with pytest.warns(UserWarning, match="resnet_macs is not compared: .*narrowest ResNet"):
        made = compared(GENOTYPES["FairDARTS_a"], four, evaluation_config(options), 3)
    assert not made.keys() & set(keys) and "resnet_small" in made


@pytest.mark.parametrize("side, stride", [(63, 1), (64, 2), (128, 4)])
def test_stems_of_hand_made_networks_step_with_the_images_but_in_old_runs(digits, monkeypatch, side, stride):
    images = {split: np.zeros((2, 1, side, side), np.uint8) for split in digits.images}
    large, told = dataclasses.replace(digits, images=images), []
    monkeypatch.setattr(evaluation, "within_macs", lambda name, *a, stem_stride=1, **k: told.append(stem_stride))
    options = {"random_genotypes": 0, "published": (), "max_macs": 40_000_000, "device": "cpu"}
    for began, expected in ((None, stride), ("0.5.0", 1)):
        config = evaluation_config("quick", **options, equal_macs=("resnet", "shufflenet_v2"), began=began)
        made = compared(random_genotype(0, nodes=1), large, config, 3)
        with torch.device("meta"):
            names = "resnet18", "resnet_small", "mobilenet_v3_small"
            assert [made[name]().stem_stride for name in names] == [expected] * 3
        assert made["shufflenet_v2_macs"]() is None and told[-3:] == [expected] * 3


def test_a_genotype_of_stages_is_evaluated_reported_and_exported(four, tmp_path, unpainted, unforeseen):
    options = SHORT | {"equal_macs": ("resnet",), "random_genotypes": 1, "max_parameters": 9_000}
    run = searched_run(tmp_path / "run")
    genotype = StageGenotype((Stage((Block(),)), Stage((Block("basic"), Block("basic")), 1.5, 2)))
    run.save_text("genotype.json", genotype.to_json())
    data_stage(four, run)
    report = evaluate(four, run, options, quiet=True)
    assert list(report["models"]) == ["searched", "resnet_small", "resnet_macs", "random_0"]
    assert parse_genotype(report["models"]["searched"]["genotype"]) == genotype
    assert isinstance(parse_genotype(report["models"]["random_0"]["genotype"]), StageGenotype)
    assert report["models"]["searched"]["parameters"] <= 9_000
    assert "block 2 of 2: basic 3x3" in (run.path / "report.html").read_text()
    answered, model = run.load_arrays("models/searched.npz")["answers"], load_model(run)
    assert (model.scores(four.images["test"]).argmax(1) == answered).mean() > 0.99
    export_run(run, tmp_path / "x.zip")
    again = load_model(tmp_path / "x.zip")
    np.testing.assert_array_equal(again.scores(four.images["test"]), model.scores(four.images["test"]))


def test_each_family_chooses_its_rate_by_validation(four, tmp_path, reads, unpainted, unforeseen):
    options = SHORT | {"finetune_rate": 1e-4, "tune_rates": 3}
    run, config = searched_run(tmp_path / "run"), evaluation_config(options)
    report = evaluate(four, run, options, quiet=True)
    assert finetune_rates(config) == (1e-4, 3e-4, 3.3e-5)
    for family, names in {"searched": ("searched", "random_0"), "resnet": ("resnet_small",)}.items():
        table = run.load_json(f"rates/{family}.json")
        assert tuple(table["rates"]) == finetune_rates(config) and set(table["validation"]) == set(names)
        means = np.mean([table["validation"][name] for name in names], 0)
        np.testing.assert_allclose(table["means"], means)
        assert table["rate"] == table["rates"][int(np.argmax(means))]
        for name in names:
            model = report["models"][name]
            assert model["finetune_rate"] == table["rate"]
            places = [f"pretrain/{name}", f"finetune/{name}", f"finetune/{name}@0.0003", f"finetune/{name}@3.3e-05"]
            assert model["seconds"] == pytest.approx(sum(run.facts(place)["seconds"] for place in places), abs=0.01)
            own = table["validation"][name][table["rates"].index(table["rate"])]
            assert chosen_by(model["validation"], "single-label") == pytest.approx(own)
            assert not any(place in run.checkpoints.stages() for place in places)
    costs, training = report["costs"], sum(model["seconds"] for model in report["models"].values())
    assert costs["training"] + costs["rates"] == pytest.approx(training, abs=0.1) and costs["rates"] > 0
    assert costs["others"] == pytest.approx(training - report["models"]["searched"]["seconds"], abs=0.1)
    assert "learning rates that were tried and not taken" in run.load_text("report.md")
    assert [name for name, split in reads if split == "test"] == list(report["models"])  # once each
    parts = {part.stage: part for part in evaluation_parts(four, run, config)}
    assert {f"finetune/random_0{end}" for end in ("", "@0.0003", "@3.3e-05")} < set(parts) and len(parts) == 12


def test_a_choice_of_rates_goes_on_and_ends_the_same(four, tmp_path, monkeypatch):
    options = evaluation_config(SHORT | {"random_genotypes": 0, "tune_rates": 2})
    whole = evaluate_seed(four, searched_run(tmp_path / "whole"), options, quiet=True)
    honest, run = Trainer.run, searched_run(tmp_path / "cut")

    def cut(self):
        if self.rate != 2e-3 and self.name == "resnet_small":
            raise KeyboardInterrupt
        return honest(self)

    monkeypatch.setattr(Trainer, "run", cut)
    with pytest.raises(KeyboardInterrupt):
        evaluate_seed(four, run, options, quiet=True)
    assert run.has("models/searched.json") and not run.has("rates/resnet.json")
    monkeypatch.setattr(Trainer, "run", honest)
    again = evaluate_seed(four, run, options, quiet=True)
    for name, model in whole["models"].items():
        assert {k: v for k, v in again["models"][name].items() if k not in ("seconds", "latency_ms")} == {
            k: v for k, v in model.items() if k not in ("seconds", "latency_ms")
        }


def test_a_rate_that_does_not_stay_finite_is_not_taken(digits, tmp_path):
    options = TINY | {"recipe": "scratch", "random_genotypes": 0, "finetune_rate": 1e-3, "tune_rates": 2}
    run, made = searched_run(tmp_path / "run"), {"resnet_small": lambda: narrow_resnet(10, 1, max_parameters=20_000)}

    class Fragile(Trainer):
        def run(self):
            if self.rate > 1e-3:
                raise Diverged("finetune: loss is not finite in epoch 1: lower the learning rate")
            return super().run()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "Trainer", Fragile)
        assert tuned_rate("resnet", made, digits, run, evaluation_config(options), quiet=True) == 1e-3
    assert run.load_json("rates/resnet.json")["means"][1] is None
    for recipe in ("knn", "linear_probe"):
        with pytest.raises(UserError, match=f"recipe {recipe} has no learning rate .* leave tune_rates out"):
            evaluation_config(options | {"recipe": recipe})


def test_random_genotypes_differ_in_nothing_but_the_choice(digits):
    made = compared(GENOTYPES["FairDARTS_a"], digits, evaluation_config(TINY | {"random_genotypes": 3}), 3)
    found = [made[f"random_{i}"]().genotype for i in range(3)]
    assert len({str(g) for g in found}) == 3
    for genotype in found:
        assert len(genotype.used("normal")[0]) == len(GENOTYPES["FairDARTS_a"].used("normal")[0])


def test_mistakes_are_sentences(digits, tmp_path):
    unlabelled = dataclasses.replace(digits, labels={}, task="unlabelled", class_names=())
    with pytest.raises(UserError, match="no labels"):
        evaluate(unlabelled, searched_run(tmp_path / "run"), TINY)
    with pytest.raises(UserError, match="genotype.json"):
        evaluate(digits, Run.open(tmp_path / "empty", {}), TINY)


def test_the_whole_way_and_a_finished_run_answers_at_once(straight, tiny_presets, tmp_path, monkeypatch, capsys):
    path, said, _ = straight
    run = str(path)
    assert "# digits" in said and "searched" in said
    for name in ("run.json", "data.json", "indices.npz", "alphas.npz", "genotype.json", "report.json", "report.png"):
        assert (path / name).is_file(), name
    monkeypatch.setattr(pipeline, "load_data", lambda *_, **__: pytest.fail("the images were read again"))
    assert cli.main(["run", "--out", run, "--quiet", "--device", "cpu"]) == 0
    assert "# digits" in capsys.readouterr().out
    assert cli.main(["status", run]) == 0
    said = capsys.readouterr().out
    assert "evaluation" in said and "under way" not in said
    page = (path / "report.html").read_text()
    assert "<svg" in page and "data:image/png;base64" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert cli.main(["compare", run, f"{run}/report.json"]) == 0 and "balanced accuracy" in capsys.readouterr().out
    assert cli.main(["export", run, str(tmp_path / "net.zip")]) == 0
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "new.png")
    said = []
    for where in (run, str(tmp_path / "net.zip")):
        capsys.readouterr()
        assert cli.main(["predict", where, str(tmp_path / "new.png")]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "%" in said[0]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    "A table of digits from two hospitals, one that cannot be read among them, and their pixels and labels."
    folder, rng = tmp_path_factory.mktemp("elsewhere"), np.random.default_rng(0)
    every = load_digits()
    chosen = rng.permutation(1797)[:60]
    lines = ["file,label,hospital"]
    for i in chosen:
        Image.fromarray((every.images[i] * 15.9375).astype(np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{every.target[i]},{'north' if i % 3 else 'south'}")
    (folder / f"{chosen[0]}.png").write_bytes(b"not a picture")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv", chosen[1:], every.target


def test_a_finished_network_is_tested_on_images_from_elsewhere(straight, elsewhere, tmp_path, capsys):
    run, (table, places, target) = straight[0], elsewhere
    report = pipeline.test_network(run, table, by="hospital", prevalence="3=0.02")
    [own] = report["models"].values()
    assert report["data"]["images"]["test"] == len(places) == 59 and report["data"]["set_aside"] == 1
    known = Run.open(run).load_json("models/searched.json")
    assert own["temperature"] == known["temperature"] and report["at_home"]["accuracy"] == known["accuracy"]
    points = {point["class"]: point for point in own["operating_points"]}
    assert all(point["threshold"] == known["thresholds"][k] for k, point in points.items())
    assert points[3]["prevalence"] == 0.02 and points[4]["prevalence"] == np.mean(target[places] == 4)
    answers = load_model(run).predict([table.parent / f"{i}.png" for i in places]).argmax(1)
    assert own["accuracy"] == pytest.approx((answers == target[places]).mean())
    assert report["unlike"]["of"] == 59 and report["unlike"]["count"] < 15 and report["unlike"]["share"] == 0.05
    parts = {name: part["images"] for name, part in report["groups"].items()}
    assert parts == {"north": int((places % 3 > 0).sum()), "south": int((places % 3 == 0).sum())}
    wrong = {row["file"] for row in report["mistakes"]}
    assert wrong == {f"{i}.png" for i, answer in zip(places, answers, strict=True) if answer != target[i]}
    options = ["--by", "hospital", "--out", str(tmp_path / "wrong.csv")]
    assert cli.main(["test", str(run), str(table), *options]) == 0
    said = capsys.readouterr().out
    assert "59 labelled images, 1 set aside" in said and "## By hospital" in said and "on the run's own" in said
    assert "of 59 images" in said and "unlike the training images (of images like" in said
    assert len((tmp_path / "wrong.csv").read_text().splitlines()) == len(wrong) + 1
    assert cli.main(["export", str(run), str(tmp_path / "net.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "net.zip") as archive:
        card = archive.read("MODEL_CARD.md").decode()
        assert "mistakes.csv" not in archive.namelist()
    for told in ("# searched, a model card", "## Intended use", "## Limits", "calibrated", "### Operating points"):
        assert told in card, told
    capsys.readouterr()
    assert cli.main(["test", str(tmp_path / "net.zip"), str(table), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["models"]["searched"]["operating_points"][0]["threshold"] == known["thresholds"][0]
    assert cli.main(["show", str(run), "--prevalence", "3=0.02"]) == 0
    assert "3: 2 %" in capsys.readouterr().out


def test_images_unlike_the_training_images_are_named(straight, tmp_path, capsys):
    "Noise is, most of it, and of the run's own test images about the share that the report tells; an archive knows."
    path, rng, digits = straight[0], np.random.default_rng(0), load_data("digits", imbalance_factor=10)
    report, model = json.loads((path / "report.json").read_text()), load_model(path)
    own, (scores, apart) = report["models"]["searched"]["unlike"], model.answers(digits.images["test"])
    assert own["share"] == 0.05 and own["test"] == np.mean(apart > own["threshold"]) < 0.15
    np.testing.assert_array_equal(scores, model.scores(digits.images["test"]))
    validation = model.answers(digits.images["val"])[1]
    count = len(validation)
    assert sum(validation > own["threshold"]) == count - math.ceil(0.95 * (count + 1))
    noise = rng.integers(0, 256, (40, 1, 8, 8), np.uint8)
    assert np.mean(model.answers(noise)[1] > own["threshold"]) > 0.5
    assert f"Of the test images it would be {100 * own['test']:.1f} %" in (path / "report.md").read_text()

    export_run(path, tmp_path / "model.zip")
    np.testing.assert_array_equal(load_model(tmp_path / "model.zip").answers(noise)[1], model.answers(noise)[1])
    for folder, some in (("noise", noise), ("own", digits.images["test"][:40])):
        (tmp_path / folder).mkdir()
        for i, image in enumerate(some):
            Image.fromarray(image[0]).save(tmp_path / folder / f"{i:02}.png")
        table = tmp_path / f"{folder}.csv"
        assert cli.main(["predict", str(tmp_path / "model.zip"), str(tmp_path / folder), "--out", str(table)]) == 0
        said, rows = capsys.readouterr().out, list(csv.DictReader(table.open(encoding="utf-8")))
        unlike = [row["unlike the training images"] == "yes" for row in rows]
        assert f"{sum(unlike)} of 40 images" in said and "5 in 100 are called so" in said
        assert cli.main(["predict", str(path), str(tmp_path / folder), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert [one["unlike"] for one in facts["predictions"]] == unlike and facts["unlike"]["count"] == sum(unlike)
        distances = [float(row["distance"]) for row in rows]
        np.testing.assert_allclose(distances, [one["distance"] for one in facts["predictions"]], rtol=1e-5)

    old = shutil.copytree(path, tmp_path / "old")  # as an earlier version left it
    facts = json.loads((old / "models" / "searched.json").read_text())
    (old / "models" / "searched.json").write_text(json.dumps({k: v for k, v in facts.items() if k != "unlike"}))
    assert load_model(old).answers(noise)[1] is None
    assert cli.main(["predict", str(old), str(tmp_path / "noise"), "--out", str(tmp_path / "old.csv")]) == 0
    assert "unlike the" not in capsys.readouterr().out and "unlike the" not in (tmp_path / "old.csv").read_text()


def test_a_real_report_has_the_form_that_its_schema_describes(straight):
    schema = json.loads((Path(ssnas_colab.__file__).parent / "report.schema.json").read_text())
    report = json.loads((straight[0] / "report.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(report)
    described, own = schema["properties"], report["models"]["searched"]
    assert {"models", "differences", "floor", "mistakes", "costs"} <= described.keys() & report.keys()
    of_models = described["models"]["additionalProperties"]["properties"]
    assert {"operating_points", "roc", "reliability"} <= of_models.keys() & own.keys()
    own["operating_points"][0]["threshold"] = "high"
    with pytest.raises(jsonschema.ValidationError, match="'high'"):
        jsonschema.Draft202012Validator(schema).validate(report)


def test_mistakes_about_images_from_elsewhere_are_sentences(straight, elsewhere, tmp_path, capsys):
    run, table = str(straight[0]), str(elsewhere[0])
    for name in ("cat", "1"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("L", (8, 8), len(name)).save(tmp_path / "pets" / name / "a.png")
    for arguments, said in (
        ([table, "--by", "sex"], "no column 'sex'"),
        ([table, "--prevalence", "0.1"], "write NAME=0.1"),
        ([str(tmp_path / "pets")], "knows no class 'cat'"),
        (["digits", "--by", "hospital"], "name a CSV"),
        ([str(elsewhere[0].parent)], "no labels to be tested by"),
    ):
        assert cli.main(["test", run, *arguments]) == 2
        assert said in capsys.readouterr().err, said


def test_stages_one_by_one_end_as_the_whole_way(straight, tiny_presets, tmp_path, unpainted):
    where = ["--out", str(tmp_path / "parts"), "--quiet", "--device", "cpu"]
    for command in (["data", *where], ["search", *where], ["derive", str(tmp_path / "parts")], ["evaluate", *where]):
        assert cli.main(command) == 0, command
    parts, whole = (Run.open(path).load_json("report.json") for path in (tmp_path / "parts", straight[0]))

    def timeless(report):
        timed = ("seconds", "latency_ms")
        return {name: {k: v for k, v in m.items() if k not in timed} for name, m in report["models"].items()}

    assert timeless(parts) == timeless(whole)


def test_images_without_labels_get_a_genotype(digits, tmp_path, tiny_presets, unpainted):
    data = dataclasses.replace(digits, labels={}, task="unlabelled", class_names=(), name="no labels")
    assert pipeline.run_pipeline(data, tmp_path / "run", quiet=True, device="cpu") == {}
    assert (tmp_path / "run" / "genotype.json").is_file() and not (tmp_path / "run" / "report.json").exists()


def test_other_seeds_lie_inside_and_are_searched_anew(straight, tiny_presets, tmp_path, unpainted):
    shutil.copytree(straight[0], tmp_path / "run")  # the run of one seed becomes one of two
    report = pipeline.run_pipeline("digits", tmp_path / "run", seeds=2, quiet=True, device="cpu")
    assert report["seeds"] == [0, 1] and not report["searched_once"]
    runs = [Run.open(tmp_path / "run"), Run.open(tmp_path / "run" / "seed_1")]
    alphas = [run.load_arrays("alphas.npz") for run in runs]
    assert any((alphas[0][key] != alphas[1][key]).any() for key in alphas[0])
    values = [run.load_json("models/searched.json")["balanced_accuracy"] for run in runs]
    assert report["models"]["searched"]["balanced_accuracy"] == pytest.approx(np.mean(values))
    rivals = [run.load_json("models/random_0.json")["genotype"] for run in runs]
    assert rivals[0] != rivals[1]
    small = report["differences"]["resnet_small"]
    others = [run.load_json("models/resnet_small.json")["balanced_accuracy"] for run in runs]
    assert small["difference"] == pytest.approx(np.mean(values) - np.mean(others)) and small["seeds"] == 2
    again = pipeline.run_pipeline("digits", tmp_path / "run", seeds=2, quiet=True, device="cpu")
    assert again == report


def test_the_pipeline_takes_another_seed_alone(four, tmp_path, tiny_presets, unpainted):
    short = SHORT | {"recipe": "scratch", "random_genotypes": 0}
    alone = pipeline.run_pipeline(four, tmp_path / "alone", quiet=True, device="cpu", seed=1, evaluation=short)
    assert alone["seeds"] == [1]


def test_one_search_may_serve_several_seeds(four, tmp_path, unpainted, unforeseen):
    run = searched_run(tmp_path / "run")
    report = evaluate(four, run, SHORT | {"random_genotypes": 0}, seeds=2, quiet=True)
    assert report["searched_once"] and len(report["models"]["searched"]["seeds"]) == 2
    assert run.load_json("report.json") == report
    sub = Run.open(tmp_path / "run" / "seed_1")
    assert sub.load_text("genotype.json") == run.load_text("genotype.json")
    first, second = (r.load_json("models/searched.json")["finetuning"] for r in (run, sub))
    assert first != second


def test_probe_and_neighbours_train_no_network(digits, tmp_path, unpainted, unforeseen):
    for recipe in ("linear_probe", "knn"):
        options = SHORT | {"recipe": recipe, "random_genotypes": 0}
        report = evaluate(digits, searched_run(tmp_path / recipe), options, quiet=True)
        model = report["models"]["searched"]
        assert report["recipe"] == recipe and model["best_epoch"] is None and model["balanced_accuracy"] > 0.1
        run = Run.open(tmp_path / recipe)
        assert not run.finished("finetune/searched") and run.load_json("models/searched.json")["probing"]


def test_multi_label_probes(several, tmp_path, unpainted, unforeseen):
    for recipe in ("linear_probe", "knn", "crt"):
        options = SHORT | {"recipe": recipe, "random_genotypes": 0}
        report = evaluate(several, searched_run(tmp_path / recipe), options, quiet=True)
        assert report["models"]["searched"]["macro_auc"] > 0.3
        assert report["differences"]["resnet_small"]["metric"] == "macro_auc"
