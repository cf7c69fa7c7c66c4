"The searched network with a teacher: a row of its own, by both losses, the same after a kill, and in no ranking."

import dataclasses
import json

import jsonschema
import numpy as np
import pytest
import torch

import ssnas_colab.stages.evaluation as evaluation
from ssnas_colab import cli
from ssnas_colab.config import evaluation_config
from ssnas_colab.core.basics import UserError
from ssnas_colab.core.forms import report_schema
from ssnas_colab.experiment.run import Run
from ssnas_colab.inference.predict import load_model
from ssnas_colab.models import pretrained
from ssnas_colab.models.genotype import GENOTYPES
from ssnas_colab.models.pretrained import way_of
from ssnas_colab.reports.build import models_table
from ssnas_colab.reports.compare import compare
from ssnas_colab.reports.push import archive_card
from ssnas_colab.reports.verdict import Best, verdict_sentences
from ssnas_colab.stages.evaluation import evaluate, evaluation_parts, family_of, require_contestants
from ssnas_colab.stages.loader import load_data
from ssnas_colab.training.class_losses import CosineLinear
from ssnas_colab.training.metrics import paired_test_seeds
from ssnas_colab.training.recipes import Trainer

from .searched import below, searched_run

pytestmark = pytest.mark.usefixtures("unpainted_module")
TINY = {
    "pretrain_steps": 1, "finetune_steps": 6, "batch_size": 32, "embedding": 16, "max_parameters": 4_000,
    "random_genotypes": 0, "resnet18": False, "mobilenet": False, "published": (), "equal_macs": (), "device": "cpu",
    "teacher": "resnet_small",
}  # fmt: skip
ROW = "taught_by_resnet_small"


@pytest.fixture(scope="module")
def digits():
    return below(load_data("digits", imbalance_factor=10), 4)


@pytest.fixture(scope="module")
def taught(digits, tmp_path_factory):
    run = searched_run(tmp_path_factory.mktemp("taught") / "run", digits, depth=2)
    return run, evaluate(digits, run, TINY, quiet=True)


def test_it_is_a_row_of_its_own_in_no_ranking(digits, taught, capsys):
    run, report = taught
    models = report["models"]
    assert list(models) == ["searched", "resnet_small", ROW] and models[ROW]["teacher"] == "resnet_small"
    for key in ("genotype", "parameters", "macs", "depth", "width"):
        assert models[ROW][key] == models["searched"][key]
    assert set(report["differences"]) == {"resnet_small"} and family_of(ROW) == "searched"
    answers = [[run.load_arrays(f"models/{name}.npz")["answers"]] for name in (ROW, "searched")]
    found, expected = report["distillation"], paired_test_seeds(digits.labels["test"], *answers)
    assert (found["model"], found["teacher"], found["seeds"]) == (ROW, "resnet_small", 1)
    assert tuple(found[key] for key in ("difference", "low", "high", "p")) == expected
    assert found["p_corrected"] == found["p"] and "auc" in found  # a family of its own
    jsonschema.Draft202012Validator(report_schema()).validate(json.loads(json.dumps(report)))
    costs, seconds = report["costs"], {name: model["seconds"] for name, model in models.items()}
    assert costs["taught"] == pytest.approx(seconds[ROW], abs=0.01)
    assert costs["others"] == pytest.approx(seconds["resnet_small"], abs=0.01)
    sentences = verdict_sentences(report)
    told = [text for text in sentences if text.startswith("Apart from this comparison: taught also by the narrowed")]
    assert len(told) == 1 and "without a teacher (p " in told[0] and told[0] not in sentences[:3]
    assert not any("taught" in text for text in sentences if text not in told)
    page, text = run.load_text("report.html"), run.load_text("report.md")
    for shown in (page, text):
        assert "searched, taught by the narrowed ResNet" in shown and "Apart from this comparison" in shown
        assert "searched network with its teacher" in shown and "at temperature 4" in shown
    assert "taught_by" not in text.split("## Settings")[0]
    assert b"taught by the narrowed ResNet" in archive_card(run, ROW)["MODEL_CARD.md"]
    assert "searched, taught by the narrowed ResNet: balanced accuracy" in compare({"a": report})
    assert load_model(run).facts["name"] == "searched"  # only who asks gets the other
    assert load_model(run, ROW).facts["metrics"]["accuracy"] == models[ROW]["accuracy"]


