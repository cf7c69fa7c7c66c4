"What is pushed: a card that can be read, a network that works, and nothing that says whose images it has seen."

import csv
import inspect
import json
import platform
import re
import shutil
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusal import refused

from ssnas_colab import load_model
from ssnas_colab.cli import main
from ssnas_colab.config import pipeline_config
from ssnas_colab.experiment.run import Run
from ssnas_colab.inference.model import model_facts
from ssnas_colab.inference.predict import predict_folder
from ssnas_colab.models.genotype import GENOTYPES
from ssnas_colab.reports.push import carried_report, model_card, push, pushed_files
from ssnas_colab.stages.evaluation import evaluate
from ssnas_colab.stages.loader import data_stage, load_data

pytestmark = pytest.mark.usefixtures("unpainted")
SHORT = {"pretrain_steps": 1, "finetune_steps": 2, "batch_size": 16, "embedding": 8, "random_genotypes": 0}
SHORT |= {"resnet18": False, "mobilenet": False, "published": (), "equal_macs": (), "max_parameters": 5_000}
SECRETS = "Zanzibar", "Xylophone", "quokka", "wombat", "platypus"  # folders, table, files, patients, a column


@pytest.fixture(scope="module")
def run(tmp_path_factory, blank):
    "An evaluated run of images whose folder, table, files and patients have secret names; one file is broken."
    from matplotlib.figure import Figure

    place, draw, rows = tmp_path_factory.mktemp("Zanzibar"), np.random.default_rng(0), [("image", "dx", "platypus")]
    (place / "Zanzibar").mkdir()
    for k, name in enumerate(["melanoma"] * 24 + ["naevus"] * 17):
        picture = Image.fromarray(draw.integers(0, 256, (16, 16), dtype=np.uint8))
        picture.save(place / "Zanzibar" / f"quokka{k}.png")
        rows.append((f"quokka{k}", name, f"wombat{k // 2}"))
    (place / "Zanzibar" / "quokka40.png").write_bytes(b"broken")
    with open(place / "Xylophone.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    columns, source = {"group": ["platypus"]}, str(place / "Xylophone.csv")
    data = load_data(source, images=str(place / "Zanzibar"), columns=columns)
    run = Run.open(place / "run", pipeline_config(source, columns=columns, device="cpu"))
    run.save_text("genotype.json", GENOTYPES["FairDARTS_a"].to_json())
    run.save_json("search.json", {"depth": 3, "settings": {}, "history": []})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, file, **how: file.write(blank))
        data_stage(data, run)
        evaluate(data, run, SHORT, quiet=True)
    return run


def bytes_within(folder):
    "What all files of a folder hold, members of zips by themselves, and their names."
    for path in Path(folder).rglob("*"):
        if path.is_file():
            yield path.name.encode()
            yield path.read_bytes()
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    yield from map(archive.read, archive.namelist())


def test_no_secret_goes_along(run, tmp_path, capsys):
    arguments = ["push", str(run.path), "me/skin", "--dry-run", str(tmp_path / "out")]
    assert main(arguments) == 0 and "nothing was uploaded" in capsys.readouterr().out
    secrets = [*SECRETS, str(run.path.parent), str(run.path.name) + "/", str(Path.home()), platform.node()]
    for secret in secrets[:6]:  # the run does hold all of them, but the ids of patients
        assert any(secret.encode() in data for data in bytes_within(run.path)) == (secret != "wombat"), secret
    for data in bytes_within(tmp_path / "out"):
        for secret in secrets:
            assert len(secret) < 4 or secret.lower().encode() not in data.lower(), secret
    names = (
        "README.md genotype.json genotype.png model.json model.safetensors report.json report.png unlike.safetensors"
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names.split())
    everything = b"".join(bytes_within(tmp_path / "out"))
    assert b"melanoma" in everything and b"data:image" not in everything
    assert len(re.findall(b"\x89PNG", everything)) == 2
    folder = run.path.parent / "Zanzibar"
    tables = [tmp_path / "pushed.csv", tmp_path / "own.csv"]
    for model, path in zip((load_model(tmp_path / "out"), load_model(run)), tables, strict=True):
        predict_folder(model, folder, path)
    assert tables[0].read_bytes() == tables[1].read_bytes()
    (tmp_path / "out" / "model.safetensors").unlink()
    refused("holds no model.safetensors", act=lambda: load_model(tmp_path / "out"))
    assert main(arguments) == 2 and "exists" in capsys.readouterr().err  # nothing is written over


