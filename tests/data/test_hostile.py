"What lies in folders, archives and tables and is not what its name or its header says."

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image
from refusal import refused

from ssnas_colab.data.images import open_picture, problem_with
from ssnas_colab.data.labels import array_labels
from ssnas_colab.stages.loader import files_stamp, load_data


def png(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(file, "png")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    for number in range(24):
        (tmp_path / "set" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / "ab"[number % 2] / f"{number}.png").write_bytes(png(number))
    return tmp_path / "set"


def npz(path, **arrays):
    "An archive whose headers say what is given: (shape, type, bytes)."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (shape, kind, data) in arrays.items():
            file = io.BytesIO()
            header = {"descr": kind, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            archive.writestr(f"{name}.npy", file.getvalue() + data)
    return path


@pytest.mark.parametrize("name", ["a/pipe.png", "a/pipe"])
def test_a_pipe_in_a_folder_is_not_opened(folder, name):
    os.mkfifo(folder / name)
    (folder / "b/endless.png").symlink_to("/dev/zero")
    data = load_data(folder)
    assert sum(map(len, data.images.values())) == 24
    told = [("a/pipe.png", "no file, but a pipe or a device"), ("b/endless.png", "no file, but a pipe or a device")]
    assert list(data.not_read) == ([(name, told[0][1]), told[1]])


def test_a_pipe_or_a_device_by_itself(tmp_path, folder):
    os.mkfifo(tmp_path / "x.npz")
    for place in (tmp_path / "x.npz", "/dev/zero"):
        refused("a pipe or a device", place, act=lambda place=place: load_data(place))
    (tmp_path / "x.csv").write_text("file,label\n1.png,a\n")
    refused("a pipe or a device", act=lambda: load_data(tmp_path / "x.csv", images=tmp_path / "x.npz"))


@pytest.mark.parametrize("name", ["x.csv", "x.npz", "x.zip", "x.tsv"])
def test_a_folder_called_like_a_file(folder, name):
    first = load_data(folder)
    folder.rename(folder.parent / name)
    data = load_data(folder.parent / name)
    assert data.counts() == first.counts()
    stamp = files_stamp(folder.parent / name)
    (folder.parent / "beside.png").write_bytes(png(99))
    assert files_stamp(folder.parent / name) == stamp


def test_names_that_no_file_can_have(folder, tmp_path):
    for name in ("n" * 300, "./" + "n" * 300 + ".zip", "/" + "n" * 5000, "a\0b/c", "~nobody-of-that-name/x"):
        refused("nnn" if "nnn" in name else "nothing", act=lambda name=name: load_data(name))
    (tmp_path / "x.csv").write_text("file,label\n1.png,a\n")
    refused("nothing", act=lambda: load_data(tmp_path / "x.csv", images="n" * 300))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in folder.rglob("*.png"):
            archive.write(path, path.relative_to(folder))
        archive.writestr(f"a/{'_' * 60_000}.png", png(99))
    assert [why for _, why in load_data(tmp_path / "x.zip").not_read] == ["a name of 60,006 characters"]


def test_only_the_formats_that_are_meant_are_opened(monkeypatch):
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n"
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args: pytest.fail("Ghostscript was called"))

    class Files:
        open = staticmethod(lambda name: open_picture(eps, name))

    assert problem_with(Files, "x.png", lambda image: image.load()) == "not an image"


@pytest.mark.parametrize(
    "images, labels",
    [((2_000_000_000, 8, 8), (2_000_000_000,)), ((-1, 8, 8), (-1,)), ((-20, -8, 8), (20,)), ((20, 8, 8), (10**9,))],
)
def test_an_npz_that_holds_less_than_its_headers_say(tmp_path, images, labels):
    some = b"\0" * 1280
    path = npz(tmp_path / "x.npz", train_images=(images, "|u1", some), train_labels=(labels, "|u1", some))
    refused("not what it holds", act=lambda: load_data(path))
    if images[0] != 20:
        path = npz(tmp_path / "y.npz", train_images=(images, "|u1", some))
        refused("not what it holds", act=lambda: load_data(path))


def test_numbers_of_hundreds_of_digits():
    refused("beyond 64 bits", act=lambda: array_labels([10**400, 1] * 9, "x"))
    refused("none of the class names", act=lambda: array_labels([["9" * 5000], ["8" * 5000]], "x", class_names="ab"))
    refused("none of the class names", act=lambda: array_labels([["²"], ["³"]], "x", class_names="ab"))


def test_a_table_of_long_cells(folder):
    for length, told in ((200_000, "field limit"), (20_000, "")):
        rows = [f"{number}.png,{'xy'[number % 2] * length}" for number in range(24)]
        (folder / "t.csv").write_text("\n".join(["file,label", *rows]))
        if told:
            refused(told, act=lambda: load_data(folder / "t.csv"))
        else:
            assert load_data(folder / "t.csv").num_classes == 2


def test_names_that_are_no_text(tmp_path):
    for number in range(24):
        place = os.path.join(os.fsencode(tmp_path), b"set", (b"\xff", b"\x1b[31m\n")[number % 2])
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, b"%d\xfe.png" % number), "wb") as file:
            file.write(png(number))
    data = load_data(tmp_path / "set")
    assert data.class_names == ("\x1b[31m\n", "\udcff")
    assert "\\x1b[31m\\n" in data.describe() and "\\udcff" in data.describe() and "\x1b" not in data.describe()
    data.describe().encode()
