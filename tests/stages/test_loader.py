"""Images in: what is chosen, how pictures become arrays, and what is refused in one sentence."""

import io
import json
import os
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusal import refused as one_sentence

from ssnas_colab.core.basics import UserError
from ssnas_colab.data import images
from ssnas_colab.data import npz as arrays_module
from ssnas_colab.data.images import by_reason, to_rgb, to_square
from ssnas_colab.data.imbalance import long_tailed_counts
from ssnas_colab.data.summary import data_facts, plot_class_counts, plot_examples, shared_images
from ssnas_colab.experiment.run import Run
from ssnas_colab.stages import loader
from ssnas_colab.stages.loader import load_data

SPLITS = ("train", "val", "test")


@pytest.fixture
def real():
    "The folder of real data."
    if "SSNAS_TEST_DATA" not in os.environ:
        pytest.skip("SSNAS_TEST_DATA does not name the folder of real data")
    return Path(os.environ["SSNAS_TEST_DATA"])


def noise(size=(16, 16), colours=3, seed=0):
    shape = size[::-1] if colours == 1 else (*size[::-1], colours)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def folder_of(path, counts, first=0, **kwargs):
    for number, (name, count) in enumerate(counts.items()):
        (path / name).mkdir(parents=True)
        for i in range(count):
            noise(seed=first + 100 * number + i, **kwargs).save(path / name / f"{i}.png")
    return path


def zipped(folder, target, prefix=""):
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*"), reverse=True):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return target


def refused(*words, **arguments):
    one_sentence(*words, act=lambda: load_data(**arguments))


def together(data):
    "Counts of training and validation together."
    return [a + b for a, b in zip(data.counts("train"), data.counts("val"), strict=True)]


# the long tail


def test_counts_of_long_tailed_cifar10():
    assert long_tailed_counts(5000, 10, 100) == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert [sum(long_tailed_counts(5000, 10, f)) for f in (100, 50, 10, 1)] == [12_406, 13_996, 20_431, 50_000]
    assert long_tailed_counts(5000, 10, 100, "step") == [5000] * 5 + [50] * 5
    assert long_tailed_counts(500, 3, 10, "step") == [500, 500, 50]
    assert long_tailed_counts(7, 1, 10) == [7]


def test_counts_are_exact_where_floating_point_is_not():
    from decimal import Decimal, localcontext

    with localcontext() as context:
        context.prec = 60
        for n_max, classes, factor in [(5000, 10, 50), (500, 100, 100), (500, 100, 10), (1300, 7, 2.5), (999, 20, 333)]:
            steps = classes - 1
            exact = [n_max * (Decimal(str(factor)).ln() * -i / steps).exp() for i in range(classes)]
            assert long_tailed_counts(n_max, classes, factor) == [int(x + Decimal("1e-40")) for x in exact]


@pytest.mark.parametrize("factor", [0.5, 0, -3, float("nan"), float("inf"), "much"])
def test_an_imbalance_factor_below_1_is_refused(factor):
    with pytest.raises(UserError, match=str(factor)):
        long_tailed_counts(10, 2, factor)
    refused(factor, imbalance_factor=factor)


# which images


def test_digits_splits_are_stratified_disjoint_and_unique():
    data = load_data()
    every = np.concatenate([data.indices[split] for split in SPLITS])
    assert sorted(every) == list(range(1797))
    have = np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    for split, share in [("test", 0.2), ("val", 0.08), ("train", 0.72)]:
        assert data.images[split].dtype == np.uint8 and data.images[split].shape[1:] == (1, 8, 8)
        assert data.labels[split].dtype == np.int64 and len(data.labels[split]) == len(data.images[split])
        assert np.allclose(data.counts(split) / have, share, atol=0.02)
    assert (data.name, data.task, data.channels, data.size) == ("digits", "single-label", 1, (8, 8))
    assert data.policy == "medical"
    from sklearn.datasets import load_digits

    source = load_digits()
    for split in SPLITS:
        assert (source.target[data.indices[split]] == data.labels[split]).all()
        assert np.abs(source.images[data.indices[split]] * 255 / 16 - data.images[split][:, 0]).max() <= 0.5


def test_mean_and_std_are_of_the_training_images():
    data = load_data()
    values = data.images["train"] / 255
    assert data.mean == pytest.approx([values.mean()]) and data.std == pytest.approx([values.std()])


