"""Tables of names and labels, as hospitals, competitions and spreadsheets write them."""

import csv
import zipfile

import numpy as np
import pytest
from PIL import Image
from refusal import refused

from ssnas_colab.data.images import open_images
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
    rows[3][2] = 2
    refused("'2'", "Edema", "row 5", act=lambda: read_table(table(path, ["Path", "note", "Edema", "Mass"], rows),
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
    rows = [[named(i), "ab"[i % 2]] for i in range(40)] + [[named(1), "b"], ["gone.png", "a"]]
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
    refused("No image has a label", act=lambda: load_data(table(scans / "u.csv", ["image", "y"], [[named(1), ""]])))
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


def test_uncertain_and_missing_labels_stay_what_they_are(scans):
    titles = ["Edema", "Mass", "Cyst", "Rib", "Pleura", "Heart"]
    rows = [[named(i), *[(i >> k) % 2 for k in range(6)]] for i in range(40)]
    for i in range(4):
        rows[i][1 + i], rows[9][3] = -1.0, "nan"
    path = table(scans / "t.csv", ["Path", "sex", *titles], [[row[0], "F", *row[1:]] for row in rows])
    source = read_table(path)
    assert source.class_names == tuple(titles) and source.labels["train"].dtype == np.int8
    wanted = np.array([[(i >> k) % 2 for k in range(6)] for i in range(40)])
    wanted[range(4), range(4)], wanted[9, 2] = -1, -1
    assert source.labels["train"].tolist() == wanted.tolist()
    assert any("4 cells" in text and "uncertain" in text for what, text in source.decisions if what == "labels")
    for word, value in (("positive", 1), ("negative", 0)):
        labels = read_table(path, uncertain=word).labels["train"]
        assert labels[range(4), range(4)].tolist() == [value] * 4 and labels[9, 2] == -1
    refused("uncertain", "'maybe'", "missing", act=lambda: read_table(path, uncertain="maybe"))
    rows[9][3] = "2"
    refused(
        "'2'", "'Cyst'", "row 11", "--label", act=lambda: read_table(table(scans / "u.csv", ["Path", *titles], rows))
    )
    rows = [[named(i), f"{i % 3 - 1:.1f}" if i else "nan"] for i in range(40)]
    path = table(scans / "t.csv", ["image", "label"], rows)
    assert read_table(path).class_names == ("0", "1") and read_table(path).labels["train"][:4].tolist() == [
        -1,
        0,
        1,
        -1,
    ]
    assert read_table(path, uncertain="positive").labels["train"][:4].tolist() == [-1, 0, 1, 1]
    path = table(scans / "t.csv", ["image", "label"], [[named(i), i % 2 * 2 - 1] for i in range(40)])
    refused("-1 and 1", "--uncertain", act=lambda: read_table(path))
    assert read_table(path, uncertain="negative").labels["train"][:2].tolist() == [0, 1]


@pytest.mark.parametrize("title", ["sex", "is_train", "Frontal/Lateral", "Male", "AP_PA", "isMale", "Is smoker"])
def test_a_column_that_is_no_finding_is_asked_about(scans, title):
    rows = [[named(i), i % 2, i % 3 == 0, i % 5 == 0] for i in range(40)]
    path = table(scans / "t.csv", ["image", "Edema", "Mass", title], rows)
    columns = {"label": ["edema", "MASS "], "split": "none"}  # as people write them
    refused(title, "--", act=lambda: read_table(path))
    assert read_table(path, columns=columns).class_names == ("Edema", "Mass")
    path = table(scans / "t.csv", ["image", title], [row[::3] for row in rows])
    refused(title, "--", act=lambda: read_table(path))


def test_numbered_rows_are_no_labels(scans):
    rows = [[i, named(i), i % 2] for i in range(40)]
    for title in ("", "Unnamed: 0", "index"):
        assert read_table(table(scans / "t.csv", [title, "file", "ill"], rows)).labels["train"].tolist() == [0, 1] * 20


def test_images_without_a_label_are_in_training_only(scans):
    rows = [[named(i), "" if i % 4 else "ab"[i % 8 // 4], "test" if i >= 30 else "train"] for i in range(40)]
    (scans / "again.png").write_bytes((scans / named(4)).read_bytes())
    rows.append(["again.png", "n/a", "train"])
    source = read_table(table(scans / "t.csv", ["image", "label", "split"], rows))
    assert source.class_names == ("a", "b") and source.sizes == {"train": 30, "test": 2}
    assert sorted(source.labels["train"].tolist()) == [-1] * 22 + [0] * 4 + [1] * 4
    assert source.labels["test"].tolist() == [0, 1]
    reasons = [reason for _, reason in source.aside]
    assert reasons.count("has no label, and lies in the test split") == 8 and len(reasons) == 9
    assert dict(source.aside)["again.png"].startswith("a copy of another image")
    assert any("31 cells without a label" in text for _, text in source.decisions)


SPLITS = {
    "split": (["TRAIN", "Dev", "test"], ["train", "val", "test"]),
    "Set": (["training", "valid", "hold-out"], ["train", "val", "test"]),
    "usage": (["train", "dev", "eval"], ["train", "val", "test"]),
    "group of images": (["Training", "Evaluation", "Testing"], ["train", "val", "test"]),
    "is_valid": (["False", "TRUE", "False"], ["train", "val", "train"]),
    "isTest": ([0, 0, 1], ["train", "train", "test"]),
}


@pytest.mark.parametrize("title", SPLITS)
def test_words_of_splits(scans, title):
    words, meant = SPLITS[title]
    rows = [[named(i), "ab"[i // 3 % 2], words[i % 3]] for i in range(40)]
    source = read_table(table(scans / "t.csv", ["image", "label", title], rows))
    for split, size in source.sizes.items():
        own = {int(source.file_name(i)[-6:-4]) % 3 for i in source.places(split)}
        assert own == {i for i in range(3) if meant[i] == split} and size > 12
    assert any(what == "splits" and repr(title) in text for what, text in source.decisions)


def test_splits_that_are_not_understood_are_asked_about(scans):
    def made(title, value, more=()):
        rows = [[named(i), "ab"[i % 2], value(i), *[of(i) for _, of in more]] for i in range(40)]
        return table(scans / "t.csv", ["image", "label", title, *[title for title, _ in more]], rows)

    for title, value, words in [
        ("split", lambda i: "" if i == 39 else "train" if i < 30 else "test", ["blank", "rows 41"]),
        ("phase", lambda i: "train" if i < 30 else "B", ["'B'", "'train' 30"]),
        ("fold", lambda i: i % 5, ["'4' 8", "fold:0=test"]),
        ("test", lambda i: int(i > 30), ["'1' 9", "test:1=test"]),
        ("in_train_set", lambda i: int(i < 30), ["'0' 10", "in_train_set:0=test"]),
        ("subset", lambda i: "test" if i > 30 else "", ["blank", "subset:=train"]),
        ("cv_fold", lambda i: float(i % 5), ["'4' 8"]),
        ("is_train", lambda i: i < 30, ["'True' 30", "is_train:"]),
        ("is_valid", lambda i: "" if i == 3 else i > 30, ["blank", "rows 5"]),
        ("anything", lambda i: "train" if i < 30 else "secret", ["'secret' 10"]),
    ]:
        path = made(title, value)
        refused(title, "--split none", *words, act=lambda: read_table(path))  # noqa: B023
        source = read_table(path, columns={"split": "none"})
        assert list(source.sizes) == ["train"] and source.class_names == ("a", "b")
        assert any("as told" in text for what, text in source.decisions if what == "splits")
    path = made("fold", lambda i: i % 5)
    assert read_table(path, columns={"split": "fold:4=test,3.0=val"}).sizes == {"train": 24, "val": 8, "test": 8}
    assert read_table(path, columns={"split": "fold:4=test,3=none"}).sizes == {"train": 24, "test": 8}
    refused("'7=test'", "fold", "'4' 8", act=lambda: read_table(path, columns={"split": "fold:7=test"}))
    refused("'4=later'", act=lambda: read_table(path, columns={"split": "fold:4=later"}))
    path = made("is_train", lambda i: i < 30)
    assert read_table(path, columns={"split": "is_train:false=test"}).sizes == {"train": 30, "test": 10}
    source = read_table(made("fold", lambda i: 1))
    assert list(source.sizes) == ["train"] and any(
        "'fold'" in text for what, text in source.decisions if what == "splits"
    )
    more = [("fold", lambda i: i % 5)]
    source = read_table(made("split", lambda i: "test" if i > 30 else "train", more))
    assert source.sizes == {"train": 31, "test": 9} and any("'fold'" in text for _, text in source.decisions)
    more = [("split_b", lambda i: "test" if i < 9 else "train")]
    refused("split_a", "split_b", act=lambda: read_table(made("split_a", lambda i: "test" if i > 9 else "train", more)))
    rows = [[named(i // 2), "ab"[i // 2 % 2], ["train", "val"][i % 2]] for i in range(40)]
    refused("several rows", "split", act=lambda: read_table(table(scans / "t.csv", ["image", "label", "split"], rows)))


def test_a_phase_of_contrast_is_no_split(scans):
    rows = [[named(i), "ab"[i % 2], ["arterial", "venous"][i % 2], ["NIH", "Bonn"][i % 2]] for i in range(40)]
    source = read_table(table(scans / "t.csv", ["image", "label", "phase", "dataset"], rows))
    assert source.class_names == ("a", "b") and not any(what == "splits" for what, _ in source.decisions)


def test_boxes_of_one_label_are_one_image(scans):
    rows = [[named(i), "ab"[i % 2], k] for i in range(40) for k in range(3)]
    source = read_table(table(scans / "t.csv", ["image", "label", "x"], rows))
    assert source.task == "single-label" and source.sizes == {"train": 40}
    assert [reason for _, reason in source.aside] == ["named twice in the table"] * 40


def test_one_row_a_finding(scans):
    rows = [[named(i), name] for i in range(40) for name in (["Mass", "Edema"], ["Mass"], ["No finding"])[i % 3]]
    source = read_table(table(scans / "t.csv", ["image", "finding"], rows))
    assert source.task == "multi-label" and source.class_names == ("Edema", "Mass")
    assert source.labels["train"][:3].tolist() == [[1, 1], [0, 1], [0, 0]] and source.aside == ()
    assert any("one row a finding" in text for _, text in source.decisions)
    rows = [[named(i), "ab"[i % 2]] for i in range(40)] + [[named(3), "a"]]
    path = table(scans / "t.csv", ["image", "label"], rows)
    refused("1 of 40", named(3), "--raters", act=lambda: read_table(path))
    assert read_table(path, raters="any").labels["train"][2:4].tolist() == [[1, 0], [1, 1]]
    assert read_table(path, raters="majority").labels["train"][2:4].tolist() == [0, -1]


JOINED = [
    ["a;b", "a", "b"], ["a, b", "b", "a"], ["a,b", "b, a", "a"], ["['a', 'b']", "['a']", "['b']"], ["a|b", "b", "a"],
    ["['a' 'b']", "[]", "['b']"], ["[a, b]", "[a]", "[b]"], ["('a', 'b')", "('a',)", "()"], ["a\nb", "a", "b"],
    ["0 10", "0", "10"],
]  # fmt: skip


@pytest.mark.parametrize("cells", JOINED)
def test_joined_labels(scans, cells):
    source = read_table(table(scans / "t.csv", ["image", "tags"], [[named(i), cells[i % 3]] for i in range(40)]))
    assert source.task == "multi-label" and source.class_names in (("a", "b"), ("0", "10"))
    assert source.labels["train"][0].tolist() == [1, 1]
    assert [sum(row) for row in source.labels["train"][1:3].tolist()] == [
        2 if "," in text and "[" not in text and "(" not in text else 0 if text in ("[]", "()") else 1
        for text in cells[1:]
    ]


def test_a_delimiter_that_is_not_clear_is_asked_about(scans):
    def made(*cells):
        return table(scans / "t.csv", ["image", "label"], [[named(i), cells[i % len(cells)]] for i in range(40)])

    for cells, sign in [(["a/b", "a", "b"], "/"), (["a and b", "a", "b"], " and "), (["a;b", "c"], ";"),
                        (["ductal, in situ", "ductal, other", "none"], ",")]:  # fmt: skip
        path = made(*cells)
        refused(f"--delimiter '{sign}'", "--delimiter none", repr(cells[0]), act=lambda: read_table(path))  # noqa: B023
        assert read_table(path, delimiter=sign).task == "multi-label"
        assert read_table(path, delimiter="none").class_names == tuple(sorted(cells))
    plain = ["Pneumonia, viral", "lung opacity", "HER2+", "n/s"]
    assert read_table(made(*plain)).class_names == tuple(sorted(plain))
    refused("'#'", act=lambda: read_table(path, delimiter="#"))


def test_raters_who_disagree(scans):
    rows = [
        [named(i), "b" if reader == "C" and i < 9 else "a" if i % 2 else "b", reader]
        for i in range(40)
        for reader in "ABC"
    ]
    for title in ("rater", "Reader ID", "rad_id", "annotator"):
        path = table(scans / "t.csv", ["image", "label", title], rows)
        refused("4 images", named(1), "--raters majority", "--raters any", act=lambda: read_table(path))  # noqa: B023
    source = read_table(path, raters="majority")
    assert source.labels["train"].tolist() == [1, 0] * 20 and source.aside == ()
    assert any("4 images" in text for _, text in source.decisions)
    assert read_table(path, raters="any").labels["train"][:2].tolist() == [[0, 1], [1, 1]]
    rows = [[named(i), int(i % 2), int(k == 0)] for i in range(40) for k in range(2)]
    path = table(scans / "t.csv", ["image", "Edema", "Mass"], rows)
    refused("40 images", "'Mass'", act=lambda: read_table(path))
    assert read_table(path, raters="any").labels["train"][:2].tolist() == [[0, 1], [1, 1]]
    assert read_table(path, raters="majority").labels["train"][:2].tolist() == [[0, -1], [1, -1]]
    rows = [[named(i), name] for i in range(40) for name in ("normal", "ill")]
    refused("'ill' and 'normal'", act=lambda: read_table(table(scans / "t.csv", ["image", "label"], rows)))
    rows = [[named(i), "a", "ab"[i % 2], "ab"[i % 2]] for i in range(40)]
    path = table(scans / "t.csv", ["image", "reader1", "reader2", "reader3"], rows)
    refused("20 images", act=lambda: read_table(path))
    assert read_table(path, raters="majority").labels["train"].tolist() == [0, 1] * 20
    refused("raters", "'most'", act=lambda: read_table(path, raters="most"))


def foldered(scans, *names):
    for name, file in zip(names, sorted(scans.rglob("*.png")), strict=True):
        (scans.parent / "sorted" / name).parent.mkdir(parents=True, exist_ok=True)
        file.rename(scans.parent / "sorted" / name)
    return scans.parent / "sorted"


def test_a_row_with_a_folder_means_no_file_outside_of_it(scans):
    names = [f"{'ill' if i % 2 else 'normal'}/{i:03}.png" for i in range(40)]
    folder = foldered(scans, *(name for name in names if name != "ill/005.png"), "normal/005.png")
    path = table(folder / "t.csv", ["image", "label"], [[name, name.split("/")[0]] for name in names])
    source = read_table(path)
    assert dict(source.aside) == {
        "ill/005.png": "named in the table but not found", "normal/005.png": "not named in the table"
    }  # fmt: skip
    wrapped = table(folder / "t.csv", ["image", "label"], [["data/v2/" + name, name.split("/")[0]] for name in names])
    assert read_table(wrapped).sizes == {"train": 39}
    ill = table(
        folder / "t.csv", ["image", "label"], [[name, "ab"[i // 2 % 2]] for i, name in enumerate(names) if i % 2]
    )
    assert read_table(ill).sizes == {"train": 19}
    for name in names[1:20:2]:
        (folder / name).unlink(missing_ok=True)
    path = table(folder / "t.csv", ["image", "label"], [[name, name.split("/")[0]] for name in names])
    refused("10 of the 40", "--skip-missing", act=lambda: read_table(path))
    source = read_table(path, skip_missing=True)
    assert source.sizes == {"train": 30} and len(source.aside) == 11
    assert any(what == "files" and "10 of 40" in text for what, text in source.decisions)


def test_flat_files_and_rows_with_folders(scans):
    folder = foldered(scans, *(f"{i:03}.png" for i in range(40)))
    rows = [[f"images\\{i:03}.png", "ab"[i % 2]] for i in range(40)]
    source = read_table(table(folder / "t.csv", ["image", "label"], rows))
    assert source.sizes == {"train": 40} and any(
        "images/" in text for what, text in source.decisions if what == "files"
    )
    rows = [[f"{['ill', 'normal'][i % 2]}/{i:03}.png", "ab"[i % 2]] for i in range(40)]
    refused("folder", "ill/000.png", act=lambda: read_table(table(folder / "t.csv", ["image", "label"], rows)))


def test_the_error_says_where_the_images_are(scans):
    folder = foldered(scans, *(f"normal/{i:03}.png" if i < 20 else f"ill/{i:03}.png" for i in range(40)))
    rows = [[f"{'ill' if 15 < i else 'normal'}/{i:03}.png", "ab"[i % 2]] for i in range(40)]
    refused("4 of the 40", "another folder", act=lambda: read_table(table(folder / "t.csv", ["image", "label"], rows)))


def test_what_is_no_image_yet_says_why(scans):
    files = open_images(scans)
    files.others = [("gone.dcm", "a DICOM file")]
    rows = [["image", "label"], ["gone", "a"]] + [[named(i), "ab"[i % 2]] for i in range(40)]
    assert ("gone", "named in the table but not read (a DICOM file)") in read_table("t", files=files, rows=rows).aside


def test_a_name_of_several_files_says_so(scans):
    folder = foldered(scans, *(f"a/{i:03}.png" for i in range(39)), "b/005.png")
    path = table(folder / "t.csv", ["image", "label"], [[f"{i:03}.png", "ab"[i % 2]] for i in range(39)])
    reasons = dict(read_table(path).aside)
    assert "several files" in reasons["005.png"] and reasons["a/005.png"] == "not named in the table"


def test_a_blank_group_is_no_group(scans):
    patients = [""] * 10 + ["nan"] * 10 + [f"{i // 2}.0" for i in range(20, 40)]
    rows = [[named(i), "ab"[i % 2], patients[i], "test" if i % 10 == 3 else "train"] for i in range(40)]
    source = read_table(table(scans / "t.csv", ["image", "label", "PatientID", "split"], rows))
    assert source.sizes == {"train": 34, "test": 4} and len(source.aside) == 2
    groups = np.concatenate([*source.groups.values()])
    assert len(set(groups.tolist())) == 30
    assert any(what == "groups" and "20 images" in text for what, text in source.decisions)


def test_numbers_and_names(scans):
    def classes(values):
        path = table(scans / "t.csv", ["image", "label"], [[named(i), values[i % len(values)]] for i in range(40)])
        return read_table(path).class_names

    assert classes(["10", "2", "0"]) == ("0", "2", "10")
    assert classes(["10.0", "2", "2.0", "nan"]) == ("2", "10")
    assert classes(["10.5", "2.5", "0.5"]) == ("0.5", "2.5", "10.5")
    assert classes(["-2", "-1", "0", "1"]) == ("-2", "-1", "0", "1")
    assert classes(["TRUE", "False", "True"]) == ("False", "TRUE")
    assert classes(["Mass ", "mass", "Mass", "Cyst"]) == ("Cyst", "Mass")
    assert classes(["a", "A", "b"]) == ("A", "a", "b")
    assert classes(["u\u0308ber", "\u00fcber", "x"]) == ("x", "\u00fcber")
    (scans / named(0)).rename(scans / "a\u0308.png")
    rows = [["\u00e4.png" if i == 0 else named(i), "ab"[i % 2]] for i in range(40)]
    assert read_table(table(scans / "t.csv", ["image", "label"], rows)).sizes == {"train": 40}


def test_one_hot_columns_are_classes_also_beside_missing_ones(scans):
    rows = [[named(i), *([""] * 3 if i < 10 else [int(i % 3 == k) for k in range(3)])] for i in range(40)]
    source = read_table(table(scans / "t.csv", ["image", "MEL", "NV", "BCC"], rows))
    assert source.task == "single-label" and source.labels["train"].tolist() == [-1] * 10 + [
        i % 3 for i in range(10, 40)
    ]
    assert any("single-label" in text for _, text in source.decisions)


def test_rows_instead_of_a_file(scans):
    rows = [["path", "label"]] + [
        [named(i), None if i < 3 else float("nan") if i < 6 else float(i % 2)] for i in range(40)
    ]
    source = read_table("table", scans, rows=rows)
    assert (
        source.name == "table"
        and source.class_names == ("0", "1")
        and source.labels["train"][:8].tolist() == [-1] * 6 + [0, 1]
    )
    again = read_table("table", files=open_images(scans), rows=rows)
    assert again.labels["train"].tolist() == source.labels["train"].tolist()


def test_a_first_row_that_is_data_and_joined_labels_do_not_hide_the_separator(scans):
    (scans / "t.csv").write_text(
        "gone.png,a;b;c\n" + "".join(f"{named(i)},{'a;b' if i % 2 else 'a'}\n" for i in range(40))
    )
    source = read_table(scans / "t.csv")
    assert source.sizes == {"train": 40} and source.class_names == ("a", "b")


def test_a_table_in_a_zip_is_read_as_what_it_is(tmp_path):
    (tmp_path / "set" / "images").mkdir(parents=True)
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 12), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / "images" / named(i))
    table(tmp_path / "set" / "labels.csv", ["image", "label"], [[named(i), "ab"[i % 2]] for i in range(40)])
    (tmp_path / "set" / "notes.csv").write_text("day,weather\n1,rain\n2,sun\n")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in (tmp_path / "set").rglob("*.*"):
            archive.write(path, path.relative_to(tmp_path / "set"))
    found, named_itself = load_data(tmp_path / "set.zip"), load_data(tmp_path / "set" / "labels.csv")
    assert found.class_names == ("a", "b") and found.name == "set"
    assert found.fingerprint() == named_itself.fingerprint()
    assert any("labels.csv, which lies beside" in how for _, how in found.decisions)
    assert [name for name, _ in found.not_read] == ["notes.csv"]
    folder = load_data(tmp_path / "set")
    assert folder.task == "unlabelled" and [name for name, _ in folder.set_aside] == ["labels.csv", "notes.csv"]
