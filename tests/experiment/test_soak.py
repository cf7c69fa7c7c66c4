"""Runs that are killed go on with the same bits: real child processes, killed with SIGKILL, some inside a write.

Ten kills belong to every test run. The long form, `pytest -m soak tests/experiment`, has `SSNAS_SOAK_KILLS` (100)
and a record of each in the file `SSNAS_SOAK_LOG`.
"""

import builtins
import dataclasses
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from queue import Empty, Queue

import numpy as np
import pytest
import torch

from ssnas_colab.experiment.run import Run

EVERY = 3  # steps between checkpoints
PLACES = {
    "half of a checkpoint": "half of its bytes are in the file beside",
    "before the rename": "the file beside is whole and verified, its name does not count yet",
    "before the manifest": "the checkpoint counts, the manifest does not name it yet",
    "before the removal": "the manifest is written, an old checkpoint is still there",
    "half of an artefact": "half of a JSON, an array or a picture",
}


# What the child process does ------------------------------------------------------------------------------------------


def shrink():
    "A whole run in a few seconds: settings that are not worth anything but take every stage."
    from ssnas_colab import config

    wanted = {"pretrain_steps": 7, "finetune_steps": 7, "batch_size": 32, "embedding": 16, "max_parameters": 4_000}
    wanted |= {"random_genotypes": 1, "resnet18": False, "mobilenet": False, "published": (), "equal_macs": ()}
    known = {field.name for field in dataclasses.fields(config.EvaluationConfig)}
    config.EVALUATION_PRESETS["quick"] = {name: value for name, value in wanted.items() if name in known}
    tiny = {"width": 2, "depth": 3, "nodes": 2, "batch_size": 16, "steps": 10, "embedding": 16}
    config.SEARCH_PRESETS["quick"] = tiny


def paint_little():
    "Paint every figure as one pixel: what is killed is the write of a picture, not the painting."
    from matplotlib.figure import Figure
    from PIL import Image

    pixel = io.BytesIO()
    Image.new("L", (1, 1)).save(pixel, "png")
    Figure.savefig = lambda figure, file, **how: file.write(pixel.getvalue())


def keep_a_log(path):
    "Write a line for each step that was taken, each checkpoint that is whole, each place where training went on."
    from ssnas_colab.experiment import interrupts as stopping
    from ssnas_colab.training import loop as training

    log, count = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), itertools.count(1)
    stopping.StageClock.due = lambda clock, least=30.0: next(count) % EVERY == 0

    def watched(owner, name, event):
        before = getattr(owner, name)

        def after(self, *args, **options):
            result = before(self, *args, **options)
            os.write(log, (json.dumps([event, self.stage, self.done]) + "\n").encode())
            return result

        setattr(owner, name, after)

    watched(training.Fit, "load", "from")
    watched(training.Fit, "advance", "step")
    watched(training.Fit, "save", "saved")


