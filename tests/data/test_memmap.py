"The cache of large arrays: damaged, full, read-only, and left by what was killed."

import errno
import os

import numpy as np
import pytest
from PIL import Image
from refusal import refused

from ssnas_colab.data import memmap
from ssnas_colab.data.memmap import ArrayStore
from ssnas_colab.stages.loader import load_data


@pytest.fixture
def folder(tmp_path):
    "Images of which one in forty is broken."
    for number in range(40):
        (tmp_path / "images" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / "ab"[number % 2] / f"{number}.png")
    (tmp_path / "images/a/10.png").write_bytes(b"broken")
    return tmp_path / "images"


def load(folder, **how):
    return load_data(folder, cache=folder.parent / "cache", memory_limit=100, **how)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"[" * 9999, b'{"rows": "x"}', b'{"rows": 8, "facts": {}}', None])
def test_a_damaged_record_or_array_is_made_again(folder, text):
    first = load(folder).fingerprint()
    [record], [array] = (folder.parent / "cache").glob("*.json"), (folder.parent / "cache").glob("*.npy")
    if text is None:
        np.save(array, np.zeros((3, 3)))
    else:
        record.write_bytes(text)
    assert load(folder).fingerprint() == first and len(load(folder).set_aside) == 1
    whole = record.read_bytes()
    load(folder)  # and that is found again
    assert record.read_bytes() == whole and sorted((folder.parent / "cache").iterdir()) == [record, array]


def test_a_full_disk_is_said_before_an_image_is_read(folder, monkeypatch):
    def full(handle, first, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(memmap.os, "posix_fallocate", full)
    refused("No space left", "SSNAS_CACHE", act=lambda: load(folder))
    assert not list((folder.parent / "cache").iterdir())
    monkeypatch.setattr(memmap.shutil, "disk_usage", lambda path: type("", (), {"free": 10}))
    refused("are free", "SSNAS_CACHE", act=lambda: load(folder))


def test_a_place_that_is_no_folder(folder, monkeypatch):
    (folder.parent / "cache").write_text("")
    refused("File exists", "SSNAS_CACHE", act=lambda: load(folder))
    monkeypatch.setenv("SSNAS_CACHE", str(folder.parent / "cache" / "in"))
    assert len(load_data(folder).set_aside) == 1  # what fits into memory needs no cache


def test_what_cannot_be_kept_is_used_all_the_same(folder, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    first = load(folder, seed=1).fingerprint()
    for record in (folder.parent / "cache").iterdir():
        record.unlink()
    monkeypatch.setattr(memmap, "write_atomically", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert load(folder, seed=1).fingerprint() == first
    assert not list((folder.parent / "cache").iterdir())


def test_a_file_that_a_killed_build_left_is_cleared_and_one_that_is_held_is_not(tmp_path):
    (tmp_path / "unfinished-killed.npy").write_bytes(b"0" * 1000)
    with ArrayStore(tmp_path, limit=10) as store:
        store((9, 9))
        [held] = tmp_path.iterdir()
        with ArrayStore(tmp_path, limit=10):
            assert [*tmp_path.iterdir()] == [held] and os.stat(held).st_size > 81
    assert not list(tmp_path.iterdir())
