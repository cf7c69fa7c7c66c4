"""What one step of the search costs: the supernet that ships against the reference that defines it.

python tests/benchmarks/supernet_speed.py [--repeats 7] [--threads 2] [--batch 64] [--quick]

A step is bilevel: forwards and backwards on two views for the weights, then for the alphas. The reference runs in
its natural form: contiguous layout, all gradients in both steps. Both run in turn in one process; times are medians.
"""

import argparse
import contextlib
import statistics
import time
from collections import Counter

import torch
from supernet_reference import ReferenceSupernet
from torch.utils._python_dispatch import TorchDispatchMode

from ssnas_colab.models.network import count_macs
from ssnas_colab.nas.supernet import Supernet


class Dispatched(TorchDispatchMode):
    "Counts the operations that PyTorch dispatches inside the block."

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count[str(function)] += 1
        return function(*args, **(kwargs or {}))


def objective(net, views):
    "A plain loss that needs both views."
    first, second = (net(view) for view in views)
    return (first * second).mean() + first.square().mean()


def half_step(net, views, level):
    "Forwards and backwards for `level`; the reference computes all gradients. Gradients are dropped again."
    with net.learning(level) if type(net) is Supernet else contextlib.nullcontext():
        objective(net, views).backward()
    net.zero_grad(set_to_none=True)


def cost(net, views, level):
    "Operations dispatched in a step of one level, and bytes kept for its backward pass: each piece of memory once."
    kept, own = {}, {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    if type(net) is Supernet:
        views = [view.contiguous(memory_format=torch.channels_last) for view in views]
    with Dispatched() as seen:
        half_step(net, views, level)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        half_step(net, views, level)
    return seen.count.total(), sum(size for place, size in kept.items() if place not in own)


def peak(threads, size=2048, repeats=5):
    "MACs a second of a large float32 matrix product, the best of `repeats`."
    a, b = torch.randn(2, size, size)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return size**3 / min(seconds)


def timed(cases, repeats):
    "Medians of the seconds that each function takes, all in turn, after one round to warm up."
    seconds = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, function in cases.items():
            start = time.perf_counter()
            function()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def measure(width, depth, size, batch, repeats, threads):
    "Print times, operations, bytes and the share of the machine's peak for one size."
    torch.manual_seed(0)
    nets = {"reference": ReferenceSupernet(width=width, depth=depth), "shipped": Supernet(width=width, depth=depth)}
    nets["shipped"] = nets["shipped"].to(memory_format=torch.channels_last)
    views = {"reference": list(torch.randn(2, batch, 3, size, size))}
    views["shipped"] = [view.contiguous(memory_format=torch.channels_last) for view in views["reference"]]
    levels = ("weights", "alphas")
    cases = {
        (name, level): lambda net=net, name=name, level=level: half_step(net, views[name], level)
        for name, net in nets.items() for level in levels
    }  # fmt: skip
    seconds = timed(cases, repeats)
    costs = {(name, level): cost(net, views[name], level) for name, net in nets.items() for level in levels}
    # Forwards, and backwards for inputs and (where the weights learn) for weights, are one pass of MACs each.
    macs, fastest = count_macs(nets["reference"], (3, size, size)) * batch * len(views), peak(threads)
    passes = {"reference": {"weights": 3, "alphas": 3}, "shipped": {"weights": 3, "alphas": 2}}
    print(f"width {width}, depth {depth}, {size} px, batch {batch}, two views, {threads} threads, {repeats} repeats")
    print(f"matrix product: {2 * fastest / 1e9:.0f} GFLOP/s at its best")
    print(f"{'':20s} {'seconds':>9s} {'operations':>11s} {'MB kept':>9s} {'of peak':>8s}")
    for name, level in cases:
        share = macs * passes[name][level] / seconds[name, level] / fastest
        operations, kept = costs[name, level]
        label = f"{name}, {level}"
        print(f"{label:20s} {seconds[name, level]:9.3f} {operations:11,} {kept / 1e6:9.1f} {share:8.1%}")
    total = {name: sum(seconds[name, level] for level in levels) for name in nets}
    ratio = [
        sum(costs["shipped", x][i] for x in levels) / sum(costs["reference", x][i] for x in levels) for i in (0, 1)
    ]
    print(
        f"a bilevel step: {total['reference'] / total['shipped']:.2f}x as fast (bar: 2.5x at width 16, depth 8, 32 px)"
    )
    print(f"operations: {ratio[0]:.1%} (bar: 50 %); bytes kept: {ratio[1]:.1%} (bar: 60 %)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="a tiny size, to see that it works")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick:
        measure(4, 3, 16, min(options.batch, 8), min(options.repeats, 3), options.threads)
    else:
        measure(16, 8, 32, options.batch, options.repeats, options.threads)