def test_the_tail_is_cut_before_validation_and_spares_the_test_set():
    data, whole = load_data(imbalance_factor=20), load_data()
    most = max(together(whole))
    assert together(data) == np.minimum(long_tailed_counts(most, 10, 20), together(whole)).tolist()
    assert (data.indices["test"] == whole.indices["test"]).all()
    assert min(data.counts("val")) == 1 and max(data.counts("val")) > 10
    every = np.concatenate([data.indices[split] for split in SPLITS])
    assert len(np.unique(every)) == len(every)
    steep = load_data(imbalance_factor=50)
    inside = [set(d.indices["train"]) | set(d.indices["val"]) for d in (steep, data)]
    assert inside[0] < inside[1]


def test_the_same_seed_gives_the_same_bits():
    a, b, c = (load_data(imbalance_factor=20, seed=seed) for seed in (3, 3, 4))
    assert a.fingerprint() == b.fingerprint() != c.fingerprint()
    assert all((a.images[split] == b.images[split]).all() for split in SPLITS)
    assert json.loads(json.dumps(a.settings)) == a.settings and a.settings["seed"] == 3


def test_asked_size_channels_and_policy():
    data = load_data(image_size=12, channels=3, policy="natural")
    assert data.images["test"].shape[1:] == (3, 12, 12) and data.policy == "natural" and len(data.mean) == 3
    assert load_data(channels=3).policy == "natural"
    for size in (0, 7, 10_000, 8.5):
        refused(size, image_size=size)
    refused(2, channels=2)
    refused("medical", policy="medicine")
    refused("step", profile="steep")


def test_uneven_classes_are_cut_from_the_largest_to_the_smallest(tmp_path):
    given = arrays(n=1040, classes=3)
    given["train_labels"] = np.repeat([0, 1, 2], [200, 800, 40]).reshape(-1, 1)
    np.savez(tmp_path / "x.npz", **given)
    assert load_data(tmp_path / "x.npz", imbalance_factor=100).counts() == [80, 800, 8]
    assert load_data(tmp_path / "x.npz", imbalance_factor=1).counts() == [200, 800, 40]
    even = load_data(imbalance_factor=20)
    assert together(even) == sorted(together(even), reverse=True)


def test_the_order_of_classes_can_be_shuffled():
    tails = [load_data(imbalance_factor=20, seed=seed, class_order="shuffled").counts() for seed in range(6)]
    assert len({int(np.argmax(tail)) for tail in tails}) > 1
    data = load_data(imbalance_factor=20, seed=1, class_order="shuffled")
    assert data.settings["class_order"] == "shuffled" and "class_order" not in load_data().settings
    assert together(data) != sorted(together(data), reverse=True)
    assert 17 < max(together(data)) / min(together(data)) < 23
    refused("shuffled", class_order="shufled")


def test_natural_imbalance_is_reported_as_found():
    facts = load_data(imbalance_factor=20).imbalance()
    counts = np.array(load_data(imbalance_factor=20).counts())
    assert facts["imbalance_factor"] == counts.max() / counts.min()
    pairs = np.abs(np.subtract.outer(counts, counts)).sum() / (2 * 10 * counts.sum())
    assert facts["gini"] == pytest.approx(pairs)
    share = counts / counts.sum()
    assert facts["effective_classes"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert (facts["many"], facts["medium"], facts["few"]) == (
        (counts > 100).sum(), ((counts <= 100) & (counts >= 20)).sum(), (counts < 20).sum(),
    )  # fmt: skip
    even = load_data().imbalance("test")
    assert even["gini"] < 0.02 and even["effective_classes"] > 9.9


def test_several_labels_report_prevalence_and_cardinality(tmp_path):
    given = arrays()
    for split in SPLITS:
        given[f"{split}_labels"] = np.column_stack([np.arange(40) < 30, np.arange(40) < 4]).astype(int)
    np.savez(tmp_path / "x.npz", **given)
    data = load_data(tmp_path / "x.npz")
    facts = data.imbalance()
    assert facts["prevalence"] == [0.75, 0.1] and facts["cardinality"] == 0.85 and facts["without"] == 0.25
    assert "0.85 on average, 25.0% have none" in data.describe()


# names and paths


@pytest.mark.parametrize("name, near", [("cifar01", "cifar10"), ("digit", "digits"), ("chestmist", "chestmnist")])
def test_an_unknown_name_is_answered_with_the_nearest(name, near):
    refused(name, near, name_or_path=name)


def test_missing_paths_are_named(tmp_path):
    refused("missing.zip", name_or_path=tmp_path / "missing.zip")
    refused("pictures/cats", name_or_path="pictures/cats")
    refused("cats.npz", name_or_path="cats.npz")
    refused("digits", name_or_path="")
    (tmp_path / "notes.txt").write_text("hello")
    refused("notes.txt", name_or_path=tmp_path / "notes.txt")


def test_an_existing_folder_needs_no_slash(tmp_path, monkeypatch):
    folder_of(tmp_path / "pets", {"cats": 4, "dogs": 4})
    monkeypatch.chdir(tmp_path)
    assert load_data("pets").name == "pets"


def test_medmnist_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "medmnist", None)
    monkeypatch.setattr(loader.importlib.util, "find_spec", lambda name: None)
    refused("pip install medmnist", name_or_path="pneumoniamnist")


