"""An environment that has all that this one has, except the package itself, and what git and pip reach from it.

Nothing is downloaded by the package's own installation: the index is a folder that lacks it, and a repository is made
from this checkout and reached by git's `insteadOf`.
"""

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = configparser.ConfigParser(interpolation=None, delimiters=["="])
SETTINGS.read(ROOT / "settings.ini", encoding="utf-8")
SETTINGS = SETTINGS["DEFAULT"]


def make_repository(folder):
    "A bare repository that has the package as it is here; its branch `other/branch` calls itself version 9.9.9."
    work, bare = folder / "work", folder / "remote.git"
    shutil.copytree(ROOT / "ssnas_colab", work / "ssnas_colab", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("settings.ini", "setup.py", "README.md"):
        shutil.copy(ROOT / name, work)

    def git(*what):
        told = ["-c", "user.name=Tests", "-c", "user.email=tests@example.org", "-c", "core.hooksPath=/dev/null"]
        subprocess.run(["git", *told, *what], cwd=work, check=True, capture_output=True)

    git("init", "-b", "main")
    git("add", "-A")
    git("commit", "-m", "As it is")
    git("checkout", "-b", "other/branch")
    for name in ("settings.ini", "ssnas_colab/__init__.py"):
        text = (work / name).read_text(encoding="utf-8")
        (work / name).write_text(text.replace(SETTINGS["version"], "9.9.9"), encoding="utf-8")
    git("commit", "-a", "-m", "Another version")
    git("checkout", "main")
    git("clone", "--bare", str(work), str(bare))
    return bare


class CleanEnvironment:
    """A virtual environment in `folder` with the packages of this one, linked, and without ssnas_colab.

    others: packages in other versions, as pip names them, which come first; python: an interpreter that is clean
    already, and is taken instead. `python` runs it, `environment` is all that its processes should see.
    """

    def __init__(self, folder, others=(), python=None):
        self.home, self.index, self.python = folder, folder / "simple", Path(python or folder / "venv/bin/python")
        self.index.mkdir(parents=True)
        kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
        self.environment = {name: os.environ[name] for name in kept if name in os.environ}
        self.environment |= {
            "HOME": str(folder), "IPYTHONDIR": str(folder / "ipython"), "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COMPILE": "1",
        }  # fmt: skip
        if python:
            told = [self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
            self.packages = Path(subprocess.run(told, capture_output=True, text=True, check=True).stdout.strip())
            return
        self.environment |= {
            "PIP_INDEX_URL": self.index.as_uri(), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_NO_CACHE_DIR": "1",
        }  # fmt: skip
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        self.packages, linked = next((folder / "venv").glob("lib/python*/site-packages")), folder / "others"
        if others:
            pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "-q", "--no-compile", *others]
            subprocess.run(pip, check=True, capture_output=True, text=True)
        linked.mkdir()
        for path in {*Path(sysconfig.get_path("purelib")).iterdir(), *Path(sysconfig.get_path("platlib")).iterdir()}:
            if "ssnas" not in path.name and path.suffix != ".pth" and not (linked / path.name).exists():
                (linked / path.name).symlink_to(path)
        (self.packages / "others.pth").write_text(f"{linked}\n")
        for need in SETTINGS["requirements"].split():  # what the package asks for and this environment may lack
            name = re.split("[<>=]", need)[0]
            if not list(importlib.metadata.distributions(name=name)):
                (facts := self.packages / f"{name}-99.dist-info").mkdir()
                (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 99\n")

    def reach(self, reached):
        "Let git find the repositories of `reached` (address: where it is); all else on GitHub is not there."
        reached = {**reached, "https://github.com/": "/nowhere/"}
        config = "".join(f'[url "{there}"]\n\tinsteadOf = {address}\n' for address, there in reached.items())
        (self.home / "gitconfig").write_text(f'{config}[protocol "file"]\n\tallow = always\n')

    def forget(self):
        "Uninstall the package."
        for path in self.packages.glob("ssnas_colab*"):
            shutil.rmtree(path)
