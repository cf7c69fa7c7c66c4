"An archive holds all that a network needs and nothing of the machine it was made on; ONNX says what torch says."

import json
import os
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusal import refused

from inference.test_predict import CLASSES, GENOTYPE, KINDS, made_run, network, pixels
from ssnas_colab.core.basics import UserError
from ssnas_colab.inference import export as exporting
from ssnas_colab.inference.export import export_onnx, export_run, onnx_difference
from ssnas_colab.inference.predict import load_model, predict_folder
from ssnas_colab.models.genotype import Genotype, genotype_from_json
from ssnas_colab.models.network import Network
from ssnas_colab.models.stages import random_stages
from ssnas_colab.training.class_losses import CosineLinear


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_travels(tmp_path, kind, unpainted):
    run = made_run(tmp_path / "run", network(kind, channels=3), kind, channels=3, tau=0.5)
    path = export_run(run.path, tmp_path / "out" / "model.zip", kind)
    model, original = load_model(path), load_model(run, kind)
    np.testing.assert_array_equal(model.scores(pixels(channels=3)), original.scores(pixels(channels=3)))
    assert (model.class_names, model.size, model.task, model.channels) == (CLASSES, (16, 16), "single-label", 3)
    both = zip(model.state_dict().values(), original.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in both)
    with zipfile.ZipFile(path) as archive:
        assert ("genotype.json" in archive.namelist()) == (not kind.startswith(("resnet", "mobilenet", "shufflenet")))


@pytest.mark.parametrize("stride, side", [(2, 64), (4, 224)])
def test_stages_behind_a_stem_that_steps_travel(tmp_path, stride, side, unpainted):
    torch.manual_seed(0)
    net = Network(random_stages(14, stride), 3, in_channels=1, width=4).eval()
    run = made_run(tmp_path / "run", net, size=(side, side))
    model, images = load_model(export_run(run, tmp_path / "model.zip")), pixels(side=side)
    assert model.size == (side, side) and model.network.genotype == random_stages(14, stride)
    np.testing.assert_array_equal(model.scores(images), load_model(run).scores(images))
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert genotype_from_json(archive.read("genotype.json").decode()) == random_stages(14, stride)
        assert archive.read("genotype.png").startswith(b"\x89PNG")
    for extra in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(extra, reason="the extra onnx is not installed")
    assert export_onnx(model, tmp_path / "model.onnx") <= 1e-4


def test_a_cosine_classifier_travels(tmp_path, unpainted):
    net = network()
    net.classifier = CosineLinear(net.classifier.in_features, 3)
    run = made_run(tmp_path / "run", net, loss="ldam", classifier="cosine")
    model = load_model(export_run(run, tmp_path / "model.zip"))
    np.testing.assert_array_equal(model.scores(pixels()), load_model(run).scores(pixels()))


@pytest.fixture
def run(tmp_path):
    run = made_run(tmp_path / "run", network())
    run.save_json("report.json", {"models": {}, "seeds": [3, 4], "device": "cuda", "versions": {"torch": "2.11.0"}})
    run.save_text("report.md", "# It was tried\n")
    return run


def test_what_the_archive_holds(tmp_path, run):
    path = export_run(run, tmp_path / "model.zip")
    with zipfile.ZipFile(path) as archive:
        names, facts = archive.namelist(), json.loads(archive.read("model.json"))
        assert Genotype.from_json(archive.read("genotype.json").decode()) == GENOTYPE
        assert archive.read("report.md").decode() == "# It was tried\n"
        assert archive.read("genotype.png").startswith(b"\x89PNG")
        everything = b"".join(archive.read(name) for name in names).decode("latin-1")
    assert names[:3] == ["README.txt", "model.json", "model.safetensors"] and "report.png" not in names
    origin = facts["provenance"]
    assert origin["seed"] == 3 and origin["seeds"] == [3, 4] and origin["device"] == "cuda"
    assert origin["versions"] == {"torch": "2.11.0"} and origin["data"]["fingerprint"] == "f" * 64
    assert origin["settings"] == {"preset": "none", "seed": 3} and origin["exported_with"]["torch"] == torch.__version__
    assert (facts["width"], facts["depth"], facts["class_names"]) == (3, 3, list(CLASSES))
    assert str(tmp_path) not in everything and "/somewhere" not in everything


