"""The install cell, as it stands in the notebooks, in an environment that has all but the package itself.

Nothing is downloaded, and a server stands in for Colab's session service.
"""

import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from clean import ROOT, SETTINGS, CleanEnvironment, make_repository

NOTEBOOKS = [*sorted((ROOT / "nbs").glob("0[1-69]_*.ipynb")), ROOT / "nbs/index.ipynb"]
# Runs the cell as a notebook does, and tells what a process sees that the notebook starts.
RUN = """
import io, json, subprocess, sys
from contextlib import redirect_stdout
from IPython.core.interactiveshell import InteractiveShell
cell, repository = json.load(sys.stdin)
shell, said = InteractiveShell(), io.StringIO()
shell.user_ns["REPOSITORY"] = repository
with redirect_stdout(said):
    result = shell.run_cell(cell)
told = [sys.executable, "-c", "import ssnas_colab; print(ssnas_colab.__file__)"]
there = subprocess.run(told, capture_output=True, text=True, cwd="/")
own = sys.modules.get("ssnas_colab")
print(json.dumps([said.getvalue(), result.success, there.stdout.strip(), own and own.__file__]))
"""


def cells(path):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def install_cell(path=NOTEBOOKS[1]):
    [cell] = [cell for cell in cells(path) if "".join(cell["source"]).startswith("#@title Install")]
    return "".join(cell["source"])


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return make_repository(tmp_path_factory.mktemp("made"))


class Machine(CleanEnvironment):
    "A clean environment and its disk."

    def __init__(self, folder):
        super().__init__(folder)
        (content := folder / "content").mkdir()
        self.content = content

    def run(self, reached=None, repository="", folder=None, **environment):
        """What the cell prints, whether it succeeds, and where its children and itself import the package from.

        reached: see `CleanEnvironment.reach`.
        """
        self.reach(reached or {})
        done = subprocess.run(
            [self.python, "-c", RUN], input=json.dumps([install_cell(), repository]), text=True, capture_output=True,
            cwd=folder or self.content, env=self.environment | environment, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory):
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture
def machine(one_machine):
    yield one_machine
    one_machine.forget()