# folders and zips


def test_a_folder_for_each_class(tmp_path):
    folder = folder_of(tmp_path / "pets", {"dogs": 20, "cats": 30, "Mäuse": 10})
    data = load_data(folder)
    assert data.class_names == ("Mäuse", "cats", "dogs") and data.name == "pets" and data.set_aside == ()
    assert data.counts("test") == [2, 6, 4] and together(data) == [8, 24, 16]
    names = sorted(f"{path.parent.name}/{path.name}" for path in folder.rglob("*.png"))
    for split in SPLITS:
        for image, place in zip(data.images[split], data.indices[split], strict=True):
            assert (image == np.asarray(Image.open(folder / names[place])).transpose(2, 0, 1)).all()


def test_a_zip_gives_the_same_bits(tmp_path):
    folder = folder_of(tmp_path / "pets", {"cats": 12, "Mäuse": 9})
    whole = load_data(folder).fingerprint()
    assert load_data(zipped(folder, tmp_path / "a.zip")).fingerprint() == whole
    assert load_data(zipped(folder, tmp_path / "b.zip", "wrapped/twice/")).fingerprint() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip", "pets"]


def test_given_splits_stay_as_they_are(tmp_path):
    folder_of(tmp_path / "train", {"a": 20, "b": 20})
    folder_of(tmp_path / "test", {"a": 3, "b": 5}, first=1000)
    data = load_data(tmp_path, imbalance_factor=10)
    assert data.counts("test") == [3, 5] and together(data) == [20, 2]
    folder_of(tmp_path / "validation", {"a": 4, "b": 1}, first=2000)
    data = load_data(tmp_path, imbalance_factor=10)
    assert (data.counts("train"), data.counts("val"), data.counts("test")) == ([20, 2], [4, 1], [3, 5])
    assert len(np.unique(np.concatenate(list(data.indices.values())))) == 35


def test_other_files_are_not_images(tmp_path):
    folder = folder_of(tmp_path / "pets", {"cats": 5, "dogs": 5})
    before = load_data(folder).fingerprint()
    for name in ["README.txt", "cats/.DS_Store", "cats/._0.png", "__MACOSX/x.png", "dogs/list.csv", ".hidden/y.png"]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"something")
    data = load_data(folder)
    assert data.fingerprint() == before and data.set_aside == ()
    noise().save(folder / "cover.png")
    assert load_data(folder).set_aside == (("cover.png", "lies outside the class folders"),)


def test_a_flat_folder_is_unlabelled(tmp_path):
    for i in range(12):
        noise((20, 24), seed=i).save(tmp_path / f"{i}.png")
    data = load_data(tmp_path)
    assert (data.task, list(data.images), data.labels, data.class_names) == ("unlabelled", ["train"], {}, ())
    assert data.counts() == [] and data.imbalance_factor() == 1.0 and data.images["train"].shape == (12, 3, 24, 24)
    assert "unlabelled" in data.describe()
    plot_examples(data), plot_class_counts(data)
    refused("labels", name_or_path=tmp_path, imbalance_factor=10)


