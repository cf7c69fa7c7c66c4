"""How the runs in `v0.1/` were made, by version 0.1.0 (commit 46c70a8) with one thread; kept to be read, not run again.

OMP_NUM_THREADS=1 python make_v0_1.py FOLDER
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from ssnas_colab.core.drive import Publisher
from ssnas_colab.core.engine import Engine
from ssnas_colab.core.exporting import export_run
from ssnas_colab.core.levels import Search
from ssnas_colab.core.stopping import Stopped

from ssnas_colab import Run, load_model, run_pipeline

OUT = Path(sys.argv[1])
SEARCH = {"width": 2, "depth": 3, "nodes": 2, "batch_size": 32, "steps": 48, "embedding": 8}
EVALUATION = {
    "pretrain_steps": 20, "finetune_steps": 40, "batch_size": 32, "embedding": 8, "max_parameters": 6_000,
    "random_genotypes": 1, "resnet18": False, "mobilenet": False,
}  # fmt: skip
KINDS = {
    "sampled": {},
    "fair": {"relaxation": "fair"},
}


def pipeline(path, search, **evaluation):
    "One run of the digits at `path`, to its end or to the stop."
    return run_pipeline("digits", path, seed=3, quiet=True, search=SEARCH | search, evaluation=EVALUATION | evaluation)


def stopped_at(kind, method, count, path, search, **evaluation):
    "The same run, ended by SIGTERM in call number `count` of `kind.method`."
    original, calls = getattr(kind, method), []

    def counted(self, *args, **options):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args, **options)

    setattr(kind, method, counted)
    try:
        pipeline(path, search, **evaluation)
        raise AssertionError("it was not stopped")
    except Stopped as stopped:
        print(path.name, stopped)
    finally:
        setattr(kind, method, original)


def outcome(path):
    "What an undisturbed run ends with."
    run = Run.open(path)
    report = run.load_json("report.json")
    found = {
        "genotype": json.loads(run.load_text("genotype.json")),
        "alphas": {kind: rows[-1].tolist() for kind, rows in run.load_arrays("alphas.npz").items()},
        "alphas_sha256": {k: hashlib.sha256(v.tobytes()).hexdigest() for k, v in run.load_arrays("alphas.npz").items()},
        "search_loss": [row["loss"] for row in run.load_json("search.json")["history"]],
        "models": {},
    }
    for name, model in report["models"].items():
        state = run.load_checkpoint(f"models/{name}")["state"]["model"]
        sum_ = hashlib.sha256(b"".join(np.ascontiguousarray(v.numpy()).tobytes() for v in state.values())).hexdigest()
        keys = "accuracy", "balanced_accuracy", "macro_auc", "recall_per_class", "parameters", "macs"
        curves = dict(report["curves"][name])
        found["models"][name] = {key: model[key] for key in keys} | {"weights_sha256": sum_, "curves": curves}
    return found


def main():
    torch.set_num_threads(1)
    facts = {
        "version": "0.1.0", "commit": "46c70a8", "threads": torch.get_num_threads(), "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(), "outcomes": {},
    }  # fmt: skip
    work = OUT / "work"
    for name, search in KINDS.items():
        pipeline(work / name, search)
        facts["outcomes"][name] = outcome(work / name)
        stopped_at(Search, "__call__", 21, OUT / f"search_{name}", search)
    stopped_at(Engine, "update", 75, OUT / "evaluation", KINDS["sampled"])
    shutil.copytree(work / "sampled", OUT / "finished")
    publisher = Publisher(OUT / "search_sampled", OUT / "drive")
    publisher.start()
    publisher.close(60)
    shutil.rmtree(OUT / "search_sampled" / ".publishing")
    export_run(OUT / "finished", OUT / "exported.zip")
    images = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    facts["predicted"] = load_model(OUT / "finished").predict(images).tolist()
    shutil.rmtree(work)
    for picture in [*OUT.rglob("*.png"), *OUT.rglob("report.html")]:  # large, and nothing reads them
        picture.unlink()
    (OUT / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


main()
