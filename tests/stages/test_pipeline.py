"""A run belongs to its images: nobody is shown the report of others."""

import multiprocessing
import os
import shutil
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssnas_colab.cli import main
from ssnas_colab.config import default_path, pipeline_config
from ssnas_colab.core.basics import UserError
from ssnas_colab.data import images
from ssnas_colab.experiment.run import Run
from ssnas_colab.stages import pipeline
from ssnas_colab.stages.loader import data_stage, files_stamp, load_data
from ssnas_colab.stages.pipeline import fork_run, known_report, open_with_data, run_pipeline


def pets(path, seed=0, kinds=("cats", "dogs")):
    for number, kind in enumerate(kinds):
        (path / kind).mkdir(parents=True)
        for i in range(6):
            rng = np.random.default_rng(1000 * seed + 100 * number + i)
            Image.fromarray(rng.integers(0, 256, (10, 10), dtype=np.uint8)).save(path / kind / f"{i}.bmp")
    return path


def finished(path, data, **settings):
    "A run as if it were finished, with a report of its own."
    config = pipeline_config(data, **settings)
    run, _ = open_with_data(data, path, config)
    run.save_json("report.json", {"models": {}, "of": str(data)})
    run.save_text("report.md", f"the report of {data}")
    return run


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(data, *more):
    return main(["run", "--data", str(data), *more])


def test_another_sets_report_is_not_shown(here, capsys):
    finished(default_path("A/data"), pets(here / "A" / "data"))
    pets(here / "B" / "data", seed=1)
    assert run_of("A/data") == 0 and "the report of" in capsys.readouterr().out
    assert run_of("B/data") == 2
    said = capsys.readouterr()
    assert "--out" in said.err and "B/data" in said.err and "the report of" not in said.out
    assert run_of("A/data") == 0


def test_the_same_files_elsewhere_are_the_same_images(here, capsys):
    finished(default_path("A/data"), pets(here / "A" / "data"))
    shutil.copytree(here / "A" / "data", here / "B" / "data")
    for path in (here / "B").rglob("*.bmp"):
        os.utime(path, ns=(1, 1))
    assert run_of("B/data") == 0 and "the report of" in capsys.readouterr().out


def test_a_report_is_shown_without_reading_an_image(here, monkeypatch, capsys):
    run = finished(default_path("A/data"), pets(here / "A" / "data"))
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    monkeypatch.setattr(pipeline, "load_data", lambda *given, **more: pytest.fail("read"))
    assert run_of("A/data") == 0
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}


