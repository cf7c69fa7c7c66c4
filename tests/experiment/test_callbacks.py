"Who looks on changes no bit and breaks nothing, and hears of each epoch once, whatever killed the run."

import csv
import io
import itertools
import json
import random
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from refusal import refused

from experiment.test_run import killed, train
from ssnas_colab.cli import main
from ssnas_colab.experiment.callbacks import Callback, TensorBoardLog, callback_classes, use_callbacks
from ssnas_colab.experiment.interrupts import Stopped
from ssnas_colab.experiment.run import Run
from ssnas_colab.sessions.publisher import is_published
from ssnas_colab.training import loop as training


class SummaryWriter:
    "TensorBoard's, as far as we use it: what is added goes into the file, a line each."

    number = itertools.count()

    def __init__(self, log_dir, filename_suffix=""):
        Path(log_dir).mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{next(self.number)}.host{filename_suffix}"
        self.file = open(Path(log_dir) / name, "w", encoding="utf-8")

    def add(self, kind, tag, value, step=0):
        self.file.write(json.dumps([kind, tag, value, step]) + "\n")

    def add_scalar(self, tag, value, step):
        self.add("scalar", tag, float(value), step)

    def add_text(self, tag, text, step):
        self.add("text", tag, text, step)

    def add_image(self, tag, image, dataformats):
        assert dataformats == "HWC" and image.ndim == 3 and image.dtype == np.uint8
        self.add("image", tag, list(image.shape))

    def flush(self):
        self.file.flush()

    def close(self):
        self.file.close()


@pytest.fixture
def tensorboard(monkeypatch):
    stand_in = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)


def shown(run, kind="scalar"):
    "What TensorBoard would show: {place: [(tag, step, value), ...]}, of all files."
    found = {}
    for path in sorted((run.path / "tensorboard").rglob("events*")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        place = path.parent.relative_to(run.path / "tensorboard").as_posix()
        found.setdefault(place, []).extend((tag, step, value) for what, tag, value, step in lines if what == kind)
    return found


def table(run, stage=None):
    "The rows of history.csv, of a stage without its name."
    rows = list(csv.DictReader(io.StringIO(run.load_text("history.csv"))))
    return [row for row in rows if stage in (None, row["stage"])]


class Rude(Callback):
    "Draws from every generator, spoils what it is given, leaves gradients off, and raises in the end."

    def on_begin(self, stage, epochs, rows):
        rows.clear()
        torch.manual_seed(1), np.random.seed(1), random.seed(1)

    def on_epoch(self, stage, row):
        row["loss"] = torch.rand(3).sum().item() + np.random.rand() + random.random()
        torch.set_grad_enabled(False)

    def on_end(self, stage):
        raise KeyError("its own\nmistake")


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)


def history_of(run, stage="s"):
    return run.checkpoints.load(stage)["state"]["history"]


@pytest.mark.parametrize("seconds", [0.0, 3600.0], ids=["every step is kept", "none is"])
def test_same_bits_and_each_row_once_after_kills(tmp_path, tensorboard, monkeypatch, seconds):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", seconds)
    straight = train(Run.open(tmp_path / "straight", {}))
    run, log = Run.open(tmp_path / "run", {}), "csv,tensorboard"
    for until, follow in ((6, log), (9, None), (10, log)):  # a session without a log among them
        with pytest.raises(MemoryError), use_callbacks(run, follow):
            train(run, until=until, do=killed)
    with pytest.warns(UserWarning, match="Rude failed in on_end .KeyError: 'its own") as said:
        with use_callbacks(run, ["csv", "tensorboard", Rude]):
            found = train(run)
    assert found == straight and torch.is_grad_enabled() and len(said) == 1 and "\n" not in str(said[0].message)
    history = history_of(run)
    assert history == history_of(Run.open(tmp_path / "straight")) and len(history) == 3
    assert [(int(row["epoch"]), float(row["loss"])) for row in table(run)] == [(r["epoch"], r["loss"]) for r in history]
    assert shown(run) == {"s": [("loss", row["epoch"], row["loss"]) for row in history]}
    [events] = (run.path / "tensorboard" / "s").iterdir()
    assert is_published("tensorboard/s/" + events.name) and not is_published(f"tensorboard/s/{events.name}.open")
    assert not run.on_write


def test_without_a_log_a_run_goes_on_and_a_finished_one_gets_all_rows_later(tmp_path, tensorboard):
    run = Run.open(tmp_path / "run", {})
    with use_callbacks(run, "csv"), pytest.raises(MemoryError):
        train(run, until=6, do=killed)
    train(run)
    assert len(table(run)) == 1  # what the session without a log did is not in it
    with use_callbacks(run, "csv,tensorboard"):
        train(run)
    assert [int(row["epoch"]) for row in table(run)] == [0, 1, 2] == [step for _, step, _ in shown(run)["s"]]


