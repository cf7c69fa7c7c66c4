"""Tables of names and labels, as hospitals, competitions and spreadsheets write them."""

import csv
import zipfile

import numpy as np
import pytest
from PIL import Image
from refusal import refused

from ssnas_colab.data.tables import file_finder, read_table, table_rows
from ssnas_colab.stages.loader import load_data


@pytest.fixture
def scans(tmp_path):
    "A folder of forty different images."
    folder = tmp_path / "scans"
    (folder / "ward ä").mkdir(parents=True)
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 12), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("ward ä" if i >= 20 else "") / f"scan{i:02}.png")
    return folder


def table(path, header, rows, separator=",", encoding="utf-8"):
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerows(([header] if header else []) + rows)
    return path


def named(i):
    return f"scan{i:02}.png"


def test_one_column_of_classes(scans):
    rows = [[named(i), "ill" if i % 4 == 0 else "healthy"] for i in range(40)]
    data = load_data(table(scans / "labels.csv", ["filename", "diagnosis"], rows))
    assert data.class_names == ("healthy", "ill") and data.name == "labels" and data.set_aside == ()
    assert np.sum([data.counts(split) for split in data.images], axis=0).tolist() == [30, 10]
    names = sorted(path.relative_to(scans).as_posix() for path in scans.rglob("*.png"))
    source = read_table(scans / "labels.csv")
    for split in data.images:
        for place, image, label in zip(data.indices[split], data.images[split], data.labels[split], strict=True):
            name = source.file_name(place)
            assert name in names and label == (int(name[-6:-4]) % 4 == 0)
            assert (image[0] == np.asarray(Image.open(scans / name))).all()
    assert load_data(scans / "labels.csv", imbalance_factor=10).counts()[1] < data.counts()[1]


@pytest.mark.parametrize("separator, encoding", [(";", "utf-8-sig"), ("\t", "cp1252")])
def test_separators_encodings_numbers_and_other_columns(scans, separator, encoding):
    rows = [[str(20 + i), f"C:\\data\\ward ä\\{named(i)}", str(9 + i % 2)] for i in range(20, 40)]
    path = table(scans / "t.csv", ["age", "Image", "class"], rows, separator, encoding)
    source = read_table(path)
    assert source.class_names == ("9", "10") and source.sizes == {"train": 20}
    assert source.labels["train"].tolist() == [i % 2 for i in range(20)]
    assert [reason for _, reason in source.aside] == ["not named in the table"] * 20


def test_a_column_for_each_label(scans):
    rows = [[named(i), "x", i % 2, "" if i % 3 else 1.0] for i in range(40)]
    path = table(scans / "t.csv", ["Path", "note", "Edema", "Mass"], rows)
    data = load_data(path)
    assert data.task == "multi-label" and data.class_names == ("Edema", "Mass")
    assert np.sum([data.counts(split) for split in data.images], axis=0).tolist() == [20, 14]
    one = [[named(i), float(i % 3 == 0), float(i % 3 == 1), float(i % 3 == 2)] for i in range(40)]
    source = read_table(table(scans / "t.csv", ["image", "MEL", "NV", "BCC"], one))
    assert source.task == "single-label" and source.labels["train"].tolist() == [i % 3 for i in range(40)]
    rows[3][2] = -1
    refused("'-1'", "Edema", act=lambda: read_table(table(scans / "t.csv", ["Path", "note", "Edema", "Mass"], rows),
                                                     columns={"label": ["Edema", "Mass"]}))  # fmt: skip


def test_lists_of_labels(scans):
    rows = [[named(i), ["Mass", "Mass|Edema", "No Finding"][i % 3]] for i in range(40)]
    source = read_table(table(scans / "t.csv", ["Image Index", "Finding Labels"], rows))
    assert source.class_names == ("Edema", "Mass")
    assert source.labels["train"][:3].tolist() == [[0, 1], [1, 1], [0, 0]]
    rows = [[named(i), [i % 2, 1, 0]] for i in range(40)]
    source = read_table(table(scans / "t.csv", ["image", "labels"], rows))
    assert source.labels["train"][:2].tolist() == [[0, 1, 0], [1, 1, 0]]
    rows[5][1] = [1, 0]
    refused("length", act=lambda: read_table(table(scans / "t.csv", ["image", "labels"], rows)))


@pytest.mark.parametrize("labels", [1, 3])
def test_tables_as_medmnist_writes_them(scans, labels):
    splits = ["TRAIN"] * 20 + ["VALIDATION"] * 10 + ["TEST"] * 10
    rows = [[split, named(i), *[(i >> k) % 2 for k in range(labels)]] for i, split in enumerate(splits)]
    source = read_table(table(scans / "t.csv", None, rows))
    assert source.sizes == {"train": 20, "val": 10, "test": 10}
    assert source.task == ("single-label" if labels == 1 else "multi-label")
    expected = [[(i >> k) % 2 for k in range(labels)] for i in range(30, 40)]
    assert source.labels["test"].reshape(10, -1).tolist() == expected


