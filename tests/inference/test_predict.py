"Using a trained network: every kind comes back as it was, files are read as the loader reads them, mistakes are named."

import csv
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssnas_colab.core.basics import UserError
from ssnas_colab.data.augment import normalise
from ssnas_colab.data.images import Folder
from ssnas_colab.experiment.run import Run
from ssnas_colab.inference.export import ARCHIVE_FORMAT, export_run
from ssnas_colab.inference.model import RESIZES, build_network, model_facts
from ssnas_colab.inference.predict import (
    Prediction,
    load_model,
    predict_command,
    predict_files,
    predict_folder,
    write_predictions,
)
from ssnas_colab.models.baselines import MobileNet, ResNet, ShuffleNet
from ssnas_colab.models.genotype import GENOTYPES, Genotype
from ssnas_colab.models.network import Network
from ssnas_colab.stages.loader import load_data
from ssnas_colab.training.class_losses import CosineLinear, adjust_logits, predict_scores

GENOTYPE = GENOTYPES["FairDARTS_b"]
CLASSES = ("cat", "dog, old", "owl")


def network(kind="searched", channels=1, classes=3, stem=1):
    "A small network of that kind whose logits differ by about 1 from image to image."
    torch.manual_seed(1)
    if kind.startswith("resnet"):
        net = ResNet((2, 2, 2, 2), 5, classes, channels, stem)
    elif kind == "mobilenet_v3_macs":
        net = MobileNet(classes, channels, 0.3, stem)
    elif kind == "shufflenet_v2_macs":
        net = ShuffleNet(classes, channels, 12, stem)
    elif kind == "mobilenet_v3_small":
        net = MobileNet(classes, channels, stem_stride=stem)
    else:
        net = Network(GENOTYPE, classes, in_channels=channels, width=3, depth=3)
    net.train()
    for part in net.modules():
        part.momentum = None  # batch norms take the mean over all they see
    with torch.no_grad():
        for _ in range(3):
            net(torch.rand(16, channels, 16, 16) * 5 - 2)
        seen = net.eval()(torch.rand(16, channels, 16, 16) * 5 - 2)
        net.classifier.weight.div_(seen.std(0)[:, None])
        net.classifier.bias.sub_(seen.mean(0)).div_(seen.std(0))
    return net


def made_run(path, net, name="searched", *, size=(16, 16), channels=1, task="single-label", fresh=True, **known):
    "A run that holds `net` as stage 4 leaves it, and data.json as stage 1 does."
    run = Run.open(path, {"preset": "none", "seed": 3}) if fresh else Run.open(path)
    counts = [40, 20, 5]
    facts = {"class_names": list(CLASSES), "task": task, "size": list(size), "channels": channels}
    facts |= {"mean": [0.4] * channels, "std": [0.2] * channels, "name": "made up", "fingerprint": "f" * 64}
    facts |= {"counts": {"train": counts}, "images": {"train": sum(counts)}, "imbalance_factor": 8.0}
    facts |= {"settings": {"source": "/somewhere/of/mine"}}
    run.save_json("data.json", facts)
    model = {"parameters": 1, "recipe": "scratch", "loss": "cross_entropy", "tau": None, "classifier": "linear"}
    model |= {"width": net.width} if name != "mobilenet_v3_small" else {}  # version 0.2 did not say it
    if isinstance(net, Network):
        model |= {"genotype": str(net.genotype), "depth": net.depth}
    run.save_json(f"models/{name}.json", model | {"balanced_accuracy": 0.5} | known)
    run.checkpoints.save(f"models/{name}", {"model": net.state_dict()}, epoch=0, step=0)
    return run


def pixels(count=4, channels=1, side=16):
    return np.random.default_rng(0).integers(0, 256, (count, channels, side, side)).astype(np.uint8)


def logits(net, images, channels=1):
    with torch.no_grad():
        return net(normalise(torch.from_numpy(images), [0.4] * channels, [0.2] * channels))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_run(tmp_path_factory.mktemp("using") / "run", network())