def test_over_seeds_it_is_paired_by_seed(digits, tmp_path):
    run = searched_run(tmp_path / "run", digits, depth=2)
    report = evaluate(digits, run, TINY | {"recipe": "scratch", "finetune_steps": 2}, seeds=2, quiet=True)
    found = report["distillation"]
    assert found["seeds"] == 2 and report["models"][ROW]["teacher"] == "resnet_small"
    means = [report["models"][name]["balanced_accuracy"] for name in (ROW, "searched")]
    assert found["difference"] == pytest.approx(means[0] - means[1])
    jsonschema.Draft202012Validator(report_schema()).validate(json.loads(json.dumps(report)))


def test_the_best_of_a_column_is_a_plain_one(taught):
    report = json.loads(json.dumps(taught[1]))
    report["models"][ROW] |= {"balanced_accuracy": 0.999, "accuracy": 0.999, "macs": 1, "parameters": 1}
    report["models"]["searched"] |= {"balanced_accuracy": 0.5, "accuracy": 0.5}
    report["models"]["resnet_small"] |= {"balanced_accuracy": 0.4, "accuracy": 0.4}
    head, (own, _, row, _) = models_table(report)
    assert not any(isinstance(cell, Best) for cell in row)
    assert isinstance(own[head.index("accuracy")], Best) and "99.9 %" in row[head.index("accuracy")]


