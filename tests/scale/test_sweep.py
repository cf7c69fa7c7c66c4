"Many runs: what a sweep refuses, what it does about trials that fail or are stopped, and that Ray changes no bit."

import json
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssnas_colab.cli import main
from ssnas_colab.experiment.interrupts import Stopped
from ssnas_colab.scale.sweep import make_trials, sweep


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--data digits digits", "digits twice"),
        ("--per-trial cpu=half", "what a trial may use"),
        ("--engine slurm", "local or ray"),
        ("--address 127.0.0.1:9", "--engine ray"),
        ("--engine ray --address 127.0.0.1:9", "No cluster answers"),
        ("--per-trial gpu=1", "--engine ray"),
        ("--seeds 0", "seeds"),
        ("--retries many", "--retries"),
        ("--strategy evolutoin", "evolution"),
        ("--strategy evolution --space cells stages --relaxation fair", "relaxation"),
        ("--preset nope", "preset"),
        ("--set search.wdith=3", "width"),
        ("--dry-run", "--dry-run counts for nothing in a sweep"),
        ("--fork other", "--fork counts for nothing in a sweep"),
        ("somewhere", "--out"),
        ("--time-budget soon", "not a time"),
        ("--nonsense 3", "--nonsense"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_first_trial(given, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "--engine ray" in given:
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'ssnas_colab[ray]'")
    code = main(["sweep", *given.split()])
    out, err = capsys.readouterr()
    assert code == 2 and err.startswith("ssnas: ") and err.count("\n") == 1 and said in err, err
    assert not out and not list(tmp_path.rglob("*.log"))


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    "An `ssnas` that does what the name of its data set says."
    script = tmp_path / "python"
    script.write_text(
        '#!/bin/sh\ntrap "echo asked to end; exit 75" TERM\n'
        'case "$*" in\n  *good*) echo well; exit 0;;\n  *bad*) echo badly; exit 2;;\n'
        f"  *shaky*) [ -e {tmp_path}/seen ] && exit 0; touch {tmp_path}/seen; kill -9 $$;;\n"
        "  *long*) while true; do sleep 0.1; done;;\nesac\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_what_fails_is_tried_again_and_named(stand_in, tmp_path):
    said = []
    rows = sweep(make_trials({"data": ["good", "bad", "shaky"]}, out=tmp_path), tmp_path, say=said.append)
    assert [(row["name"], row["code"], row["attempts"]) for row in rows] == [
        ("good", 0, 1), ("bad", 2, 3), ("shaky", 0, 2)
    ]  # fmt: skip
    assert rows[1]["said"] == "badly" and json.loads((tmp_path / "sweep.json").read_text()) == rows
    assert (tmp_path / "bad.log").read_text() == "badly\n" * 3 and any("bad: failed (code 2)" in one for one in said)


@pytest.mark.parametrize("how", ["a signal", "a budget"])
def test_a_sweep_that_is_stopped_stops_its_trial_and_begins_no_other(how, stand_in, tmp_path):
    trials = make_trials({"data": ["good", "long", "good2"]}, out=tmp_path)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    if how == "a budget":  # by which the trial ends itself: here nothing is left of it
        with pytest.raises(Stopped, match="3 of 3 trials unfinished because the time was up"):
            sweep(trials, tmp_path, time_budget="0.5s")
        assert not list(tmp_path.glob("*.log"))
        return
    timer.start()
    with pytest.raises(Stopped, match="2 of 3 trials unfinished because the system asked it to end"):
        sweep(trials, tmp_path)
    rows = json.loads((tmp_path / "sweep.json").read_text())
    assert [row["code"] for row in rows] == [0, 75, None] and (tmp_path / "long.log").read_text() == "asked to end\n"


def test_a_sweep_that_is_stopped_leaves_its_tables_at_its_address(stand_in, tmp_path, monkeypatch, capsys):
    "After each trial, as Markdown, JSON and a page, with what the trials have said."
    far, script = tmp_path / "far", tmp_path / "python"
    made = Path(__file__).parents[2] / "nbs/research/does_it_hold/covid/report.json"
    copies = f"mkdir -p {far}/good && cp {made} {far}/good/report.json"
    script.write_text(script.read_text().replace("echo well;", f"{copies}; echo well;"))
    monkeypatch.setenv("SSNAS_LOCAL", str(tmp_path / "near"))
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    code = main(["sweep", "--data", "good", "bad", "long", "late", "--retries", "0", "--out", f"file://{far}"])
    told = capsys.readouterr()
    assert code == 75 and "2 of 4 trials unfinished" in told.err and told.err.count("\n") == 1
    found = {path.name for path in far.iterdir()}
    tables = {"sweep.json", "compare.json", "compare.md", "compare.html"}
    assert found == tables | {"good", "good.log", "bad.log", "long.log"}
    facts = json.loads((far / "compare.json").read_text())
    assert [row["code"] for row in facts["trials"]] == [0, 2, 75, None] and list(facts["runs"]) == ["good"]
    page = (far / "compare.html").read_text()
    assert "A sweep of 4 trials" in page and '<a href="good/report.html">good</a>' in page and "failed (code 2)" in page
    assert "not begun" in page and "badly" in page and "covid" in (far / "compare.md").read_text().lower()


def test_what_cannot_be_uploaded_in_between_is_told_and_at_the_end_an_error(stand_in, tmp_path, monkeypatch, capsys):
    (tmp_path / "far").write_text("a file in the way")
    monkeypatch.setenv("SSNAS_LOCAL", str(tmp_path / "near"))
    code = main(["sweep", "--data", "good", "good2", "--out", f"file://{tmp_path}/far"])
    told = capsys.readouterr()
    assert code == 2 and told.err.count("\n") == 1 and told.out.count("The tables are not kept for now") == 2, told
    assert "2 of 2 are done" in told.out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    "64 images without labels, so that a run ends with a genotype."
    folder = tmp_path_factory.mktemp("pictures")
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (64, 8, 8), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def swept(pictures, out, *how):
    "The results of two trials by the command."
    few = "--seeds 2 --candidates 2 --score barlow_twins --score-steps 1 --max-parameters 8000 --device cpu"
    few += " --space cells --strategy random --set search.depth=3 --set search.nodes=1"
    assert main(["sweep", "--data", str(pictures), "--out", str(out), *few.split(), *how]) == 0
    rows = json.loads((out / "sweep.json").read_text())
    assert [(row["name"], row["code"], row["attempts"]) for row in rows] == [("seed0", 0, 1), ("seed1", 0, 1)]
    found = {}
    for name in ("seed0", "seed1"):
        searched = json.loads((out / name / "search.json").read_text())
        found[name] = [(row["genotype"], row["score"]) for row in searched["candidates"]], searched["pick"]
        assert json.loads((out / name / "run.json").read_text())["machine"]["threads"] == 1
    return found


def test_ray_changes_no_bit(pictures, tmp_path, ray_here):
    here = swept(pictures, tmp_path / "here", "--per-trial", "cpu=1")
    by_ray = swept(pictures, tmp_path / "ray", "--engine", "ray", "--per-trial", "cpu=1")
    assert here == by_ray and here["seed0"] != here["seed1"]
