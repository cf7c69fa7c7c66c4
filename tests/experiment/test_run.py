"A run folder under damage, from a copyist's view, with one writer, and stopped in a notebook."

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from pathlib import Path

import pytest
import torch

import ssnas_colab
from ssnas_colab.core import files
from ssnas_colab.core.basics import UserError
from ssnas_colab.experiment.forecast import status_text
from ssnas_colab.experiment.interrupts import Stopped, stopping
from ssnas_colab.experiment.run import Run
from ssnas_colab.training import loop as training
from ssnas_colab.training.loop import fit


@pytest.fixture(autouse=True)
def every_step(monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def train(run, stage="s", until=None, do=None, **options):
    "Twelve steps of a random walk, which `do` disturbs at step `until`; where it ended."
    place = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(place.weight)

    def step(moment, done):
        if round(done * 12) == until:
            do()
        with torch.no_grad():
            place.weight += torch.randn(1, 1, generator=moment.generator())
        return {"loss": place.weight.abs().sum()}

    fit(run, stage, {"place": place}, step, epochs=3, steps_per_epoch=4, seed=0, quiet=True, **options)
    return place.weight.item()


def killed():
    raise MemoryError


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return train(Run.open(tmp_path_factory.mktemp("straight"), {}))


def half_way(path, until=7):
    run = Run.open(path, {})
    with pytest.raises(MemoryError):
        train(run, until=until, do=killed)
    return run, sorted((run.path / "checkpoints" / "s").glob("*.pt"))


DAMAGES = {
    "flipped": lambda data: data[:-30] + bytes([data[-30] ^ 4]) + data[-29:],
    "cut": lambda data: data[:100],
    "empty": lambda data: b"",
    "zeroes": lambda data: bytes(len(data)),
    "newer": lambda data: data.replace(b"-1 ", b"-9 ", 1),
    "missing": lambda data: None,
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("count", [1, 2])
def test_damaged_checkpoints(tmp_path, straight, kind, count):
    run, paths = half_way(tmp_path / "run")
    for path in paths[2 - count :]:
        data = DAMAGES[kind](path.read_bytes())
        path.unlink() if data is None else path.write_bytes(data)
    if count == 1:
        with pytest.warns(UserWarning, match="missing" if kind == "missing" else "set aside"):
            assert train(run) == straight
        assert sorted(p.suffix for p in (run.path / "checkpoints" / "s").iterdir()) == [".json", ".pt"]
        return
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    for _ in range(2):  # it is not forgotten, and nothing is changed by asking
        with pytest.raises(UserError, match=r"000006\.pt.*000007\.pt|000007\.pt.*000006\.pt"):
            train(run)
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    shutil.move(run.path / "checkpoints" / "s", tmp_path / "elsewhere")
    assert train(run) == straight


def test_a_damaged_or_missing_manifest_does_not_matter(tmp_path, straight):
    for number, content in enumerate((None, b"", b"[1]", b'{"format": 1, "checkpoints": [{"name": "x"}]}')):
        run, _ = half_way(tmp_path / str(number))
        manifest = run.path / "checkpoints" / "s" / "manifest.json"
        manifest.unlink() if content is None else manifest.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert train(run) == straight


def test_a_write_that_reads_back_differently_never_counts(tmp_path, monkeypatch, straight):
    run, _ = half_way(tmp_path / "run")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    monkeypatch.setattr(files, "_read_from_disk", lambda path: path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="reads back differently"):
        train(run)
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    monkeypatch.undo()
    assert train(run) == straight


def test_a_copy_made_in_the_order_of_the_announcements_is_whole_at_every_moment(tmp_path, straight):
    run, seen = Run.open(tmp_path / "run", {}), []
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)

    def publish(name):
        if (run.path / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(run.path / name, copy / name)
        else:
            (copy / name).unlink()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # that a checkpoint is missing, for instance
            found = Run.open(copy).checkpoints.load("s")
        seen.append(found["step"] + 4 * found["epoch"])
        if Run.open(copy).finished("s"):
            assert seen[-1] == 12

    run.on_write.append(publish)
    assert train(run) == straight
    assert seen == sorted(seen) and set(seen) == set(range(1, 13))
    names = [path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()]
    assert sorted(names) == sorted(p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file())


def test_fit_asks_before_each_write_and_sweeps_up(tmp_path):
    run, asked, written = Run.open(tmp_path / "run", {}), [], []
    leftover = run.path / "checkpoints" / "s" / "000001.pt.partial"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    run.before_write.append(lambda: asked.append(True))
    run.on_write.append(lambda name: written.append(asked.pop() if asked else pytest.fail(f"{name}: nobody was asked")))
    train(run)
    with run.writing():
        train(run, "t")
    assert len(written) > 24 and not asked and not leftover.exists()

    def refuses():
        raise UserError("taken over")

    run.before_write.append(refuses)
    with pytest.raises(UserError, match="taken over"):
        train(run, "u")


def test_status_and_its_words(tmp_path):
    run, _ = half_way(tmp_path / "run")
    status = Run.open(run.path).status(["data", "s", "t"])
    assert status["stage"] == "s" and status["next"] == "data" and status["finished"] == []
    at = status["open"]["s"]
    assert (at["epoch"], at["step"], at["epochs"], at["name"]) == (1, 3, 3, "000007.pt") and at["loss"] > 0
    assert "s, epoch 2 of 3, 3 of 4 steps" in status_text(run)
    train(run)
    status = run.status(["s", "t"])
    assert status["open"] == {} and status["stage"] is None and status["next"] == "t" and status["seconds"] > 0
    assert run.facts("s")["checkpoints"]["written"] == 12 and run.facts("s")["checkpoints"]["bytes"] > 1000


def test_a_run_that_lacks_a_later_setting_opens(tmp_path):
    "As version 0.1.0 wrote it: no `version`, no `warmup`, which was 1 then and would be 2 now."
    path, stored = tmp_path / "run", {"seed": 0, "search": {"steps": 9, "width": 4}}
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"config": stored, "created": 1700000000.0}))
    before, asked = (path / "run.json").read_bytes(), []

    def complete(config):
        asked.append(config)
        return {**config, "search": {"warmup": 1, **config["search"]}}

    def wanted(**search):
        return {"seed": 0, "search": {"steps": 9, "width": 4, **search}}

    for opened in (Run.open, Run.check):
        assert opened(path, wanted(warmup=1), complete=complete).config == wanted(warmup=1)
        assert opened(path, complete=complete).config == wanted(warmup=1)
        assert opened(path, stored).config == opened(path).config == stored
        for config, options, reason in (
            (wanted(warmup=1), {}, "warmup: absent -> 1"),  # nobody says what it was
            (wanted(warmup=2), {"complete": complete}, "warmup: 1 -> 2"),  # it is a difference after all
            (wanted(warmup=1, steps=8), {"complete": complete}, "steps: 9 -> 8"),
        ):
            with pytest.raises(UserError, match=reason):
                opened(path, config, **options)
    assert all(config == stored for config in asked) and (path / "run.json").read_bytes() == before


