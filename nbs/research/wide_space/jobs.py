"""What the commands of this folder share: a list of jobs, each of which leaves its JSON when it is done.

The same command goes on after any interruption with the jobs that have left none; `--part I N` takes every N-th, for
processes side by side; `--report` only tells what is done. One thread.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from ssnas_colab.core.files import write_atomically


def command(doc):
    "The command line that they have in common; more may be added to it."
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of the data sets")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="every N-th job from I")
    parser.add_argument("--report", action="store_true", help="only the tables, from what is done")
    return parser


def do(options, jobs, path_of, row_of):
    "Do what is not done: `row_of(*job)` is written to `path_of(*job)`; where it is None, the job has to wait."
    torch.set_num_threads(1)
    for job in list(jobs)[options.part[0] :: options.part[1]]:
        path, begin = path_of(*job), time.perf_counter()
        if path.is_file():
            continue
        row = row_of(*job)
        if row is not None:
            write_atomically(path, (json.dumps(row, default=float) + "\n").encode())
        told = "waits for another job" if row is None else f"{time.perf_counter() - begin:.0f} s"
        print(f"{path.parent.name}/{path.stem}: {told}", flush=True)