def test_a_zip_of_images_beside_the_table(scans, tmp_path):
    rows = [[named(i), "ab"[i % 2]] for i in range(40)]
    path = table(tmp_path / "t.csv", ["image", "label"], rows)
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for file in scans.rglob("*.png"):
            archive.write(file, "wrapped/" + file.relative_to(scans).as_posix())
    zipped, folder = (load_data(path, images=place) for place in (tmp_path / "scans.zip", scans))
    assert zipped.fingerprint() == folder.fingerprint() and zipped.settings["table_images"].endswith("scans.zip")


def test_patients_stay_together(scans):
    rows = [[named(i), "ill" if i % 10 < 3 else "healthy", f"p{i // 3}"] for i in range(40)]
    path = table(scans / "t.csv", ["image", "label", "Patient ID"], rows)
    source = read_table(path)
    assert source.groups["train"].max() == 13
    for seed in range(5):
        data = load_data(path, seed=seed)
        patients = [{int(source.file_name(i)[-6:-4]) // 3 for i in places} for places in data.indices.values()]
        assert sum(map(len, patients)) == len(set.union(*patients)) == 14
        assert all(min(data.counts(split)) >= 1 for split in data.images)
    refused("group", "'ill'", act=lambda: load_data(table(scans / "t.csv", ["image", "label", "patient"], [
        [named(i), "ill" if i < 9 else "healthy", f"p{i // 9}"] for i in range(40)])))  # fmt: skip


def test_a_patient_in_two_given_splits_leaves_training(scans):
    rows = [[named(i), "ab"[i % 2], f"p{i % 15}", "test" if i >= 30 else "train"] for i in range(40)]
    source = read_table(table(scans / "t.csv", ["image", "label", "patient", "split"], rows))
    assert source.sizes == {"train": 10, "test": 10}
    assert not set(source.groups["train"]) & set(source.groups["test"])
    assert [reason for _, reason in source.aside] == ["its group is in another split too"] * 20


def test_missing_repeated_and_copied_images_are_listed(scans):
    rows = [[named(i), "ab"[i % 2]] for i in range(40)] + [[named(1), "a"], ["gone.png", "a"]]
    (scans / "copy.png").write_bytes((scans / named(2)).read_bytes())
    rows.append(["copy.png", "a"])
    source = read_table(table(scans / "t.csv", ["image", "label"], rows))
    reasons = dict(source.aside)
    assert reasons[named(1)] == "named twice in the table" and reasons["gone.png"].endswith("not found")
    assert {"copy.png", named(2)} & set(reasons) and source.sizes["train"] == 40
    rows += [[f"gone{i}.png", "a"] for i in range(3)]
    refused("4 of the 46", "5 %", "gone.png", act=lambda: read_table(table(scans / "t.csv", ["image", "label"], rows)))


def test_what_is_unclear_is_asked(scans, tmp_path):
    rows = [[named(i), "ab"[i % 2], 20 + i] for i in range(40)]
    path = table(scans / "t.csv", ["image", "outcome", "age"], rows)
    refused("outcome, age", "columns=", act=lambda: read_table(path))
    assert load_data(path, columns={"label": "outcome"}).class_names == ("a", "b")
    refused("'sort'", "outcome", act=lambda: load_data(path, columns={"label": "sort"}))
    refused("'labels'", "label", act=lambda: load_data(path, columns={"labels": "outcome"}))
    refused("names an image", act=lambda: load_data(table(scans / "u.csv", ["x", "y"], [["1", "2"]] * 3)))
    one = [[named(i), "a"] for i in range(9)]
    refused("one class", act=lambda: load_data(table(scans / "u.csv", ["image", "y"], one)))
    refused("image 2", act=lambda: load_data(table(scans / "u.csv", ["image", "y"], [[named(1), "a"], [named(2), ""]])))
    (scans / "v.csv").write_text("image,label\nscan01.png\n")
    refused("row 2 has 1 cells", act=lambda: load_data(scans / "v.csv"))
    (scans / "v.csv").write_bytes(b"PK\0\0")
    refused("text", act=lambda: load_data(scans / "v.csv"))
    refused("none", act=lambda: load_data(path, images=tmp_path / "none"))
    refused("belong to a table", act=lambda: load_data(scans, columns={"label": "outcome"}))
    assert table_rows(path)[0] == ["image", "outcome", "age"]


def test_a_folder_that_holds_a_table_says_so(scans, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(20):
        (scans / named(i)).rename(flat / named(i))
    table(flat / "t.csv", ["image", "label"], [[named(i), "ab"[i % 2]] for i in range(20)])
    data = load_data(flat)
    assert data.task == "unlabelled" and [name for name, _ in data.set_aside] == ["t.csv"]
    assert load_data(flat / "t.csv").task == "single-label"


def test_names_find_files():
    find = file_finder(["a/1.png", "b/1.png", "b/Ä.jpeg"])
    cells = {"a/1.png": "a/1.png", "x/b/1": "b/1.png", "1.png": None, "ä": "b/Ä.jpeg", "2": None}
    assert {cell: find(cell) for cell in cells} == cells
