"""A run that is killed goes on with the same bits: real child processes, killed with SIGKILL."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import torch

from ssnas_colab.core.runs import Run

CHILD = """
import sys
import torch
torch.set_num_threads(1)
import ssnas_colab.core.training as training
import ssnas_colab.evaluation as evaluation
from ssnas_colab.pipeline import run_pipeline
from ssnas_colab.search import SEARCH_PRESETS
training.CHECKPOINT_SECONDS = 0.0  # a checkpoint after every step: most kills fall into a write
SEARCH_PRESETS["quick"] = {"width": 4, "depth": 3, "batch_size": 32, "steps": 24, "embedding": 32}
evaluation.EVALUATION_PRESETS["quick"] = {
    "pretrain_steps": 6, "finetune_steps": 8, "batch_size": 64, "embedding": 32, "max_parameters": 20_000,
    "random_genotypes": 1,
}
evaluation.resnet18 = lambda classes, channels: evaluation.narrow_resnet(classes, channels, max_parameters=40_000)
print("ready", flush=True)
run_pipeline("digits", sys.argv[1], imbalance_factor=10, quiet=True)
"""


def start(path):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", CHILD, str(path)], text=True, **pipes)


def outcome(path):
    "All that a run has found, without its times."
    run = Run.open(path)
    models = run.load_json("report.json")["models"]
    weights = {name: run.load_checkpoint(f"models/{name}")["state"]["model"] for name in models}
    found = {name: {key: value for key, value in model.items() if key != "seconds"} for name, model in models.items()}
    return run.load_arrays("alphas.npz"), run.load_text("genotype.json"), found, weights


def test_killed_runs_end_with_the_same_bits(tmp_path):
    child = start(tmp_path / "straight")
    begin = time.monotonic()
    _, errors = child.communicate(timeout=600)
    assert child.returncode == 0, errors
    whole = time.monotonic() - begin

    rng, kills = np.random.default_rng(int.from_bytes(os.urandom(4), "little")), 0
    while True:
        child = start(tmp_path / "killed")
        child.stdout.readline()
        try:
            _, errors = child.communicate(timeout=rng.uniform(0.05, 0.35) * whole if kills < 5 else 600)
            assert child.returncode == 0, errors
            break
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.communicate()
            kills += 1
    assert kills >= 1

    alphas, genotype, models, weights = outcome(tmp_path / "straight")
    alphas2, genotype2, models2, weights2 = outcome(tmp_path / "killed")
    for name in alphas:
        np.testing.assert_array_equal(alphas[name], alphas2[name])
    assert genotype == genotype2
    assert models == models2
    for name, state in weights.items():
        assert all(torch.equal(tensor, weights2[name][key]) for key, tensor in state.items()), name
