"One run by Ray: tasks that die are tried again and named, and no bit of a run depends on who computed it."

import contextvars
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import wait

import numpy as np
import pytest
import torch

from ssnas_colab import Run, run_pipeline
from ssnas_colab.cli import main
from ssnas_colab.core.basics import UserError
from ssnas_colab.experiment.checkpoints import unpack
from ssnas_colab.experiment.interrupts import Stopped, stopping
from ssnas_colab.scale.tasks import current_pool, use_engine
from ssnas_colab.sessions.session import claim_of, require_claim, session

FEW = {
    "search": {
        "space": "cells", "strategy": "random", "depth": 3, "nodes": 1, "candidates": 2, "score": "barlow_twins",
        "score_steps": 1,
    },
    "evaluation": {
        "random_genotypes": 0, "mobilenet": False, "resnet18": False, "equal_macs": [], "pretrain_steps": 2,
        "finetune_steps": 2, "max_parameters": 8_000,
    },
}  # fmt: skip
TIMES = {"seconds", "latency_ms", "at", "created", "stage_seconds", "costs", "clock", "facts", "checkpoints"}


def bits(run):
    "Everything that a run has computed, by file: without times, and what only the machine decides."
    def plain(value):
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items() if key not in TIMES}
        if isinstance(value, (list, tuple)):
            return [plain(one) for one in value]
        return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value

    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.suffix == ".json" and path.name not in ("lock.json", "manifest.json", "forecast.json", "run.json"):
            found[name] = plain(json.loads(path.read_text()))
        elif path.suffix == ".npz":
            found[name] = {key: array.tobytes() for key, array in np.load(path).items()}
        elif path.suffix == ".pt":
            found[f"{name.rpartition('/')[0]}/"] = plain(unpack(path.read_bytes()))  # its number is a matter of kills
    return found


@pytest.fixture
def pool(ray_here):
    "A pool of tasks, of one processor each; who is told of failures keeps them in `told`."
    told = []
    with use_engine("ray", per_trial={"cpu": 1}, say=told.append) as found:
        found.told = told
        yield found


def test_a_task_that_dies_is_tried_again_and_named(pool, tmp_path):
    def counted(place):  # sent as it is, so that no worker imports this file
        with open(place, "a+") as file:
            file.write("x")
            file.seek(0)
            return len(file.read())

    def dies_once(place):
        return 2 if counted(place) == 2 else os._exit(3)

    def fails(place, kind):
        counted(place)
        raise kind("the wrong folder")

    once = pool.submit(dies_once, str(tmp_path / "once"), name="resnet18")
    wrong = pool.submit(fails, str(tmp_path / "wrong"), UserError, name="searched")
    always = pool.submit(fails, str(tmp_path / "always"), RuntimeError, name="resnet_small")
    assert once.result() == 2 and sum("resnet18 failed" in one and "tried again" in one for one in pool.told) == 1
    with pytest.raises(UserError, match="^the wrong folder"):
        wrong.result()
    with pytest.raises(UserError, match="resnet_small failed 3 times as a task of Ray .*: repeat the command"):
        always.result()
    assert (tmp_path / "wrong").read_text() == "x" and (tmp_path / "always").read_text() == "xxx"


@pytest.mark.parametrize("way", ["plain", pytest.param("every", marks=pytest.mark.soak)])
def test_no_bit_of_a_run_depends_on_the_engine(way, pool, tmp_path, monkeypatch, unpainted, capsys):
    def report_alone(run, data, report, config):
        run.save_json("report.json", report)

    monkeypatch.setattr("ssnas_colab.stages.evaluation.write_report", report_alone)  # pages and forecasts take longest
    for name in ("foreseen", "print_forecast"):
        monkeypatch.setattr(f"ssnas_colab.stages.pipeline.{name}", lambda *_: None)
    more = {"log": "csv", "device": "cpu", **FEW}
    if way == "every":
        more |= {"seeds": 2, "evaluation": FEW["evaluation"] | {"tune_rates": 2, "teacher": "resnet_small", "folds": 3}}
    assert current_pool() is pool and torch.get_num_threads() == 1
    report = run_pipeline("digits", tmp_path / "ray", **more)
    said = capsys.readouterr().out
    assert "resnet_small is trained, " in said
    if way == "every":
        assert "seed_1/taught_by_resnet_small is trained" in said and "resnet_small at each rate" in said
        assert "fold_3/resnet_small is trained" in said and "taught_by_resnet_small" in report["models"]
    contextvars.Context().run(run_pipeline, "digits", tmp_path / "here", quiet=True, **more)
    assert bits(tmp_path / "ray") == bits(tmp_path / "here") and report["models"].keys() >= {"searched", "resnet_small"}
    lines = [sorted((tmp_path / name / "history.csv").read_text().splitlines()) for name in ("ray", "here")]
    assert lines[0] == lines[1] and len(lines[0]) > 6


