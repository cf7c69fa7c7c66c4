"""The `ssnas` command as a person types it: exit codes, sentences, and nothing overwritten."""

import errno
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ssnas_colab
from ssnas_colab.cli import EXIT_CODES, command_parser, main
from ssnas_colab.config import (
    PRESETS,
    EvaluationConfig,
    SearchConfig,
    evaluation_config,
    fields_of,
    search_config,
)
from ssnas_colab.core.basics import Diverged, UserError
from ssnas_colab.experiment.interrupts import Stopped
from ssnas_colab.models.genotype import GENOTYPES, PUBLISHED_SIZES, load_genotype
from ssnas_colab.models.network import Network, count_macs, count_parameters


def picture(size=(16, 16), mode="RGB", seed=0):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    array = np.random.default_rng(seed).integers(0, 256, (*size[::-1], *channels), dtype=np.uint8)
    return Image.fromarray(array, mode)


def folder_of(path, counts, **kwargs):
    for number, (name, count) in enumerate(counts.items()):
        (path / name).mkdir(parents=True)
        for i in range(count):
            picture(seed=100 * number + i, **kwargs).save(path / name / f"{i}.png")
    return path


@pytest.fixture
def say(capsys, tmp_path):
    "Run the command; the exit code and what it said on standard error."

    def run(*arguments):
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return code, capsys.readouterr().err

    return run


def one_sentence(said, *words):
    assert said.startswith("ssnas: ") and said.count("\n") == 1 and "Traceback" not in said, said
    for word in words:
        assert word in said, said


def bad_inputs(tmp_path):
    yield "a missing path", ["--data", tmp_path / "missing.zip"], "missing.zip"
    (tmp_path / "empty").mkdir()
    yield "an empty folder", ["--data", tmp_path / "empty"], "empty"
    yield "one class", ["--data", folder_of(tmp_path / "one", {"cats": 6})], "cats"
    yield "a class too small to split", ["--data", folder_of(tmp_path / "few", {"cats": 9, "dogs": 1})], "dogs"
    np.savez(tmp_path / "odd.npz", pictures=np.zeros((3, 8, 8), np.uint8))
    yield "an npz without the keys", ["--data", tmp_path / "odd.npz"], "train_images"
    (tmp_path / "broken.npz").write_bytes(b"not an archive")
    yield "a broken npz", ["--data", tmp_path / "broken.npz"], "broken.npz"
    (tmp_path / "broken.zip").write_bytes(b"PK not an archive")
    yield "a broken zip", ["--data", tmp_path / "broken.zip"], "broken.zip"
    yield "an unknown name", ["--data", "cifar01"], "cifar10"
    yield "an imbalance factor below 1", ["--imbalance-factor", "0.5"], "0.5"
    yield "an image size of nothing", ["--image-size", "0"], "0"
    buffer = io.BytesIO()
    picture().save(buffer, "png")
    with zipfile.ZipFile(tmp_path / "climbs.zip", "w") as archive:
        archive.writestr("cats/../../evil.png", buffer.getvalue())
    yield "a zip that climbs out", ["--data", tmp_path / "climbs.zip"], "climbs.zip"


def test_bad_input_is_one_sentence_and_leaves_nothing(say, tmp_path):
    for what, arguments, word in bad_inputs(tmp_path):
        code, said = say("run", *arguments, "--out", tmp_path / "out")
        assert code == 2, what
        one_sentence(said, word)
        assert not (tmp_path / "out").exists(), what


def test_other_settings_are_refused_and_nothing_changes(say, tmp_path):
    data = folder_of(tmp_path / "pictures", {"cats": 12, "dogs": 7})
    assert say("data", "--data", data, "--out", tmp_path / "out")[0] == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()}
    assert "class_counts.png" in before
    code, said = say("run", "--data", data, "--out", tmp_path / "out", "--seed", "3")
    assert code == 2
    one_sentence(said, "seed: 0 -> 3")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()} == before


