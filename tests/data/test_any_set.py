"Images, arrays, tables and labels of any kind: read, or refused in a sentence."

import csv
import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import strategies as st
from oracle import anything, damaged_bytes, for_any, is_line, leaves, told_or_right, words
from PIL import Image

from ssnas_colab.data.images import open_picture, problem_with
from ssnas_colab.data.labels import array_labels, text_labels
from ssnas_colab.stages.loader import load_data


def picture(seed, kind="png"):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def is_set(data):
    "Its parts fit together, all images have one size, and it can be told."
    for split, images in data.images.items():
        assert images.dtype == np.uint8 and images.shape[1:] == (data.channels, *data.size) and len(images)
        assert len(data.indices[split]) == len(images) and not (data.labels and len(data.labels[split]) != len(images))
    assert sum(data.counts()) <= len(data.images["train"]) * max(data.num_classes, 1)
    assert all(map(is_line, data.describe().split("\n")))
    return len(set(data.class_names)) == data.num_classes


# npz

_KINDS = "|u1", "<i8", ">i4", "<u8", "<f4", "<f8", "|b1", "|O", "<U4", "|S0", "|V3", "<c16", "<M8[s]"
_SIDES = st.sampled_from([0, 1, 2, 3, 8, 20, -1, -20, 10**6, 2 * 10**9, 2**63, 10**30])


def npy(shape, kind, data, by_columns=False):
    file = io.BytesIO()
    header = {"descr": kind, "fortran_order": by_columns, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def _packed(members, kind=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


_PIXELS = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
_WHOLE = {"train_images.npy": npy((20, 8, 8), "|u1", _PIXELS.tobytes())}
_WHOLE["train_labels.npy"] = npy((20, 1), "<i8", (np.arange(20) % 2).tobytes())


@st.composite
def archives(draw):
    if draw(st.booleans()):
        return draw(damaged_bytes(_packed(_WHOLE, zipfile.ZIP_STORED)))
    members = dict(_WHOLE)
    for name in draw(st.lists(st.sampled_from([*_WHOLE, "val_images.npy", "test_labels.npy"]), min_size=1, max_size=3)):
        shape = draw(st.just((20, 8, 8)) | st.just((20, 1)) | st.lists(_SIDES, max_size=4))
        numbers = np.array(draw(st.lists(st.sampled_from([0, 1, -1, 3, 10**12, -(2**63)]), max_size=20)), np.int64)
        data = draw(st.sampled_from([numbers.tobytes(), bytes(1280), _PIXELS.tobytes()]))
        members[name] = npy(shape, draw(st.just("|u1") | st.sampled_from(_KINDS)), data, draw(st.booleans()))
    return _packed(members)


@for_any(archives())
def test_any_npz(data, tmp_path):
    (tmp_path / "x.npz").write_bytes(data)
    told_or_right(lambda: load_data(tmp_path / "x.npz"), is_set)


# tables


@pytest.fixture
def table(tmp_path):
    "The place of a table, beside its images."
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    return tmp_path / "x.csv"


@st.composite
def tables(draw):
    labels = draw(st.lists(words, min_size=1, max_size=3)) + ["a", "b"]
    heads = draw(st.sampled_from([["file", "label"], ["image", "a", "b"], ["", ""], ["file", "label", "patient"]]))
    rows = [[f"{number}.png", *(draw(st.sampled_from(labels)) for _ in heads[1:])] for number in range(12)]
    for _ in range(draw(st.integers(0, 2))):
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, len(row) - 1))] = draw(words | st.just("x" * 140_000))
    text = io.StringIO()
    csv.writer(text, delimiter=draw(st.sampled_from(",;\t"))).writerows([heads, *rows])
    data = text.getvalue().encode("utf-8", "surrogatepass")
    return draw(damaged_bytes(data)) if draw(st.booleans()) else data


@for_any(tables())
def test_any_table(data, table):
    table.write_bytes(data)
    told_or_right(lambda: load_data(table), is_set)


# labels


@for_any(st.lists(anything, min_size=1, max_size=6).flatmap(lambda some: st.lists(st.sampled_from(some), max_size=9)))
def test_any_labels_of_python(values):
    told_or_right(lambda: array_labels(values, "x"), lambda found: len(found[0]) == len(values) and found[0].max() >= 0)


@for_any(st.lists(leaves.map(str), min_size=1, max_size=6))
def test_any_labels_in_words(cells):
    rows = [[cell] for cell in cells]
    told_or_right(lambda: text_labels(["x"], rows, "x"), lambda found: len(found[0]) == len(cells))


# zips and pictures


@st.composite
def zips(draw):
    members = {f"{kind}/{number}.png": picture(number + 10 * (kind == "b")) for number in range(6) for kind in "ab"}
    for _ in range(draw(st.integers(0, 3))):
        folder = draw(st.sampled_from(["a", "b", "", "train", "masks", "../x"]) | words)
        ending = draw(st.sampled_from([".png", ".csv", "", "/x.jpg", ".npy", ".dcm"]))
        name = f"{folder}/{draw(words)}{ending}".encode("utf-8", "replace").decode()[:9000]
        if "\0" not in name:
            members[name] = draw(st.binary(max_size=200) | damaged_bytes(picture(99)))
    data = _packed(members, draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))
    return draw(damaged_bytes(data)) if draw(st.booleans()) else data


@for_any(zips())
def test_any_zip(data, tmp_path):
    (tmp_path / "x.zip").write_bytes(data)
    told_or_right(lambda: load_data(tmp_path / "x.zip"), is_set)


_WIDE = b"\x93NUMPY\x01\x00" + struct.pack("<H", 54) + b"{'descr': '|u1', 'fortran_order': False, 'shape': (8, 8)}"
_PICTURES = [*(picture(1, kind) for kind in ("png", "jpeg", "gif", "bmp", "tiff", "ppm")), _WIDE + bytes(64)]


@for_any(st.sampled_from(_PICTURES).flatmap(damaged_bytes) | st.binary(max_size=300))
def test_any_picture(data):
    class Files:
        open = staticmethod(lambda name: open_picture(data, name))

    told_or_right(lambda: problem_with(Files, "x.png", Image.Image.load), lambda told: "\n" not in told)
