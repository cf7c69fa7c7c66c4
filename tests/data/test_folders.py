"""Folders as people have them: what is read as a class, a split, a mask or no label, what is asked, what is listed."""

import unicodedata
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from refusal import refused

from ssnas_colab.data.folders import arranged, covid_arranged, file_source
from ssnas_colab.data.images import Folder, open_images

OUTSIDE = "lies outside train, val and test"


def images_in(path, **counts):
    "Different images in folders below `path`: {'test/ill': 3}, or a list of file names in place of a number."
    for folder, files in counts.pop("of", counts).items():
        (path / folder).mkdir(parents=True, exist_ok=True)
        for name in [f"{i}.png" for i in range(files)] if isinstance(files, int) else files:
            pixels = np.random.default_rng([*f"{folder}/{name}".encode()]).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(path / folder / name)
    return path


def read(path, **options):
    "{split: {class or None: count}}, {reason without details: count} and decisions of a folder."
    source = file_source(path, **options)
    names = dict(enumerate(source.class_names)) | {-1: None}
    counts = {split: Counter(names[label] for label in labels.tolist()) for split, labels in source.labels.items()}
    counts = {split: dict(sorted(count.items(), key=str)) for split, count in counts.items()}
    assert all(labels.dtype == np.int64 for labels in source.labels.values())
    assert {split: sum(count.values()) for split, count in counts.items()} == (source.sizes if counts else {})
    every = sum(source.sizes.values()) + len(source.aside)
    assert every == len(open_images(path).names), "an image has vanished"
    used = [source.file_name(place) for split in source.sizes for place in source.places(split)]
    assert not {name for name, _ in source.aside} & set(used) and len(set(used)) == len(used)
    said = " | ".join(f"{what}: {how}" for what, how in source.decisions)
    return counts, dict(Counter(reason for _, reason in source.aside)), said


# splits


@pytest.mark.parametrize(
    "train, val, test",
    [
        ("train", "val", "test"),
        ("Training", "Validation", "Testing"),
        ("training_set", "valid_set", "test_set"),
        ("TrainSet", "DevSet", "TestSet"),
        ("trainset", "valset", "testset"),
        ("train_images", "val-images", "test images"),
        ("train2017", "val2017", "test2017"),
        ("seg_train", "seg_dev", "seg_test"),
        ("ISIC_Task3_Training_Input", "ISIC_Task3_Validation_Input", "ISIC_Task3_Test_Input"),
        ("train", "dev", "hold-out"),
        ("train", "eval", "test"),
        ("1_train", "2_val", "3_test"),
    ],
)
def test_folders_of_splits_in_any_spelling(tmp_path, train, val, test):
    folders = {f"{split}/{kind}": n for n, split in enumerate([train, val, test], 2) for kind in ("ill", "well")}
    counts, aside, said = read(images_in(tmp_path, of=folders))
    assert counts == {split: {"ill": n, "well": n} for n, split in enumerate(["train", "val", "test"], 2)}
    assert not aside and all(f"{name} as" in said for name in (train, val, test))


@pytest.mark.parametrize("more", ["samples", "seg_pred", "predictions/old", "docs"])
def test_what_lies_beside_the_splits_is_listed(tmp_path, more):
    name = {"seg_pred": "seg_{}"}.get(more, "{}")
    splits = {f"{name.format(split)}/{kind}": 3 for split in ("train", "val", "test") for kind in ("ill", "well")}
    counts, aside, said = read(images_in(tmp_path, of=splits | {more: 4}))
    assert set(counts) == {"train", "val", "test"} and aside == {OUTSIDE: 4}
    assert f"{more.split('/')[0]} is none of them, which leaves out 4 images" in said


def test_splits_that_hold_their_own_name_again(tmp_path):
    folders = {f"seg_{s}/seg_{s}/{kind}": 3 for s in ("train", "test") for kind in ("forest", "sea")}
    counts, aside, _ = read(images_in(tmp_path, of=folders | {"seg_pred/seg_pred": 2}))
    assert counts == {split: {"forest": 3, "sea": 3} for split in ("train", "test")} and aside == {OUTSIDE: 2}