def test_what_a_later_report_says_stays_here_until_it_is_looked_at(run):
    report = run.load_json("report.json")
    more = report | {"hardest": ["quokka3"], "data": report["data"] | {"files": ["quokka3"], "policy": "natural"}}
    own = {"wrong": ["quokka4"], "note": "quokka5"}
    more["models"] = {name: model | own for name, model in report["models"].items()}
    more["settings"] = report["settings"] | {"evaluation": {"weights": "/quokka6/a.pt", "loss": "focal", "depth": 3}}
    kept = carried_report(more, "pictures")
    assert "quokka" not in json.dumps(kept) and kept["models"] == report["models"]
    assert kept["settings"]["evaluation"] == {"loss": "focal", "depth": 3} and kept["data"]["name"] == "pictures"


def test_the_card(run):
    files = pushed_files(run, "me/skin", dataset="forty pictures", license="cc-by-4.0")
    card, report = files["README.md"].decode(), run.load_json("report.json")
    _, header, text = card.split("---\n", 2)
    fields = {name: json.loads(value) for name, value in (line.split(": ", 1) for line in header.splitlines())}
    assert (fields["license"], fields["library_name"]) == ("cc-by-4.0", "ssnas_colab")
    assert fields["pipeline_tag"] in fields["tags"] and "balanced_accuracy" in fields["metrics"]
    [index] = fields["model-index"]
    told = {metric["type"]: metric["value"] for metric in index["results"][0]["metrics"]}
    own = report["models"]["searched"]
    assert told == {name: round(own[name], 4) for name in told} and index["name"] == "skin"
    for word in ("## Intended use", "## Limits", "## Results", "## Training data", "Imbalance factor", "one split"):
        assert word in text
    low, high = own["recall_interval_per_class"][0]
    assert f"[{100 * low:.1f}, {100 * high:.1f}]" in text and "fewer than 20 training images" in text
    [row] = [line for line in text.splitlines() if line.startswith("| melanoma |") and "%" not in line]
    counts = [report["data"]["counts"][split][0] for split in ("train", "val", "test")]
    assert [int(cell) for cell in row.split(" | ")[-3:] for cell in [cell.strip(" |")]] == counts
    assert 'snapshot_download("me/skin")' in text and "a single seed" in text
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(header) == fields  # as the Hub reads it


def test_whose_weights_taught_it_is_said(run):
    "A network that a pretrained one taught says what is stated of that one's licence; a push knows the pretrained."
    report, name = run.load_json("report.json"), "taught_by_efficientnet_lite0_finetuned"
    assert "whose weights others trained" not in model_card(carried_report(report, "x"), model_facts(run))
    teacher = report["models"]["resnet_small"] | {"pretrained": "ImageNet, with labels", "input_size": 224}
    report["models"] |= {"efficientnet_lite0_finetuned": teacher, name: report["models"]["searched"]}
    report["settings"]["evaluation"]["controls"] = ["efficientnet_lite0:pretrained"]
    kept = carried_report(report, "x")
    assert kept["models"]["efficientnet_lite0_finetuned"]["pretrained"] == "ImageNet, with labels"
    card = model_card(kept, model_facts(run) | {"name": name})
    assert "what EfficientNet-Lite0 (pretrained, fine-tuned) says, whose weights others trained; their licence:" in card
    assert "Apache-2.0 by the LICENSE file" in card and "is not settled" in card
    report["models"]["efficientnet_lite0_finetuned"]["pretrained"] = "/mnt/quokka/weights"
    assert "quokka" not in json.dumps(carried_report(report, "x"))


class Hub:
    "Stands in for `huggingface_hub.HfApi`: a folder."

    def __init__(self, folder, public=(), refuses=None):
        self.folder, self.public, self.refuses, self.private = folder, public, refuses, None

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        if self.refuses:
            raise self.refuses
        self.private = private
        return f"https://hub/{repo_id}"

    def repo_info(self, repo_id):
        return types.SimpleNamespace(private=repo_id not in self.public)

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        assert "searched" in commit_message
        shutil.copytree(folder_path, self.folder / repo_id)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    def use(**how):
        made = Hub(tmp_path, **how)
        monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(HfApi=lambda: made))
        return made

    return use