def test_the_same_network_gives_the_same_bytes(tmp_path, run, unpainted):
    (tmp_path / "again").mkdir()
    one, other = export_run(run, tmp_path / "model.zip"), export_run(run, tmp_path / "again" / "model.zip")
    assert one.read_bytes() == other.read_bytes()


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path, run, monkeypatch, unpainted):
    (tmp_path / "mine.zip").write_text("mine")
    (tmp_path / "mine.onnx").write_text("mine")
    with pytest.raises(UserError, match="mine.zip exists"):
        export_run(run, tmp_path / "mine.zip")
    with pytest.raises(UserError, match="mine.onnx exists"):
        export_onnx(load_model(run), tmp_path / "mine.onnx")
    with pytest.raises(UserError, match="should end in .zip"):
        export_run(run, tmp_path / "model.tar")
    with pytest.raises(UserError, match="no trained network 'resnet18'"):
        export_run(run, tmp_path / "new.zip", "resnet18")
    monkeypatch.setattr(exporting, "_zipped", lambda members, good=exporting._zipped: good({**members, **other}))
    from safetensors.torch import save

    other = {"model.safetensors": save({"x": torch.zeros(1)})}
    with pytest.raises(RuntimeError, match="nothing was written"):
        export_run(run, tmp_path / "new.zip")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "mine.zip", "mine.onnx"}
    assert (tmp_path / "mine.zip").read_text() == (tmp_path / "mine.onnx").read_text() == "mine"


def test_the_code_in_the_readme_runs(tmp_path, run, monkeypatch, capsys, unpainted):
    path = export_run(run, tmp_path / "model.zip")
    with zipfile.ZipFile(path) as archive:
        readme = archive.read("README.txt").decode()
    blocks = [block for block in readme.split("\n\n") if block.startswith("    ")]
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    os.mkdir("pictures")
    Image.fromarray(pixels()[0, 0]).save("pictures/a.png")
    Image.fromarray(pixels()[0, 0]).save("picture.png")
    for block in blocks:
        names = {}
        exec(textwrap.dedent(block), names)
    assert "Model(searched" in capsys.readouterr().out and (tmp_path / "answers.csv").is_file()
    found, model = names["network"], load_model(path)
    images = (torch.from_numpy(pixels()).float() / 255 - names["facts"]["mean"][0]) / names["facts"]["std"][0]
    with torch.no_grad():
        torch.testing.assert_close(found(images), model(torch.from_numpy(pixels())))


def test_the_line_in_archives_of_version_0_1_goes_on_working(tmp_path, run):
    "Their README says `from ssnas_colab.core.using import load_model, predict_folder`."
    names = {}
    exec("from ssnas_colab.core.using import load_model, predict_folder", names)
    assert (names["load_model"], names["predict_folder"]) == (load_model, predict_folder)


@pytest.mark.parametrize("name, link", [("../up.txt", False), ("/etc/x", False), ("C:/x", False), ("a/link", True)])
def test_a_member_that_leads_out_is_refused(tmp_path, run, name, link, unpainted):
    path, info = export_run(run, tmp_path / "model.zip"), zipfile.ZipInfo(name)
    info.external_attr = (0o120777 if link else 0o100644) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, b"x")
    refused(repr(name), "do not trust", act=lambda: load_model(path))


def test_onnx_says_what_torch_says(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    run = made_run(tmp_path / "run", network("resnet_small"), "resnet_small", task="multi-label", tau=1.0)
    model = load_model(run, "resnet_small")
    assert export_onnx(model, tmp_path / "model.onnx") <= 1e-4
    data = (tmp_path / "model.onnx").read_bytes()
    assert str(Path(exporting.__file__).parent).encode() not in data and b".py" not in data  # no path of this machine
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for count in (1, 4):  # the bytes of the images as they are
        [found] = session.run(None, {"images": pixels(count)})
        np.testing.assert_allclose(found, model.scores(pixels(count)), atol=1e-4)
        assert found.std() > 0.01
    told = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
    assert json.loads(told["class_names"]) == list(CLASSES) and told["task"] == "multi-label"
    # A graph that says something else is not written.
    model.adjusted += 0.01
    assert onnx_difference(model, data) > 1e-4
    monkeypatch.setattr(exporting, "_exported", lambda model: data)
    with pytest.raises(RuntimeError, match="differs from torch by"):
        export_onnx(model, tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()


def test_onnx_without_its_packages_says_what_to_install(tmp_path, run, monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(UserError, match="needs onnxruntime: `pip install 'ssnas_colab"):
        export_onnx(load_model(run), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