def test_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "empty").mkdir()
    refused("empty", name_or_path=tmp_path / "empty")
    refused("cats", "one class", name_or_path=folder_of(tmp_path / "one", {"cats": 6}))
    refused("'dogs'", "2 train", "3 are needed", name_or_path=folder_of(tmp_path / "few", {"cats": 9, "dogs": 2}))
    folder_of(tmp_path / "given" / "train", {"cats": 9, "dogs": 1})
    folder_of(tmp_path / "given" / "test", {"cats": 2, "dogs": 2}, first=1000)
    refused("'dogs'", "1 train", "2 are needed", name_or_path=tmp_path / "given")
    folder_of(tmp_path / "none" / "train", {"cats": 9, "dogs": 9})
    folder_of(tmp_path / "none" / "test", {"cats": 2}, first=1000)
    refused("'dogs'", "0 test", name_or_path=tmp_path / "none")
    folder_of(tmp_path / "tests" / "test", {"cats": 2, "dogs": 2})
    folder_of(tmp_path / "tests" / "val", {"cats": 2, "dogs": 2}, first=1000)
    refused("train", name_or_path=tmp_path / "tests")
    refused("'dogs'", "1000", name_or_path=folder_of(tmp_path / "far", {"cats": 40, "dogs": 40}), imbalance_factor=1000)
    assert load_data(folder_of(tmp_path / "just", {"cats": 3, "dogs": 3})).counts() == [1, 1]


def member(name, link=False):
    info = zipfile.ZipInfo(name)
    info.external_attr = (0o120777 if link else 0o100644) << 16
    return info


CLIMBING = [member("a/../../x.png"), member("/etc/x.png"), member("..\\x.png"), member("C:/x.png")]


