"""What ranks networks that are trained for ten times the steps? Scores, sizes and short trainings, on random networks.

python nbs/research/wide_space/experiment.py DATA                  trains them: random_I, random_I_long of 3 M MACs
python nbs/research/wide_space/rank_long.py DATA [--part 0 2]      scores those that are not scored yet
python nbs/research/wide_space/rank_long.py DATA --report          the tables, from what is done

Why it is asked: after 500 steps a search by retrieval is 4 points above random networks, after 5,000 it is level with
them within 9 M MACs, by two pairs; and in public benchmarks, whose trainings are long, retrieval and the loss after 20
steps rank against accuracy (-0.5 to -0.6 in NAS-Bench-Macro), the effective rank and naswot with it. Here all networks
fill the same bounds, which theirs do not.

The networks: random_0 to random_7 of seed 10 within 3 M MACs and 413,850 parameters, on long-tailed CIFAR-10, where a
training of 5,000 steps takes five minutes. Spearman with balanced accuracy after 5,000 steps: eight networks tell 0
from 0.7, no finer; what is found here is a hint at what to try, no choice.

Expected, written before any of them but random_0 was trained long or scored:

1. Accuracy after 500 steps ranks at 0.6; retrieval at 0.3 after 20 steps and 0.5 after 80, the loss alike.
2. naswot and the effective rank after 20 steps at 0.5; parameters at 0.6, for room counts the longer a network trains;
   MACs, which all of them fill, and depth at 0.
3. The mean of the eight is 55 +- 3 %: the searched network of seed 10, 59.2 %, is above it, two of them above that.

A job is one network: the scores after 20 and 80 steps on 4,096 training images, from weights drawn by its seed.
"""

import json
import warnings
from functools import partial
from pathlib import Path

import experiment
import numpy as np
import torch
from jobs import command, do
from rank_beside import scored, untrained
from regime import load, some
from scipy.stats import spearmanr

from ssnas_colab.core.files import write_atomically
from ssnas_colab.nas.scores import network_score

OUT = Path(__file__).parent / "rank_long"
SEED, NAMES = 10, [f"random_{i}" for i in range(experiment.RANDOM)]
FREE = "naswot", "expressivity", "macs", "parameters", "depth"
warnings.simplefilter("ignore")


def every_score(row, data):
    "All scores of a network's genotype by name, those that train by steps too, before any training with labels."
    net, images = untrained(row, data, SEED), some(data.images["train"])
    trained = scored(net, data, SEED)
    found = {f"{name} after {steps}": value for name, by in trained.items() for steps, value in by.items()}
    return found | {name: network_score(net, images, score=name, seed=SEED) for name in FREE}


def row_of(folder, name):
    "What `experiment.py` says of a network after both trainings, and its scores; None while one is missing."
    if not all(experiment.path_of(experiment.SMALL, SEED, arm).is_file() for arm in (name, f"{name}_long")):
        return None
    short, long = (experiment.done(experiment.SMALL, SEED, arm) for arm in (name, f"{name}_long"))
    kept = {key: short[key] for key in ("name", "genotype", "width", "parameters", "macs", "balanced_accuracy")}
    kept |= {"validation": short["validation"], "long": long["balanced_accuracy"], "seed": SEED}
    scores = every_score(short, load(folder, experiment.SMALL.removesuffix("_3M")))
    return kept | {"scores": scores, "torch": torch.__version__}


def report():
    "Spearman of everything that is known early with balanced accuracy after the long training."
    rows = [json.loads(path.read_text()) for path in sorted(OUT.glob("*.json"))]
    if len(rows) < 3:
        print(f"{len(rows)} networks are done: too few to rank")
        return
    truth = np.array([row["long"] for row in rows])
    print(f"{len(rows)} networks, after the long training {100 * truth.mean():.1f} +- {100 * truth.std(ddof=1):.1f} %")
    early = {"accuracy after the short training": [row["balanced_accuracy"] for row in rows]}
    early |= {name: [row["scores"][name] for row in rows] for name in rows[0]["scores"]}
    table = []
    for name, values in early.items():
        best = truth[int(np.argmax(values))]
        table.append({"by": name, "networks": len(rows), "spearman": spearmanr(values, truth)[0], "its_best": best})
        print(f"{name:36}{table[-1]['spearman']:+.2f}, its best has {100 * best:.1f} %")
    write_atomically(OUT.with_suffix(".json"), (json.dumps(table, indent=1, default=float) + "\n").encode())


def main():
    options = command(__doc__).parse_args()
    if not options.report:
        do(options, [(name,) for name in NAMES], lambda name: OUT / f"{name}.json", partial(row_of, options.data))
    report()


if __name__ == "__main__":
    main()
