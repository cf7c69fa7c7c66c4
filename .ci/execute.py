"""Run notebooks as "Run all" does, in order, and keep their outputs: python .ci/execute.py [NOTEBOOK ...]."""

import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NBS = Path(__file__).resolve().parents[1] / "nbs"


def execute(path):
    "Run the notebook in its own folder with a fresh kernel, and store it with its outputs."
    notebook = nbformat.read(path, as_version=4)
    begin = time.monotonic()
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(path.parent)}}).execute()
    nbformat.write(notebook, path)
    subprocess.run(["nbdev_clean", "--fname", str(path)], check=True)
    print(f"{path.relative_to(NBS)}: {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    os.environ.pop("MPLBACKEND", None)  # with "agg" a notebook loses its pictures without a word
    every = sorted(path for path in NBS.rglob("*.ipynb") if path.parent.name not in ("nbs", "research"))
    every += [*sorted(NBS.glob("0*.ipynb")), *sorted((NBS / "research").glob("*.ipynb")), NBS / "index.ipynb"]
    for path in [Path(name).resolve() for name in sys.argv[1:]] or every:
        execute(path)