KINDS = ("searched", "random_0", "DARTS_V2", "resnet18", "resnet_small", "mobilenet_v3_small")
KINDS += ("resnet_macs", "mobilenet_v3_macs", "shufflenet_v2_macs")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_comes_back(tmp_path, kind):
    net, images = network(kind, channels=3), pixels(channels=3)
    run = made_run(tmp_path / "run", net, kind, channels=3)
    model = load_model(run.path, kind)
    found = model.scores(images)
    assert found.dtype == np.float32 and not model.training
    with pytest.raises(UserError, match=rf"choose one that it has \({kind}\)"):
        load_model(run.path, "other")
    np.testing.assert_allclose(found, predict_scores(logits(net, images, 3)), rtol=1e-4, atol=1e-6)
    assert len({tuple(row) for row in found.round(4)}) == len(images)
    np.testing.assert_allclose(model.predict(images.transpose(0, 2, 3, 1), batch_size=3), found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stem", [2, 4])
@pytest.mark.parametrize("kind", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_macs"])
def test_a_stem_that_steps_comes_back_and_travels(tmp_path, kind, stem):
    net, images = network(kind, stem=stem), pixels()
    run = made_run(tmp_path / "run", net, kind, stem_stride=stem)
    expected = predict_scores(logits(net, images))
    export_run(run.path, tmp_path / "it.zip", name=kind)
    for model in (load_model(run.path, kind), load_model(tmp_path / "it.zip")):
        np.testing.assert_allclose(model.scores(images), expected, rtol=1e-4, atol=1e-6)
    plain = load_model(made_run(tmp_path / "plain", net, kind), kind)  # as runs before 0.6.0, which say nothing of it
    assert np.abs(plain.scores(images) - expected.numpy()).max() > 1e-3


def test_a_cosine_classifier_comes_back(tmp_path):
    net = network()
    net.classifier = CosineLinear(net.classifier.in_features, 3)
    model = load_model(made_run(tmp_path / "run", net, loss="ldam", classifier="cosine"))
    np.testing.assert_allclose(model.scores(pixels()), predict_scores(logits(net, pixels())), rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match="weights of searched are not those"):
        load_model(made_run(tmp_path / "run", net, classifier="linear", fresh=False))


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_tau_is_applied_after_cross_entropy_only(tmp_path, task):
    net, images = network(), pixels()
    plain, shifted = logits(net, images), adjust_logits(logits(net, images), [40, 20, 5], task, 65, 1.5)
    model = load_model(made_run(tmp_path / "a", net, task=task, tau=1.5))
    np.testing.assert_allclose(model.scores(images), predict_scores(shifted, task), rtol=1e-4, atol=1e-6)
    assert np.abs(model.scores(images) - predict_scores(plain, task).numpy()).max() > 0.01
    model = load_model(made_run(tmp_path / "b", net, task=task, tau=1.5, loss="logit_adjustment"))
    np.testing.assert_allclose(model.scores(images), predict_scores(plain, task), rtol=1e-4, atol=1e-6)


def save_odd_files(folder):
    "Pictures of one kind of content in many modes, none of them of the network's size."
    shade = np.random.default_rng(4).integers(0, 256, (24, 40, 3)).astype(np.uint8)
    colour, grey = Image.fromarray(shade), Image.fromarray(shade[..., 0])
    note = Image.Exif()
    note[0x0112] = 8
    folder.mkdir()
    colour.save(folder / "turned.jpg", exif=note, quality=95)
    colour.convert("CMYK").save(folder / "print.tif")
    colour.quantize(16).save(folder / "palette.png")
    colour.quantize(8).save(folder / "palette.gif", transparency=3)
    colour.convert("RGBA").save(folder / "alpha.webp", lossless=True)
    grey.convert("LA").save(folder / "grey alpha.png")
    grey.convert("1").save(folder / "one bit.png")
    Image.fromarray(shade[..., 0].astype(np.uint16) * 211).save(folder / "deep.png")
    grey.save(folder / "Ümlaut.pgm")


def same_as_loader(place, channels, tmp_path, size=16, fit="pad"):
    "That the probabilities of the files are those of the pixels that the loader makes of them."
    data = load_data(place, image_size=size, channels=channels, fit=fit)
    net = network(channels=channels)
    run = made_run(tmp_path / f"run{channels}", net, channels=channels, size=(size, size))
    window = list(data.window) if isinstance(data.window, tuple) else data.window
    run.save_json("data.json", run.load_json("data.json") | {"fit": fit, "window": window})
    model = load_model(run)
    names = Folder(place).names
    found = model.predict([Path(place) / name for name in names])
    ours = model.scores(data.images["train"])
    assert len(data.images["train"]) == len(names) - len(data.set_aside)
    np.testing.assert_allclose(found[data.indices["train"]], ours, rtol=1e-5, atol=1e-7)
    return names, found


@pytest.mark.parametrize("channels, fit", [(1, "pad"), (3, "crop"), (1, "stretch")])
def test_odd_files_are_read_as_the_loader_reads_them(tmp_path, channels, fit):
    save_odd_files(tmp_path / "odd")
    names, found = same_as_loader(tmp_path / "odd", channels, tmp_path, fit=fit)
    assert len(names) == 9 and np.isfinite(found).all()
    model = load_model(tmp_path / f"run{channels}")
    opened = [Image.open(tmp_path / "odd" / name) for name in names]
    np.testing.assert_array_equal(model.predict(opened), found)  # and so are Pillow images


def test_deep_images_are_seen_through_the_window_of_the_training_images(tmp_path):
    (tmp_path / "deep").mkdir()
    values = [np.random.default_rng(i).integers(900, 3000, (16, 16)).astype(np.uint16) for i in range(12)]
    for i, one in enumerate(values):
        Image.fromarray(one).save(tmp_path / "deep" / f"{i:02}.png")
    _, found = same_as_loader(tmp_path / "deep", 1, tmp_path)
    model = load_model(tmp_path / "run1")
    np.testing.assert_array_equal(model.predict(values), found)
    export_run(tmp_path / "run1", tmp_path / "x.zip")
    np.testing.assert_array_equal(load_model(tmp_path / "x.zip").predict(values), found)
    run = made_run(tmp_path / "shallow", network())
    run.save_json("data.json", run.load_json("data.json") | {"window": None})  # trained on 8 bits alone
    with pytest.raises(UserError, match="unknown scale"):
        load_model(run).predict([tmp_path / "deep" / "00.png"])


def test_real_xrays_are_read_as_the_loader_reads_them(tmp_path):
    if "SSNAS_TEST_DATA" not in os.environ:
        pytest.skip("SSNAS_TEST_DATA is not set: no real X-rays")
    place = tmp_path / "flat"
    place.mkdir()
    files = sorted((Path(os.environ["SSNAS_TEST_DATA"]) / "covid_xray_sample").rglob("*.*"))
    for i, file in enumerate(file for file in files if file.suffix.lower() in (".png", ".jpg", ".jpeg")):
        (place / f"{i:03d}{file.suffix}").write_bytes(file.read_bytes())
    names, _ = same_as_loader(place, 1, tmp_path, size=32)
    assert len(names) > 30


def test_arrays_of_another_size_and_other_shapes(run):
    model = load_model(run)
    large = pixels(2, 3, 40).transpose(0, 2, 3, 1)
    found = model.predict(large)
    np.testing.assert_array_equal(found, model.predict([Image.fromarray(one) for one in large]))
    grey = large[..., 0]
    np.testing.assert_array_equal(model.predict(grey), model.predict([grey[0], grey[1][..., None]]))
    assert model.predict(grey[0]).shape == (1, 3) and model.predict([]).shape == (0, 3)
    for bad in (grey / 255.0, large.transpose(0, 3, 1, 2)[:1], [np.zeros((0, 4), np.uint8)]):
        with pytest.raises(UserError, match="Image 0 is an array of"):
            model.predict(bad)
    with pytest.raises(UserError, match="Image 1 could not be read .*floating-point"):
        model.predict([grey[0], Image.fromarray(grey[0].astype(np.float32))])
    with pytest.raises(UserError, match="nowhere.png could not be read .no such file"):
        model.predict("nowhere.png")


def test_a_network_of_oblong_images_takes_arrays_only(tmp_path):
    model = load_model(made_run(tmp_path / "run", network(), size=(12, 20)))
    assert model.predict(np.zeros((12, 20), np.uint8)).shape == (1, 3)
    with pytest.raises(UserError, match="trained on 12 x 20 pixels"):
        model.predict(np.zeros((20, 12), np.uint8))


def test_prediction_does_not_depend_on_the_mode_and_leaves_it(run):
    model = load_model(run)
    before = model.scores(pixels())
    model.train()
    np.testing.assert_array_equal(model.scores(pixels()), before)
    assert model.training and all(part.training for part in model.modules())
    as_float = torch.from_numpy(pixels()).float() / 255
    with torch.no_grad():
        model.eval()
        torch.testing.assert_close(model(as_float), model(torch.from_numpy(pixels())))
    assert "3 classes, 16 x 16 pixels" in repr(model)


def test_what_a_run_cannot_give(tmp_path, run):
    with pytest.raises(UserError, match="no trained network 'resnet18'.*searched"):
        load_model(run, "resnet18")
    with pytest.raises(UserError, match="There is no run at"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="kNN|neighbours"):
        load_model(made_run(tmp_path / "knn", network(), recipe="knn"))
    other = made_run(tmp_path / "other", network())
    other.checkpoints.drop("models/searched")
    with pytest.raises(UserError, match="no weights of 'searched' any more"):
        load_model(other)
    damaged = made_run(tmp_path / "damaged", network())
    [path] = (damaged.path / "checkpoints" / "models" / "searched").glob("*.pt")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="No checkpoint of models/searched can be used"):
        load_model(damaged)


def test_a_further_seed_finds_the_facts_of_its_run(tmp_path):
    run = made_run(tmp_path / "run", network())
    inner = made_run(run.path / "seed_1", network())
    (inner.path / "data.json").unlink()
    assert load_model(inner.path).class_names == CLASSES
    alone = made_run(tmp_path / "alone", network())
    (alone.path / "data.json").unlink()
    with pytest.raises(UserError, match="no data.json"):
        load_model(alone)


def save_pictures(folder, count=3):
    folder.mkdir()
    for i, image in enumerate(pixels(count)):
        Image.fromarray(image[0]).save(folder / f"{i:02d}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a JPEG")
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")


def test_broken_files_are_named_and_stop_nothing(tmp_path, run):
    save_pictures(tmp_path / "in")
    model, names = load_model(run), ["00.png", "broken.jpg", "01.png", "gone.png", "empty.png", "00.png"]
    for batch in (1, 2, 64):
        found = predict_files(model, [tmp_path / "in" / name for name in names], batch_size=batch)
        assert [Path(one.file).name for one in found] == names
        assert [bool(one.problem) for one in found] == [False, True, False, True, True, False]
        assert found[3].problem == "no such file or directory" and found[4].problem == "empty file"
        ours = model.scores(pixels(2))
        np.testing.assert_allclose([found[i].probabilities for i in (0, 2, 5)], ours[[0, 1, 0]], rtol=1e-5)
        assert found[0].answer == CLASSES[ours[0].argmax()] and found[1].answer is None


def test_a_folder_and_a_zip_become_the_same_table(tmp_path, run):
    save_pictures(tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for file in (tmp_path / "in").iterdir():
            archive.write(file, file.name)
    model = load_model(run)
    for source, out in (("in", "a.csv"), ("in.zip", "b.csv")):
        found = predict_folder(model, tmp_path / source, tmp_path / out)
        assert [one.file for one in found] == ["00.png", "01.png", "02.png", "broken.jpg", "empty.png"]
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    numbers, ours = [float(rows[1][f"probability {name}"]) for name in CLASSES], model.scores(pixels())[1]
    np.testing.assert_allclose(numbers, ours, rtol=1e-4)
    assert rows[1]["predicted"] == CLASSES[ours.argmax()] and rows[4]["problem"] == "empty file"
    assert rows[3]["predicted"] == "" == rows[3]["probability cat"]


def test_nothing_is_overwritten(tmp_path, run):
    save_pictures(tmp_path / "in")
    (tmp_path / "mine.csv").write_text("mine")
    for use in (
        lambda: predict_folder(load_model(run), tmp_path / "in", tmp_path / "mine.csv"),
        lambda: predict_command(run, [tmp_path / "in"], tmp_path / "mine.csv"),
    ):
        with pytest.raises(UserError, match="mine.csv exists"):
            use()
    assert (tmp_path / "mine.csv").read_text() == "mine"
    (tmp_path / "nothing").mkdir()
    for place, why in ((tmp_path / "nothing", "holds no images"), (tmp_path / "gone", "There is nothing at")):
        with pytest.raises(UserError, match=why):
            predict_folder(load_model(run), place, tmp_path / "new.csv")
    assert not (tmp_path / "new.csv").exists()


def test_several_labels(tmp_path):
    net = network()
    with torch.no_grad():
        net.classifier.weight.zero_()
        net.classifier.bias.copy_(torch.tensor([2.0, -1.0, 0.5]))
    save_pictures(tmp_path / "in", 1)
    run = made_run(tmp_path / "run", net, task="multi-label")
    [one, *_] = predict_folder(load_model(run), tmp_path / "in", tmp_path / "out.csv")
    assert one.answer == ("cat", "owl")
    np.testing.assert_allclose(one.probabilities, 1 / (1 + np.exp([-2, 1, -0.5])), rtol=1e-5)
    assert "\n00.png,cat|owl," in (tmp_path / "out.csv").read_text()
    assert "cat 88.1%, owl 62.2%" in predict_command(run, [tmp_path / "in"])
    net.classifier.bias.data.fill_(-1.0)
    run = made_run(tmp_path / "none", net, task="multi-label")
    assert "nothing above 50 % (highest: cat 26.9%)" in predict_command(run, [tmp_path / "in" / "00.png"])


def test_the_command_says_a_line_for_each_image_and_then_counts(tmp_path, run):
    save_pictures(tmp_path / "in", 30)
    said = predict_command(run.path, [tmp_path / "in"], tmp_path / "new" / "out.csv").splitlines()
    assert len(said) == 22 and said[20].startswith("... and 12 more; of all 32: ")
    assert said[20].endswith(", 2 could not be read") and said[21].endswith("out.csv")
    counted = said[20].split("of all 32: ")[1].removesuffix(", 2 could not be read").replace("dog, old", "dog")
    assert sum(int(part.split()[-1]) for part in counted.split(", ")) == 30
    said = predict_command(run.path, [tmp_path / "in" / "00.png", tmp_path / "gone.png"])
    assert "gone.png  could not be read: no such file" in said and "(then " in said
    with pytest.raises(UserError, match="Not one of 2 images could be read .*empty"):
        predict_command(run.path, [tmp_path / "in" / "empty.png", tmp_path / "gone.png"])


def archived(path, run, change=None, **members):
    "An archive by hand: the facts, changed, and the weights; `members` are added or replaced."
    from safetensors.torch import save

    weights = run.checkpoints.load("models/searched")["state"]["model"]
    facts = {"format": 1, **model_facts(run), **(change or {})}
    packed = save({name: tensor.contiguous() for name, tensor in weights.items()})
    content = {"model.json": json.dumps(facts), "model.safetensors": packed}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**content, **members}.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def test_an_archive_stands_for_its_run(tmp_path, run):
    model = load_model(archived(tmp_path / "a.zip", run))
    np.testing.assert_array_equal(model.scores(pixels()), load_model(run).scores(pixels()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]  # nothing was unpacked
    with pytest.raises(UserError, match="holds the network 'searched', not 'resnet18'"):
        load_model(tmp_path / "a.zip", "resnet18")


FULL = [("sep_conv_5x5", source, target) for target in range(2, 64) for source in range(target)]
FULL = Genotype(FULL, FULL, range(2, 64), range(2, 64))
HOSTILE = {
    "up": ({}, {"../../evil.txt": "x"}, "leads out of it"),
    "root": ({}, {"/etc/evil": "x"}, "leads out of it"),
    "drive": ({}, {"C:\\evil": "x"}, "leads out of it"),
    "no weights": ({}, {"model.safetensors": None}, "holds no model.safetensors"),
    "pickle": ({}, {"model.safetensors": b"\x80\x04cposix\nsystem\n"}, "no model that can be read"),
    "no json": ({}, {"model.json": "{"}, "no model that can be read"),
    "a list": ({}, {"model.json": "[1]"}, "no model that can be read"),
    "newer": ({"format": ARCHIVE_FORMAT + 1}, {}, "written by a newer version"),
    "huge": ({"width": 10**9}, {}, "no usable width"),
    "deep": ({"depth": 10**9}, {}, "no usable depth"),
    "wide": ({"width": 4}, {}, "not those of the network"),
    "other classes": ({"class_names": ["a", "b"]}, {}, "not those of the network"),
    "no classes": ({"class_names": []}, {}, "no usable class_names"),
    "numbers": ({"mean": ["0.4"]}, {}, "no usable mean and std"),
    "other rule": ({"resize": "squeezed"}, {}, "no usable resize"),
    "a mean of infinity": ({"mean": [float("inf")]}, {}, "no finite number"),
    "a mean of 1e300": ({"mean": [1e300]}, {}, "no usable mean and std"),
    "tau as text": ({"tau": "1.0"}, {}, "no usable tau"),
    "tau of other counts": ({"tau": 1.0, "counts": [40, 20]}, {}, "no usable tau"),
    "large pictures": ({"size": [4096, 4096]}, {}, "no usable size"),
    "brackets": ({}, {"model.json": "[" * 100_000}, "nested too deeply"),
    "a full genotype": ({"genotype": str(FULL), "depth": 1000}, {}, "2,015,000 edges in its cells"),
    "code": ({"genotype": "__import__('os').system('true')"}, {}, "not those of the network"),
}


@pytest.mark.parametrize("change, members, why", HOSTILE.values(), ids=HOSTILE)
def test_an_archive_that_is_not_what_it_should_be(tmp_path, run, change, members, why):
    with pytest.raises(UserError, match=why) as caught:
        load_model(archived(tmp_path / "a.zip", run, change, **members))
    assert "\n" not in str(caught.value) and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("change, why", [(lambda t: t * torch.nan, "diverged"), (torch.Tensor.double, "float64")])
def test_weights_that_no_network_can_have(tmp_path, run, change, why):
    from safetensors.torch import save

    weights = run.checkpoints.load("models/searched")["state"]["model"]
    packed = save({name: change(t).contiguous() if t.is_floating_point() else t for name, t in weights.items()})
    with pytest.raises(UserError, match=why):
        load_model(archived(tmp_path / "a.zip", run, **{"model.safetensors": packed}))


def test_a_member_that_is_packed_too_tightly_is_not_unpacked(tmp_path, run):
    archived(tmp_path / "a.zip", run, **{"model.safetensors": None})
    with zipfile.ZipFile(tmp_path / "a.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.safetensors", bytes(1 << 26))
    with pytest.raises(UserError, match="packed too tightly"):
        load_model(tmp_path / "a.zip")


def test_answers_that_are_no_numbers_are_refused(tmp_path, run):
    model = load_model(run)
    model.network.classifier.weight.data.fill_(3e38)
    with pytest.raises(UserError, match="gives no numbers"):
        model.scores(pixels())


def test_a_table_of_predictions_is_read_by_no_spreadsheet_as_formulas(tmp_path, run):
    names = ("=cmd()", "+1", "-2", "@x", "'=cmd()", "plain", "a\nb", "\udcff.png", " =1")
    model = load_model(run)
    model.class_names = ("=HYPERLINK(1)", "b", "c")
    write_predictions(model, [Prediction(name, name, None, name) for name in names], tmp_path / "x.csv")
    with open(tmp_path / "x.csv", encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head[1:3] == ["predicted", "probability =HYPERLINK(1)"]
    cells = [row[0] for row in rows]
    assert cells == ["'=cmd()", "'+1", "'-2", "'@x", "''=cmd()", "plain", "a\\nb", "\\udcff.png", "' =1"]
    assert all(row[0] == row[1] == row[-1] for row in rows)


def test_a_damaged_archive(tmp_path, run):
    data = archived(tmp_path / "a.zip", run).read_bytes()
    for name, bad in (("cut", data[: len(data) // 2]), ("flipped", data[:9000] + b"?" + data[9001:]), ("none", b"")):
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(UserError, match="no model that can be read"):
            load_model(tmp_path / name)


def test_weights_are_taken_without_a_random_draw_and_only_where_they_fit(run):
    facts, weights = model_facts(run), run.checkpoints.load("models/searched")["state"]["model"]
    assert RESIZES[facts["resize"]] == "crop" and facts["counts"] == [40, 20, 5]
    before = torch.random.get_rng_state()
    net = build_network(facts, weights)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in weights.items())
    assert not any(tensor.is_meta for tensor in net.state_dict().values())
    with pytest.raises(UserError, match="not those of the network"):
        build_network(facts, dict(list(weights.items())[1:]))