def test_a_test_folder_beside_the_classes_that_holds_them_too(tmp_path):
    folder = images_in(tmp_path, of={"OK": 5, "NG": 4, "test/OK": 3, "test/NG": 2})
    counts, aside, said = read(folder)
    assert counts == {"train": {"NG": 4, "OK": 5}, "test": {"NG": 2, "OK": 3}} and not aside
    assert "NG, OK beside test are the classes of training" in said


@pytest.mark.parametrize(
    "name, others", [("test", ["OK", "NG"]), ("train", ["plane", "car"]), ("Validation", ["a", "b"])]
)
@pytest.mark.parametrize("below", ["", "/1", "/2020"])
def test_a_folder_that_may_be_a_split_or_a_class_is_asked_about(tmp_path, name, others, below):
    folder = images_in(tmp_path, of={**dict.fromkeys(others, 4), f"{name}{below}": 3})
    words = [repr(name), others[0], "split", "--folders splits", "--folders classes", "folders='splits'"]
    refused(*words, act=lambda: file_source(folder))
    counts, aside, _ = read(folder, folders="classes")
    assert counts == {"train": dict.fromkeys(others, 4) | {name: 3}} and not aside


def test_a_flat_test_folder_said_to_be_a_split_is_left_out(tmp_path):
    folder = images_in(tmp_path, of={"OK": 5, "NG": 4, "test": 3})
    counts, aside, said = read(folder, folders="splits")
    assert counts == {"train": {"NG": 4, "OK": 5}} and aside == {"has no label, and lies in the test split": 3}
    assert "test has no class folders, which leaves out 3 images" in said
    refused("'classes'", "'splits'", act=lambda: file_source(folder, folders="class"))


def test_a_flat_test_folder_beside_train(tmp_path):
    folder = images_in(tmp_path, of={"train/cat": 3, "train/dog": 4, "test": 5})
    counts, aside, _ = read(folder)
    assert counts == {"train": {"cat": 3, "dog": 4}} and aside == {"has no label, and lies in the test split": 5}
    refused("train", act=lambda: file_source(images_in(tmp_path / "flat", train=3, test=2)))


@pytest.mark.parametrize(
    "names", [("test_tube", "flask"), ("trains", "buses"), ("valid", "invalid"), ("latest", "old")]
)
def test_names_that_only_hold_a_word_for_a_split_are_classes(tmp_path, names):
    counts, aside, _ = read(images_in(tmp_path, of=dict.fromkeys(names, 3)))
    assert counts == {"train": dict.fromkeys(sorted(names), 3)} and not aside


@pytest.mark.parametrize("between", ["", "/images", "/img"])
def test_splits_below_the_classes(tmp_path, between):
    folders = {f"good{between}/train": 5, f"good{between}/test": 3, f"good{between}/val": 1}
    folder = images_in(tmp_path, of=folders | {f"bad{between}/train": 4, f"bad{between}/test": 2})
    counts, aside, said = read(folder)
    assert counts == {"train": {"bad": 4, "good": 5}, "val": {"good": 1}, "test": {"bad": 2, "good": 3}} and not aside
    assert "splits: the folders in each class" in said
    assert read(folder, folders="classes")[0] == {"train": {"bad": 6, "good": 9}}


def test_tested_images_below_the_images_of_each_class(tmp_path):
    counts, _, _ = read(images_in(tmp_path, of={"good": 5, "good/test": 2, "bad/p1": 3, "bad/test": 1}))
    assert counts == {"train": {"bad": 3, "good": 5}, "test": {"bad": 1, "good": 2}}


def test_splits_in_some_classes_only_are_refused(tmp_path):
    folder = images_in(tmp_path, of={"good/train": 5, "good/test": 3, "bad": 4})
    refused("'good'", "'bad'", "--folders classes", act=lambda: file_source(folder))
    assert read(folder, folders="classes")[0] == {"train": {"bad": 4, "good": 8}}
    deep = images_in(tmp_path / "deep", of={"good/p1/test": 3, "good/p1/x": 3, "bad": 4})
    refused("'test'", "'good'", "--folders classes", act=lambda: file_source(deep))
    only = images_in(tmp_path / "only", of={"good/test": 3, "bad/test": 4})
    refused("train", act=lambda: file_source(only))