def test_changed_images_are_refused(say, tmp_path):
    data = folder_of(tmp_path / "pictures", {"cats": 12, "dogs": 7})
    assert say("data", "--data", data, "--out", tmp_path / "out")[0] == 0
    picture(seed=99).save(data / "cats" / "0.png")
    code, said = say("search", "--data", data, "--out", tmp_path / "out")
    assert code == 2
    one_sentence(said, "changed")


def test_somebody_elses_folder_is_left_alone(say, tmp_path):
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "monday.txt").write_text("dear diary")
    code, said = say("run", "--out", tmp_path / "diary")
    assert code == 2
    one_sentence(said, "diary")
    assert [p.name for p in (tmp_path / "diary").iterdir()] == ["monday.txt"]


def test_mixed_sizes_and_modes_and_a_broken_image(say, capsys, tmp_path):
    data = folder_of(tmp_path / "pictures", {"cats": 30, "dogs": 25})
    picture((40, 20), "RGBA").save(data / "cats" / "wide.png")
    picture((20, 40), "L").save(data / "dogs" / "tall.png")
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 100).save(data / "dogs" / "deep.png")
    whole = (data / "cats" / "wide.png").read_bytes()
    (data / "cats" / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert main(["data", "--data", str(data)]) == 0
    said = capsys.readouterr().out
    assert "cut.png" in said and "monday" not in said


def test_show_and_status(say, tmp_path, capsys):
    assert main(["show", "DARTS_V2", "--png", str(tmp_path / "cell.png")]) == 0
    assert "sep_conv_3x3" in capsys.readouterr().out and (tmp_path / "cell.png").stat().st_size > 1000
    (tmp_path / "g.json").write_text('{"normal": [["skip", 0, 2]]}')
    one_sentence(say("show", tmp_path / "g.json")[1], "g.json")
    one_sentence(say("status", tmp_path / "nowhere")[1], "nowhere")


def test_a_reader_that_has_seen_enough_is_no_mistake():
    code = "import sys; from ssnas_colab.cli import main; sys.exit(main(['show', 'DARTS_V2']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # as `head` does
        said = process.stderr.read().decode()
    assert "Traceback" not in said and "BrokenPipe" not in said and process.returncode == 0


def told(capsys, *arguments):
    "The one JSON document that the command prints."
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_time_budget_ends_with_75_and_the_same_command_goes_on(say, capsys, tmp_path, unpainted):
    arguments = ["search", tmp_path / "run", "--quiet", "--device", "cpu", "--set", "search.width=2"]
    for setting in ("depth=3", "nodes=2", "steps=25", "embedding=16"):
        arguments += ["--set", f"search.{setting}"]
    code, said = say(*arguments, "--time-budget", "1s")
    assert code == 75 and not (tmp_path / "run" / "search.json").exists()
    one_sentence(said, "time budget", "repeat the command")
    assert told(capsys, "status", tmp_path / "run")["next"].startswith("search")  # perhaps before its first step
    assert say(*arguments)[0] == 0 and (tmp_path / "run" / "search.json").is_file()
    one_sentence(say(*arguments, "--time-budget", "soon")[1], "soon")
    assert say("derive", tmp_path / "run")[0] == 0
    status = told(capsys, "status", tmp_path / "run")
    assert status["next"] == "evaluation" and status["report"] is None and status["genotype"].endswith("genotype.json")
    shown = told(capsys, "show", tmp_path / "run")
    net = Network(load_genotype(tmp_path / "run"), 10, in_channels=1, depth=3, width=shown["network"]["width"])
    assert shown["network"]["parameters"] == count_parameters(net) <= 413_850 and shown["search"] is None
    assert shown["network"]["macs"] == count_macs(net, (1, 8, 8)) and shown["network"]["size"] == [8, 8]


def test_a_setting_by_name_and_a_wrong_one(say, tmp_path):
    one_sentence(say("search", "--set", "search.widht=3", "--out", tmp_path / "run")[1], "widht", "width")
    one_sentence(say("search", "--set", "width=3", "--out", tmp_path / "run")[1], "search.NAME=VALUE")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--loss", "foo"], ["foo", "focal"]),
        (["--loss", "cros_entropy"], ["cros_entropy", "'cross_entropy'"]),
        (["--set", "evaluation.finetune_rate=lots"], ["finetune_rate", "lots", "a number"]),
        (["--set", "evaluation.finetune_steps=0"], ["finetune_steps", "0", "1"]),
        (["--set", "search.steps=1e400"], ["steps"]),
        (["--set", "evaluation.published=SNASS"], ["SNASS", "'SNAS'"]),
        (["--relaxation", "far"], ["far", "'fair'"]),
        (["--sampler", "even"], ["even", "class_balanced"]),
        (["--preset", "quik"], ["quik", "'quick'"]),
        (["--profile", "linear"], ["linear", "exp"]),
        (["--seed", "one"], ["seed", "one", "whole number"]),
        (["--seeds", "0"], ["seeds", "0"]),
        (["--image-size", "4"], ["image_size", "4", "8"]),
        (["--time-budget", "soon"], ["soon"]),
        (["--widht", "3"], ["--widht", "--help"]),
    ],
    ids=lambda one: one[-1] if isinstance(one, list) else None,
)
def test_a_wrong_setting_is_refused_before_anything_is_read_or_written(say, tmp_path, monkeypatch, arguments, words):
    monkeypatch.setattr("ssnas_colab.stages.pipeline.load_data", lambda *_, **__: pytest.fail("images were read"))
    monkeypatch.setattr("ssnas_colab.stages.loader.load_data", lambda *_, **__: pytest.fail("images were read"))
    code, said = say("run", *arguments, "--out", tmp_path / "run")
    assert code == 2 and not (tmp_path / "run").exists()
    one_sentence(said, *words)


