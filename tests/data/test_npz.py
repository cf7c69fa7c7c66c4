"""What Python holds as images, and labels of which some are missing: arrays, tensors, data sets, tables."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusal import refused as one_sentence

from ssnas_colab.data.npz import images_of
from ssnas_colab.experiment.run import Run
from ssnas_colab.stages import search as search_stage
from ssnas_colab.stages.loader import load_data

SPLITS = ("train", "val", "test")
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (60, 12, 12), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (60, 12, 12, 3), dtype=np.uint8)
CLASSES = np.arange(60) % 3


def refused(*words, **arguments):
    one_sentence(*words, act=lambda: load_data(**arguments))


def told(data, what):
    return " ".join(how for name, how in data.decisions if name == what)


def by_place(data):
    return {int(place): image for split in data.images for place, image in zip(data.indices[split], data.images[split])}


# arrays and tensors


SHAPES = {
    "(N, H, W)": (GREY, lambda i: GREY[i][None]),
    "(N, H, W, 1)": (GREY[..., None], lambda i: GREY[i][None]),
    "(N, H, W, 3)": (COLOUR, lambda i: COLOUR[i].transpose(2, 0, 1)),
    "(N, 3, H, W)": (COLOUR.transpose(0, 3, 1, 2), lambda i: COLOUR[i].transpose(2, 0, 1)),
    "floats": (COLOUR / 255, lambda i: COLOUR[i].transpose(2, 0, 1)),
    "float32 tensor": (torch.from_numpy(COLOUR).permute(0, 3, 1, 2) / 255, lambda i: COLOUR[i].transpose(2, 0, 1)),
    "uint8 tensor": (torch.from_numpy(GREY), lambda i: GREY[i][None]),
    "whole numbers": (GREY.astype(np.int64), lambda i: GREY[i][None]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_arrays_of_images(shape):
    images, one = SHAPES[shape]
    data = load_data(images)
    assert data.task == "unlabelled" and len(data.images["train"]) == 60
    assert all((image == one(place)).all() for place, image in by_place(data).items())
    data = load_data((images, CLASSES))
    assert data.task == "single-label" and data.class_names == ("0", "1", "2")
    assert all((image == one(place)).all() for place, image in by_place(data).items())
    assert all((data.labels[split] == data.indices[split] % 3).all() for split in SPLITS)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_search_sees_the_same_images_in_every_layout(shape, monkeypatch, tmp_path):
    images, one = SHAPES[shape]
    found = images_of(images)
    assert found.dtype == np.uint8 and all((found[i] == one(i)).all() for i in range(60))
    seen = []
    monkeypatch.setattr(search_stage, "Searcher", lambda given, *more, **options: seen.append(given) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        search_stage.search(images, Run.open(tmp_path / "run", {}), "quick", space="cells")
    assert (seen[0] == found).all()


def test_deep_arrays_are_seen_through_one_window():
    data = load_data((GREY.astype(np.uint16) * 16, CLASSES))
    assert 0 <= data.window[0] < 60 and 4000 < data.window[1] <= 4080 and "60 of 60" in told(data, "window")
    assert load_data(GREY * 100.0 - 5000, window=(-5000, 20_500)).images["train"].std() > 70


@pytest.mark.parametrize("value, words", [
    (np.zeros((9, 3, 12, 3), np.uint8), ["layout", "NHWC"]),
    (np.zeros((32, 32, 3), np.uint8), ["array[None]"]),
    (np.zeros((32, 32), np.uint8), ["(32, 32)"]),
    (np.zeros((9, 12, 12, 4), np.uint8), ["(9, 12, 12, 4)"]),
    (np.full((9, 12, 12), 7.5), ["floats", "0 to 1"]),
    (np.full((9, 12, 12), np.nan), ["floats"]),
    (np.array(["a.png", "b.png"]), ["uint8"]),
    (np.zeros((0, 12, 12), np.uint8), ["(0, 12, 12)"]),
    (np.zeros((9, 12, 12), complex), ["complex"]),
    ([], ["empty"]), (None, ["NoneType"]), (7, ["int"]), ({}, ["train"]), ({"dogs": GREY}, ["'dogs'"]),
    ((GREY, GREY), ["pair of two arrays"]),
    ((GREY, CLASSES[:50]), ["60 train images and 50 labels"]),
    ({"train": (GREY, CLASSES), "test": GREY}, ["60 test images and 0 labels"]),
    (["there/is/no.png"], ["there/is/no.png"]),
])  # fmt: skip
def test_what_cannot_be_meant_or_may_be_two_things_is_asked(value, words):
    refused(*words, name_or_path=value)


def test_the_layout_can_be_said():
    odd = np.random.default_rng(1).integers(0, 256, (30, 3, 12, 3), dtype=np.uint8)
    assert load_data(odd, layout="NCHW", image_size=12).images["train"].shape == (30, 3, 12, 12)
    assert load_data(odd, layout="NHWC").channels == 3


def test_splits_of_arrays():
    data = load_data({"training": (GREY[:40], CLASSES[:40]), "test": (GREY[40:], CLASSES[40:])})
    assert (data.labels["test"] == CLASSES[40:]).all() and len(data.images["val"]) == 3
    assert (by_place(data)[59][0] == GREY[59]).all()


# lists, and data sets of other libraries


@pytest.fixture
def files(tmp_path):
    for i in range(60):
        (tmp_path / "abc"[i % 3]).mkdir(exist_ok=True)
        Image.fromarray(GREY[i]).save(tmp_path / "abc"[i % 3] / f"{i:02}.png")
    return tmp_path


def test_lists(files):
    paths = sorted(files.rglob("*.png"), key=lambda path: path.stem)
    for value in (paths, list(map(str, paths)), [Image.open(path) for path in paths], list(GREY)):
        data = load_data(value)
        assert data.task == "unlabelled" and all((by_place(data)[i][0] == GREY[i]).all() for i in range(60))
    for value in ((paths, CLASSES), list(zip(paths, CLASSES)), ([*map(str, paths)], ["abc"[c] for c in CLASSES])):
        data = load_data(value)
        assert data.num_classes == 3 and (data.labels["test"] == data.indices["test"] % 3).all()
    named = load_data((paths, ["abc"[c] for c in CLASSES]))
    assert named.class_names == ("a", "b", "c")
    paths[7].write_bytes(b"no picture")
    assert [name for name, _ in load_data(paths).set_aside] == [paths[7].as_posix()]


def test_data_sets_of_torch(files):
    from torchvision.datasets import ImageFolder

    folder = load_data(ImageFolder(files, transform=lambda image: torch.zeros(3, 4, 4)))
    assert folder.class_names == ("a", "b", "c") and folder.images["train"].std() > 50
    assert folder.images["train"].shape[1:] == (1, 12, 12)
    tensors = torch.from_numpy(COLOUR).permute(0, 3, 1, 2).float() / 255
    data = load_data(torch.utils.data.TensorDataset(tensors, torch.from_numpy(CLASSES)))
    assert all((by_place(data)[i] == COLOUR[i].transpose(2, 0, 1)).all() for i in range(60))
    assert (data.labels["train"] == data.indices["train"] % 3).all()
    part = torch.utils.data.Subset(ImageFolder(files), list(range(60)))
    assert load_data(part).counts("test") == [4, 4, 4]
    normalised = torch.utils.data.TensorDataset(tensors - 0.5, torch.from_numpy(CLASSES))
    refused("60 of 60", "colours in float32", name_or_path=normalised)


class Named:
    "A column's kind as Hugging Face's data sets know it."

    def __init__(self, names=None):
        self.names = names


ClassLabel, Picture = type("ClassLabel", (Named,), {}), type("Image", (Named,), {})


class Rows:
    "A data set with columns, as Hugging Face's are used: rows by number, columns by name."

    def __init__(self, columns, **features):
        self.columns, self.features, self.column_names = columns, features, list(features)

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        return self.columns[key] if isinstance(key, str) else {name: of[key] for name, of in self.columns.items()}


def test_data_sets_with_columns():
    pictures = [Image.fromarray(image) for image in GREY]
    one = Rows({"image": pictures, "label": CLASSES.tolist()}, image=Picture(), label=ClassLabel(["x", "y", "z"]))
    data = load_data(one)
    assert data.class_names == ("x", "y", "z") and all((by_place(data)[i][0] == GREY[i]).all() for i in range(60))
    split = load_data({"train": one, "validation": one, "test": one})
    assert [len(split.images[s]) for s in SPLITS] == [60] * 3
    two = Rows(one.columns | {"other": CLASSES.tolist()}, image=Picture(), label=ClassLabel(["x", "y", "z"]),
               other=ClassLabel(["u", "v", "w"]))  # fmt: skip
    refused("label, other", "columns", name_or_path=two)
    assert load_data(two, columns={"label": "other"}).class_names == ("u", "v", "w")
    refused("'nothing'", name_or_path=two, columns={"label": "nothing"})
    assert load_data(Rows({"image": pictures}, image=Picture())).task == "unlabelled"


def test_hugging_face_itself():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["x", "y", "z"]))
    rows = {"image": [Image.fromarray(image) for image in GREY], "label": CLASSES.tolist()}
    made = datasets.Dataset.from_dict(rows, features=features)
    data = load_data(made)
    assert data.class_names == ("x", "y", "z") and all((by_place(data)[i][0] == GREY[i]).all() for i in range(60))
    assert len(load_data(datasets.DatasetDict(train=made, test=made)).images["test"]) == 60


def test_tables_of_pandas(files, monkeypatch):
    pandas = pytest.importorskip("pandas")
    paths = sorted(files.rglob("*.png"), key=lambda path: path.stem)
    frame = pandas.DataFrame({"age": 7, "where": list(map(str, paths)), "diagnosis": ["abc"[c] for c in CLASSES]})
    data = load_data(frame)
    assert data.class_names == ("a", "b", "c") and data.set_aside == ()
    frame.loc[frame.index % 4 != 0, "diagnosis"] = None
    assert (load_data(frame).labels["train"] == -1).sum() == 45
    short = pandas.DataFrame({"file": [path.name for path in paths], "label": CLASSES})
    assert load_data(short, images=files).num_classes == 3
    refused("images=", name_or_path=short)
    monkeypatch.chdir(files)
    local = pandas.DataFrame({"file": [path.relative_to(files).as_posix() for path in paths], "label": CLASSES})
    assert load_data(local).num_classes == 3


# labels that are missing


def test_single_labels_of_minus_one_are_missing(tmp_path):
    labels = np.where(np.arange(60) % 2 == 0, CLASSES, -1)
    np.savez(tmp_path / "x.npz", train_images=GREY, train_labels=labels.reshape(-1, 1))
    for data in (load_data(tmp_path / "x.npz"), load_data((GREY, labels)), load_data((GREY, labels.astype(float)))):
        assert (data.labels["train"] == -1).sum() == 30 and min(data.labels["val"]) == min(data.labels["test"]) == 0
        assert sum(map(len, data.images.values())) == 60 and len(data.labelled()) == len(data.images["train"]) - 30
        assert "30 training images have no label" in told(data, "unlabelled")
        assert f"{len(data.labelled())} of them with a label" in data.describe()
        assert sum(data.counts()) == len(data.labelled()) and data.imbalance()["imbalance_factor"] >= 1
        assert (np.sort(np.concatenate([data.indices[s] for s in SPLITS])) == np.arange(60)).all()


def test_a_class_that_has_too_few_labels_is_named(tmp_path):
    labels = np.where(np.arange(60) < 8, np.arange(60) % 3, -1)
    refused("'2'", "2 labelled train", "3 are needed", name_or_path=(GREY, labels))


def test_test_images_without_a_label_are_put_aside(tmp_path):
    given = {"train_images": GREY, "train_labels": CLASSES, "test_images": 255 - GREY}
    np.savez(tmp_path / "x.npz", **given, test_labels=np.where(np.arange(60) < 30, CLASSES, -1))
    data = load_data(tmp_path / "x.npz")
    assert len(data.images["test"]) == 30 and len(data.set_aside) == 30
    assert {reason for _, reason in data.set_aside} == {"has no label, and lies in the test split"}
    np.savez(tmp_path / "x.npz", **given, test_labels=np.full(60, -1))
    refused("test", name_or_path=tmp_path / "x.npz")


def test_several_labels_of_which_some_are_missing(tmp_path):
    several = np.random.default_rng(3).integers(0, 2, (60, 4))
    holes = several.copy()
    holes[np.arange(60) % 5 == 0, 1] = -1
    np.savez(tmp_path / "x.npz", train_images=GREY, train_labels=holes)
    data = load_data(tmp_path / "x.npz")
    assert data.task == "multi-label" and data.labels["train"].dtype == np.int8
    rows = data.indices["train"]
    assert (data.labels["train"] == holes[rows]).all()
    assert data.counts() == (holes[rows] == 1).sum(0).tolist()
    positive = load_data(tmp_path / "x.npz", uncertain="positive")
    assert (positive.labels["train"] == np.where(holes < 0, 1, holes)[positive.indices["train"]]).all()
    holes[::2] = -1  # whole images without a label
    data = load_data((GREY, holes))
    assert (data.labels["train"] < 0).all(1).sum() == 30 and (data.labels["test"] >= 0).any(1).all()


def test_exactly_one_label_in_every_row_is_a_class(tmp_path):
    np.savez(tmp_path / "x.npz", train_images=GREY, train_labels=np.eye(3, dtype=int)[CLASSES])
    data = load_data(tmp_path / "x.npz")
    assert data.task == "single-label" and "exactly one" in told(data, "labels")
    assert (data.labels["train"] == data.indices["train"] % 3).all()


def test_nothing_of_the_other_libraries_is_needed():
    source = (Path(__file__).parents[2] / "ssnas_colab" / "data" / "npz.py").read_text()
    assert not any(f"import {name}" in source for name in ("pandas", "datasets", "torchvision", "torch"))