def in_halves(here):
    "What opens a file for writing that calls `here(path)` whenever half of what it is given is written."

    class InHalves:
        def __init__(self, path, mode):
            self.file, self.path = builtins.open(path, mode), path  # noqa: SIM115

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            here(self.path)
            self.file.write(data[len(data) // 2 :])

    return InHalves


def lie_in_wait(place, number):
    "Stop for a minute, after saying 'caught', where the write `number` (from 1) has come as far as `place` says."
    from ssnas_colab.core import files

    seen, replace = Counter(), os.replace

    def here(name):
        seen[name] += 1
        if name == place and seen[name] == number:
            tell("caught")
            time.sleep(60)

    def half_written(path):
        here("half of a checkpoint" if str(path).endswith(".pt.partial") else "half of an artefact")

    def renamed(source, target):
        checkpoint = str(target).endswith(".pt")
        if checkpoint:
            here("before the rename")
        replace(source, target)
        if checkpoint:
            here("before the manifest")
        elif str(target).endswith("manifest.json"):
            here("before the removal")

    files.open, files.os.replace = in_halves(half_written), renamed


def tell(text):
    os.write(1, f"{text}\n".encode())


def child(path, log, place, number):
    "Run, or go on with, the run at `path`."
    from ssnas_colab.stages.pipeline import run_pipeline

    shrink()
    paint_little()
    keep_a_log(log)
    lie_in_wait(place, number)
    tell("ready")
    run_pipeline("digits", path, imbalance_factor=10, quiet=True)


def nurse():
    """Import what takes seconds, then fork a child for each line of input, and say how it ended.

    Nothing is computed here, so a child begins as a new process would, seconds earlier.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot
    import sklearn.datasets  # noqa: F401

    import ssnas_colab.stages.pipeline  # noqa: F401

    torch.set_num_threads(1)
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)  # imports a good deal
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            try:
                child(*json.loads(line))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        tell(f"pid {pid}")
        tell(f"ended {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")


# What the test does ---------------------------------------------------------------------------------------------------


class Ledger:
    "What the child's log says: how far each stage got, what was saved of it, where it went on."

    def __init__(self, path):
        self.path, self.read, self.reached, self.saved, self.resumed = path, 0, {}, {}, []
        self.path.touch()

    def update(self):
        "Read on; no stage may go on from before its last whole checkpoint. Returns the stage and step reached."
        lines, last = self.path.read_text().splitlines()[self.read :], ("", 0)
        self.read += len(lines)
        for event, stage, done in map(json.loads, lines):
            if event == "from":
                reached, saved = self.reached.get(stage, 0), self.saved.get(stage, 0)
                assert saved <= done <= reached, f"{stage} was at {reached}, saved at {saved}, goes on from {done}"
                assert reached - saved <= EVERY
                self.resumed.append({"stage": stage, "reached": reached, "saved": saved, "from": done})
            self.reached[stage] = done
            if event != "step":
                self.saved[stage] = done
            last = stage, done
        return last


class Nursery:
    "Child processes, one after another; a new one of these has another order of hashes than the last."

    def __init__(self, folder):
        self.errors, self.lines = open(folder / "errors.txt", "a+"), Queue()  # noqa: SIM115
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors, "text": True}
        self.process = subprocess.Popen([sys.executable, __file__], **pipes)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            self.lines.put(line.split())
        self.lines.put(["ended", "nurse"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.errors.close()

    def session(self, path, ledger, place="nowhere", number=0, seconds=None):
        "One child, until it is caught at its place, or `seconds` after it began, or to its end; whether it was killed."
        print(json.dumps([str(path), str(ledger.path), place, number]), file=self.process.stdin, flush=True)
        pid, until = None, time.monotonic() + 300
        while True:
            try:
                word, *more = self.lines.get(timeout=max(until - time.monotonic(), 0))
            except Empty:
                assert seconds is not None, "nothing happened for 5 minutes"
                word = "caught"
            if word == "pid":
                pid = int(more[0])
            if word == "ready" and seconds is not None:
                until = time.monotonic() + seconds
            if word == "caught":
                os.kill(pid, signal.SIGKILL)
                until, seconds = time.monotonic() + 60, None
            if word == "ended":
                assert more[0] in ("0", str(-signal.SIGKILL)), self._said()
                return more[0] != "0"

    def _said(self):
        self.errors.seek(0)
        return self.errors.read()


def plain(value):
    "A report without what differs between two runs of the same thing: times."
    if isinstance(value, dict):
        times = ("seconds", "stage_seconds", "latency_ms", "at")
        return {name: plain(one) for name, one in value.items() if name not in times}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def differences(a, b, where=""):
    "Where two nested structures of tensors, arrays, numbers and text are not the same to the last bit."
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [one for name in a for one in differences(a[name], b[name], f"{where}/{name}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [one for i, pair in enumerate(zip(a, b)) for one in differences(*pair, f"{where}/{i}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        a, b = a.numpy(), b.numpy()
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return [] if a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() else [where]
    return [] if type(a) is type(b) and (a == b or a != a and b != b) else [where]


def outcome(path):
    "All that a finished run has found: report, genotype, alphas, history, every tensor of its last checkpoints."
    run = Run.open(path)
    report, stages = run.load_json("report.json"), ["search"]
    stages += [f"models/{name}" for name in report["models"]]
    checkpoints = {stage: run.checkpoints.load(stage) for stage in stages}
    assert all(checkpoints.values()) and len(checkpoints) >= 4
    for checkpoint in checkpoints.values():
        checkpoint.pop("facts", None)
        checkpoint["state"].pop("clock", None)
    return {
        "models": plain(report["models"]), "genotype": run.load_text("genotype.json"),
        "alphas": run.load_arrays("alphas.npz"), "history": plain(run.load_json("search.json")["history"]),
        "checkpoints": checkpoints,
    }  # fmt: skip


def plan_of(rng, whole):
    "Where the next kill shall hit, as arguments of `Nursery.session`."
    place = str(rng.choice(["at random", "at random", *PLACES]))
    plan = {"place": place, "number": int(rng.integers(1, 5))}
    return plan | ({"seconds": round(float(rng.uniform(0.0, 0.4 * whole)), 3)} if place == "at random" else {})


def soak(folder, kills, rng, straight, log=None, most=10):
    "Kill runs `kills` times, each at most `most` times; each that ends is compared with `straight`. A record of all."
    (straight, whole), record, runs, begin = straight, [], 0, time.monotonic()
    while len(record) < kills:
        runs, started = runs + 1, len(record)
        path, ledger, killed = folder / f"killed_{runs}", Ledger(folder / f"killed_{runs}.log"), True
        with Nursery(folder) as nursery:
            while killed:
                plan = plan_of(rng, whole) if len(record) < min(started + most, kills) else {}
                killed = nursery.session(path, ledger, **plan)
                stage, step = ledger.update()
                if killed:
                    record.append({**plan, "run": runs, "stage": stage, "step": step})
        different = differences(straight, outcome(path))
        assert not different, f"after {record} these are not the same: {different[:9]}"
        assert not [*path.rglob("*.damaged")]  # a kill alone never leaves a damaged checkpoint
        again = [one["reached"] - one["from"] for one in ledger.resumed if one["reached"]]
        if len(record) > started:
            record[-1]["done_again"] = again  # steps, each time that a stage was gone on with
        print(f"run {runs}: {len(record)} kills, steps done again: {again}", flush=True)
        found = {"kills": record, "runs": runs, "seconds": round(time.monotonic() - begin, 1), "every": EVERY}
        if log:
            Path(log).write_text(json.dumps(found))
    return found


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    "What the run that nobody kills has found, and how many seconds it took."
    folder = tmp_path_factory.mktemp("straight")
    with Nursery(folder) as nursery:
        begin = time.monotonic()
        assert not nursery.session(folder / "run", Ledger(folder / "log"))
    return outcome(folder / "run"), time.monotonic() - begin


def test_a_difference_of_one_bit_is_seen(straight):
    "The comparisons below would pass of anything if `differences` saw nothing."
    import copy

    straight = straight[0]
    other = copy.deepcopy(straight)
    assert not differences(straight, other)
    weights = next(iter(other["checkpoints"]["models/searched"]["state"]["model"].values()))
    weights.view(torch.int32).view(-1)[0] ^= 1
    other["models"]["searched"]["accuracy"] += 1e-9
    assert len(differences(straight, other)) == 2


def test_three_kills(tmp_path, straight):
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    found = soak(tmp_path, 3, np.random.default_rng(seed), straight)
    print(json.dumps(found))
    assert len(found["kills"]) >= 3


@pytest.mark.soak
def test_many_kills(tmp_path, straight):
    kills, log = int(os.environ.get("SSNAS_SOAK_KILLS", "100")), os.environ.get("SSNAS_SOAK_LOG")
    found = soak(tmp_path, kills, np.random.default_rng(kills), straight, log)
    assert len(found["kills"]) >= kills and {one["place"] for one in found["kills"]} >= {*PLACES, "at random"}


if __name__ == "__main__":
    nurse()
