"""The notebooks as Colab runs them: *Run all* in a kernel that has a stand-in for `google.colab` (tests/colab).

The kernel's environment has Colab's versions of IPython, ipywidgets and numpy, and not the package: the notebooks'
own install cell brings it. By default those that a stranger opens are run in order, by a preset that is smaller still.
`pytest -m colab tests/sessions` takes the preset as it is, each notebook alone in a clean environment, kills and time
budgets: some minutes. SSNAS_COLAB_PYTHON names another clean interpreter for it (Colab's own torch, say, which then
installs from the index what it lacks), SSNAS_COLAB_TIMES a file for the seconds of each notebook.
"""

import json
import os
import shutil
import signal
import subprocess
import threading
import time

import nbformat
import numpy as np
import pytest
from clean import ROOT, SETTINGS, CleanEnvironment, make_repository
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from ssnas_colab.experiment.run import Run
from ssnas_colab.sessions.colab import colab_link
from ssnas_colab.stages.pipeline import pipeline_config

STAGES = ["01_loader", "02_search", "03_derivation", "04_evaluation"]
EVERY = [*STAGES, "05_explorer", "06_pipeline", "07_cli", "index"]
FIELDS = ["DATA", "IMBALANCE_FACTOR", "PRESET", "SEED", "TIME_BUDGET", "DRIVE_FOLDER", "REPOSITORY"]
COLABS = ["ipywidgets==7.7.1", "ipython==7.34.0", "numpy==2.1.3", "ipykernel==6.29.5", "jupyter_client<8"]
SMALLER = """from ssnas_colab.config import EVALUATION_PRESETS, SEARCH_PRESETS
SEARCH_PRESETS["quick"] |= {"candidates": 2, "score_steps": 1}
small = {"max_parameters": 4_000, "pretrain_steps": 2, "finetune_steps": 2, "random_genotypes": 0}
EVALUATION_PRESETS["quick"] |= small | {"resnet18": False, "mobilenet": False, "equal_macs": ()}"""


def read(name):
    return nbformat.read(ROOT / "nbs" / f"{name}.ipynb", as_version=4)


def notebook(*sources):
    "A notebook of these code cells."
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    made.metadata["kernelspec"] = {"name": "colab", "display_name": "Colab", "language": "python"}
    return made


def shown(made):
    "All that the cells of a notebook have put out, as one text."
    outputs = [output for cell in made.cells for output in cell.get("outputs", [])]
    return "\n".join(str(o.get("text", "")) + "\n".join(map(str, o.get("data", {}).values())) for o in outputs)