def test_a_loss_for_other_data_is_refused_before_the_search(say, tmp_path):
    code, said = say("run", "--loss", "asymmetric", "--out", tmp_path / "run")
    assert code == 2 and not (tmp_path / "run").exists()
    one_sentence(said, "asymmetric", "single-label", "focal")


def test_every_way_to_call_it_returns_a_code(capsys):
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"ssnas {ssnas_colab.__version__}\n"
    assert main([]) == 0
    told = capsys.readouterr().out
    assert main(["--help"]) == 0 and capsys.readouterr().out == told and "compare" in told
    for command in "run data search derive evaluate show status compare predict test export".split():
        assert main([command, "--help"]) == 0 and f"ssnas {command}" in capsys.readouterr().out
    for wrong in (["serach"], ["show"], ["--nonsense"], ["compare"], ["derive", "x", "--threshold", "high"]):
        assert main(wrong) == 2
        one_sentence(capsys.readouterr().err, "--help")


# What a user can mistype, paste or leave behind: as a value of any option, and in the place of any argument.
BAD = [
    "", "0", "-1", "nan", "-inf", "1e309", "9" * 5000, "\x1b[31mred", "\udcff", "a\nb", "x" * 300, "[[[", "%s", "💥",
    "/dev/null", "/dev/null/x", ".", "..", "deep.json", "list.json", "number.json", "huge.json", "nothing", "finished",
    r"$\frac{$", "x.txt", ":", "os:system", "1,2", "١",
]  # fmt: skip
NAMED = {
    "run": [], "data": ["--data=pictures"], "search": [], "derive": ["search_sampled"], "evaluate": [],
    "show": ["finished"], "status": ["finished"], "compare": ["finished"], "predict": ["finished", "pictures"],
    "test": ["finished", "pictures"], "export": ["finished", "x.zip"], "push": ["finished", "me/x", "--dry-run=pushed"],
    "sweep": [],
}  # fmt: skip