def test_a_push_to_a_folder(run, hub, tmp_path, capsys):
    made = hub()
    assert main(["push", str(run.path), "me/skin", "--private"]) == 0 and made.private is True
    assert capsys.readouterr().out == "Pushed: https://hub/me/skin\n"
    files = pushed_files(run, "me/skin")
    assert {path.name: path.read_bytes() for path in (tmp_path / "me/skin").iterdir()} == files
    hub(public=["me/open"])
    refused("me/open", "public", "nothing was uploaded", act=lambda: push(run, "me/open", private=True))
    assert not (tmp_path / "me/open").exists()
    hub(refuses=OSError("no\nnetwork"))
    refused("me/net", "OSError: no network", "hf auth login", act=lambda: push(run, "me/net"))


def test_the_hub_is_called_as_its_client_wants_it():
    client = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed").HfApi
    for name in ("create_repo", "repo_info", "upload_folder"):
        wanted, ours = inspect.signature(getattr(client, name)), inspect.signature(getattr(Hub, name))
        assert set(ours.parameters) <= set(wanted.parameters), name
        given = {p.name: "x" for p in ours.parameters.values() if p.name != "self"}
        wanted.bind(None, **given)


def test_refusals(run, tmp_path, monkeypatch, capsys):
    for name in ("skin", "me/", "/skin", "me/a/b", "me/a b", "me/-a", "me/a--b", "me/a.git", "me/" + "a" * 99, "mé/a"):
        refused(name, "user/name", act=lambda name=name: pushed_files(run, name))
    refused("'my own'", "license", act=lambda: pushed_files(run, "me/skin", license="my own"))
    refused("no trained network 'resnet18'", act=lambda: pushed_files(run, "me/skin", "resnet18"))
    begun = Run.open(tmp_path / "begun", {})
    refused("no images", act=lambda: pushed_files(begun, "me/skin"))
    begun.save_json("data.json", run.load_json("data.json"))
    refused("no report: evaluate it first", act=lambda: pushed_files(begun, "me/skin"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as where it is not installed
    for arguments, word in (
        ([run.path, "me/skin"], "pip install 'ssnas_colab[hub]'"), ([tmp_path / "none", "me/skin"], "no run"),
        ([begun.path, "me/skin", "--dry-run", tmp_path / "out"], "evaluate it first"),
        ([run.path, "skin", "--dry-run", tmp_path / "out"], "user/name"),
    ):  # fmt: skip
        assert main(["push", *map(str, arguments)]) == 2
        said = capsys.readouterr().err
        assert word in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("source, named", [("digits", True), ("/mine/digits", False), ("digits.zip", False)])
def test_only_public_sets_are_named(run, tmp_path, source, named):
    other = Run.open(shutil.copytree(run.path, tmp_path / "run"))
    data = other.load_json("data.json")
    other.save_json("data.json", data | {"name": "digits", "settings": {**data["settings"], "source": source}})
    assert main(["push", str(other.path), "me/skin", "--dry-run", str(tmp_path / "out")]) == 0
    assert ("trained on digits" in (tmp_path / "out/README.md").read_text()) == named
    assert (b"digits" in b"".join(bytes_within(tmp_path / "out"))) == named


@pytest.mark.parametrize("kind", ["covid", "cifar10_lt100"])
@pytest.mark.parametrize("name", ["searched", "resnet18"])
def test_cards_of_reports_of_research(kind, name):
    "One seed and several, cells and hand-made networks: each model of a report can have a card."
    stored = Path(__file__).resolve().parents[2] / "nbs/research/does_it_hold" / kind / "report.json"
    report = carried_report(json.loads(stored.read_text()), "public images")
    model, seeds = report["models"][name], len(report["seeds"])
    facts = {"name": name, "resize": "stretched, bicubic", "genotype": model.get("genotype")}
    card = model_card(report, facts | {"metrics": {"accuracy": model["accuracy"], "macro_auc": None}}, "me/net")
    assert ("a single seed" in card, f"{seeds} seeds; the weights" in card) == (seeds == 1, seeds > 1)
    assert ("genotype.png" in card) == (name == "searched") and '"metrics": [{"type": "accuracy"' in card
    assert all(f"| {label} |" in card for label in report["data"]["class_names"])


def test_a_dry_run_that_is_killed_leaves_its_name_free(run, tmp_path, monkeypatch):
    class Killed(BaseException):
        "No handler of the package takes it."

    def killed(*_, **__):
        raise Killed

    arguments = ["push", str(run.path), "me/skin", "--dry-run", str(tmp_path / "out")]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("pathlib.Path.rename", killed)
        main(arguments)
    assert not (tmp_path / "out").exists() and main(arguments) == 0
    assert [path.name for path in tmp_path.glob("out*")] == ["out"]