@pytest.fixture
def service():
    "A stand-in for Colab's session service: `opened` says where the notebook was opened from."

    class Service(BaseHTTPRequestHandler):
        def do_GET(self):
            found = {"path": server.opened, "name": server.opened, "kernel": {"id": "1"}, "type": "notebook"}
            answer = json.dumps([found] if self.path == "/api/sessions" else {}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.environment = {"COLAB_JUPYTER_IP": "127.0.0.1", "KMP_TARGET_PORT": str(server.server_port)}
    yield server
    server.shutdown()
    server.server_close()


def from_github(branch):
    return f"fileId=https%3A//github.com/some.one/a-fork/blob/{branch}/nbs/02_search.ipynb"


def test_one_text_in_every_notebook_that_asks_for_a_gpu():
    assert len(NOTEBOOKS) == 8
    for path in NOTEBOOKS:
        titles = ["".join(cell["source"]).partition("{")[0].strip() for cell in cells(path)]
        first = titles.index("#@title Install")
        assert first < 2 and titles[0].startswith("#@title"), f"{path.name}: after the form, before all else"
        assert install_cell(path) == install_cell() and SETTINGS["git_url"] in install_cell()
        assert cells(path)[first]["metadata"]["cellView"] == "form" and not cells(path)[first]["outputs"]
        asked = json.loads(path.read_text(encoding="utf-8"))["metadata"]
        assert asked["accelerator"] == "GPU" and asked["colab"]["gpuType"] == "T4"


def test_nothing_is_done_where_it_is_importable(machine, service):
    service.opened = from_github("main")
    said, success, there, own = machine.run(PYTHONPATH=str(ROOT), repository="file:///nowhere", **service.environment)
    assert (said, success, own) == ("", True, None) and Path(there).is_relative_to(ROOT)


@pytest.mark.parametrize("where", ["nbs/models", ".."])
def test_a_checkout_around_the_notebook(machine, tmp_path, where):
    (made := tmp_path / "ssnas_colab").mkdir()
    for name in ("ssnas_colab", "settings.ini"):
        (made / name).symlink_to(ROOT / name)
    (folder := made / where).mkdir(parents=True, exist_ok=True)
    said, success, there, own = machine.run(folder=folder)
    assert success and said == f"ssnas_colab {SETTINGS['version']} from {made.resolve()}\n"
    assert there == own == f"{made.resolve()}/ssnas_colab/__init__.py", "a process that the notebook starts has it too"


def test_a_fork_is_installed_from_where_the_notebook_was_opened(machine, service, repository):
    service.opened = from_github("other%2Fbranch")
    fork = "https://github.com/some.one/a-fork"
    said, success, there, own = machine.run({fork: repository.as_uri()}, **service.environment)
    assert success and said == f"ssnas_colab 9.9.9 from {fork}@other/branch\n"
    assert there == own and Path(own).is_relative_to(machine.packages)
    installed = [path.name for path in machine.packages.iterdir() if path.suffix == ".dist-info"]
    assert not [name for name in installed if re.match("torch|numpy", name)], "what was there is not installed again"


@pytest.mark.parametrize("opened", [from_github("gone"), "fileId=1xDrive-id_2"])
def test_else_from_the_settings_repository(machine, service, repository, opened):
    service.opened = opened
    said, success, there, _ = machine.run({SETTINGS["git_url"]: repository.as_uri()}, **service.environment)
    assert success and said == f"ssnas_colab {SETTINGS['version']} from {SETTINGS['git_url']}\n"
    assert Path(there).is_relative_to(machine.packages)


@pytest.mark.parametrize("written", ["{uri}@other/branch", "{path}", "someone@host.example:fork.git"])
def test_the_form_goes_before_all(machine, repository, written):
    address = written.format(uri=repository.as_uri(), path=repository)
    reached = {SETTINGS["git_url"]: "/nowhere", "ssh://someone@host.example/fork.git": repository.as_uri()}
    said, success, there, _ = machine.run(reached, repository=f" {address} ", folder=machine.content)
    version = "9.9.9" if "@other" in written else SETTINGS["version"]
    assert success and said.startswith(f"ssnas_colab {version} from ")
    assert Path(there).is_relative_to(machine.packages)


def test_a_wheel_beside_the_notebook(machine, repository, tmp_path):
    subprocess.run(["git", "clone", "-q", repository, tmp_path / "source"], check=True)
    command = [machine.python, "setup.py", "-q", "bdist_wheel"]
    subprocess.run(command, cwd=tmp_path / "source", env=machine.environment, check=True, capture_output=True)
    [wheel] = (tmp_path / "source/dist").glob("*.whl")
    (alone := tmp_path / "alone").mkdir()
    shutil.copy(wheel, alone)
    said, success, _, own = machine.run(folder=alone)
    assert success and said == f"ssnas_colab {SETTINGS['version']} from {alone / wheel.name}\n"
    machine.forget()
    shutil.copytree(alone, machine.index / "ssnas-colab")  # the index has it now
    (machine.index / "ssnas-colab/index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    try:
        said, success, _, own = machine.run()
    finally:
        shutil.rmtree(machine.index / "ssnas-colab")
    assert success and said == f"ssnas_colab {SETTINGS['version']} from the package index\n"
    assert Path(own).is_relative_to(machine.packages)


@pytest.mark.parametrize("repository", ["", "file:///nowhere/at/all"])
def test_with_none_of_these_one_sentence_stops_run_all(machine, repository):
    said, success, there, own = machine.run(repository=repository)
    assert not success and not there and own is None
    print(said)
    assert said.startswith("ssnas_colab could not be installed from") and said.count("\n") <= 2
    assert "Traceback" not in said and "REPOSITORY in the form" in said
    assert ("upload its wheel" in said) != ("file:///nowhere/at/all" in said)
