"Runs at an address: in memory, in files of another name, and at a stand-in for S3 on this machine."

import errno
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from ssnas_colab.cli import main
from ssnas_colab.core.basics import UserError
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.genotype import GENOTYPES
from ssnas_colab.sessions.addresses import ObjectStore, address_path
from ssnas_colab.sessions.lock import new_record, read_record, write_record
from ssnas_colab.sessions.publisher import published_files
from ssnas_colab.sessions.session import guard, local_folder, session

QUICK = {"beat": 0.1, "expires": 1.0, "settle": 0.05}


@pytest.fixture(scope="module")
def s3():
    "A bucket at a stand-in for S3."
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    made = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    made.start()
    with pytest.MonkeyPatch.context() as patch:
        _, port = made.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        address_path("s3://bucket").fs.mkdir("bucket")
        yield "s3://bucket"
    made.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def address(request, tmp_path, monkeypatch):
    "An address where there is nothing yet; machines are made by naming their disk."
    base = {"memory": "memory://bucket", "file": f"file://{tmp_path}/far"}.get(request.param)
    monkeypatch.setenv("SSNAS_LOCAL", str(tmp_path / "first"))
    return f"{base or request.getfixturevalue('s3')}/runs/{uuid.uuid4().hex}"


SECOND = """
import sys
from ssnas_colab.cli import main
from ssnas_colab.core.basics import UserError
from ssnas_colab.sessions.publisher import published_files
from ssnas_colab.sessions.session import session
try:
    with session(sys.argv[1], beat=0.2, expires=60.0, settle=0.05):
        print("both")
except UserError as error:
    print(error)
"""


def write(address, value, **more):
    "A session that writes `value`; what it says."
    said = []
    with session(address, say=said.append, **QUICK, **more) as folder:
        run = guard(Run.open(folder, {"seed": 0}))
        run.save_json("genotype.json", {"value": value})
        run.save_arrays("checkpoints/search/000001.npz", one=[value])
    return said


def test_another_machine_goes_on(address, tmp_path, monkeypatch):
    assert not [one for one in write(address, 1) if "not published" in one]
    store = ObjectStore()
    names = store.sizes(address_path(address))
    assert {"run.json", "genotype.json", "published.0.json"} <= names.keys() and "lock.json" not in names
    monkeypatch.setenv("SSNAS_LOCAL", str(tmp_path / "second"))
    said = []
    with session(address, say=said.append, **QUICK) as folder:
        run = guard(Run.open(folder))
        assert folder == local_folder(address) and folder.is_relative_to(tmp_path / "second")
        assert (
            run.load_json("genotype.json") == {"value": 1} and run.load_arrays("checkpoints/search/000001.npz")["one"]
        )
        run.save_json("genotype.json", {"value": 2})
        run.remove("checkpoints/search/000001.npz")
    assert any("Continued from" in one for one in said)
    monkeypatch.setenv("SSNAS_LOCAL", str(tmp_path / "first"))
    write(address, 3)  # the first machine takes what the second has made, and goes on from there
    monkeypatch.setenv("SSNAS_LOCAL", str(tmp_path / "third"))
    with session(address, say=said.append, **QUICK) as folder:
        assert Run.open(folder).load_json("genotype.json") == {"value": 3}


def test_two_machines_at_once_are_one_too_many(address, tmp_path, monkeypatch):
    patient = QUICK | {"expires": 60.0}  # a machine that is busy is not dead
    with session(address, say=print, **patient) as folder:
        guard(Run.open(folder, {"seed": 0})).save_json("genotype.json", {"value": 1})
        monkeypatch.setenv("SSNAS_LOCAL", str(tmp_path / "second"))
        if address.startswith("memory"):  # of this process alone
            return
        told = subprocess.run([sys.executable, "-c", SECOND, address], capture_output=True, text=True, env=os.environ)
        assert "is being written by" in told.stdout, told


def test_what_is_replaced_while_it_is_read_is_read_again(s3, monkeypatch):
    path = address_path(f"{s3}/{uuid.uuid4().hex}/lock.json")
    path.write_bytes(b"old")
    opened = path.fs.open(str(path), "rb")
    path.write_bytes(b"new, and longer")
    with pytest.raises(OSError) as error:
        opened.read()
    assert error.value.errno == errno.EBUSY  # as S3's package says it
    left, own = [3], type(path).read_bytes

    def read_bytes(path):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.EBUSY, "replaced")
        return own(path)

    monkeypatch.setattr(type(path), "read_bytes", read_bytes)
    assert ObjectStore().read(path) == b"new, and longer"
    record = new_record("me", 1.0)
    write_record(path, record)
    left[0] = 3
    assert read_record(path) == record
    left[0] = 100  # by somebody who does nothing else
    with pytest.raises(OSError):
        read_record(path)


def test_a_store_that_is_away_is_told_of_and_nothing_is_lost(tmp_path, monkeypatch):
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    s3fs.S3FileSystem.clear_instance_cache()  # it would go on with the server of the others
    monkeypatch.setenv("SSNAS_LOCAL", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(UserError, match="cannot be read now .*nothing was changed"):
        write("s3://bucket/runs/away", 1)
    time.sleep(2)  # until the lock's thread, which nobody waits for, has heard of it, too
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_run_is_looked_at_from_afar_and_little_of_it_is_read(address, tmp_path, monkeypatch, capsys):
    report = Path(__file__).parents[2] / "nbs/research/does_it_hold/covid/report.json"
    with session(address, say=lambda _: None, **QUICK) as folder:
        run = guard(Run.open(folder, {"seed": 0, "preset": "quick"}))
        weights = {"weights": list(range(50_000))}
        run.checkpoints.save("finetune/searched", weights, epoch=1, step=3, facts={"epochs": 4})
        run.save_text("genotype.json", GENOTYPES["SNAS"].to_json())
        run.finish("search", steps=1, seconds=2.0)
        run.save_json("report.json", json.loads(report.read_text()))
        size = sum((folder / name).stat().st_size for name in published_files(folder))
    shutil.rmtree(folder)
    read, own = [], ObjectStore.read
    monkeypatch.setattr(ObjectStore, "read", lambda store, path: read.append(own(store, path)) or read[-1])
    assert main(["status", address]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{address} (preset quick, seed 0)") and "finetune/searched, epoch 2 of 4, 3 steps" in said
    assert sum(map(len, read)) < size / 10 and not folder.exists()
    assert main(["status", address, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["path"] == address and facts["genotype"] == f"{address}/genotype.json"
    assert facts["open"]["finetune/searched"]["age"] < 600 and facts["bytes"] == size
    assert main(["show", address]) == 0 and str(GENOTYPES["SNAS"]) in capsys.readouterr().out
    for place in (address, f"{address}/report.json"):
        assert main(["compare", place, str(report)]) == 0
        assert f"| {address} |" in capsys.readouterr().out
    for wrong in ("status", "show", "compare"):
        assert main([wrong, f"{address}-not"]) == 2
        assert f"There is no run at {address}-not" in capsys.readouterr().err


def test_what_is_no_address():
    for wrong in ("nowhere://bucket/runs", "http://[[["):
        with pytest.raises(UserError, match="can be reached"), session(wrong):
            pass


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(UserError, match=r"pip install 'ssnas_colab\[remote\]'"):
        address_path("s3://bucket/runs")