def test_tasks_write_only_for_the_session_that_has_the_run(tmp_path):
    with session(tmp_path / "run") as folder:
        run = Run.open(folder, {"seed": 0})
        claim = claim_of(run.inner("seed_1", {"seed": 1}))
        require_claim(*claim)
        assert claim == claim_of(run) and claim[1]
    with session(tmp_path / "run"), pytest.raises(UserError, match="session that has the run .* is over"):
        require_claim(*claim)
    with pytest.raises(UserError, match="is over"):
        require_claim(*claim)
    with pytest.raises(UserError, match="not seen on the machine .* share"):
        require_claim(str(tmp_path / "elsewhere"), claim[1])


def test_tasks_are_asked_to_end_and_those_that_wait_do_not_begin(pool):
    def waits():
        with stopping() as stop, stop.between_steps():
            while not stop.reason():
                time.sleep(0.05)
            stop.check("the next step")

    tasks = [pool.submit(waits, name=f"task {i}") for i in range(4)]
    late = pool.submit(waits, name="late", deadline=time.time() + 1)  # stops by itself, had it a place
    time.sleep(2)
    pool.cancel()
    wait([*tasks, late])
    assert all(isinstance(one.exception(), Stopped) for one in [*tasks, late])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--engine slurm", "local or ray"),
        ("--address 127.0.0.1:9", "--engine ray"),
        ("--engine ray --address 127.0.0.1:9", "No cluster answers"),
        ("--engine ray --per-trial cpu=-1", "what a trial may use"),
        ("--engine ray --per-trial cpu=0", "what a trial may use"),
        ("--per-trial gpu=1", "--engine ray"),
        ("--engine ray --dry-run", "--engine counts for nothing in a dry run"),
        ("--engine ray", "needs Ray"),
    ],
)
@pytest.mark.parametrize("command", ["run", "search", "evaluate"])
def test_what_cannot_be_meant_is_refused_before_any_work(command, given, said, tmp_path, monkeypatch, capsys):
    if command == "evaluate" and "--dry-run" in given:
        return
    monkeypatch.chdir(tmp_path)
    if said == "needs Ray":
        monkeypatch.setitem(sys.modules, "ray", None)
    elif "No cluster" in said:
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'ssnas_colab[ray]'")
    code = main([command, *given.split()])
    out, err = capsys.readouterr()
    assert code == 2 and err.startswith("ssnas: ") and err.count("\n") == 1 and said in err, err
    assert not out and not list(tmp_path.iterdir())


def command(out, *more):
    few = [f"--set={stage}.{name}={','.join(value) if isinstance(value, list) else json.dumps(value).strip(chr(34))}"
           for stage, found in FEW.items() for name, value in found.items()]  # fmt: skip
    few += ["--set=evaluation.pretrain_steps=40", "--set=evaluation.finetune_steps=40", "--teacher=resnet_small"]
    return [sys.executable, "-m", "ssnas_colab", "run", str(out), "--quiet", "--device", "cpu", *few, *more]


@pytest.mark.soak
def test_a_run_by_ray_that_is_killed_and_stopped_goes_on_to_the_same_bits(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ssnas_colab[ray]'")
    def files(folder):
        return {path.name for path in folder.rglob("*") if path.suffix in (".json", ".pt", ".npz")} - {"lock.json"}

    rng, ends = random.Random(), []
    subprocess.run(command(tmp_path / "here", "--per-trial", "cpu=1"), check=True, stdout=subprocess.DEVNULL)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, None):
        one = subprocess.Popen(command(tmp_path / "ray", "--engine", "ray"), stderr=subprocess.PIPE, text=True)
        if number:  # once it has written something, or a little later
            before = files(tmp_path / "ray")
            while one.poll() is None and files(tmp_path / "ray") == before:
                time.sleep(0.1)
            time.sleep(10 * rng.random())
            one.send_signal(number)
        ends.append((one.wait(400), one.stderr.read().splitlines()[-1:]))
    print(ends)
    assert all(code in (0, -9, 75, 130) for code, _ in ends) and ends[-1][0] == 0, ends
    assert bits(tmp_path / "ray") == bits(tmp_path / "here")
