"""What a type checker must make of the public names: read by `pyrefly check`, never run.

A line that ends in an `ignore` is a mistake which must be seen: an `ignore` that hides nothing is an error, too.
"""

from typing import Any, assert_type

import numpy as np
import torch

import ssnas_colab
from ssnas_colab import (
    GENOTYPES,
    PRIMITIVES,
    Edge,
    Genotype,
    ImageData,
    Network,
    Run,
    Supernet,
    UserError,
    barlow_twins_loss,
    count_macs,
    count_parameters,
    derive,
    derive_stage,
    evaluate,
    explore,
    load_data,
    load_genotype,
    load_model,
    long_tailed_counts,
    network_score,
    nt_xent_loss,
    plot_genotype,
    run_pipeline,
    search,
    zero_one_loss,
)

assert_type(ssnas_colab.__version__, str)
assert_type(load_data("digits", imbalance_factor=10), ImageData)
load_data("digits", imbalance_factor="ten")  # pyrefly: ignore[bad-argument-type]
load_data("digits", imbalance=10)  # pyrefly: ignore[unexpected-keyword]
assert_type(long_tailed_counts(100, 10, 10.0), list[int])

genotype = Genotype.from_json("{}")
assert_type(genotype, Genotype)
edge: Edge = genotype.normal[0]
net = Network(GENOTYPES["DARTS_V2"], 10, in_channels=1, width=4, depth=3)
assert_type(Network.within(genotype, 10, max_parameters=1e5), Network)
Network(genotype)  # pyrefly: ignore[missing-argument]
Network(genotype, "ten")  # pyrefly: ignore[bad-argument-type]
assert_type(count_parameters(net), int)
assert_type(count_macs(net, (1, 8, 8)), int)
assert_type(network_score(net, np.zeros((64, 1, 8, 8), np.uint8), score="macs"), float)
network_score(net, [], score=3)  # pyrefly: ignore[bad-argument-type]
plot_genotype(load_genotype("genotype.json"), title=PRIMITIVES[0])

supernet = Supernet(width=4, depth=3)
assert_type(zero_one_loss(supernet.weights()), torch.Tensor)
assert_type(barlow_twins_loss(torch.rand(8, 4), torch.rand(8, 4)), torch.Tensor)
assert_type(nt_xent_loss(torch.rand(8, 4), torch.rand(8, 4), temperature=0.1), torch.Tensor)
assert_type(derive({"normal": np.zeros((14, 7)), "reduce": np.zeros((14, 7))}), Genotype)

run = Run.open("runs/digits")
assert_type(run, Run)
search(load_data("digits"), run, quiet=True)
derive_stage(run, threshold="high")  # pyrefly: ignore[bad-argument-type]
assert_type(evaluate(load_data("digits"), run, seeds=3), dict[Any, Any])
assert_type(run_pipeline("digits", seeds=2, time_budget="3h"), dict[Any, Any])
run_pipeline("digits", seeds="two")  # pyrefly: ignore[bad-argument-type]
load_model(run, "resnet18").predict([])
explore(run, clicks=False)
mistake: ValueError = UserError("one sentence")