CHANGES = {
    "a class folder renamed": lambda where: (where / "dogs").rename(where / "wolves"),
    "a class folder added": lambda where: pets(where, 7, ["mice"]),
    "an image replaced by another": lambda where: shutil.copy(where / "dogs" / "1.bmp", where / "dogs" / "0.bmp"),
    "an image removed": lambda where: (where / "dogs" / "3.bmp").unlink(),
    "an image added": lambda where: Image.new("L", (10, 10), 3).save(where / "cats" / "new.bmp"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_images_are_seen(here, capsys, change):
    finished(default_path("data"), pets(here / "data"))
    CHANGES[change](here / "data")
    assert run_of("data") == 2 and "--out" in capsys.readouterr().err


def test_other_files_beside_the_images_change_nothing(here):
    finished(default_path("data"), pets(here / "data"))
    (here / "data" / "notes.txt").write_text("fed")
    os.utime(here / "data" / "dogs" / "1.bmp", ns=(1, 1))
    assert run_of("data") == 0


def test_other_images_of_a_table_are_seen(here, capsys):
    for folder, seed in (("one", 0), ("two", 1)):
        pets(here / folder, seed)
    names = [f"{kind}/{i}.bmp" for kind in ("cats", "dogs") for i in range(6)]
    (here / "t.csv").write_text("file,label\n" + "\n".join(f"{name},{name[:3]}" for name in names))
    config = pipeline_config("t.csv")
    run, _ = open_with_data("t.csv", default_path("t.csv"), config, images="one")
    run.save_json("report.json", {"models": {}})
    run.save_text("report.md", "")
    assert run_of("t.csv", "--images", "one") == 0
    assert run_of("t.csv", "--images", "two") == 2
    assert "--out" in capsys.readouterr().err
    with zipfile.ZipFile("one.zip", "w") as archive:
        for path in sorted(Path("one").rglob("*.bmp")):
            archive.write(path, path.relative_to("one"))
    assert run_of("t.csv", "--images", "one.zip") == 0


@pytest.mark.parametrize("number", [2, 5, 12])
def test_a_wish_to_stop_is_no_broken_image(here, monkeypatch, capsys, number):
    "SIGTERM while an image is decoded, where whatever is wrong with one is caught."
    seen, own = [], images.to_rgb

    def to_rgb(*a, **k):
        seen.append(1)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return own(*a, **k)

    monkeypatch.setattr(images, "to_rgb", to_rgb)
    pets(here / "pets")
    command = ["data", "pets", "--out", "run", "--image-size", "8"]
    assert main(command) == 75 and "(SIGTERM): repeat the command" in capsys.readouterr().err
    assert not (here / "run/data.json").exists()
    assert main(command) == 0 and not Run.open(here / "run").load_json("data.json")["set_aside"]


def test_two_image_data_of_one_name(here):
    one, two = (load_data((np.random.default_rng(seed).integers(0, 256, (40, 9, 9), dtype=np.uint8),
                           np.arange(40) % 2)) for seed in (0, 1))  # fmt: skip
    assert default_path(one) == default_path(two)
    finished(default_path(one), one)
    assert run_pipeline(one)["of"] == str(one)
    with pytest.raises(UserError, match="--out"):
        run_pipeline(two)


def test_a_run_that_knows_no_stamp_compares_the_images(here):
    run = finished(here / "run", pets(here / "A" / "data"))
    record = run.load_json("data.json")
    del record["stamp"]
    run.save_json("data.json", record)
    config = pipeline_config(here / "A" / "data")
    assert known_report(run.path, config, 1, here / "A" / "data")
    with pytest.raises(UserError, match="--out"):
        known_report(run.path, config, 1, pets(here / "B" / "data", seed=1))


def forking(old, new, config, barrier, said):
    "What a process does that forks at the same moment as others."
    barrier.wait()
    try:
        said.put(fork_run(old, new, config).load_json("data.json")["name"])
    except BaseException as error:
        said.put(f"{type(error).__name__}: {error}")


def test_of_several_who_fork_at_once_one_does_and_the_others_are_told(here):
    run, _ = open_with_data(pets(here / "data"), here / "old", pipeline_config("data"))
    for i in range(40):
        run.save_json(f"search/{i}.json", i)
    run.finish("search")
    config, forks = pipeline_config("data", evaluation={"depth": 4}), multiprocessing.get_context("fork")
    for turn in range(5):
        barrier, said = forks.Barrier(3), forks.Queue()
        given = run.path, here / f"new {turn}", config, barrier, said
        children = [forks.Process(target=forking, args=given) for _ in range(3)]
        for child in children:
            child.start()
        told = sorted(said.get(timeout=60) for _ in children)
        for child in children:
            child.join()
        assert told.count("data") == 1, told
        refusals = [one for one in told if one != "data"]
        assert all("is being written by" in one or "exists" in one for one in refusals), told
        assert all(one.startswith("UserError") and "\n" not in one for one in refusals), told
        forked = Run.open(here / f"new {turn}", config)
        assert forked.finished("search") and not [*forked.path.rglob("*.partial")]
    assert {path.name for path in here.iterdir()} == {"data", "old", *(f"new {turn}" for turn in range(5))}


def test_what_a_killed_fork_has_left_blocks_no_name(here):
    run, data = open_with_data(pets(here / "data"), here / "old", pipeline_config("data"))
    config = pipeline_config("data", evaluation={"depth": 4})
    for name in ("forked", "begun"):
        half = Run(here / name, {}, 0.0)
        half.save_json("fork.partial", ["data.json", "finished/search.json"])
        half.save_json("finished/search.json", {"stage": "search", "at": 0.0})
        (half.path / "data.json.partial").write_text("{")
        (half.path / "lock.json").touch()
        assert Run.check(half.path, config) is None
    assert not fork_run(run.path, here / "forked", config).finished("search")
    begun, _ = open_with_data(data, here / "begun", config)  # without a fork this time
    assert not begun.finished("search") and not begun.has("fork.partial")
    (here / "mine").mkdir()
    (here / "mine" / "notes.txt").write_text("mine")
    for name, told in (("mine", "holds other files"), ("forked", "exists")):
        with pytest.raises(UserError, match=told):
            fork_run(run.path, here / name, config)
    assert [path.name for path in (here / "mine").iterdir()] == ["notes.txt"]
    (here / "empty").mkdir()
    assert fork_run(run.path, here / "empty", config).has("data.json")


def test_names_need_no_reading():
    assert files_stamp("digits") == files_stamp("Digits") != files_stamp("cifar10") and files_stamp(np.zeros(3)) == ""
    assert files_stamp("https://example.org/x.zip") and files_stamp("no/such/place") == ""


def test_stages_refuse_the_images_of_others(here):
    run = Run.open(here / "run", {"data": "images"})
    data_stage(load_data(pets(here / "A" / "data")), run)
    with pytest.raises(UserError, match="changed"):
        data_stage(load_data(pets(here / "B" / "data", seed=1)), run)


def test_runs_of_version_0_2_see_the_images_that_they_saw(here):
    for number in range(12):
        for i in range(4):
            rng = np.random.default_rng(10 * number + i)
            path = here / "deep" / str(number) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 65536, (20, 30)).astype(np.uint16)).save(path)
    config = pipeline_config("deep", began="0.2.0")["data"]
    assert (config["window"], config["fit"], config["numbers"]) == ("16 bits", "crop", "text")
    data = load_data("deep", **{name: value for name, value in config.items() if name != "source"})
    assert data.class_names == tuple(sorted(map(str, range(12)))) and data.size == (20, 20)
    assert (data.window, data.fit) == ("16 bits", "crop")
    names = sorted(path.relative_to("deep").as_posix() for path in Path("deep").rglob("*.png"))
    for place, image in zip(data.indices["test"], data.images["test"]):
        deep = np.asarray(Image.open(Path("deep") / names[place])).astype(int)[:, 5:25]
        assert (image[0] == (deep + 128) // 257).all()
    assert load_data("deep").class_names == tuple(map(str, range(12)))
