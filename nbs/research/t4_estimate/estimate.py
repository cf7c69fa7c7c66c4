"""What would the `colab` preset take on a T4, searching cells? An estimate, by multiply-adds and their pace on a CPU.

python nbs/research/t4_estimate/estimate.py --out nbs/research/t4_estimate/estimate.json

For every network of the comparison: multiply-adds, seconds of a training step here, and their share of the fastest that
this machine multiplies, measured in turn with it. A T4 is then taken to reach the same share of its float32 peak (8.1
TFLOPS). No T4 was at hand: depthwise convolutions are limited by memory, of which a T4 has 320 GB/s, and by launches,
so this may be off by a factor of two either way.
"""

import argparse
import dataclasses
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from ssnas_colab.config import evaluation_config, search_config
from ssnas_colab.core.seeding import StepSeed
from ssnas_colab.models.baselines import random_genotype
from ssnas_colab.models.genotype import GENOTYPES
from ssnas_colab.models.network import Network, count_macs
from ssnas_colab.nas.bilevel import Searcher
from ssnas_colab.stages.evaluation import compared

T4_FLOPS = 8.1e12  # float32, NVIDIA's data sheet


class Images:
    num_classes, channels, size = 10, 3, (32, 32)


def seconds(function, repeats):
    "Seconds of each of `repeats` calls, after one that does not count."
    function()
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        found.append(time.perf_counter() - begin)
    return found


def peak(size=1024):
    "Floating-point operations a second, the best of ten: of a float32 matrix product or of a dense 3x3 convolution."
    a, b = torch.randn(size, size), torch.randn(size, size)
    layer, images = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False), torch.randn(32, 256, 8, 8)
    product = 2 * size**3 / min(seconds(lambda: a @ b, 10))
    with torch.no_grad():  # on some processors the library's matrix product is slower than its convolutions
        return max(product, 2 * 32 * 64 * 9 * 256**2 / min(seconds(lambda: layer(images), 10)))


def training_step(net, batch, size):
    "A forward and a backward pass of a batch."
    images = torch.randn(batch, 3, size, size)
    if isinstance(net, Network):
        net, images = net.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)

    def step():
        net.zero_grad(set_to_none=True)
        net(images).square().mean().backward()

    return step


def search_step(config, batch, size):
    "One step of weights and alphas, and its multiply-adds: forward and back two views of one genotype, two of four."
    images = np.random.default_rng(0).integers(0, 256, (256, 3, size, size), dtype=np.uint8)
    level = Searcher(images, dataclasses.replace(config, batch_size=batch, policy="natural"))
    net = Network(random_genotype(0), 10, width=config.width, depth=config.depth)
    macs = count_macs(net, (3, size, size)) * batch * 2 * (3 + config.samples)
    step = iter(range(10_000))
    return (lambda: level(StepSeed(0, "estimate", 0, next(step) % level.schedule.steps_per_epoch), 0.9)), macs


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    search, evaluation = search_config("colab", space="cells"), evaluation_config("colab", random_genotypes=1)
    made = compared(GENOTYPES["FairDARTS_b"], Images, evaluation, search.depth)
    rows, run, work = {}, *search_step(search, options.batch, options.size)
    counts = {"search": (search.steps, search.batch_size)}
    tasks = {"search": (run, work)}
    for name, make in made.items():
        net = make().train()
        macs = 3 * count_macs(net, (3, options.size, options.size)) * options.batch
        tasks[name] = training_step(net, options.batch, options.size), macs
        passes = 2 * evaluation.pretrain_steps + evaluation.finetune_steps
        counts[name] = passes, evaluation.batch_size
    for name, (step, macs) in tasks.items():
        fastest = peak()
        taken = statistics.median(seconds(step, options.repeats))
        share = 2 * macs / taken / max(fastest, peak())
        steps, batch = counts[name]
        hours = 2 * macs * batch / options.batch * steps / (share * T4_FLOPS) / 3600
        rows[name] = {"multiply_adds": macs, "seconds_here": taken, "share_of_peak": share, "t4_hours": hours}
        print(f"{name:18} {macs / 1e9:8.2f} G  {taken:7.3f} s  {share:6.1%}  T4 about {hours:5.2f} h", flush=True)
    facts = {"batch": options.batch, "size": options.size, "threads": torch.get_num_threads()}
    facts |= {"torch": torch.__version__, "machine": platform.machine(), "rows": rows}
    facts["hours"] = sum(row["t4_hours"] for row in rows.values())
    options.out.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"one random genotype; in all about {facts['hours']:.1f} h")


if __name__ == "__main__":
    main()
