"""Downloads from a server on this machine: broken off, continued, verified, refused; and the sets fetched so."""

import hashlib
import io
import pickle
import sys
import tarfile
import threading
import types
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusal import refused

from ssnas_colab.core import download as downloads
from ssnas_colab.core.download import drive_id, fetch, fetch_from_drive
from ssnas_colab.core.environment import cache_folder
from ssnas_colab.stages import loader
from ssnas_colab.stages.loader import load_data

CONTENT = np.random.default_rng(0).bytes(3_000_000)
DRIVE = "1A2b3C4d5E6f7G8h9I0jKlMnOpQrStUv_"


class Answers(BaseHTTPRequestHandler):
    "Serves `server.files`; `server.breaks` lists after how many bytes the next answers break off."

    def do_GET(self):
        server, path = self.server, self.path.split("?")[0]
        server.asked.append((path, self.headers.get("Range")))
        if path not in server.files:
            return self.send_error(server.missing)
        content, first = server.files[path], 0
        if (asked := self.headers.get("Range")) and self.headers.get("If-Range") == server.tag:
            first = int(asked.removeprefix("bytes=").rstrip("-"))
        if first >= len(content) and first:
            return self.send_error(416)
        self.send_response(206 if first else 200)
        self.send_header("ETag", server.tag)
        self.send_header("Content-Type", server.kind)
        self.send_header("Content-Length", server.length or str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        for byte in content if server.slow else ():
            self.wfile.write(bytes([byte]))
            if server.gone.wait(0.02):
                return
        until = server.breaks.pop(0) if server.breaks else len(content)
        self.wfile.write(content[first : first + until])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    made = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    made.files, made.breaks, made.asked = {"/x.bin": CONTENT}, [], []
    made.tag, made.kind, made.missing = '"one"', "application/octet-stream", 404
    made.length, made.slow, made.gone = "", False, threading.Event()
    made.address = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("SSNAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "__kwdefaults__", {**fetch.__kwdefaults__, "pause": 0.0})
    yield made
    made.gone.set()
    made.shutdown()
    made.server_close()
    thread.join()


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def png(seed, size=(16, 16)):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


# one file


def test_a_file_arrives_whole_and_once(server, tmp_path):
    path = tmp_path / "new" / "x.bin"
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert fetch(server.address + "/x.bin", path, md5=md5) == path
    assert path.read_bytes() == CONTENT and list(path.parent.iterdir()) == [path]
    fetch(server.address + "/x.bin", path)
    assert len(server.asked) == 1


def test_a_broken_connection_is_continued_where_it_broke(server, tmp_path):
    server.breaks = [1_000_000, 500_000]
    fetch(server.address + "/x.bin", tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=1000000-", "bytes=1500000-"]


def test_the_next_session_continues(server, tmp_path):
    server.breaks = [1_200_000]
    refused("broke off", act=lambda: fetch(server.address + "/x.bin", tmp_path / "x.bin", attempts=1))
    assert (tmp_path / "x.bin.part").stat().st_size == 1_200_000 and not (tmp_path / "x.bin").exists()
    fetch(server.address + "/x.bin", tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and server.asked[-1][1] == "bytes=1200000-"


def test_another_file_at_the_same_address_begins_anew(server, tmp_path):
    server.breaks = [1_200_000]
    refused("broke off", act=lambda: fetch(server.address + "/x.bin", tmp_path / "x.bin", attempts=1))
    server.files["/x.bin"], server.tag = CONTENT[::-1], '"two"'
    fetch(server.address + "/x.bin", tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT[::-1]


def test_a_part_that_is_whole_already(server, tmp_path):
    (tmp_path / "x.bin.part").write_bytes(CONTENT)
    (tmp_path / "x.bin.part.tag").write_text(server.tag)
    fetch(server.address + "/x.bin", tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_leaves_nothing(server, tmp_path):
    path = tmp_path / "x.bin"
    refused("md5", path, act=lambda: fetch(server.address + "/x.bin", path, md5="0" * 32))
    assert [p.name for p in tmp_path.iterdir()] == []


def test_what_cannot_be_fetched_says_what_to_do_by_hand(server, tmp_path):
    address, path = server.address + "/none.zip", tmp_path / "none.zip"
    refused("404", address, path, "by hand", act=lambda: fetch(address, path))
    assert len(server.asked) == 1  # who says no is not asked again
    server.missing = 503
    refused("503", act=lambda: fetch(address, path, attempts=3))
    assert len(server.asked) == 4
    server.files["/page"], server.kind = b"<html>log in</html>", "text/html"
    refused("web page", act=lambda: fetch(server.address + "/page", path))
    refused("https://", act=lambda: fetch("file:///etc/passwd", path))
    nobody = "http://127.0.0.1:1/x.zip"
    refused(nobody, path, "refused", act=lambda: fetch(nobody, path, attempts=1))
    assert not path.exists()


def test_a_length_that_is_no_number_and_one_that_no_disk_holds(server, tmp_path):
    server.length = "abc"
    assert fetch(server.address + "/x.bin", tmp_path / "x.bin").read_bytes() == CONTENT
    server.length = str(10**15)
    refused("1000000.0 GB", "room", act=lambda: fetch(server.address + "/x.bin", tmp_path / "y.bin"))
    server.length = "-1"
    refused("room for 1.0 MB", act=lambda: fetch(server.address + "/x.bin", tmp_path / "y.bin", most=1_000_000))
    assert (tmp_path / "y.bin.part").stat().st_size <= 1_000_000 and not (tmp_path / "y.bin").exists()


def test_a_server_that_drips_is_left(server, tmp_path, monkeypatch):
    server.slow = True
    refused("0.2 s", "kept", act=lambda: fetch(server.address + "/x.bin", tmp_path / "x.bin", seconds=0.2))
    monkeypatch.setattr(downloads, "_PACE", 0.1)
    refused("broke off", act=lambda: fetch(server.address + "/x.bin", tmp_path / "x.bin", attempts=1))


@pytest.mark.parametrize("page", [b"\xef\xbb\xbf\n <!DOCTYPE html><p>log in", b"<html>", b"", b"no archive"])
def test_what_came_is_looked_at_before_it_is_kept(server, tmp_path, page):
    server.files["/x.zip"], path = page, tmp_path / "x.zip"
    refused("could not be fetched", "came", act=lambda: fetch(server.address + "/x.zip", path))
    assert not list(tmp_path.iterdir())
    path.write_bytes(page)  # as an earlier version kept it
    server.files["/x.zip"] = zip_of({"a": b"b"})
    assert fetch(server.address + "/x.zip", path).read_bytes() == server.files["/x.zip"]


def test_addresses_as_people_copy_them(server, tmp_path):
    server.files["/b%C3%BCcher%20%5B1%5D.bin"] = b"found"
    for name in ("bücher [1]", "b%C3%BCcher%20%5B1%5D"):
        assert fetch(f"{server.address}/{name}.bin", tmp_path / name).read_bytes() == b"found"
    assert downloads.cached_name("http://host/\udcff.zip").endswith("-_.zip")
    for address in ("http://[/x.zip", "http://host:port/x.zip", f"http://{'h' * 70}.org/", "http://a b/", "http:///x"):
        refused("web address", act=lambda address=address: fetch(address, tmp_path / "x"))
        refused("web address", act=lambda address=address: load_data(address))
    assert drive_id("//[x") is None


def test_a_cache_that_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSNAS_CACHE", str(tmp_path / "file" / "cache"))
    refused("SSNAS_CACHE", "file/cache", act=cache_folder)


def test_the_cache_is_never_on_drive(monkeypatch, tmp_path):
    monkeypatch.setenv("SSNAS_CACHE", "/content/drive/MyDrive/cache")
    refused("Drive", "local disk", act=cache_folder)
    monkeypatch.setenv("SSNAS_CACHE", str(tmp_path / "cache"))
    assert cache_folder("a") == tmp_path / "cache" / "a" and (tmp_path / "cache" / "a").is_dir()


# Google Drive


@pytest.fixture
def gdown(monkeypatch):
    "A stand-in for gdown, with the arguments that its versions 5 and 6 share."
    made = types.ModuleType("gdown")
    made.files, made.calls = {}, []

    def download(url=None, output=None, quiet=False, *, id=None, resume=False):
        made.calls.append((id, resume))
        if id not in made.files:
            raise RuntimeError("Cannot retrieve the\npublic link")
        Path(output).write_bytes(made.files[id])
        return output

    made.download = download
    made.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "gdown", made)
    return made


def test_drive_links_and_ids():
    for link in ("file/d/{}/view?usp=sharing", "open?id={}", "uc?id={}&export=download", "uc?export=download&id={}"):
        assert drive_id(f"https://drive.google.com/{link.format(DRIVE)}") == DRIVE
    assert drive_id(DRIVE) == DRIVE
    folders = "https://drive.google.com/drive/folders/" + DRIVE
    for other in ("cifar10", "https://host/d/" + DRIVE, "pictures/cats", folders):
        assert drive_id(other) is None


def test_a_file_from_drive(gdown, tmp_path):
    gdown.files[DRIVE] = b"content"
    for _ in range(2):
        assert fetch_from_drive(DRIVE, tmp_path / "x").read_bytes() == b"content"
    assert gdown.calls == [(DRIVE, True)] and len(list(tmp_path.iterdir())) == 1
    other = DRIVE.replace("1A", "2A")
    refused("public link", "anyone", act=lambda: fetch_from_drive(other, tmp_path / "y"))
    refused("folders", act=lambda: fetch_from_drive("https://drive.google.com/drive/folders/" + DRIVE, tmp_path / "y"))


def test_a_page_from_drive_is_not_kept(gdown, tmp_path):
    gdown.files[DRIVE] = b"<!doctype html>quota exceeded"
    refused("web page", act=lambda: fetch_from_drive(DRIVE, tmp_path / "x"))
    (tmp_path / "x").write_bytes(gdown.files[DRIVE])
    gdown.files[DRIVE] = b"content"
    assert fetch_from_drive(DRIVE, tmp_path / "x").read_bytes() == b"content"


def test_drive_without_gdown(monkeypatch, tmp_path):
    monkeypatch.setattr(downloads.importlib.util, "find_spec", lambda name: None)
    refused("pip install gdown", act=lambda: fetch_from_drive(DRIVE, tmp_path / "y"))


# sets with a name


def test_cifar_in_its_own_format(server, monkeypatch, tmp_path):
    from torchvision import datasets

    rng, files = np.random.default_rng(0), {}
    for name, count in [("data_batch_1", 60), ("test_batch", 10)]:
        pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": pixels, "labels": [i % 2 for i in range(count)]}), pixels
    files["batches.meta"] = pickle.dumps({"label_names": ["plane", "car"]}), None
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, (data, _) in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    server.files["/cifar.tar.gz"] = buffer.getvalue()
    sums = {name: hashlib.md5(data).hexdigest() for name, (data, _) in files.items()}
    facts = {
        "url": server.address + "/cifar.tar.gz", "tgz_md5": hashlib.md5(buffer.getvalue()).hexdigest(),
        "train_list": [["data_batch_1", sums["data_batch_1"]]], "test_list": [["test_batch", sums["test_batch"]]],
        "meta": {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]},
    }  # fmt: skip
    for key, value in facts.items():
        monkeypatch.setattr(datasets.CIFAR10, key, value)
    server.breaks = [2000]
    data = load_data("cifar10", imbalance_factor=10)
    assert data.class_names == ("plane", "car") and data.policy == "natural"
    assert [a + b for a, b in zip(data.counts(), data.counts("val"), strict=True)] == [30, 3]
    assert (data.images["test"] == files["test_batch"][1].reshape(10, 3, 32, 32)).all()
    assert len(server.asked) == 2 and load_data("cifar10").counts("test") == [5, 5] and len(server.asked) == 2
    monkeypatch.setenv("SSNAS_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", "0" * 32)
    refused("cifar10", "damaged", "by hand", act=lambda: load_data("cifar10"))


def test_medmnist_in_all_its_sizes(server, monkeypatch):
    medmnist = pytest.importorskip("medmnist")
    labels = np.eye(28, 14, dtype=np.uint8)
    labels[14:] = np.eye(14, dtype=np.uint8)
    facts = dict(medmnist.INFO["chestmnist"])
    for size in (28, 64, 128, 224):
        pixels = np.random.default_rng(size).integers(0, 256, (28, size, size), dtype=np.uint8)
        parts = [("images", pixels), ("labels", labels)]
        arrays = {f"{split}_{what}": part for split in ("train", "val", "test") for what, part in parts}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        ending = "" if size == 28 else f"_{size}"
        server.files[f"/chest{ending}.npz"] = buffer.getvalue()
        facts[f"url{ending}"] = f"{server.address}/chest{ending}.npz?download=1"
        facts[f"MD5{ending}"] = hashlib.md5(buffer.getvalue()).hexdigest()
    monkeypatch.setitem(medmnist.INFO, "chestmnist", facts)
    data = load_data("ChestMNIST")
    assert data.task == "multi-label" and data.class_names[0] == "atelectasis" and data.num_classes == 14
    assert (data.name, data.size, data.policy, server.asked[-1][0]) == ("chestmnist", (28, 28), "chest", "/chest.npz")
    for size, taken in [(64, 64), (128, 128), (224, 224), (48, 64), (300, 224)]:
        assert load_data("chestmnist", image_size=size).size == (size, size)
        assert {path for path, _ in server.asked} >= {f"/chest_{taken}.npz"}
    assert len(server.asked) == 4
    flat = {name for name in medmnist.INFO if not name.endswith("3d")}
    assert len(flat) == 12 and flat <= set(loader.NAMES)


XRAYS = {"COVID-master/figure.png": png(900), "COVID-master/README.md": b"hello"}
XRAYS |= {f"COVID-master/X-Ray Image DataSet/{kind}/{i}.png": png(10 * k + i) for k, kind in enumerate(
    ["covid19", "No Finding", "PNEUMONIA"]) for i in range(5)}  # fmt: skip


def test_covid_xrays_from_the_web_from_drive_and_from_here(server, gdown, monkeypatch, tmp_path):
    archive = zip_of(XRAYS)
    server.files["/master.zip"] = archive
    monkeypatch.setattr(loader, "COVID_ADDRESS", server.address + "/master.zip")
    data = load_data("covid_xray")
    assert data.class_names == ("Covid-19", "No_findings", "Pneumonia") and data.policy == "chest"
    assert data.set_aside == (("COVID-master/figure.png", "lies outside the class folders"),)
    assert np.sum([data.counts(split) for split in data.images], axis=0).tolist() == [5, 5, 5]
    server.files["/other"] = archive
    gdown.files[DRIVE] = archive
    (tmp_path / "local.zip").write_bytes(archive)
    with zipfile.ZipFile(tmp_path / "local.zip") as local:
        local.extractall(tmp_path / "local")
    link = f"https://drive.google.com/file/d/{DRIVE}/view"
    for source in (server.address + "/other", link, DRIVE, tmp_path / "local.zip", str(tmp_path / "local")):
        found = load_data("covid_xray", source=source)
        assert found.fingerprint() == data.fingerprint() and found.name == "covid_xray", source
    assert load_data("covid_xray", source=DRIVE).settings["place"] == DRIVE
    alone = tmp_path / "local/COVID-master/X-Ray Image DataSet/covid19"
    refused("Pneumonia", act=lambda: load_data("covid_xray", source=alone))
    refused("source", act=lambda: load_data("digits", source=tmp_path))
    refused("nothing", act=lambda: load_data("covid_xray", source=tmp_path / "none"))


def test_covid_xrays_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("SSNAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loader, "COVID_ADDRESS", "http://127.0.0.1:1/master.zip")
    monkeypatch.setattr(fetch, "__kwdefaults__", {**fetch.__kwdefaults__, "attempts": 1})
    refused("by hand", tmp_path / "cache", act=lambda: load_data("covid_xray"))


def test_any_archive_by_its_address(server):
    pets = {f"{kind}/{i}.png": png(10 * k + i) for k, kind in enumerate("ab") for i in range(4)}
    server.files["/pets.zip"] = zip_of(pets)
    data = load_data(server.address + "/pets.zip?download=1")
    assert data.class_names == ("a", "b") and data.name.endswith("-pets")
    buffer = io.BytesIO()
    np.savez(buffer, train_images=np.arange(9 * 64, dtype=np.uint8).reshape(9, 8, 8))
    server.files["/arrays"] = buffer.getvalue()
    assert load_data(server.address + "/arrays").task == "unlabelled"
    server.files["/nothing.zip"] = b"no archive"
    refused("zip", act=lambda: load_data(server.address + "/nothing.zip"))