class Machine:
    "A machine of Colab's: its own disk, a Google Drive that stays, and a `CleanEnvironment`."

    def __init__(self, folder, clean):
        self.drive, self.calls, self.content = folder / "drive", folder / "calls", folder / "content"
        self.run, self.kernel = self.drive / "MyDrive/ssnas_colab/digits", None
        self.content.mkdir(parents=True)
        self.paths = folder / "jupyter"
        spec = self.paths / "kernels/colab/kernel.json"
        spec.parent.mkdir(parents=True)
        places = {"SSNAS_COLAB_DRIVE": str(self.drive), "SSNAS_COLAB_CALLS": str(self.calls)}
        places["SSNAS_LOCAL"] = str(self.content / "ssnas_runs")  # Colab's own disk
        places |= clean.environment | {"PYTHONPATH": str(ROOT / "tests/colab")}
        argv = [str(clean.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        named = {"display_name": "Colab", "language": "python"}
        spec.write_text(json.dumps({"argv": argv, "env": places, **named}))

    def run_all(self, made, meanwhile=None):
        "Run a notebook from top to bottom; meanwhile: a function that is given the kernel's process id, in a thread."
        client = NotebookClient(
            made, timeout=1800, kernel_name="colab", resources={"metadata": {"path": str(self.content)}}
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JUPYTER_PATH", str(self.paths))
            for name in ("SSNAS_RUNS", "IN_TEST", "SSNAS_TEST_DATA", "MPLBACKEND"):
                patch.delenv(name, raising=False)
            if meanwhile:
                client.on_notebook_start = lambda **_: threading.Thread(
                    target=meanwhile, args=(client.km.provisioner.pid,), daemon=True
                ).start()
            client.execute()
        return made

    def called(self):
        return self.calls.read_text().splitlines() if self.calls.is_file() else []


# The heads of the notebooks


@pytest.mark.parametrize("name", [*STAGES, "index"])
def test_head(name):
    cells = read(name).cells
    badge = "![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)"
    assert f"[{badge}]({colab_link(name)})" in cells[0].source
    codes = [cell for cell in cells if cell.cell_type == "code"]
    form, install = codes[:2]
    assert form.metadata.get("cellView") == "form" and form.source.startswith("#@title")
    fields = [line.split("=")[0].strip() for line in form.source.splitlines() if "#@param" in line]
    assert fields == FIELDS + ["DEMONSTRATIONS"] * (name in STAGES)
    assert install.source.startswith("#@title Install")
    used = "\n".join(cell.source for cell in codes[1:])
    wanted = set(fields) - ({"TIME_BUDGET"} if name in ("01_loader", "03_derivation") else set())
    assert not [field for field in wanted if field not in used], "a field that nothing reads"


def test_links_are_those_of_the_settings():
    address = f"github/{SETTINGS['user']}/{SETTINGS['repo']}/blob/{SETTINGS['branch']}/nbs/02_search.ipynb"
    assert colab_link("02_search") == f"https://colab.research.google.com/{address}"


# The machine


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    "A clean environment as Colab has it, where git finds the package's repository."
    folder, given = tmp_path_factory.mktemp("colab"), os.environ.get("SSNAS_COLAB_PYTHON")
    try:
        made = CleanEnvironment(folder, COLABS, python=given)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"Colab's versions cannot be installed here: {error.stderr[-300:]}")
    made.reach({SETTINGS["git_url"]: make_repository(tmp_path_factory.mktemp("made")).as_uri()})
    yield made
    made.forget()


@pytest.fixture(scope="module")
def installed(clean, tmp_path_factory):
    "The clean environment, after a notebook's install cell; what the cell said."
    [install] = [cell.source for cell in read("02_search").cells if cell.source.startswith("#@title Install")]
    told = "import IPython, ipywidgets, numpy; print(IPython.__version__, ipywidgets.__version__, numpy.__version__)"
    gone = "try:\n    import ssnas_colab\nexcept ImportError as error:\n    print(error)"
    cells = [told, gone, 'REPOSITORY = ""', install, "print(ssnas_colab.__file__)"]
    cells[-1] = "import ssnas_colab; " + cells[-1]
    clean.said = shown(Machine(tmp_path_factory.mktemp("first"), clean).run_all(notebook(*cells)))
    return clean


def test_the_environment_is_colabs_and_has_the_package_from_the_install_cell(installed):
    first, *others = filter(None, installed.said.splitlines())
    assert first.startswith("7.34.0 7.7.1 2.1.") and "No module named 'ssnas_colab'" in others[0]
    assert f" from {SETTINGS['git_url']}" in installed.said and others[-1].startswith(str(installed.packages))


# What single cells say


def test_a_stage_without_the_one_before_says_which_notebook_to_open(installed, tmp_path):
    machine = Machine(tmp_path, installed)
    said = shown(machine.run_all(read("03_derivation")))
    assert "has no search.json yet" in said and f'href="{colab_link("02_search")}"' in said
    assert machine.called() == ["drive.mount /content/drive"], "asked once, and for nothing but Drive"
    assert "Mounted" not in said


def test_settings_that_differ_from_the_run_are_named_in_one_sentence(installed, tmp_path):
    machine = Machine(tmp_path, installed)
    Run.open(machine.run, pipeline_config("digits", "quick")).save_json("search.json", {})
    codes = [cell.source for cell in read("03_derivation").cells if cell.cell_type == "code"]
    form = codes[0].replace('PRESET = "quick"', 'PRESET = "cpu"')
    where, stage = [source for source in codes if "run_path(default_path" in source]
    made = notebook(form, "from ssnas_colab.experiment.run import Run", where, stage, "print('went on')")
    with pytest.raises(CellExecutionError, match="preset: quick -> cpu"):
        machine.run_all(made)
    said = shown(made)
    assert "preset: quick -&gt; cpu" in said and "Traceback" not in said and "went on" not in said
    assert not [output for cell in made.cells for output in cell.outputs if output.output_type == "error"]


def first_cells(data):
    "The form, filled in with `data`, and the cell that looks at the machine and the images."
    codes = [cell.source for cell in read("02_search").cells if cell.cell_type == "code"]
    [looks] = [source for source in codes if "own_images(DATA)" in source]
    return codes[0].replace('DATA = "digits"', f'DATA = "{data}"'), looks


@pytest.mark.parametrize("names", [["scans.zip"], ["1.png", "2.png"], []])
def test_images_are_uploaded(installed, tmp_path, monkeypatch, names):
    machine = Machine(tmp_path, installed)
    (chosen := tmp_path / "chosen").mkdir()
    for name in names:
        (chosen / name).write_bytes(b"as chosen")
    monkeypatch.setenv("SSNAS_COLAB_UPLOAD", str(chosen))
    monkeypatch.setenv("SSNAS_CACHE", str(tmp_path / "cache"))
    made = notebook(*first_cells("upload"), "print('here:', DATA)", first_cells("upload")[1], "print('again:', DATA)")
    if not names:
        with pytest.raises(CellExecutionError, match="Nothing was uploaded"):
            machine.run_all(made)
        return
    said, folder = shown(machine.run_all(made)), tmp_path / "cache/uploads"
    wanted = folder / names[0] if len(names) == 1 else folder
    assert f"here: {wanted}\n" in said and f"again: {wanted}\n" in said and "no GPU" in said or "GB" in said
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == [b"as chosen"] * len(names)
    assert machine.called().count("files.upload") == 1 and not [*machine.content.glob("*.*")]


def test_without_drive_it_goes_on_and_says_what_that_costs(installed, tmp_path):
    machine = Machine(tmp_path, installed)
    form, looks = first_cells("digits")
    refused = "import os; os.environ.pop('SSNAS_COLAB_DRIVE')"
    said = shown(machine.run_all(notebook(form, refused, looks, looks, "print('went on')")))
    assert said.count("which forgets it when the session ends") == 1 and "went on" in said
    assert machine.called() == ["drive.mount /content/drive"], "nobody is asked twice"


# The whole set


def timed(what, seconds):
    print(f"{what}: {seconds:.0f} s")
    if "SSNAS_COLAB_TIMES" in os.environ:
        with open(os.environ["SSNAS_COLAB_TIMES"], "a", encoding="utf-8") as file:
            file.write(f"{what}\t{seconds:.1f}\n")


def smaller(name):
    "A notebook whose quick preset is smaller still, said in a cell of its own after the install cell."
    made = read(name)
    if name == "05_explorer":  # the form names the run
        for cell in made.cells:
            cell.source = cell.source.replace('RUN = ""', 'RUN = "digits"')
        return made
    starts = [cell.source.splitlines()[:1] for cell in made.cells]
    for place in [i for i, start in enumerate(starts) if start and start[0].startswith("#@title Install")]:
        made.cells.insert(place + 1, nbformat.v4.new_code_cell(SMALLER))
    return made


def test_what_a_stranger_opens_runs_from_top_to_bottom(installed, tmp_path):
    machine, said = Machine(tmp_path, installed), {}
    for name in [*STAGES, "05_explorer", "index"]:
        begin, made = time.monotonic(), smaller(name)
        said[name] = shown(machine.run_all(made))
        timed(f"{name} smaller", time.monotonic() - begin)
        demonstrations = sum("#| demo" in cell.source.splitlines()[:2] for cell in made.cells)
        assert said[name].count("A demonstration, skipped") == demonstrations, name
        assert "Traceback" not in said[name], name
    names = {"data.json", "search.json", "genotype.json", "report.json", "report.html"}
    assert names <= {path.name for path in machine.run.iterdir()}, "Google Drive has the run"
    assert json.loads((machine.run / "report.json").read_text())["models"]["searched"]["genotype"]
    assert all("no GPU" in said[name] or "GB" in said[name] for name in [*STAGES, "index"]), "the device is named"
    assert set(machine.called()) <= {"drive.mount /content/drive"}
    assert "| searched |" in said["04_evaluation"].replace("**", "")


def run_timed(machine, name, what=""):
    begin = time.monotonic()
    said = shown(machine.run_all(read(name)))
    timed(f"{name} {what}".strip(), time.monotonic() - begin)
    return said


@pytest.mark.colab
@pytest.mark.parametrize("name", EVERY)
def test_each_notebook_alone(clean, tmp_path, name):
    if name != "07_cli":  # no one opens it in Colab: it has no install cell
        clean.forget()
    machine = Machine(tmp_path, clean)
    said = run_timed(machine, name, "alone")
    demonstrations = sum("#| demo" in cell.source.splitlines()[:2] for cell in read(name).cells)
    assert said.count("A demonstration, skipped") == demonstrations
    assert "Traceback" not in said or name.startswith("core")
    assert set(machine.called()) <= {"drive.mount /content/drive"}
    if name in ("03_derivation", "04_evaluation"):
        assert f'href="{colab_link("02_search")}"' in said
    if name == "index":
        assert (machine.run / "report.json").is_file()


@pytest.fixture(scope="module")
def whole(installed, tmp_path_factory):
    "A machine on which the four stages and the index were run, in this order."
    machine = Machine(tmp_path_factory.mktemp("whole"), installed)
    machine.said = {name: run_timed(machine, name, "in order") for name in [*STAGES, "index"]}
    return machine


@pytest.mark.colab
def test_all_in_order(whole):
    assert {"data.json", "alphas.npz", "genotype.json", "report.json"} <= {p.name for p in whole.run.iterdir()}
    assert not [name for name, said in whole.said.items() if "stand-in" in said.split("Run this stage")[-1]]
    report = json.loads((whole.run / "report.json").read_text())
    assert report["models"]["searched"]["genotype"]


@pytest.mark.colab
def test_run_again_trains_nothing(whole):
    before = {path: path.stat().st_mtime_ns for path in (whole.run / "models").glob("*.json")}
    for name in ("02_search", "index"):
        run_timed(whole, name, "again")
    assert before and before == {path: path.stat().st_mtime_ns for path in (whole.run / "models").glob("*.json")}


@pytest.mark.colab
def test_killed_half_way_and_run_again(whole, installed, tmp_path):
    machine = Machine(tmp_path, installed)

    def kill(pid):
        while not [*machine.run.glob("checkpoints/search/*.pt")]:
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(DeadKernelError):
        machine.run_all(read("02_search"), kill)
    assert not (machine.run / "search.json").exists(), "it was not half-way"
    shutil.rmtree(machine.content)  # the machine is gone; Drive stays
    machine.content.mkdir()
    run_timed(machine, "02_search", "after a kill")
    found, wanted = (np.load(one.run / "alphas.npz") for one in (machine, whole))
    for kind in ("normal", "reduce"):
        np.testing.assert_array_equal(found[kind], wanted[kind])


@pytest.mark.colab
def test_time_budget_stops_and_goes_on(installed, tmp_path):
    machine = Machine(tmp_path, installed)
    codes = [cell.source for cell in read("02_search").cells if cell.cell_type == "code"]
    names = "from IPython.display import Image\nfrom ssnas_colab import search"
    cells = [names, *(code for code in codes if "show_user_errors()" in code or "search(images, run" in code)]
    made = notebook(codes[0].replace('TIME_BUDGET = ""', 'TIME_BUDGET = "8s"'), *cells)
    with pytest.raises(CellExecutionError, match="Stopped"):
        machine.run_all(made)
    assert "time budget" in shown(made) and [*machine.run.glob("checkpoints/search/*.pt")]
    machine.run_all(notebook(codes[0], *cells))
    assert (machine.run / "search.json").is_file()
