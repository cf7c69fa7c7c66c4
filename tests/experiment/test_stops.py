"""Wherever a run is killed, the same command ends in the files of the run that nobody killed.

A process that is killed leaves what is on the disk at that moment. So one run is enough to stop at every moment that
counts: before each rename and each removal, and half-way through each write, its folder is copied. Then the command is
repeated in each copy. Some copies belong to every test run; `pytest -m soak tests/experiment/test_stops.py` takes all.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssnas_colab.config import pipeline_config
from ssnas_colab.core import files
from ssnas_colab.experiment.run import Run
from ssnas_colab.inference.export import export_run
from ssnas_colab.reports.build import report_view
from ssnas_colab.reports.pages import report_markdown
from ssnas_colab.sessions.session import guard, session
from ssnas_colab.stages.derivation import derive_stage
from ssnas_colab.stages.evaluation import _lend_genotype, evaluate, seed_run
from ssnas_colab.stages.loader import load_data
from ssnas_colab.stages.pipeline import fork_run, run_pipeline
from ssnas_colab.training import loop

from .test_soak import in_halves

pytestmark = pytest.mark.usefixtures("unpainted")
SEARCH = {"width": 2, "depth": 3, "nodes": 1, "batch_size": 16, "steps": 4, "embedding": 8, "warmup": 0.0}
EVALUATION = {
    "pretrain_steps": 2, "finetune_steps": 2, "batch_size": 16, "embedding": 8, "max_parameters": 4_000,
    "random_genotypes": 0, "resnet18": False, "mobilenet": False, "published": (), "equal_macs": (),
}  # fmt: skip
STRATEGY = {"space": "stages", "strategy": "random", "candidates": 2, "score": "parameters", "score_steps": 1}


# Stopping -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stops(folder, into):
    "Context in which a copy of `folder` is made at each stop; gives the list of (what would have come next, the copy)."
    made = []

    def here(what, path):
        path = Path(os.path.abspath(path))
        if path.is_relative_to(folder) and not path.name.startswith((".lock", "lock")):
            copy = into / f"{len(made):04d}"
            shutil.copytree(folder, copy)
            made.append((f"{what} {path.relative_to(folder)}", copy))

    halves = in_halves(lambda path: here("half of", path))

    def before(what, honest):
        def act(path, *more, **options):
            if not options.get("dir_fd"):
                here(what, more[0] if what == "rename to" else path)
            return honest(path, *more, **options)

        return act

    with pytest.MonkeyPatch.context() as patch:
        for name, what in (("replace", "rename to"), ("rename", "rename to"), ("unlink", "removal of")):
            patch.setattr(os, name, before(what, getattr(os, name)))
        patch.setattr(files, "open", lambda path, mode: (halves if "w" in mode else open)(path, mode), raising=False)
        yield made


TIMES = ("seconds", "stage_seconds", "costs", "energy_wh", "latency_ms", "at", "created", "clock")
TIMES += ("version", "versions", "sha256", "bytes")
NOT_COMPARED = ("forecast.json", "energy.json", "manifest.json")  # seconds, joules, names of files with seconds in them


def plain(value):
    "A JSON value without times."
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items() if name not in TIMES}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def bits(value):
    "A state of a checkpoint without times, tensors as bytes, so that == compares bits."
    if isinstance(value, dict):
        return {name: bits(one) for name, one in value.items() if name not in (*TIMES, "facts")}
    if isinstance(value, (list, tuple)):
        return [bits(one) for one in value]
    return value.numpy().tobytes() if hasattr(value, "numpy") else value


def content(folder):
    "What lies in `folder`, by name, without what two runs of the same thing differ in: times, numbers of checkpoints."
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or path.name in NOT_COMPARED or path.name.startswith(("lock", ".lock", "unfinished-")):
            continue
        if path.suffix == ".json":
            found[name] = plain(json.loads(path.read_text()))
        elif path.suffix == ".npz":
            found[name] = {key: array.tobytes() for key, array in np.load(path).items()}
        elif path.suffix == ".pt":
            found.setdefault(f"{path.parent.relative_to(folder)}/*.pt", []).append(path)
        elif path.suffix in (".md", ".html"):
            report = Run.open(path.parent).load_json("report.json")
            assert path.suffix == ".html" or path.read_text() == report_markdown(report_view(report)), name
            found[name] = "of its report"
        else:
            found[name] = path.read_bytes()
    for name, paths in found.items():
        if name.endswith("*.pt"):
            run = next(parent for parent in paths[0].parents if (parent / "run.json").is_file())
            stage = paths[0].parent.relative_to(run / "checkpoints").as_posix()
            found[name] = len(paths), bits(Run.open(run).checkpoints.load(stage)["state"])
    return found


def unlike(one, other):
    "Names of what is not the same in two contents."
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def survived(command, folder, into, again=None, some=None):
    """Run `command` (a function of a folder) in `folder`, and again in what every stop of it leaves; how many stops.

    again: what is done after the stop, and once more after the undisturbed command (None: the command); some: which
    stops, by what would have come next (None: all).
    """
    again = again or command
    with stops(folder, into) as made:
        command(folder)
    again(folder)
    wanted, faults = content(folder), {}
    made = [one for one in made if some is None or one[0] in some]
    assert some is None or len(made) >= len(some), "a stop is missed"
    for what, copy in made:
        try:
            again(copy)
            fault = unlike(content(copy), wanted)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        if fault:
            faults[what] = fault
        shutil.rmtree(copy)
    assert not faults, "\n".join(f"stopped before {what}: {fault}" for what, fault in faults.items())
    return len(made)


# What is stopped ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    "96 made-up images of two classes."
    labels = np.arange(96) % 2
    pixels = np.random.default_rng(0).integers(0, 128, (96, 8, 8)) + 100 * labels[:, None, None]
    return load_data((pixels.astype(np.uint8), labels))


@pytest.fixture(autouse=True)
def often(monkeypatch):
    "A checkpoint after every step."
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)


def whole(data, seeds=1, search=SEARCH, **evaluation):
    "The command that takes a run all the way."
    settings = {"device": "cpu", "search": search, "evaluation": EVALUATION | evaluation}
    return lambda folder: run_pipeline(data, folder / "run", quiet=True, seeds=seeds, **settings)


@pytest.fixture(scope="module")
def finished(data, blank, tmp_path_factory):
    "The folder of a run that nobody stopped."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, file, **how: file.write(blank))
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0)
        folder = tmp_path_factory.mktemp("finished")
        whole(data)(folder)
    return folder


@pytest.fixture(scope="module")
def derived(finished, tmp_path_factory):
    "The folder of a run with a genotype, on which nothing is built yet."
    folder = tmp_path_factory.mktemp("derived")
    shutil.copytree(finished / "run", folder / "run", ignore=shutil.ignore_patterns("report.*", "maps.png", "models"))
    for stage in ("pretrain", "finetune"):
        shutil.rmtree(folder / "run" / "finished" / stage)
    (folder / "run" / "finished" / "evaluation.json").unlink()
    return folder


def derive(**settings):
    "The command that derives a genotype: what was derived with other settings is replaced."

    def command(folder):
        with session(folder / "run") as place:
            derive_stage(guard(Run.open(place)), **settings)

    return command


def lend(data):
    "Evaluate the genotype of a run with a second seed, which takes it over."

    def command(folder):
        with session(folder / "run") as place:
            evaluate(data, guard(Run.open(place)), EVALUATION, seeds=2, quiet=True, device="cpu")

    return command


def lend_alone(folder):
    run = Run.open(folder / "run")
    _lend_genotype(run, seed_run(run, 1))


def exported(folder):
    "The archive of a network; the command refuses to replace a whole one."
    if not (folder / "net.zip").exists():
        export_run(folder / "run", folder / "net.zip", "resnet_small")


def forked(config):
    "A second run that takes over what holds of the first."

    def command(folder):
        if not (folder / "second" / "run.json").exists():
            fork_run(folder / "run", folder / "second", config)
        with Run.open(folder / "second", config).writing():
            pass

    return command


def cached(source):
    "Images of a folder in a file beside the run, where none may be in memory."

    def command(folder):
        found = load_data(source, cache=folder / "run.images", memory_limit=0)
        assert (found.images["train"] == load_data(source).images["train"]).all()

    return command


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    "A folder of twelve images of two classes."
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(12):
        (folder / f"class {i % 2}").mkdir(exist_ok=True)
        pixels = np.arange(9 * i, 9 * i + 100, dtype=np.uint8).reshape(10, 10)
        Image.fromarray(pixels).save(folder / f"class {i % 2}" / f"{i}.bmp")
    return folder


def settings_of(data, **evaluation):
    return pipeline_config(data, device="cpu", search=SEARCH, evaluation=EVALUATION | evaluation)


# Name: what is run, where it begins (a fixture, or nowhere), and what follows the stop, where that is something else.
CASES = {
    "a run": lambda data, _: (whole(data), None),
    "a search by a strategy": lambda data, _: (whole(data, search=STRATEGY), None),
    "rates and a retrained classifier": lambda data, _: (
        whole(data, tune_rates=2, recipe="crt", max_parameters=None, max_macs=100_000), None
    ),
    "a second seed": lambda data, _: (whole(data, 2), "finished"),
    "a second seed that is lent its genotype": lambda data, _: (lend(data), "finished"),
    "the lending alone": lambda *_: (lend_alone, "finished"),
    "another genotype": lambda *_: (derive(method="threshold", threshold=0.01), "derived"),
    "another genotype, and back": lambda *_: (derive(method="threshold", threshold=0.01), "derived", derive()),
    "an export": lambda *_: (exported, "finished"),
    "a fork": lambda data, _: (forked(settings_of(data, depth=4)), "finished"),
    "an image cache": lambda _, pictures: (cached(pictures), None),
}


def stopped(name, folder, request, some=None):
    "How many stops a case survived."
    command, template, *again = CASES[name](*map(request.getfixturevalue, ("data", "pictures")))
    (folder / "straight").mkdir()
    if template:
        shutil.copytree(request.getfixturevalue(template), folder / "straight", dirs_exist_ok=True)
    return survived(command, folder / "straight", folder / "stopped", *again, some=some)


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_every_stop(name, tmp_path, request):
    count = stopped(name, tmp_path, request)
    if log := os.environ.get("SSNAS_STOPS_LOG"):
        known = json.loads(Path(log).read_text()) if Path(log).exists() else {}
        Path(log).write_text(json.dumps(known | {name: count}, indent=1) + "\n")


# Between two files of one stage: each of these once left something else than the undisturbed run.
SOME = {
    "a run": [
        "rename to run/models/resnet_small.json", "rename to run/finished/models/resnet_small.json",
        "removal of run/checkpoints/pretrain/resnet_small/000002.pt", "rename to run/report.json",
    ],
    "the lending alone": ["rename to run/seed_1/search.json", "rename to run/seed_1/genotype.json"],
    "another genotype, and back": ["rename to run/derivation.json", "rename to run/finished/derivation.json"],
    "an export": ["rename to net.zip"],
    "a fork": ["rename to second/finished/search.json", "rename to second/run.json", "removal of second/fork.partial"],
}  # fmt: skip


@pytest.mark.parametrize("name", SOME)
def test_stops_between_two_files(name, tmp_path, request):
    assert stopped(name, tmp_path, request, SOME[name]) == len(SOME[name])


def test_a_missing_file_and_a_flipped_bit_are_seen(finished, tmp_path):
    "The comparisons above would pass of anything if `content` saw nothing."
    shutil.copytree(finished, tmp_path / "other")
    run = Run.open(tmp_path / "other" / "run")
    state = run.checkpoints.load("models/searched")["state"]
    assert not unlike(content(tmp_path / "other"), content(finished))
    next(iter(state["model"].values())).view(torch.int32).view(-1)[0] ^= 1
    run.checkpoints.save("models/searched", state, epoch=0, step=0)
    run.checkpoints.drop("models/searched", keep=1)
    run.remove("maps.png")
    assert unlike(content(tmp_path / "other"), content(finished)) == [
        "run/checkpoints/models/searched/*.pt", "run/maps.png"
    ]  # fmt: skip