def test_sites_with_splits_are_asked_about(tmp_path):
    folders = {f"{site}/{split}/{kind}": 2 for site in "AB" for split in ("train", "test") for kind in ("ill", "well")}
    folder = images_in(tmp_path, of=folders)
    refused("A, B", "ill, well", "--folders splits", act=lambda: file_source(folder))
    assert read(folder, folders="splits")[0] == {split: {"A": 4, "B": 4} for split in ("train", "test")}


def test_validation_inside_of_train(tmp_path):
    folders = {f"{split}/{kind}": 2 for split in ("train/train", "train/val", "test") for kind in ("cat", "dog")}
    assert read(images_in(tmp_path, of=folders))[0] == {s: {"cat": 2, "dog": 2} for s in ("train", "val", "test")}


@pytest.mark.parametrize(
    "names",
    [
        ("fold_1", "fold_2", "fold_3"),
        ("Original Images", "Augmented Images"),
        ("color", "grayscale", "segmented"),
        ("hospital A", "hospital B"),
        ("site1", "site2"),
        ("2019", "2020"),
    ],
)
def test_folds_versions_and_sources_are_no_classes(tmp_path, names):
    folder = images_in(tmp_path, of={f"{name}/{kind}": 2 for name in names for kind in ("ill", "well")})
    refused(names[0], names[1], "of one data set", "--folders classes", act=lambda: file_source(folder))
    assert set(read(folder, folders="classes")[0]["train"]) == set(names)
    assert read(folder / names[0])[0] == {"train": {"ill": 2, "well": 2}}
    flat = images_in(tmp_path / "flat", of=dict.fromkeys(names[:2], 3))
    if names[0] != "fold_1":
        assert set(read(flat)[0]["train"]) == set(names[:2])


def test_names_of_a_class_and_a_split_at_once_are_asked_about(tmp_path):
    names = ["cat_train", "cat_test", "dog_train", "dog_test"]
    folder = images_in(tmp_path, of=dict.fromkeys(names, 3))
    refused("cat_test, cat_train", "at once", "--folders classes", act=lambda: file_source(folder))
    assert set(read(folder, folders="classes")[0]["train"]) == set(names)


def test_what_lies_beside_the_folder_of_all_images_is_listed(tmp_path):
    counts, aside, said = read(images_in(tmp_path, of={"dataset/cat": 3, "dataset/dog": 2, "figures": 4}))
    assert counts == {"train": {"cat": 3, "dog": 2}} and aside == {"lies outside dataset": 4}
    assert "figures lies beside dataset, which leaves out 4 images" in said
    drawn = images_in(tmp_path / "drawn", of={"photo/cat": 3, "photo/dog": 2, "sketch": 4})
    assert read(drawn)[0] == {"train": {"photo": 5, "sketch": 4}}


def test_pieces_of_a_set_are_no_classes(tmp_path):
    folder = images_in(tmp_path / "nih", of={"images_001/images": 3, "images_002/images": 2})
    counts, aside, said = read(folder)
    assert counts == {} and not aside and file_source(folder).sizes == {"train": 5} and "pieces of one set" in said
    parts = images_in(tmp_path / "ham", of={"HAM_part_1/ill": 3, "HAM_part_1/well": 2, "HAM_part_2/ill": 1})
    assert read(parts)[0] == {"train": {"ill": 4, "well": 2}}


# what lies deeper, and beside


@pytest.mark.parametrize(
    "shape", ["train/images/{}", "images/train/{}", "data/train/{}", "train/{}/images", "x/train/{}/img"]
)
def test_folders_that_say_nothing_are_passed(tmp_path, shape):
    folders = {shape.format(kind).replace("train", split): 3 for kind in ("cat", "dog") for split in ("train", "test")}
    counts, aside, _ = read(images_in(tmp_path, of=folders))
    assert counts == {split: {"cat": 3, "dog": 3} for split in ("train", "test")} and not aside


def test_a_cover_beside_a_wrapper_is_listed(tmp_path):
    counts, aside, _ = read(images_in(tmp_path, of={".": ["cover.png"], "pets/cat": 3, "pets/dog": 2}))
    assert counts == {"train": {"cat": 3, "dog": 2}} and aside == {"lies outside the class folders": 1}


