"""How much faster the supernet is than its definition: one forward and backward pass, variants in turn, medians.

python tests/benchmarks/supernet_speed.py [--repeats 3] [--threads 1] [--batch 64]
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_supernet import Definition  # noqa: E402

from ssnas_colab.core.supernet import Supernet  # noqa: E402


def variants(width, depth, channels):
    "Name to (network, layout of the images)."
    flat, last = torch.contiguous_format, torch.channels_last

    def shipped():
        torch.manual_seed(0)
        return Supernet(width=width, depth=depth, in_channels=channels)

    def plain():
        return Definition(shipped(), channels, width, depth, 4).float()

    resting = shipped()
    for parameter in resting.weight_parameters():
        parameter.requires_grad_(False)
    return {
        "plain, contiguous": (plain(), flat),
        "plain, channels_last": (plain().to(memory_format=last), last),
        "shipped, contiguous": (shipped(), flat),
        "shipped, channels_last": (shipped().to(memory_format=last), last),
        "shipped, channels_last, alphas only": (resting.to(memory_format=last), last),
    }


def measure(width, depth, size, batch, repeats, channels=3):
    image = torch.randn(batch, channels, size, size)
    nets, times = variants(width, depth, channels), {}
    for repeat in range(repeats + 1):
        for name, (net, layout) in nets.items():
            x = image.contiguous(memory_format=layout)
            start = time.perf_counter()
            net(x).square().sum().backward()
            if repeat:  # the first pass of each is to warm up
                times.setdefault(name, []).append(time.perf_counter() - start)
            net.zero_grad(set_to_none=True)
    base = statistics.median(times["plain, contiguous"])
    print(f"width {width}, depth {depth}, {size} px, batch {batch}")
    for name, seconds in times.items():
        print(f"  {name:36s} {statistics.median(seconds):8.3f} s  {base / statistics.median(seconds):5.2f}x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measure(8, 5, 28, options.batch, options.repeats)
    measure(16, 8, 32, options.batch, options.repeats)