def test_the_runs_inside_an_old_run_open_too(tmp_path):
    run = Run.open(tmp_path / "run", {"seed": 0})
    run.inner("seed_1", {"seed": 1})
    later = Run.open(run.path, {"seed": 0, "warmup": 1}, complete=lambda config: {"warmup": 1, **config})
    assert later.inner("seed_1", {"seed": 1, "warmup": 1}).config == {"seed": 1, "warmup": 1}
    with pytest.raises(UserError, match="warmup: 1 -> 2"):
        later.inner("seed_1", {"seed": 1, "warmup": 2})


def test_a_run_says_which_version_made_it(tmp_path):
    Run.open(tmp_path / "run", {"seed": 0})
    Run.fork(tmp_path / "run", tmp_path / "forked", {"seed": 1})
    for name in ("run", "forked"):
        assert json.loads((tmp_path / name / "run.json").read_text())["version"] == ssnas_colab.__version__


LOOKING = """
import sys
import ssnas_colab.core.basics, ssnas_colab.core.environment, ssnas_colab.core.files
import ssnas_colab.experiment.interrupts, ssnas_colab.experiment.checkpoints
from ssnas_colab.experiment.forecast import status_text
from ssnas_colab.experiment.run import Run
for path in sys.argv[1:]:
    print(Run.open(path).status()["finished"], status_text(path))
heavy = {"torch", "torchvision", "matplotlib", "sklearn", "scipy", "tqdm"} & set(sys.modules)
assert not heavy, heavy
"""


