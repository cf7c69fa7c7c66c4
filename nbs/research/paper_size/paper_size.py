"""The paper's comparison at its size, with as many steps as fit into a time.

    python paper_size.py IMAGES OUT --time-budget 8m [--seed 0] [--set search.width=8 ...]

IMAGES: cifar10, a zip or folder of it, or other images that `load_data` reads; "made-up": 14 labels an image, as
ChestMNIST has them, drawn at random. Long-tailed CIFAR-10 (factor 100) at 32 pixels: search, then the searched network,
ResNet-18, the ResNet of equal parameters, the ResNet of equal MACs, two random networks. Steps are timed here and
chosen so that all of it fits. Every network's scores are kept as soon as they are there; the same command goes on, and
OUT/summary.json says what there is so far.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

from ssnas_colab import Run, UserError, load_data
from ssnas_colab.cli import read_setting
from ssnas_colab.config import pipeline_config
from ssnas_colab.experiment.interrupts import Stopped, parse_duration
from ssnas_colab.reports.build import differences
from ssnas_colab.reports.verdict import JUDGED, difference_text, display_name, significance
from ssnas_colab.sessions.session import session
from ssnas_colab.stages.pipeline import fit_steps, open_with_data, run_stages

COMPARED = {"resnet18": True, "mobilenet": False, "published": (), "equal_macs": ("resnet",), "random_genotypes": 2}
CLAIM = "The paper's claim (arXiv 2109.08580): at most 1/27 of ResNet-18's parameters, and no worse"


def made_up(images=2_000, labels=14, size=64, seed=0):
    "Grey images (N, 64, 64, 1) with a bright disc at a place of its own for each of 14 labels, uneven; and the labels."
    rng = np.random.default_rng(seed)
    shares = np.geomspace(0.3, 0.03, labels)
    marks = (rng.random((images, labels)) < shares).astype(np.int8)
    rows, columns = np.mgrid[:size, :size]
    pixels = rng.normal(90, 25, (images, size, size))
    for label in range(labels):
        y, x = 8 + 12 * (label // 4), 8 + 16 * (label % 4)
        disc = ((rows - y) ** 2 + (columns - x) ** 2 < 25) * 60
        pixels += marks[:, label, None, None] * disc
    return np.clip(pixels, 0, 255).astype(np.uint8)[..., None], marks


def table(run, data) -> dict:
    "What is known so far: a row for each network that is finished, and the claim's two halves."
    key = "macro_auc" if data.task == "multi-label" else "balanced_accuracy"
    names = [path.stem for path in sorted((run.path / "models").glob("*.json"), key=lambda path: path.stat().st_mtime)]
    rows = {name: run.load_json(f"models/{name}.json") for name in names}
    found = {name: {k: row[k] for k in ("parameters", "macs", key, "seconds")} for name, row in rows.items()}
    against = differences(data, [run], names)
    for name, row in found.items():
        told = f"  searched minus this {difference_text(against[name])}" if name in against else ""
        print(f"{display_name(name):28} {row['parameters']:>11,} parameters {row['macs'] / 1e6:8.1f} M MACs", end="")
        print(f"  {key} {row[key]:.3f}  {row['seconds']:7.1f} s{told}")
    summary = {"networks": found, "differences": against}
    if {"searched", "resnet18"} <= found.keys():
        times = found["resnet18"]["parameters"] / found["searched"]["parameters"]
        sign = JUDGED[significance(against["resnet18"])]
        summary["claim"] = {"times": times, "searched": sign}
        print(f"{CLAIM}.\nHere: 1/{times:.1f} of the parameters, and {sign} (one seed, one test set).")
    return summary


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("out", type=Path)
    parser.add_argument("--time-budget", default="8m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="colab")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.NAME=VALUE")
    given = parser.parse_args()
    begin, seconds = time.monotonic(), parse_duration(given.time_budget)
    several = given.images == "made-up"
    source = made_up(seed=given.seed) if several else given.images
    read = {"imbalance_factor": None if several else 100, "seed": given.seed}
    data = load_data(source, **read)
    print(f"{data.describe()}\n", flush=True)
    settings = {"search": {}, "evaluation": dict(COMPARED)}
    for text in given.set:
        stage, name, value = read_setting(text)
        settings[stage][name] = value
    run_file = given.out / "run.json"
    if run_file.is_file():  # with the steps that were chosen then
        config = Run.open(given.out).config
    else:
        config = pipeline_config(data, given.preset, seed=given.seed, **settings)
        config = fit_steps(data, given.out, config, 0.9 * seconds - (time.monotonic() - begin))
    steps = {name: config["evaluation"][f"{name}_steps"] for name in ("pretrain", "finetune")}
    steps["search"] = config["search"]["steps"] if not config["search"]["strategy"] else config["search"]["candidates"]
    print(f"steps: {steps}", flush=True)
    left = max(seconds - (time.monotonic() - begin), 1)
    try:
        with session(given.out, f"{left:.0f}s") as folder:
            run, data = open_with_data(data, folder, config)
            if not run.has("report.json"):
                run_stages(run, data, 1, True)
        ended = "finished"
    except Stopped as stopped:
        ended = str(stopped)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} thread"
    facts = {"command": sys.argv, "seed": given.seed, "card": card, "torch": torch.__version__, "steps": steps}
    facts |= {"python": platform.python_version(), "seconds": time.monotonic() - begin, "ended": ended}
    facts |= table(Run.open(given.out), data)
    (given.out / "summary.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 75 if ended != "finished" else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"paper_size: {error}")