def test_folders_inside_of_a_class_are_told(tmp_path):
    counts, _, said = read(images_in(tmp_path, of={"ill/p1": 3, "ill/p2": 2, "well/p3": 4}))
    assert counts == {"train": {"ill": 5, "well": 4}}
    assert "classes: folders inside of a class are part of it (ill/p1, ill/p2, well/p3)" in said
    assert "labels: the names of the folders: ill (5), well (4)" in said


@pytest.mark.parametrize(
    "masks", ["masks", "mask", "Annotations", "labels", "GT", "ground_truth", "overlays", "thumbnails"]
)
@pytest.mark.parametrize("shape", ["{what}/{kind}", "{kind}/{what}", "train/{what}/{kind}", "train/{kind}/{what}"])
def test_masks_beside_images_are_left_out(tmp_path, masks, shape):
    folders = {shape.format(what=what, kind=kind): 3 for what in ("images", masks) for kind in ("ill", "well")}
    counts, aside, said = read(images_in(tmp_path, of=folders))
    assert counts == {"train": {"ill": 3, "well": 3}} and aside == {f"lies in {masks}, beside the images": 6}
    assert f"files: left out: lies in {masks}, beside the images (6 images; `--folders classes`" in said


def test_masks_inside_of_a_class_and_beside_splits(tmp_path):
    counts, aside, _ = read(images_in(tmp_path / "a", of={"ill": 3, "ill/masks": 3, "well/p1": 2, "well/masks": 2}))
    assert counts == {"train": {"ill": 3, "well": 2}} and aside == {"lies in masks, beside the images": 5}
    folders = {f"{split}/{kind}": 3 for split in ("train", "test") for kind in ("good", "bad")}
    counts, aside, _ = read(images_in(tmp_path / "b", of=folders | {"ground_truth/bad": 3}))
    assert set(counts) == {"train", "test"} and aside == {"lies in ground_truth, beside the images": 3}
    flat = file_source(images_in(tmp_path / "c", images=4, masks=4))
    assert flat.task == "unlabelled" and flat.sizes == {"train": 4} and len(flat.aside) == 4


@pytest.mark.parametrize(
    "names", [("mask", "no_mask"), ("with_mask", "without_mask"), ("label_0", "label_1"), ("gt", "other")]
)
def test_classes_that_are_called_mask_stay_classes(tmp_path, names):
    counts, aside, _ = read(images_in(tmp_path, of={".": ["cover.png"]} | dict.fromkeys(names, 3)))
    assert counts == {"train": dict.fromkeys(sorted(names), 3)} and aside == {"lies outside the class folders": 1}


@pytest.mark.parametrize(
    "form", ["{}_mask", "{}-mask", "mask_{}", "{}_GT", "{} thumbnail", "{}_segmentation", "{}_mask_1"]
)
def test_masks_by_their_file_names(tmp_path, form):
    files = [*[f"{i}.png" for i in range(6)], *[f"{form.format(i)}.png" for i in range(6)]]
    counts, aside, _ = read(images_in(tmp_path, ill=files, well=4))
    assert counts == {"train": {"ill": 6, "well": 4}} and sum(aside.values()) == 6
    assert all("of another image (ill/" in reason for reason in aside)
    alone = images_in(tmp_path / "alone", ill=files[6:], well=4)
    assert read(alone)[0] == {"train": {"ill": 6, "well": 4}}


# no label


NO_LABEL = ["unlabelled", "Unlabeled", "unlabelled_data", "no_label", "NoLabels", "without_label", "unsup", "nan"]


@pytest.mark.parametrize("name", NO_LABEL)
def test_images_without_a_label(tmp_path, name):
    counts, aside, said = read(images_in(tmp_path / "a", of={"cat": 3, "dog": 2, name: 7}))
    assert (
        counts == {"train": {"cat": 3, "dog": 2, None: 7}}
        and not aside
        and f"labels: none for 7 images in {name}" in said
    )
    folders = {"train/cat": 3, "train/dog": 2, f"train/{name}": 4, "test/cat": 1, "test/dog": 1}
    counts, aside, _ = read(images_in(tmp_path / "b", of=folders | {f"test/{name}": 2}))
    assert counts == {"train": {"cat": 3, "dog": 2, None: 4}, "test": {"cat": 1, "dog": 1}}
    assert aside == {"has no label, and lies in the test split": 2}
    beside = {"train/cat": 3, "train/dog": 2, "test/cat": 1, "test/dog": 1, f"{name}/site 1": 4, f"{name}/site 2": 3}
    counts, aside, _ = read(images_in(tmp_path / "c", of=beside))
    assert counts["train"] == {"cat": 3, "dog": 2, None: 7} and not aside
    counts, _, _ = read(images_in(tmp_path / "d", of={"labelled/cat": 3, "labelled/dog": 2, name: 7}))
    assert counts == {"train": {"cat": 3, "dog": 2, None: 7}}