def test_a_kill_in_the_middle_of_the_table_leaves_a_whole_one(tmp_path):
    code = """
import os, signal, sys
from experiment.test_run import train
from ssnas_colab.core import files
from ssnas_colab.experiment.callbacks import use_callbacks
from ssnas_colab.experiment.run import Run

run, replace = Run.open(sys.argv[1], {}), os.replace
def half(source, target):
    if str(target).endswith("history.csv") and b"s,1," in open(source, "rb").read():
        os.truncate(source, 30)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = half
with use_callbacks(run, "csv"):
    train(run)
"""
    here = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, cwd=here)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    run = Run.open(tmp_path / "run")
    assert [row["epoch"] for row in table(run)] == ["0"] and (run.path / "history.csv.partial").stat().st_size == 30
    with use_callbacks(run, "csv"):
        train(run)
    assert [float(row["loss"]) for row in table(run)] == [row["loss"] for row in history_of(run)]
    assert not (run.path / "history.csv.partial").exists()


def test_rows_that_a_guard_takes_back_are_gone(tmp_path, tensorboard, every_step):
    "The good epoch to go back to is the first one: the rows of two epochs do not count any more."
    place, guard = torch.nn.Linear(1, 1), types.SimpleNamespace(complained=False)
    guard.state_dict, guard.load_state_dict = dict, lambda stored: None

    def update(row):
        if row["epoch"] < 2 or guard.complained:
            return None
        guard.complained = True
        return "once more"

    def step(moment, done):
        torch.nn.init.constant_(place.weight, 0.0 if guard.complained else torch.inf)
        return {"loss": 1.0 + moment.epoch + 10 * guard.complained}

    guard.update, run = update, Run.open(tmp_path / "run", {})
    with use_callbacks(run, "csv,tensorboard"), pytest.warns(UserWarning, match="once more"):
        training.fit(
            run, "s", {"place": place}, step, epochs=3, steps_per_epoch=1, seed=0, quiet=True, guard=guard
        )  # fmt: skip
    assert [float(row["loss"]) for row in table(run)] == [11, 12, 13] == [value for _, _, value in shown(run)["s"]]


@pytest.mark.parametrize("where", ["__init__", "on_begin", "on_epoch", "on_end"])
def test_a_mistake_in_a_callback_is_a_warning(tmp_path, where):
    calls = []

    def fails(self, *facts):
        calls.append(where)
        raise ZeroDivisionError("by nothing")

    own = type("Own", (Callback,), {where: fails})
    run = Run.open(tmp_path / "run", {})
    told = rf"The log Own failed in {where} .ZeroDivisionError: by nothing. and is left out"
    with pytest.warns(UserWarning, match=told), use_callbacks(run, [own, "csv"]):
        train(run)
    assert len(calls) == 1 and len(table(run)) == 3


def test_a_callback_may_ask_to_stop(tmp_path):
    class Enough(Callback):
        def on_epoch(self, stage, row):
            raise Stopped("enough")

    run = Run.open(tmp_path / "run", {})
    with use_callbacks(run, [Enough]), pytest.raises(Stopped, match="enough"):
        train(run)