def test_a_kill_in_its_middle_changes_no_bit(digits, taught, tmp_path, monkeypatch):
    run, steps, honest = searched_run(tmp_path / "cut", digits, depth=2), [], evaluation.Trainer.train

    def cut(self, stage, modules, draw, cost, *more, **how):
        def counted(*inputs):
            steps.append(self.name)
            if steps.count(ROW) == 5:
                raise KeyboardInterrupt
            return cost(*inputs)

        return honest(self, stage, modules, draw, counted, *more, **how)

    monkeypatch.setattr(Trainer, "train", cut)
    monkeypatch.setattr("ssnas_colab.training.loop.CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(evaluation, "write_report", lambda *all: None)
    with pytest.raises(KeyboardInterrupt):
        evaluate(digits, run, TINY, quiet=True)
    assert run.has("models/resnet_small.json") and not run.has(f"models/{ROW}.json")
    steps.clear()
    again = evaluate(digits, run, TINY, quiet=True)
    assert set(steps) == {ROW} and 0 < len(steps) < 6  # it went on where it was
    for kind in ("answers", "test", "val"):
        one, other = (r.load_arrays(f"models/{ROW}.npz")[kind] for r in (run, taught[0]))
        np.testing.assert_array_equal(one, other)
    assert again["distillation"] == taught[1]["distillation"]


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_the_loss_is_of_labels_and_teacher(digits, tmp_path, task):
    "Against the sum by hand, of one step; the teacher sees the same views, is in evaluation, and stays as it is."
    data = digits
    if task == "multi-label":
        labels = {split: np.stack([y % 2 == 0, y < 3], 1).astype(np.uint8) for split, y in digits.labels.items()}
        data = dataclasses.replace(digits, labels=labels, task=task, class_names=("even", "small"))
    settings = TINY | {"recipe": "scratch", "loss": "cross_entropy", "teacher_weight": 0.25, "teacher_temperature": 2.0}
    config, classes, seen = evaluation_config(settings), data.num_classes, {}

    def make():
        return torch.nn.ModuleDict({"body": torch.nn.Flatten(), "classifier": torch.nn.Linear(64, classes)})

    class Net(torch.nn.Module):
        feature_width = 64

        def __init__(self):
            super().__init__()
            self.classifier = torch.nn.Linear(64, classes)

        def features(self, x):
            return x.flatten(1)

        def forward(self, x):
            assert self.training == (self is not teacher)
            seen[self is teacher] = x
            return self.classifier(self.features(x))

    torch.manual_seed(1)
    teacher = Net()
    weights = teacher.classifier.weight.clone()
    trainer = Trainer(ROW, Net, data, Run.open(tmp_path, {}), config, quiet=True, teacher=teacher)
    costs = {}

    def train(stage, modules, draw, cost, *more, **how):
        images = trainer.images["train"][torch.arange(8)]
        trainer.net.train()
        inputs = draw(images, torch.arange(8), torch.Generator().manual_seed(3))
        costs["found"], costs["labels"] = cost(False, images, *inputs), inputs[0]
        return []

    trainer.train = train
    trainer.run()
    assert torch.equal(seen[True], seen[False]) and not any(p.requires_grad for p in teacher.parameters())
    student, told, labels = trainer.net.classifier(seen[False].flatten(1)), teacher(seen[True]), costs["labels"]
    if task == "single-label":
        plain = torch.nn.functional.cross_entropy(student, labels.long())
        p, q = (told / 2).softmax(1), (student / 2).softmax(1)
        apart = (p * (p / q).log()).sum(1).mean()
    else:
        plain = torch.nn.functional.binary_cross_entropy_with_logits(student, labels.float())
        p, q = (told / 2).sigmoid(), (student / 2).sigmoid()
        apart = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(costs["found"], 0.75 * plain + 0.25 * 4 * apart)
    assert torch.equal(weights, teacher.classifier.weight)


def test_it_is_foreseen_with_its_teacher(digits, tmp_path):
    run, config = searched_run(tmp_path / "run", digits, depth=2), evaluation_config(TINY)
    parts = {part.stage: part for part in evaluation_parts(digits, run, config)}
    assert {f"pretrain/{ROW}", f"finetune/{ROW}"} < set(parts)
    assert parts[f"finetune/{ROW}"].steps == parts["finetune/searched"].steps


def test_a_teacher_is_compared_or_refused_before_any_work(digits, tmp_path, capsys, monkeypatch):
    with pytest.raises(UserError, match="'resnet18' is not among the networks of the comparison"):
        evaluate(digits, searched_run(tmp_path / "run", digits, depth=2), TINY | {"teacher": "resnet18"})
    for recipe in ("knn", "linear_probe"):
        with pytest.raises(UserError, match=f"recipe {recipe} takes no steps .* leave teacher out"):
            evaluation_config(TINY | {"recipe": recipe})
    assert cli.main(["run", str(tmp_path / "new"), "--teacher", "resnet81", "--quiet"]) == 2
    assert "resnet18" in capsys.readouterr().err and not (tmp_path / "new").exists()
    config = evaluation_config(TINY | {"teacher": "efficientnet_lite0:pretrained"})
    assert config.controls == ("efficientnet_lite0:pretrained",)  # added
    monkeypatch.setattr(pretrained, "PRETRAINED", {"efficientnet_lite0": lambda size: None})
    require_contestants(config)
    assert evaluation.teacher_of(config) == "efficientnet_lite0_finetuned"
    assert way_of("taught_by_efficientnet_lite0_finetuned") is None


def test_a_teacher_keeps_its_cosines(digits, tmp_path):
    settings = TINY | {"loss": "ldam", "recipe": "scratch", "finetune_steps": 10}
    run, config = searched_run(tmp_path / "run", digits, depth=2), evaluation_config(settings)
    made = evaluation.compared(GENOTYPES["FairDARTS_a"], digits, config, 2)
    evaluation.evaluate_network("resnet_small", made["resnet_small"], digits, run, config, quiet=True)
    net = evaluation.trained_network("resnet_small", made["resnet_small"], run)
    assert isinstance(net.classifier, CosineLinear) and not net.training
    kept = load_model(run, "resnet_small").network.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in net.state_dict().items())