def test_looking_at_a_run_imports_nothing_heavy(tmp_path):
    with tarfile.open(Path(__file__).resolve().parents[1] / "data" / "v0.1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    new, _ = half_way(tmp_path / "new")
    paths = [new.path, *(tmp_path / name for name in ("search_sampled", "evaluation", "finished"))]
    done = subprocess.run([sys.executable, "-c", LOOKING, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for told in ("under way: s, epoch 2 of 3", "under way: search", "trained for", "left (", "next: "):
        assert told in done.stdout, done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_the_step(tmp_path, straight, number, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 3600.0)
    run, before = Run.open(tmp_path / "run", {}), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored in what it runs in the background
    try:
        with stopping(), pytest.raises(Stopped, match="before step 4 of epoch 2"):
            train(run, until=6, do=lambda: os.kill(os.getpid(), number))
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.status()["open"]["s"]["step"] == 3
    assert train(run) == straight


def test_a_time_budget_holds(tmp_path, straight):
    run, sessions = Run.open(tmp_path / "run", {}), 0
    while not run.finished("s"):
        sessions, begin = sessions + 1, time.monotonic()
        try:
            with stopping("1.2s"):
                end = train(run, until=4 * sessions, do=lambda: time.sleep(0.6))
        except Stopped as error:
            assert "time budget of 1.2 s" in str(error) and time.monotonic() - begin < 1.2
        assert sessions < 5
    assert end == straight and sessions >= 2


def test_a_budget_below_one_step_says_what_one_takes(tmp_path):
    "Again and again `repeat the command` would be the answer, and nothing would be done."
    run = Run.open(tmp_path / "run", {})
    for stage in ("first", "second"):
        with stopping("0.3s") as stop:
            time.sleep(0.31)  # reading the images, say
            with pytest.raises(Stopped, match="0.3 s .* too little for one step, .* 1.3 s .* give more") as told:
                train(run, stage)
            assert "go on from there" not in str(told.value)
            with pytest.raises(Stopped, match="before the network x .* too little for one step"):
                stop.check("the network x")
    with stopping("1.2s"):  # one step is taken, another is not: that is progress
        with pytest.raises(Stopped, match="repeat the command"):
            train(run, until=1, do=lambda: time.sleep(0.7))
    with stopping("5s") as stop:  # and a signal is no budget
        stop.signal = "it was interrupted"
        with pytest.raises(Stopped, match="repeat the command"):
            stop.check("the network x")


# What the bits depend on ----------------------------------------------------------------------------------------------


@pytest.fixture
def threads(monkeypatch):
    "No environment that says how many threads there are; the number here is put back."
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_run_goes_on_with_the_threads_it_was_begun_with(tmp_path, threads):
    torch.set_num_threads(2)
    run = Run.open(tmp_path / "run", {"seed": 0})
    assert run.machine["threads"] == 2
    torch.set_num_threads(1)
    run = Run.open(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with run.writing(), run.writing():
            inner = run.inner("seed_1", {"seed": 1})
            assert torch.get_num_threads() == inner.machine["threads"] == 2
            with inner.writing():
                assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
        seen = []
        train(run, until=3, do=lambda: seen.append(torch.get_num_threads()))
        assert seen == [2] and torch.get_num_threads() == 1


def test_threads_that_the_user_sets_count_and_are_told(tmp_path, threads, monkeypatch):
    torch.set_num_threads(2)
    run = Run.open(tmp_path / "run", {"seed": 0})
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.warns(UserWarning, match="threads: 2 -> 1.* without OMP_NUM_THREADS it goes on with threads: 2"):
        with run.writing():
            assert torch.get_num_threads() == 1


OTHERS = [("torch", "2.0.0"), ("cpu", "Z80"), ("processor", "a Z80"), ("gpu", "a Voodoo")]


@pytest.mark.parametrize("name, other", OTHERS)
def test_another_machine_is_told(tmp_path, name, other):
    run = Run.open(tmp_path / "run", {"seed": 0})
    stored = json.loads((run.path / "run.json").read_text())
    stored["machine"][name] = other
    (run.path / "run.json").write_text(json.dumps(stored))
    with pytest.warns(UserWarning, match=f"begun with something else .{name}: {other} -> .*other numbers") as said:
        with Run.open(run.path).writing():
            pass
    assert len(said) == 1 and "OMP_NUM_THREADS" not in str(said[0].message)


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_that_does_not_know_its_machine_says_nothing(tmp_path, whole):
    run = Run.open(tmp_path / "run", {"seed": 0})
    stored = json.loads((run.path / "run.json").read_text())
    assert stored["machine"]["processor"]
    if whole:
        del stored["machine"]
    else:
        del stored["machine"]["processor"]  # as versions before 0.6.0 left it
    (run.path / "run.json").write_text(json.dumps(stored))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Run.open(run.path).writing():
            pass


NOTEBOOK = """
import time
from ssnas_colab.experiment.run import Run
from ssnas_colab.training.loop import fit
def step(moment, done):
    print(moment.step, flush=True)
    time.sleep(0.3)
    return {"loss": 0.0}
fit(Run.open(PATH, {}), "s", {}, step, epochs=1, steps_per_epoch=1000, seed=0, quiet=True)
"""


def test_stop_in_a_notebook(tmp_path):
    manager = pytest.importorskip("jupyter_client").manager
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    try:
        asked = client.execute(NOTEBOOK.replace("PATH", repr(str(tmp_path / "run"))))
        while True:
            message = client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") != asked:
                continue
            if message["msg_type"] == "stream" and message["content"]["text"].startswith("0"):
                kernel.interrupt_kernel()
            if message["msg_type"] == "error":
                break
        assert message["content"]["ename"] == "Stopped" and "was interrupted" in message["content"]["evalue"]
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    assert Run.open(tmp_path / "run").status()["open"]["s"]["step"] >= 1