def test_images_without_a_label_by_a_name_that_is_given(tmp_path):
    folder = images_in(tmp_path, of={"cat": 3, "dog": 2, "more/2020": 4, "more/2021": 3})
    assert read(folder)[0] == {"train": {"cat": 3, "dog": 2, "more": 7}}
    for given in ("more", "More/", "more"):
        counts, aside, said = read(folder, unlabelled=given)
        assert counts == {"train": {"cat": 3, "dog": 2, None: 7}} and not aside
    assert "none for 7 images in more" in said
    refused("'mroe'", "cat, dog, more", act=lambda: file_source(folder, unlabelled="mroe"))
    flat = images_in(tmp_path / "flat", of={"OK": 3, "NG": 3, "test": 4})
    assert read(flat, unlabelled="test")[0] == {"train": {"NG": 3, "OK": 3, None: 4}}


def test_a_label_for_one_class_alone_is_refused(tmp_path):
    folder = images_in(tmp_path, cat=3, unlabelled=4)
    refused("one class", "cat", act=lambda: file_source(folder))
    assert file_source(images_in(tmp_path / "none", of={"unlabelled/a": 3, "unlabelled/b": 2})).task == "unlabelled"


def test_a_copy_without_a_label_yields(tmp_path):
    folder = images_in(tmp_path, cat=3, dog=2, unlabelled=4)
    (folder / "unlabelled" / "again.png").write_bytes((folder / "cat" / "1.png").read_bytes())
    (folder / "unlabelled" / "twice.png").write_bytes((folder / "unlabelled" / "1.png").read_bytes())
    counts, aside, _ = read(folder)
    assert counts == {"train": {"cat": 3, "dog": 2, None: 4}}
    assert set(aside) == {"a copy of another image (cat/1.png)", "a copy of another image (unlabelled/1.png)"}


# names of classes


def test_numbers_are_sorted_by_value(tmp_path):
    names = tuple(map(str, range(12)))
    assert file_source(images_in(tmp_path / "whole", of=dict.fromkeys(names, 2))).class_names == names
    names = ("-1.5", "0.25", "3", "10.0")
    assert file_source(images_in(tmp_path / "broken", of=dict.fromkeys(names, 2))).class_names == names


def test_two_spellings_of_unicode_are_one_class(tmp_path):
    composed, taken_apart = unicodedata.normalize("NFC", "Mäuse"), unicodedata.normalize("NFD", "Mäuse")
    folder = images_in(tmp_path, of={f"train/{composed}": 3, "train/dog": 2, f"test/{taken_apart}": 1, "test/dog": 1})
    counts, _, said = read(folder)
    assert counts == {"train": {composed: 3, "dog": 2}, "test": {composed: 1, "dog": 1}} and "one class" in said


def test_capitals_and_blanks_in_names(tmp_path):
    folder = images_in(tmp_path / "a", of={"train/Cat": 3, "train/Dog": 2, "test/cat": 1, "test/DOG ": 1})
    counts, _, said = read(folder)
    assert counts == {"train": {"Cat": 3, "Dog": 2}, "test": {"Cat": 1, "Dog": 1}}
    assert "'Cat' and 'cat' are one class: no folder has both" in said
    counts, _, said = read(images_in(tmp_path / "b", of={"Cat": 3, "cat ": 2}))
    assert counts == {"train": {"Cat": 3, "cat ": 2}} and "two classes" in said


# folders without an image


class Opened:
    "A folder that knows the files it does not read."

    def __init__(self, path):
        known = Folder(path)
        self.path, self.names, self.facts, self.read = known.path, known.names, known.facts, known.read
        every = [file.relative_to(path).as_posix() for file in sorted(path.rglob("*")) if file.is_file()]
        self.others = [(name, "no image") for name in every if name not in self.names]


