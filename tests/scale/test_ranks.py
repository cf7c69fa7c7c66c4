"""Several ranks are one run: what two processes that `torchrun` started make of it.

One start of two ranks (see `program.py`) does nearly all of it: one of them is killed, `torchrun` starts them anew, and
these go on. `pytest -m soak tests/scale` kills at more moments and has two ranks search as long as a person would.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ssnas_colab.core import ranks
from ssnas_colab.core.basics import UserError
from ssnas_colab.experiment.checkpoints import unpack
from ssnas_colab.experiment.run import Run
from ssnas_colab.scale import ranks as scale
from tests.scale import program

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


def begun(*words, **variables):
    "A command as a process whose output and errors are kept."
    return subprocess.Popen(
        [*map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables,
    )  # fmt: skip


TORCHRUN = sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"


def torchrun(*words, **variables):
    "Start two ranks, and wait for them; the exit code, output and errors."
    started = begun(*TORCHRUN, *words, **variables)
    out, error = started.communicate(timeout=600)
    return started.returncode, out, error


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    "What two ranks found, by rank, the folder they worked in, and what all of them printed."
    folder = tmp_path_factory.mktemp("ranks")
    code, out, error = torchrun("--max-restarts=1", HERE / "program.py", folder)
    assert code == 0, error
    found = [json.loads((folder / f"{number}.json").read_text()) for number in (0, 1)]
    return found, folder, (out, error)


@pytest.mark.parametrize("size", (8, 7))
@pytest.mark.parametrize("name", (*program.LOSSES, "supervised"))
def test_two_ranks_have_the_gradient_of_one_with_the_whole_batch(pair, name, size):
    "7 images: shares of 3 and 4."
    loss, gradient = program.gradients(name, size)
    assert np.abs(gradient).max() > 1e-3
    for found in pair[0]:
        told, theirs = found[name][str(size)]
        assert abs(told - loss) < 1e-9
        np.testing.assert_allclose(theirs, gradient, rtol=0, atol=1e-6)


def test_a_plain_sum_of_the_cross_correlation_is_too_small_by_the_number_of_ranks(pair):
    "The fault that this package does not have: the test would see it."
    right, wrong = np.array(program.naive(8)), np.array(pair[0][0]["naive"])
    np.testing.assert_allclose(2 * wrong, right, rtol=1e-6, atol=1e-12)
    assert np.abs(wrong - right).max() > 1e-3


def test_what_is_told_and_what_is_shared(pair):
    for number, found in enumerate(pair[0]):
        assert found["told"] == [0, 1, [1, 2]] and found["bytes"] == 102_400
        assert found["alone"] == [1, number, number]
        assert found["written"] == "by 0" and found["copied"] == [[0, 0], [0]]
        assert found["step"] == [[-0.5, -0.5]]  # the mean of gradients 1 and 2
        assert found["parts"] == 1 and found["after"] == [0, 1]
    assert "rank 0 speaks" in pair[2][0] and "rank 1 speaks" not in pair[2][0]


def test_all_ranks_meet_the_same_error(pair):
    told = pair[0][0]["said"]
    assert told["first"] == told["write"] == "UserError: no room for 0" and told["second"] == "UserError: no room for 1"
    assert told["disk"].startswith("FileNotFoundError") and "Rank 1 has other images" in told["images"]
    assert "Rank 1 does not see the run folder" in told["folder"] and "3 images, too few for 2 ranks" in told["small"]
    theirs = pair[0][1]["said"]
    assert theirs.keys() == told.keys() and all(theirs[name] == told[name] for name in told if name != "folder")


def state(folder, stage="search"):
    "The newest checkpoint of a stage, as bits by name, and the alphas of every epoch."
    newest = max((folder / "checkpoints" / stage).glob("*.pt"))
    parts, flat = unpack(newest.read_bytes())["state"]["parts"], {}

    def walk(value, name):
        if isinstance(value, (dict, list, tuple)):
            for key, one in value.items() if isinstance(value, dict) else enumerate(value):
                walk(one, f"{name}.{key}")
        else:
            flat[name] = value.numpy().tobytes() if isinstance(value, torch.Tensor) else value

    walk(parts, "")
    return flat


def test_a_run_of_two_ranks_ends(pair):
    found, folder, _ = pair
    for mine in found:
        codes = {name: code for name, (code, _, _) in mine["runs"].items()}
        assert codes == {
            "killed": 0, "search": 0, "stopped": 75, "again": 0, "late": 75, "derive": 0, "evaluate": 0, "strategy": 0,
            "images": 2, "small": 2,
        }, mine["runs"]  # fmt: skip
    report = json.loads((folder / "whole" / "report.json").read_text())
    assert report["models"]["searched"]["accuracy"] > 0
    assert json.loads((folder / "whole" / "run.json").read_text())["machine"]["ranks"] == 2
    told = found[0]["runs"]
    assert "Rank 1 has other images" in told["images"][1] and "too few for 2 ranks" in told["small"][1]
    assert not (folder / "images").exists() and not (folder / "small").exists()
    assert not [*folder.rglob(".ranks-*")] and not [*folder.rglob("*.partial")]


def test_a_signal_and_a_clock_stop_all_ranks_at_the_same_step(pair):
    "SIGTERM reached the second rank alone, and the first rank's clock alone was late."
    first, second = pair[0]
    for name, why in (("stopped", "asked it to end (SIGTERM)"), ("late", "time budget of 1 h")):
        assert why in first["runs"][name][1] and first["runs"][name][1].count("\n") == 1
        assert second["runs"][name][1:] == ["", ""]  # who is not the first says nothing


def test_two_ranks_go_on_with_the_same_bits(pair):
    whole, stopped = state(pair[1] / "whole"), state(pair[1] / "stopped")
    assert len(whole) > 50 and whole == stopped


def test_candidates_are_shared_with_the_bits_of_one_process(pair, tmp_path, unpainted, capsys):
    assert program.main(["search", str(tmp_path / "alone"), *program.STRATEGY]) == 0
    one, two = (Run.open(path).load_json("search.json") for path in (tmp_path / "alone", pair[1] / "strategy"))
    assert len(one["candidates"]) == 2
    for name in ("candidates", "front", "pick", "why"):
        assert one[name] == two[name]


def test_another_number_of_ranks_goes_on_and_says_so(pair, unpainted, capsys):
    "The stopped run of two ranks is finished by one process."
    folder = pair[1] / "late"
    assert program.main(["search", str(folder), *program.settings()]) == 0
    assert "ranks: 2 -> 1" in capsys.readouterr().err
    assert Run.open(folder).finished("search")


def test_a_killed_rank_stops_the_others_and_a_restart_goes_on(pair):
    _, folder, (_, error) = pair
    code, ended = json.loads((folder / "first.0.json").read_text())
    assert code == 75 and ended - float((folder / "killed").read_text()) < 30
    assert [line for line in error.splitlines() if line.startswith("ssnas:")] == [
        "ssnas: rank 1 was killed or is out of reach, so all ranks stop; what was written is kept, and the same "
        "command goes on from there"
    ]
    assert not (folder / "first.1.json").exists()
    assert state(folder / "killed_run") == state(folder / "whole")


def test_without_torchrun_nobody_is_looked_for(monkeypatch):
    monkeypatch.setattr(scale, "_meet", None)
    for variables in ({}, {"RANK": "0", "WORLD_SIZE": "1"}, {"WORLD_SIZE": "4"}):
        with monkeypatch.context() as patch:
            patch.delenv("RANK", raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            with scale.joined("cuda"):
                assert ranks.single() and ranks.count() == 1 and not scale.is_other_rank()
    assert not torch.distributed.is_initialized()


@contextlib.contextmanager
def as_rank(monkeypatch, **variables):
    with monkeypatch.context() as patch:
        for name, value in ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"} | variables).items():
            patch.setenv(name, value)
        patch.setattr(scale, "ANSWER", 1.0)
        yield
    assert ranks.single() and not torch.distributed.is_initialized()


def test_refusals_before_any_work(monkeypatch):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    cases = {
        "the 2 ranks did not meet": {"MASTER_PORT": port}, "MASTER_PORT is None": {},
        "RANK is 'one'": {"RANK": "one"}, "SSNAS_BACKEND is nccl": {"SSNAS_BACKEND": "nccl"},
        "SSNAS_BACKEND is 'glo': did you mean 'gloo'": {"SSNAS_BACKEND": "glo"},
    }  # fmt: skip
    for said, variables in cases.items():
        if said.endswith("is nccl") and torch.cuda.is_available():
            continue
        with as_rank(monkeypatch, **variables), pytest.raises(UserError, match=said), scale.joined("cpu"):
            raise AssertionError("nobody is there to join")


def test_ranks_meet_though_the_store_keeps_what_others_wrote_before_them():
    store, found = torch.distributed.HashStore(), {}
    for stale in ("hello/0", "hello/1", "hello/2", "offer", "agreed/1", "agreed/2", "meeting"):
        store.set(stale, "a b c")

    def come(rank, later):
        time.sleep(later)
        found[rank] = scale.agree_on_meeting(store, rank, 3, 10.0)

    for _ in range(2):
        threads = [threading.Thread(target=come, args=pair) for pair in ((0, 0.1), (1, 0.0), (2, 0.2))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 3 and len({*found.values()}) == 1 and found[0] != "a"
        found.clear()
    with pytest.raises(RuntimeError, match="not all of them came"):
        scale.agree_on_meeting(store, 1, 3, 0.1)


def test_a_watch_tells_who_is_lost():
    store = torch.distributed.HashStore()
    store.set("beat/1", "0"), store.set("beat/2", "0")
    watch = scale.Watch(store, 0, 3)
    watch.look(1)
    assert store.get("beat/0") == b"1" and not watch.silent(1.0)
    watch.heard = {other: (b"0", time.monotonic() - 20) for other in (1, 2)}
    store.set("beat/1", "7")
    watch.look(2)
    assert watch.silent(15) == [2] and "rank 2 was killed" in watch.sentence() and watch.speaks()
    store.set("left/1", "no room.")
    watch.look(3)
    assert "rank 1 has ended (no room)" in watch.sentence()
    other = scale.Watch(store, 1, 3)
    assert not other.speaks() and not other.leave(UserError("no room")) and store.get("left/1") == b"no room"
    assert watch.leave(UserError("mine")) and watch.over.is_set()


# The long ones: `pytest -m soak tests/scale` -------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("act", ("0 0 KILL", "0 2 KILL", "1 0 KILL", "1 3 KILL", "0 1 STOP", "1 2 STOP"))
def test_whichever_rank_is_killed_or_stands_still(pair, tmp_path, act):
    code, _, error = torchrun("--max-restarts=1", HERE / "program.py", tmp_path, SSNAS_TEST_ACT=act)
    assert code == 0, error
    assert len([line for line in error.splitlines() if line.startswith("ssnas: rank")]) == 1, error
    assert state(tmp_path / "killed_run") == state(pair[1] / "whole")


@pytest.mark.soak
@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_torchrun_passes_a_signal_on_and_the_same_command_goes_on(tmp_path, number):
    words = *TORCHRUN, "-m", "ssnas_colab", "search", tmp_path / "run"
    started = begun(*words, *program.settings(steps=4000))
    while not (tmp_path / "run" / "alphas.npz").exists():  # an epoch is over
        time.sleep(0.1)
        assert started.poll() is None
    started.send_signal(number)
    said = started.communicate(timeout=60)[1]
    assert started.returncode == 1 and said.count("ssnas: Stopped search before step") == 1, said
    assert Run.open(tmp_path / "run").status()["open"]["search"]["epoch"] > 0


OPTIONS = {"width": 4, "depth": 3, "nodes": 2, "steps": 120, "batch_size": 64, "embedding": 64, "warmup": 0.25}


@pytest.mark.soak
def test_a_search_of_two_ranks_ends_within_the_spread_of_single_ones(tmp_path):
    ends = {}
    for name in ("0", "1", "2", "3", "4", "two"):
        words = ["search", tmp_path / name, "--quiet", "--seed", name if name != "two" else "0"]
        for option, value in OPTIONS.items():
            words += ["--set", f"search.{option}={value}"]
        start = (*TORCHRUN, "-m") if name == "two" else (sys.executable, "-m")
        started = begun(*start, "ssnas_colab", *words)
        assert started.wait() == 0, started.stderr.read()
        last = json.loads((tmp_path / name / "search.json").read_text())["history"][-5:]
        ends[name] = {key: np.mean([row[key] for row in last]) for key in ("loss", "derived", "rank")}
    print(ends)
    for key, value in ends.pop("two").items():
        single = [end[key] for end in ends.values()]
        spread = max(single) - min(single)
        assert min(single) - spread < value < max(single) + spread, key


@pytest.mark.soak
def test_the_submit_script_for_slurm(tmp_path):
    "`srun` stands in for the real one: it starts the command once for each machine, all of which are this one."
    stands_in = tmp_path / "bin"
    stands_in.mkdir()
    (stands_in / "scontrol").write_text("#!/bin/bash\necho localhost\necho another\n")
    (stands_in / "srun").write_text(
        '#!/bin/bash\nfor node in $(seq "$SLURM_JOB_NUM_NODES"); do "$@" & jobs+=" $!"; done\n'
        'for job in $jobs; do wait "$job" || exit 1; done\n'
    )
    for one in stands_in.iterdir():
        one.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = begun(
        "bash", ROOT / "nbs" / "scale" / "slurm.sh", "search", tmp_path / "run", *program.settings(),
        PATH=f"{stands_in}:{Path(sys.executable).parent}:{os.environ['PATH']}", SLURM_JOB_NUM_NODES="2",
        SLURM_JOB_NODELIST="this,another", SLURM_JOB_ID="7", SLURM_GPUS_ON_NODE="1", PORT=port,
    )  # fmt: skip
    said = started.communicate(timeout=300)
    assert started.returncode == 0, said
    assert json.loads((tmp_path / "run" / "run.json").read_text())["machine"]["ranks"] == 2
    assert Run.open(tmp_path / "run").finished("search")