def test_names(monkeypatch):
    refused("'cvs'", "did you mean 'csv'", act=lambda: callback_classes("csv, cvs"))
    refused("pathlib:Path", "experiment.callbacks.Callback", act=lambda: callback_classes("pathlib:Path"))
    refused("nowhere:Log", "cannot be loaded", act=lambda: callback_classes("nowhere:Log"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as where the package is missing
    refused("pip install tensorboard", act=lambda: callback_classes("tensorboard"))
    assert callback_classes("csv") and callback_classes("experiment.test_callbacks:Rude")[0].__name__ == "Rude"


def test_what_is_over_is_told_under_the_names_it_had(tmp_path):
    "Networks that chose their learning rate, and the runs of further seeds."
    run = Run.open(tmp_path / "run", {"seed": 0})
    inner = run.inner("seed_1", {"seed": 1})
    rows = [{"epoch": 0, "loss": 1.0}]
    for one in (run, inner):
        parts = dict.fromkeys(("pretraining", "finetuning", "probing"), rows)
        one.save_json("models/a.json", {"finetune_rate": 0.006} | parts)
        one.save_json("search.json", {"history": rows})
        for stage in ("pretrain/a", "finetune/a", "finetune/a@0.006"):
            one.finish(stage)
    run.save_json("models/b.json", {"finetune_rate": 0.002, "finetuning": rows, "retraining": rows})
    inner.save_json("searched_once.json", {})
    with use_callbacks(run, "csv"):
        pass
    names = ["search", "pretrain/a", "finetune/a@0.006", "finetune/b", "retrain/b"]
    names += ["seed_1/pretrain/a", "seed_1/finetune/a@0.006"]
    assert [row["stage"] for row in table(run)] == names


# The whole way, by the command.

TINY = {"width": 2, "depth": 3, "nodes": 1, "steps": 3, "batch_size": 32, "embedding": 8, "warmup": 0}
SHORT = {"pretrain_steps": 2, "finetune_steps": 3, "batch_size": 32, "embedding": 8, "random_genotypes": 0}
SHORT |= {"resnet18": "false", "mobilenet": "false", "published": "[]", "equal_macs": "[]", "max_parameters": 8000}


def command(path, *more, stage="run", search=TINY):
    "The exit code of a tiny run."
    given = [f"search.{name}={value}" for name, value in search.items()]
    given += [f"evaluation.{name}={value}" for name, value in SHORT.items()]
    settings = [part for text in given for part in ("--set", text)]
    return main([stage, str(path), "--quiet", "--device", "cpu", "--imbalance-factor", "50", *settings, *more])


def test_the_whole_way(tmp_path, tensorboard, unpainted, capsys):
    assert command(tmp_path / "plain") == 0
    log = "csv,tensorboard,experiment.test_callbacks:Rude"
    assert command(tmp_path / "seen", "--log", log) == 0
    assert "warning: The log Rude failed in on_end" in capsys.readouterr().err
    plain, seen = Run.open(tmp_path / "plain"), Run.open(tmp_path / "seen")
    names = {path.relative_to(plain.path) for path in plain.path.rglob("*") if path.is_file()}
    others = {path.relative_to(seen.path) for path in seen.path.rglob("*") if path.is_file()}
    assert {path.parts[0] for path in others - names} == {"history.csv", "tensorboard"} and names <= others
    for name in ("alphas.npz", "genotype.json", "models/searched.npz", "models/resnet_small.npz", "indices.npz"):
        assert (plain.path / name).read_bytes() == (seen.path / name).read_bytes(), name
    for name in ("searched", "resnet_small"):
        one, other = (run.checkpoints.load(f"models/{name}")["state"]["model"] for run in (plain, seen))
        assert all(torch.equal(one[key], other[key]) for key in one)
    stages = ["search", "pretrain/searched", "finetune/searched", "pretrain/resnet_small", "finetune/resnet_small"]
    assert list(dict.fromkeys(row["stage"] for row in table(seen))) == stages
    for stage in stages:
        kind, _, name = stage.partition("/")
        part = {"pretrain": "pretraining", "finetune": "finetuning"}.get(kind)
        rows = seen.load_json(f"models/{name}.json")[part] if name else seen.load_json("search.json")["history"]
        assert [float(row["loss"]) for row in table(seen, stage)] == [row["loss"] for row in rows], stage
        assert [value for tag, _, value in shown(seen)[stage] if tag == "loss"] == [row["loss"] for row in rows], stage
    pictures = {tag for tag, *_ in shown(seen, "image")["pictures"]}
    assert pictures == {path.name for path in seen.path.glob("*.png")} > {"examples.png", "search.png", "report.png"}
    # A finished run hears of everything at once, and nothing of it changes.
    report = (plain.path / "report.json").read_bytes()
    assert command(tmp_path / "plain", "--log", "csv,tensorboard") == 0
    assert sorted(map(str, table(plain))) == sorted(map(str, table(seen)))
    assert {place: sorted(rows) for place, rows in shown(plain).items()} == {
        place: sorted(rows) for place, rows in shown(seen).items()
    }
    assert (plain.path / "report.json").read_bytes() == report


def test_a_search_by_a_strategy_has_a_row_for_each_candidate(tmp_path, unpainted):
    search = {"depth": 3, "nodes": 1, "candidates": 3, "score": "parameters", "processes": 1}
    assert command(tmp_path / "run", "--strategy", "random", "--log", "csv", stage="search", search=search) == 0
    run = Run.open(tmp_path / "run")
    rows = [(row["number"], row["score"]) for row in run.load_json("search.json")["candidates"]]
    assert [(int(row["epoch"]), float(row["score"])) for row in table(run)] == rows and len(rows) == 3


def test_what_is_missing_is_told_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for stage in ("run", "search", "evaluate"):
        for log, word in (("tensorboard", "pip install tensorboard"), ("cvs", "did you mean"), ("os:path", "a class")):
            assert command(tmp_path / "run", "--log", log, stage=stage) == 2
            said = capsys.readouterr().err
            assert said.count("\n") == 1 and word in said and not (tmp_path / "run").exists()


def test_tensorboard_itself_reads_it(tmp_path):
    "Where the package is installed: its own reader finds each value once, and the picture."
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = Run.open(tmp_path / "run", {})
    for until in (6, None):
        try:
            with use_callbacks(run, [TensorBoardLog]):
                train(run, until=until, do=killed)
        except MemoryError:
            pass
    found = reader.EventAccumulator(str(run.path / "tensorboard" / "s")).Reload().Scalars("loss")
    assert [(one.step, one.value) for one in found] == [(r["epoch"], pytest.approx(r["loss"])) for r in history_of(run)]