def every_bad_command():
    "All subcommands with each bad value for each option, each setting and each argument."
    subcommands = next(action for action in command_parser()._actions if action.choices)
    for name, parser in subcommands.choices.items():
        arguments = [action for action in parser._actions if not action.option_strings]
        for action in parser._actions:
            options = [f"{action.option_strings[0]}="] if action.option_strings and action.nargs != 0 else []
            if options == ["--set="]:
                stages = {"search": SearchConfig, "evaluation": EvaluationConfig}
                options += [f"--set={stage}.{field}=" for stage, kind in stages.items() for field in fields_of(kind)]
            for bad in BAD:
                yield from ([name, *NAMED[name], option + bad] for option in options)
                if not action.option_strings:
                    given, place = [*NAMED[name]], arguments.index(action)
                    given[place : place + 1] = [bad]
                    yield [name, *given]


class Accepted(UserError):
    "Raised where images would be read, so that what is accepted costs no time."


@pytest.mark.parametrize("share", [30, pytest.param(1, marks=pytest.mark.soak)])
def test_whatever_is_given_to_an_option_is_one_sentence_or_an_answer(share, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with tarfile.open(Path(__file__).parent / "data/v0.1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    folder_of(tmp_path / "pictures", {"cats": 8, "dogs": 5})
    for name, text in (("deep", "[" * 100_000), ("list", "[]"), ("number", "1"), ("huge", '{"models": {"a": 1e999}}')):
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "nothing").write_bytes(b"\0" * 100)
    kept = set(tmp_path.iterdir())

    def accepted(*_, **__):
        raise Accepted("accepted")

    monkeypatch.setattr("ssnas_colab.stages.pipeline.open_with_data", accepted)
    monkeypatch.setattr("ssnas_colab.scale.sweep.sweep", accepted)
    commands = [one for one in every_bad_command() if share == 1 or zlib.crc32(repr(one).encode()) % share == 0]
    assert len(commands) > 5_000 / share
    before = {path.name for path in Path(tempfile.gettempdir()).glob("ssnas-*.txt")}
    for given in commands:
        begin = time.monotonic()
        code = main(given)
        out, err = capsys.readouterr()
        what = [one[:60] for one in given], code, err[:300]
        assert code in (0, 2) and time.monotonic() - begin < 10, what
        told = [line for line in err.splitlines() if not line.startswith("ssnas: warning: ")]
        assert [line for line in told if line.startswith("ssnas: ")] == told and len(told) == (code == 2), what
        assert len(err) < 5_000 and all(one.isprintable() or one == "\n" for one in out + err), what
        for made in set(tmp_path.iterdir()) - kept:
            shutil.rmtree(made) if made.is_dir() else made.unlink()
    assert {path.name for path in Path(tempfile.gettempdir()).glob("ssnas-*.txt")} == before


def test_a_name_that_the_user_gave_cannot_move_the_cursor(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tarfile.open(Path(__file__).parent / "data/v0.1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    folder_of(tmp_path / "pictures", {"cats": 2})
    for command in ("predict finished pictures --out", "export finished"):
        code, said = main([*command.split(), "\x1b[31mred.zip"]), capsys.readouterr().out
        assert code == 0 and "\\x1b[31mred.zip" in said and said.replace("\n", "").isprintable(), said
        (tmp_path / "\x1b[31mred.zip").unlink()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_fault_in_a_persons_own_code_is_said_to_be_there(say, monkeypatch, tmp_path, processes):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "def score(held):\n    raise ZeroDivisionError('a score of mine')\n"
    (tmp_path / f"my_faulty_{processes}.py").write_text(text)
    command = ["--candidates", "2", "--score", f"my_faulty_{processes}:score", "--set", f"search.processes={processes}"]
    code, said = say("search", tmp_path / "run", *command, "--device", "cpu", "--quiet")
    assert code == 70
    one_sentence(said, f"a fault of the file my_faulty_{processes}.py", "ZeroDivisionError: a score of mine")


def test_a_fault_of_ours_is_one_line_and_its_traceback_is_kept(say, monkeypatch, tmp_path):
    made = {}
    exec(compile("def broken(*_): raise ZeroDivisionError('two\\nlines')", ssnas_colab.__file__, "exec"), made)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("ssnas_colab.experiment.run.Run.open", made["broken"])
    code, said = say("status", tmp_path)
    assert code == 70
    one_sentence(said, "fault of ssnas itself", "ZeroDivisionError: two lines")
    [kept] = tmp_path.glob("ssnas-*.txt")
    assert str(kept) in said and "in broken" in kept.read_text() and ssnas_colab.__version__ in kept.read_text()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    code, said = say("status", tmp_path)
    assert code == 70 and "in broken" in said and said.splitlines()[-1].endswith("its traceback is above")


@pytest.mark.parametrize(
    "error, code, words",
    [
        (Diverged("finetune: loss is not finite in epoch 3"), 1, "epoch 3"),
        (Stopped("the time is up"), 75, "time is up"),
        (KeyboardInterrupt(), 130, "last checkpoint"),
        (MemoryError(), 2, "memory did not suffice"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"), 2, "memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/digits"), 2, "/runs/digits: No space left"),
        (RuntimeError("a shape that does not fit"), 70, "RuntimeError"),
    ],
)
def test_each_end_has_its_code(say, monkeypatch, tmp_path, error, code, words):
    def ends(*_):
        raise error

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("ssnas_colab.experiment.run.Run.open", ends)
    found, said = say("status", tmp_path)
    assert found == code and code in EXIT_CODES
    one_sentence(said, words)


def options_in(capsys, command):
    "The options that a command's help lists."
    capsys.readouterr()
    assert main([command, "--help"]) == 0
    return set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.M))


def test_help_says_what_the_presets_say(capsys):
    assert main(["run", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    told = {name: ", ".join(f"{preset} {getattr(search_config(preset), name)}" for preset in presets)
            for name, presets in {"space": PRESETS, "candidates": ("quick", "cpu", "colab")}.items()}  # fmt: skip
    assert all(f"default: {text})" in said for text in told.values())
    assert f"default: quick {evaluation_config('quick').max_macs}, cpu" in said and "default: pad)" in said


def test_each_help_lists_only_what_counts_there(capsys):
    run, data, search, evaluate = (options_in(capsys, name) for name in ("run", "data", "search", "evaluate"))
    budgets = {"--max-parameters", "--max-macs", "--max-latency", "--max-memory"}
    of_search = {"--space", "--strategy", "--relaxation", "--objective", "--candidates", "--score", "--score-steps"}
    of_evaluation = {"--recipe", "--loss", "--sampler", "--tune-rates"} | budgets
    assert run & (of_search | of_evaluation) == of_search | of_evaluation and "--imbalance-factor" in data
    assert not data & (of_search | of_evaluation | {"--preset", "--set", "--device", "--fork", "--quiet"})
    assert search & (of_search | of_evaluation) == of_search | budgets
    assert evaluate & (of_search | of_evaluation) == of_evaluation


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["data", "--loss", "focal"], ["--loss counts for nothing where no run is kept"]),
        (["data", "--quiet"], ["--quiet"]),
        (["search", "--dry-run", "--loss", "focal"], ["--loss counts for nothing in a dry run"]),
        (["search", "--space", "cells", "--dry-run", "--max-macs", "100000"], ["--max-macs"]),
        (["search", "--space", "cells", "--score-steps", "3"], ["score_steps", "a relaxation has none"]),
        (["search", "--strategy", "random", "--relaxation", "fair"], ["relaxation fair", "strategy random"]),
        (["search", "--json"], ["--json", "--dry-run"]),
        (["run", "--json"], ["--json", "--dry-run"]),
        (["run", "here", "--out", "there"], ["here", "there", "name it once"]),
    ],
)
def test_an_option_that_counts_for_nothing_is_refused(say, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, said = say(*arguments)
    assert code == 2 and not [*tmp_path.iterdir()]
    one_sentence(said, *words)


def test_what_is_shown_is_to_be_had_as_one_document(say, capsys, tmp_path):
    shown = told(capsys, "show", "DARTS_V2")
    assert shown["text"] == str(GENOTYPES["DARTS_V2"]) and shown["report"] is None and shown["search"] is None
    assert (shown["network"]["parameters"], shown["network"]["macs"]) == PUBLISHED_SIZES["DARTS_V2"]
    network = told(capsys, "show", "resnet18")["network"]
    assert (network["parameters"], network["width"], network["depth"]) == (11_173_962, 64, 8)  # as published
    assert told(capsys, "data")["class_names"] == list("0123456789")
    assert told(capsys, "search", "--dry-run", "--set", "search.steps=4", "--device", "cpu")["seconds"] > 0
    runs = Path(__file__).parents[1] / "nbs/research/does_it_hold"
    names = [str(runs / name / "report.json") for name in ("cifar10_lt100", "covid")]
    compared = told(capsys, "compare", *names)
    assert compared[names[0]]["seeds"] == [0, 1, 2] and compared[names[0]]["models"]["searched"]["parameters"] > 0
    words = {name: found["searched_is"] for name, found in compared[names[0]]["differences"].items()}
    assert words["resnet18"] == "better" and words["random"] == "cannot be told apart"


def test_a_comparison_is_to_be_had_as_a_page(say, capsys, tmp_path):
    runs = Path(__file__).parents[1] / "nbs/research/does_it_hold"
    names = [str(runs / name / "report.json") for name in ("cifar10_lt100", "covid")]
    assert main(["compare", *names, "--page", str(tmp_path / "both.html")]) == 0
    page, text = (tmp_path / "both.html").read_text(), capsys.readouterr().out
    assert page.count("<table") == text.count("\n| :--") and page.startswith("<!DOCTYPE html>") and "both.html" in text
    one_sentence(say("compare", *names, "--page", tmp_path / "both.html")[1], "both.html exists")
    one_sentence(say("compare", *names, "--page", tmp_path / "both.txt")[1], ".html")


def test_it_starts_without_the_heavy_libraries(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"config": {"seed": 0}, "created": 0}')
    for arguments in (
        ["--help"],
        ["--version"],
        ["show", "DARTS_V2"],
        ["status", str(tmp_path / "run")],
        ["run", "--loss", "foo"],
    ):
        code = f"import sys; from ssnas_colab.cli import main; code = main({arguments!r}); "
        code += "sys.exit(sorted({'torch', 'sklearn', 'matplotlib', 'torchvision'} & set(sys.modules)) or None)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, (arguments, done.stderr)


def test_python_m_is_the_same_command():
    call = [sys.executable, "-m", "ssnas_colab", "show", "nothing"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    one_sentence(done.stderr, "nothing", "DARTS_V2")


def test_a_run_that_another_session_writes_is_refused(say, tmp_path):
    hold = "import sys; from ssnas_colab.sessions.session import session\n"
    hold += "with session(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    arguments = [sys.executable, "-c", hold, tmp_path / "run"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        code, said = say("data", "--out", tmp_path / "run")
        process.stdin.close()
    assert code == 2
    one_sentence(said, "is being written by", "s ago")
    assert say("data", "--out", tmp_path / "run")[0] == 0


def test_dry_run_tells_of_all_stages_and_writes_nothing(say, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = ["random_genotypes=0", "resnet18=false", "mobilenet=false", "equal_macs=[]", "max_parameters=8000"]
    few = ["--set=search.candidates=2", "--set=search.score_steps=1", *(f"--set=evaluation.{name}" for name in few)]
    shown = {}
    for name, kinds in (("labelled", {"cats": 12, "dogs": 12}), ("flat", {"": 12})):
        folder_of(tmp_path / name, kinds, size=(8, 8))
        before = sorted(tmp_path.rglob("*"))
        assert main(["run", "--data", name, "--dry-run", *few]) == 0
        shown[name] = capsys.readouterr().out
        assert sorted(tmp_path.rglob("*")) == before
    for word in ("On ", "search", "pretrain", "finetune", "evaluation", "GB are free"):
        assert word in shown["labelled"]
    assert "search" in shown["flat"] and "pretrain" not in shown["flat"]
    facts = told(capsys, "run", "--data", "labelled", "--dry-run", *few)
    assert facts["seconds"] == pytest.approx(sum(facts["stages"].values())) and facts["memory"]["searched"] > 0