@pytest.mark.parametrize("info", [*CLIMBING, member("cats/link.png", link=True)])
def test_zips_that_leave_their_folder(tmp_path, info):
    path = zipped(folder_of(tmp_path / "pets", {"cats": 5, "dogs": 5}), tmp_path / "odd.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, b"x")
    refused("odd.zip", name_or_path=path)


def test_names_that_only_look_odd_stay_inside():
    assert all(images.leads_out(info) for info in [*CLIMBING, member("c:x.png"), member("x.png", link=True)])
    for name in ("cats/1.png", "a..b/..c.png", "12:30.png", "cats/c:1.png", "...", "Mäuse/"):
        assert not images.leads_out(member(name)), name


def test_broken_archives(tmp_path):
    for name in ("broken.zip", "broken.npz"):
        (tmp_path / name).write_bytes(b"PK not an archive")
        refused(name, name_or_path=tmp_path / name)
    whole = zipped(folder_of(tmp_path / "pets", {"cats": 5, "dogs": 5}), tmp_path / "cut.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    refused("cut.zip", name_or_path=tmp_path / "cut.zip")


# pictures


def test_every_mode_arrives_with_its_brightness():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey, colour = Image.fromarray(ramp), Image.fromarray(np.dstack([ramp, ramp.T, 255 - ramp]))
    deep = Image.fromarray(ramp.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    for image in (grey, deep, deep.convert("I"), *(grey.convert(mode) for mode in ("RGB", "LA", "RGBA", "P"))):
        assert (np.asarray(to_rgb(image)) == ramp[..., None]).all(), image.mode
    for image in (colour, colour.convert("RGBA")):
        assert (np.asarray(to_rgb(image)) == np.asarray(colour)).all()
    inks = np.asarray(to_rgb(colour.convert("CMYK"))).astype(int)
    assert np.abs(inks - np.asarray(colour)).max() <= 3
    assert np.asarray(to_rgb(grey.convert("1"))).max() == 255
    dim = Image.fromarray(np.full((8, 8), 300, np.uint16))
    assert (np.asarray(to_rgb(dim)) == 1).all()


def test_what_is_transparent_is_black():
    pixels = np.full((8, 8, 4), 200, np.uint8)
    pixels[..., 3] = 0
    pixels[:4, :, 3] = 255
    found = np.asarray(to_rgb(Image.fromarray(pixels)))
    assert (found[:4] == 200).all() and (found[4:] == 0).all()


def test_photographs_are_turned_upright(tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8] = [250, 0, 0]  # the left half is red
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", exif=exif)
    found = np.asarray(to_rgb(Image.open(buffer)))
    assert (found[:8, :, 0] == 250).all() and (found[8:] == 0).all()


def test_the_centre_is_kept_and_smoothed():
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = 200
    assert (np.asarray(to_square(Image.fromarray(pixels), 10)) == 200).all()
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    assert 110 < np.asarray(to_square(stripes, 16)).min() and np.asarray(to_square(stripes, 16)).max() < 145


def test_mixed_modes_and_sizes_become_one(tmp_path):
    for i in range(10):
        for kind, mode in [("cats", "L"), ("dogs", "RGBA")]:
            (tmp_path / kind).mkdir(exist_ok=True)
            noise((30 + i, 40), colours=1, seed=i).convert(mode).save(tmp_path / kind / f"{i}.png")
    data = load_data(tmp_path)
    assert data.channels == 1 and data.size == (40, 40)  # the longer sides: nothing is cut off
    place = {int(place): image for split in SPLITS for place, image in zip(data.indices[split], data.images[split])}
    assert all((place[i] == place[10 + i]).all() for i in range(10))  # the mode leaves no trace
    assert load_data(tmp_path, channels=3).images["train"].shape[1] == 3
    assert load_data(tmp_path, image_size=16).size == (16, 16)


def test_sizes_chosen_from_the_images(tmp_path):
    assert load_data(folder_of(tmp_path / "small", {"a": 3, "b": 3}, size=(20, 20))).size == (20, 20)
    assert load_data(folder_of(tmp_path / "large", {"a": 3, "b": 3}, size=(90, 100))).size == (64, 64)
    assert load_data(folder_of(tmp_path / "tiny", {"a": 3, "b": 3}, size=(5, 5))).size == (8, 8)


def bomb():
    "A PNG of a few bytes that says it is 60,000 pixels wide and high."

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("image_size", [None, 16])
def test_broken_images_are_set_aside_and_listed(tmp_path, image_size, recwarn):
    folder = folder_of(tmp_path / "pets", {"cats": 60, "dogs": 60})
    whole = (folder / "cats" / "5.png").read_bytes()
    (folder / "cats" / "5.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cats" / "6.png").write_bytes(b"")
    (folder / "dogs" / "7.png").write_text("not a picture")
    (folder / "dogs" / "8.png").write_bytes(bomb())
    data = load_data(folder, image_size=image_size)
    reasons = dict(data.set_aside)
    assert sorted(reasons) == ["cats/5.png", "cats/6.png", "dogs/7.png", "dogs/8.png"]
    assert "truncated" in reasons["cats/5.png"] and reasons["cats/6.png"] == "empty file"
    assert reasons["dogs/7.png"] == "not an image" and reasons["dogs/8.png"] == "far too many pixels"
    assert sum(map(len, data.images.values())) == 116 and "cats/5.png (" in data.describe() and not recwarn.list
    names = sorted(f"{path.parent.name}/{path.name}" for path in folder.rglob("*.png"))
    used = {names[place] for split in SPLITS for place in data.indices[split]}
    assert used.isdisjoint(reasons) and len(used) == 116
    for i in range(10, 14):
        (folder / "dogs" / f"{i}.png").write_bytes(b"")
    refused("of 120", "5 %", "cats/6.png: empty file", name_or_path=folder, image_size=image_size)


def test_a_damaged_member_of_a_zip_is_set_aside(tmp_path):
    path = zipped(folder_of(tmp_path / "pets", {"cats": 30, "dogs": 30}), tmp_path / "pets.zip")
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("cats/9.png").header_offset + 200
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)
    assert [name for name, _ in load_data(path).set_aside] == ["cats/9.png"]


def test_what_is_no_single_picture_is_set_aside(tmp_path):
    folder = folder_of(tmp_path / "pets", {"cats": 60, "dogs": 60})
    (folder / "cats" / "1.png").write_bytes(bytes(128) + b"DICM" + bytes(500))
    frames = [noise(seed=500 + i) for i in range(3)]
    frames[0].save(folder / "cats" / "2.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "dogs" / "3.tiff", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "dogs" / "one frame.gif")
    (folder / "dogs" / "4.png").unlink()
    (folder / "dogs" / "4.png").symlink_to(tmp_path / "nowhere.png")
    data = load_data(folder)
    found = {name: reason.split(" (")[0] for name, reason in data.set_aside}
    several = "several pictures in one file"
    dicom = "a DICOM file, which must be converted to PNG"
    assert found.pop("dogs/4.png") == "no such file or directory"
    assert found == {"cats/1.png": dicom, "cats/2.gif": several, "dogs/3.tiff": several}
    assert by_reason(data.set_aside)[several] == 2 and sum(by_reason(data.set_aside).values()) == 4
    run = Run.open(tmp_path / "run", {})
    record = loader.data_stage(data, run)
    assert len(run.load_text("set_aside.txt").splitlines()) == 4
    assert record["set_aside_by_reason"] == by_reason(data.set_aside)


def test_odd_files_that_are_pictures_are_used(tmp_path):
    folder = folder_of(tmp_path / "pets", {"cats": 4, "dogs": 4})
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey = Image.fromarray(ramp)
    Image.fromarray(ramp.astype(np.uint16) * 257).save(folder / "cats" / "deep.png")
    Image.fromarray(np.dstack([ramp] * 3)).convert("CMYK").save(folder / "cats" / "inks.tif")
    grey.convert("P").save(folder / "cats" / "palette.gif")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(255 - ramp).save(folder / "cats" / "turned.png", exif=exif)
    data = load_data(folder, channels=1)
    assert data.set_aside == ()
    names = sorted(f"{path.parent.name}/{path.name}" for path in folder.rglob("*.*"))
    seen = {names[i]: image[0] for split in SPLITS for i, image in zip(data.indices[split], data.images[split])}
    for name, most in [("deep.png", 0), ("palette.gif", 0), ("inks.tif", 3), ("turned.png", 0)]:
        assert np.abs(seen[f"cats/{name}"].astype(int) - ramp).max() <= most, name


def test_copies_are_kept_once_and_pictures_in_two_classes_not_at_all(tmp_path):
    for kind in ("folder", "zip"):
        folder = folder_of(tmp_path / kind / "train", {"cats": 20, "dogs": 20}).parent
        folder_of(folder / "test", {"cats": 2, "dogs": 2}, first=1000)
        same = (folder / "train" / "cats" / "3.png").read_bytes()
        (folder / "train" / "cats" / "again.png").write_bytes(same)
        tested = (folder / "test" / "dogs" / "1.png").read_bytes()
        (folder / "train" / "dogs" / "tested.png").write_bytes(tested)
        (folder / "train" / "dogs" / "a cat.png").write_bytes((folder / "train" / "cats" / "5.png").read_bytes())
        data = load_data(folder if kind == "folder" else zipped(folder, tmp_path / "x.zip"))
        reasons = {name.split("train/")[1]: reason for name, reason in data.set_aside}
        assert set(reasons) == {"cats/again.png", "dogs/tested.png", "cats/5.png", "dogs/a cat.png"}
        assert "test/dogs/1.png" in reasons["dogs/tested.png"] and "two classes" in reasons["cats/5.png"]
        assert data.counts("test") == [2, 2] and together(data) == [19, 20] and shared_images(data) == []


def test_the_same_pixels_in_two_splits_are_reported(tmp_path):
    given = arrays()
    given["test_images"][3] = given["train_images"][7]
    np.savez(tmp_path / "x.npz", **given)
    data = load_data(tmp_path / "x.npz")
    assert shared_images(data) == [[["train", 7], ["test", 3]]]
    assert "in more than one split: 1" in data.describe()
    assert loader.data_stage(data, Run.open(tmp_path / "run", {}))["shared"] == shared_images(data)


def test_only_chosen_images_are_decoded(tmp_path, monkeypatch):
    folder, opened, plain = folder_of(tmp_path / "pets", {"cats": 40, "dogs": 40}), [], images._opened

    def read(files, name):
        opened.append(name)
        return plain(files, name)

    monkeypatch.setattr(images, "_opened", read)
    data = load_data(folder, imbalance_factor=16)
    assert len(set(opened)) == sum(map(len, data.images.values())) == 32 + 2 + 16


# npz


def arrays(n=40, shape=(10, 10), classes=2, seed=0, splits=SPLITS):
    rng, found = np.random.default_rng(seed), {}
    for split in splits:
        found[f"{split}_images"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        found[f"{split}_labels"] = (np.arange(n) % classes).reshape(n, 1)
    return found


def test_npz_of_grey_colour_and_missing_splits(tmp_path):
    path = tmp_path / "x.npz"
    given = arrays()
    np.savez(path, **given)
    data = load_data(path, imbalance_factor=5)
    assert (data.counts(), data.counts("val"), data.channels) == ([20, 4], [20, 20], 1)
    assert (data.images["test"][:, 0] == given["test_images"]).all() and data.class_names == ("0", "1")
    assert (data.images["train"][:, 0] == given["train_images"][data.indices["train"]]).all()
    assert (data.indices["val"] == np.arange(40, 80)).all()
    np.savez(path, **arrays(shape=(10, 12, 3), splits=("train", "test")))
    data = load_data(path, imbalance_factor=5)
    assert together(data) == [20, 4] and data.images["train"].shape[1:] == (3, 12, 12)
    np.savez(path, **arrays(splits=("train",)))
    assert [len(load_data(path).images[split]) for split in SPLITS] == [28, 4, 8]
    np.savez(path, train_images=given["train_images"])
    assert load_data(path).task == "unlabelled"


def test_npz_with_several_labels_an_image(tmp_path):
    given = arrays()
    for split in SPLITS:
        given[f"{split}_labels"] = np.random.default_rng(1).integers(0, 2, (40, 5))
    np.savez(tmp_path / "x.npz", **given)
    data = load_data(tmp_path / "x.npz")
    assert data.task == "multi-label" and data.labels["val"].dtype == np.uint8 and data.num_classes == 5
    assert data.counts("test") == given["test_labels"].sum(0).tolist()
    plot_examples(data), plot_class_counts(data)
    refused("several", name_or_path=tmp_path / "x.npz", imbalance_factor=10)
    for split in ("val", "test"):
        del given[f"{split}_images"], given[f"{split}_labels"]
    np.savez(tmp_path / "x.npz", **given)
    data = load_data(tmp_path / "x.npz")
    assert [abs(len(data.images[split]) - n) <= 1 for split, n in zip(SPLITS, [29, 3, 8], strict=True)]
    share = np.array(data.counts("test")) / given["train_labels"].sum(0)
    assert ((0.1 < share) & (share < 0.3)).all()


def test_npz_that_cannot_be_used(tmp_path):
    path = tmp_path / "x.npz"

    def wrong(*words, **changes):
        np.savez(path, **{k: v for k, v in {**arrays(), **changes}.items() if v is not None})
        refused("x.npz", *words, name_or_path=path)

    wrong("train_images", train_images=None)
    wrong("val_labels", val_labels=None)
    wrong("train_images", "float64", train_images=np.zeros((40, 10, 10)))
    wrong("train_images", "(40, 10)", train_images=np.zeros((40, 10), np.uint8))
    wrong("train_labels", "(39, 1)", train_labels=np.zeros((39, 1), int))
    wrong("train_labels", train_labels=np.full((40, 1), -1))
    wrong("train_labels", "not 7", train_labels=np.full((40, 2), 7))
    wrong("pickle", train_labels=np.array([{}] * 40))
    wrong("shape", test_images=np.zeros((40, 12, 12), np.uint8))
    wrong("columns", test_labels=np.zeros((40, 3), int))
    wrong("'1'", "0 test", test_labels=np.zeros((40, 1), int))
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "x.npy").rename(path)
    refused("x.npz", name_or_path=path)


# the run


def test_the_run_keeps_what_was_decided(tmp_path):
    data, run = load_data(imbalance_factor=20), Run.open(tmp_path / "run", {"data": "digits"})
    record = loader.data_stage(data, run)
    kept = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.path.iterdir()}
    pictures = {"class_counts.png", "examples.png", "views.png"}
    assert set(kept) == {"run.json", "data.json", "indices.npz", *pictures}
    assert record == run.load_json("data.json") == loader.data_stage(load_data(imbalance_factor=20), run)
    assert record["counts"]["train"] == data.counts() and record["mean"] == data.mean and record["size"] == [8, 8]
    stored = run.load_arrays("indices.npz")
    assert all((stored[split] == data.indices[split]).all() for split in SPLITS)
    with pytest.raises(UserError, match="changed"):
        loader.data_stage(load_data(imbalance_factor=20, seed=1), run)
    assert kept == {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.path.iterdir()}
    (run.path / "class_counts.png").unlink()  # as if the session had ended before it
    loader.data_stage(data, run)
    assert (run.path / "class_counts.png").stat().st_size > 1000


def test_facts_without_reading_pixels():
    data = load_data(imbalance_factor=20)
    most, all_of_them = data_facts(data, pixels=False), data_facts(data)
    assert set(all_of_them) - set(most) == {"mean", "std", "shared", "fingerprint"}
    assert most.items() <= all_of_them.items() and json.loads(json.dumps(all_of_them)) == all_of_them


def test_pictures_of_many_classes(tmp_path):
    np.savez(tmp_path / "x.npz", **arrays(n=600, classes=100))
    data = load_data(tmp_path / "x.npz")
    ticks = plot_class_counts(data).axes[0].get_xticklabels()
    assert len(ticks) <= 30 and "imbalance factor 1" in plot_class_counts(data).axes[0].get_title()
    assert len(plot_examples(data).axes[0].get_yticklabels()) == 12
    assert plot_class_counts(load_data(imbalance_factor=20)).axes[0].get_yscale() == "log"
    assert plot_examples(load_data(imbalance_factor=20)).axes[0].get_yticklabels()[0].get_text().startswith("9 (")


# larger than memory


@pytest.mark.parametrize("kind", ["folder", "zip", "npz"])
def test_what_is_larger_than_memory_stays_in_a_file_made_once(tmp_path, monkeypatch, kind):
    source = folder_of(tmp_path / "pets", {"cats": 60, "dogs": 60})
    (source / "cats" / "7.png").write_bytes(b"")
    (source / "dogs" / "9.png").write_bytes(b"no picture")
    if kind == "zip":
        source = zipped(source, tmp_path / "pets.zip")
    elif kind == "npz":
        source = tmp_path / "x.npz"
        np.savez_compressed(source, **arrays(n=3000))
    cache, more = tmp_path / "cache", {"imbalance_factor": 2, "image_size": 12}
    plain = load_data(source, **more)
    large = load_data(source, cache=cache, memory_limit=1000, **more)
    assert isinstance(large.images["train"], np.memmap) and not isinstance(plain.images["train"], np.memmap)
    assert large.fingerprint() == plain.fingerprint() and large.set_aside == plain.set_aside
    assert len(plain.set_aside) == (0 if kind == "npz" else 2)
    made = sorted(path.name for path in cache.iterdir())
    assert [name.split(".")[1] for name in made] == ["json", "npy"]  # nothing unfinished stays
    monkeypatch.setattr(images, "to_rgb", lambda image: pytest.fail("read again"))
    monkeypatch.setattr(arrays_module, "to_square", lambda *args: pytest.fail("read again"))
    again = load_data(source, cache=cache, memory_limit=1000, **more)
    assert again.fingerprint() == plain.fingerprint() and again.set_aside == plain.set_aside
    again.images["train"][:] = 0  # reaches memory only
    assert load_data(source, cache=cache, memory_limit=1000, **more).fingerprint() == plain.fingerprint()


def test_changed_files_are_read_anew(tmp_path):
    source = folder_of(tmp_path / "pets", {"cats": 6, "dogs": 6})
    settings = {"cache": tmp_path / "cache", "memory_limit": 0}
    before = load_data(source, **settings).fingerprint()
    noise(seed=777).save(source / "cats" / "0.png")
    os.utime(source / "cats" / "0.png", ns=(1, 1))
    assert load_data(source, **settings).fingerprint() == load_data(source).fingerprint() != before


def test_a_damaged_cache_is_made_again(tmp_path):
    source = folder_of(tmp_path / "pets", {"cats": 6, "dogs": 6})
    settings = {"cache": tmp_path / "cache", "memory_limit": 0}
    before = load_data(source, **settings).fingerprint()
    [array] = (tmp_path / "cache").glob("*.npy")
    array.write_bytes(array.read_bytes()[:1000])
    assert load_data(source, **settings).fingerprint() == before
    array.unlink()
    assert load_data(source, **settings).fingerprint() == before and array.stat().st_size > 1000


def test_a_failed_reading_leaves_no_file(tmp_path):
    source = folder_of(tmp_path / "pets", {"cats": 6, "dogs": 6})
    for i in range(3):
        (source / "cats" / f"{i}.png").write_bytes(b"no picture")
    refused("5 %", name_or_path=source, cache=tmp_path / "cache", memory_limit=0, image_size=16)
    assert list((tmp_path / "cache").iterdir()) == []


# real data


def test_covid_xrays_become_grey_whatever_their_mode(real):
    data = load_data(real / "covid_xray_sample")
    assert data.class_names == ("Covid-19", "No_findings", "Pneumonia") and data.set_aside == ()
    assert (data.channels, data.size, data.policy) == (1, (64, 64), "medical")
    assert np.sum([data.counts(split) for split in SPLITS], axis=0).tolist() == [14, 14, 14]


def test_pneumonia_npz(real):
    data = load_data(real / "pneumoniamnist_9to1.npz")
    assert (data.counts(), data.channels, data.size, data.policy) == ([388, 3494], 1, (28, 28), "medical")
    assert load_data(real / "pneumoniamnist_9to1.npz", imbalance_factor=100).counts() == [34, 3494]
    assert len(data.images["test"]) == 624 and data.imbalance_factor() == pytest.approx(3494 / 388)


def test_long_tailed_cifar_from_a_zip(real):
    data = load_data(real / "cifar10_images.zip", imbalance_factor=100)
    assert together(data) == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert data.counts("test") == [1000] * 10 and data.counts("val")[-1] == 5
    assert (data.channels, data.size, data.policy, data.set_aside) == (3, (32, 32), "natural", ())
    assert np.allclose(data.mean, [0.49, 0.48, 0.45], atol=0.05)
