"""What a step of each stage costs on this device, and why: one table.

python tests/benchmarks/gpu.py [--device cuda] [--at 128x32 32x32 128x64] [--steps 10] [--json FILE]

A step of the search (relaxations sampled and fair, 8 cells of width 16, 4 nodes; beside them `fair` with the plain
supernet that defines it), of pretraining and of fine-tuning (a published genotype at 413,850 parameters; on a GPU a
step is replayed there as a CUDA graph, unless --eager), with the settings of the preset `colab`, on made-up images,
BATCHxPIXELS. ms: wall clock, a mean over the steps after 5 others; launches: kernels, copies and fills that the
profiler saw in a step, those of a graph too (on a CPU: operations dispatched, but for those that only get memory or
look at it in another way); waits: how often a step waits for the device (not known on a CPU: see
tests/training/test_waits.py); busy: the share of the time in which the device computed; MB: the most that was allocated
there.
"""

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from supernet_reference import ReferenceSupernet
from supernet_speed import Dispatched

from ssnas_colab.config import evaluation_config, search_config
from ssnas_colab.core.device import Replayed
from ssnas_colab.core.seeding import StepSeed
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.genotype import GENOTYPES
from ssnas_colab.models.network import Network
from ssnas_colab.nas import bilevel
from ssnas_colab.nas.bilevel import Searcher
from ssnas_colab.stages.loader import ImageData
from ssnas_colab.training import recipes

KINDS = "search sampled", "search fair", "search plain", "pretraining", "fine-tuning"
NO_LAUNCH = {"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "detach", "lift_fresh"}
NO_LAUNCH |= {"_local_scalar_dense", "_record_function_enter_new", "_record_function_exit"}


def launches(count):
    "How many of the operations that `Dispatched` counted are asked of the device."
    total = 0
    for name, times in count.items():
        space, operation, overload = name.split(".")
        if space == "aten" and operation not in NO_LAUNCH:
            total += times * (not getattr(getattr(torch.ops.aten, operation), overload).is_view)
    return total


def waits_on_cuda(step, steps):
    "Synchronising calls in a step."
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for i in range(steps):
                step(i)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(one.message) for one in seen) / steps


def measured(step, device, steps, batch):
    "The row of a step, a function of its number."
    cuda = device.startswith("cuda")
    synchronise = torch.cuda.synchronize if cuda else lambda: None
    for i in range(5 if cuda else 1):
        step(i)
    synchronise()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    for i in range(steps):
        step(i)
    synchronise()
    seconds = (time.perf_counter() - begin) / steps
    row = {"ms": 1000 * seconds, "images_per_second": batch / seconds}
    if not cuda:
        with Dispatched() as seen:
            step(0)
        return row | {"launches": launches(seen.count), "waits": None}
    row |= {"mb": torch.cuda.max_memory_allocated() / 1e6, "waits": waits_on_cuda(step, 3)}
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        for i in range(3):
            step(i)
        synchronise()
    there = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(e.time_range.elapsed_us() for e in there) / 1e6 / 3
    return row | {"launches": len(there) / 3, "busy": busy / seconds}


def made_up(batch, pixels):
    rng, count = np.random.default_rng(0), 20 * batch
    images = {s: rng.integers(0, 256, (count, 3, pixels, pixels), dtype=np.uint8) for s in ("train", "val", "test")}
    labels = {s: rng.integers(0, 10, count) for s in images}
    return ImageData("made up", "single-label", images, labels, tuple("0123456789"), {}, "natural")


def row(kind, data, device, steps, batch):
    "One line of the table."
    if kind.startswith("search"):
        plain, relaxation = kind.endswith("plain"), kind.split()[1].replace("plain", "fair")
        config = search_config("colab", relaxation=relaxation, policy="natural", device=device, batch_size=batch)
        with mock.patch.object(bilevel, "Supernet", ReferenceSupernet if plain else bilevel.Supernet):
            searcher = Searcher(data.images["train"], config)
        searcher.together &= not plain
        return measured(lambda i: searcher(StepSeed(0, "search", 0, i), 0.5), device, steps, batch)
    config, found = evaluation_config("colab", device=device, batch_size=batch), {}

    def instead(run, place, state, step, **how):
        found.update(measured(lambda i: step(StepSeed(0, place, 0, i), 0.5), device, steps, batch))
        return []

    def make():
        return Network.within(GENOTYPES["DARTS_V2"], 10, max_parameters=413_850)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(recipes, "fit", instead):
        trainer = recipes.Trainer("network", make, data, Run.open(Path(folder) / "run", {}), config, quiet=True)
        if kind == "pretraining":
            recipes.pretrain(trainer)
        else:
            with mock.patch.object(recipes.Best, "restore", lambda self: None):
                recipes.learn(trainer, "finetune", config.loss, config.sampler)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--at", nargs="+", default=["128x32", "32x32", "128x64"], metavar="BATCHxPIXELS")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    Replayed.WARM = 10**9 if options.eager else Replayed.WARM
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else f"{torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}")
    print(f"{'':16}{'at':8}{'ms':>9}{'images/s':>10}{'launches':>10}{'waits':>7}{'busy':>7}{'MB':>8}", flush=True)
    rows = []
    for at in options.at:
        batch, pixels = map(int, at.split("x"))
        data = made_up(batch, pixels)
        for kind in options.kinds:
            found = row(kind, data, options.device, options.steps, batch)
            rows.append({"kind": kind, "at": at, "device": name, "torch": torch.__version__, **found})
            busy, mb = (f"{found[k]:{form}}" if k in found else "" for k, form in (("busy", ".0%"), ("mb", ".0f")))
            waits = "" if found["waits"] is None else f"{found['waits']:.1f}"
            print(f"{kind:16}{at:8}{found['ms']:9.1f}{found['images_per_second']:10.0f}{found['launches']:10.0f}"
                  f"{waits:>7}{busy:>7}{mb:>8}", flush=True)  # fmt: skip
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