def strange(path, folder, count, ending):
    (path / folder).mkdir(parents=True)
    for i in range(count):
        (path / folder / f"{i}{ending}").write_bytes(b"strange")


@pytest.mark.parametrize("ending", [".dat", ".mha", ".nii.gz", ""])
@pytest.mark.parametrize("above", ["", "train/", "pets/train/"])
def test_a_class_of_files_that_are_not_read_is_named(tmp_path, ending, above):
    images_in(tmp_path, of={f"{above}well/p1": 5, f"{above}other/p2": 5})
    strange(tmp_path, f"{above}ill", 6, ending)
    told = f"6 {ending[ending.rfind('.') :] or 'without an ending'}"
    refused("'ill'", "6 files", told, "convert", act=lambda: file_source(tmp_path, files=Opened(tmp_path)))


def test_the_only_class_that_is_read_is_not_taken_for_a_wrapper(tmp_path):
    images_in(tmp_path, of={"well/p1": 5, "well/p2": 5})
    strange(tmp_path, "ill", 6, ".dat")
    refused("'ill'", act=lambda: file_source(tmp_path, files=Opened(tmp_path)))
    (tmp_path / "x").mkdir()
    images_in(tmp_path / "x", of={".": ["logo.png"]})
    strange(tmp_path / "x", "a", 6, ".dat")
    strange(tmp_path / "x", "b", 6, ".dat")
    refused("'a'", act=lambda: file_source(tmp_path / "x", files=Opened(tmp_path / "x")))


def test_a_class_that_is_still_packed_is_named(tmp_path):
    images_in(tmp_path, of={"well": 5, "other": 5})
    strange(tmp_path, "ill", 1, ".zip")
    refused("'ill'", "1 .zip", act=lambda: file_source(tmp_path, files=Opened(tmp_path)))


def test_a_test_split_that_is_not_read_is_named(tmp_path):
    images_in(tmp_path, of={"train/ill": 5, "train/well": 5, "val/ill": 2, "val/well": 2})
    strange(tmp_path, "test/ill", 6, ".dat")
    refused("'test'", "6 .dat", act=lambda: file_source(tmp_path, files=Opened(tmp_path)))


def test_documents_are_no_classes(tmp_path):
    images_in(tmp_path, of={"pets/ill": 5, "pets/well": 5})
    for name in (
        "docs/a.pdf",
        "docs/b.TXT",
        "annotations/1.xml",
        "weights/1.pt",
        "code/LICENSE",
        ".git/x",
        "pets/ill/note.md",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"words")
    (tmp_path / "pets" / "new").mkdir()
    source = file_source(tmp_path, files=Opened(tmp_path))
    assert source.class_names == ("ill", "well") and not source.aside
    assert ("files", "there is nothing in pets/new") in source.decisions


# what worked goes on


def test_a_zip_is_read_alike(tmp_path):
    folder = images_in(tmp_path / "x", of={"OK": 5, "NG": 4, "test/OK": 3, "test/NG": 2, "unlabelled": 3})
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, f"wrapped/{file.relative_to(folder).as_posix()}")
    counts = {"train": {"NG": 4, "OK": 5, None: 3}, "test": {"NG": 2, "OK": 3}}
    assert read(tmp_path / "x.zip")[0] == read(folder)[0] == counts


def test_order_and_flat_folders_are_as_they_were():
    names = sorted(["b/2.png", "a/1.png", "b c/3.png", "b-d/4.png", "x.png"])
    found, aside, told = arranged(names, "here")
    assert [name for _, name in found["train"]] == [name for name in names if name != "x.png"]
    assert aside == [("x.png", "lies outside the class folders")] and told == []
    assert arranged(["1.png", "2.png"], "here") == ({"train": [(None, "1.png"), (None, "2.png")]}, [], [])
    found, loose = covid_arranged(
        ["x/test/covid/1.png", "x/normal/2.png", "x/pneumonia/3.png", "x/covid/4.png"], "here"
    )
    assert {split: len(entries) for split, entries in found.items()} == {"train": 3, "test": 1} and loose == []
