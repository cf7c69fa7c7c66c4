"""Does the rank of the features beside retrieval tell more of a network than retrieval alone? On fresh networks.

python nbs/research/wide_space/rank_beside.py DATA [--part 0 2]    the networks that are not scored yet
python nbs/research/wide_space/rank_beside.py DATA --report        the tables, from what is done

Why it is asked (28 November 2026): in nbs/research/clinic, a search of long-tailed CIFAR-10 took a network of 128 k
parameters that filled its bound of MACs, whose rank was 22 where a finalist of the same retrieval had 42; it ended 4
points below a random network. On the 40 networks of regime.py, looked at again after that,

    log(retrieval + 1/1024) + log(rank) / 2        ("both" below)

has a Spearman with balanced accuracy of 0.67, 0.64 and 0.64 after 20, 50 and 100 steps, retrieval alone 0.54, 0.59 and
0.52 (difference after 20 steps +0.13, 95 % bootstrap over the networks [0.00, 0.28]). The factor of a half was one of
three that were tried (a quarter and 1 are alike). Having been chosen on these networks it has to be tried on others:
the 24 random networks of long-tailed CIFAR-10 that experiment.py has trained, of seeds 10 to 12.

Expected, written before any of them was scored: retrieval after 20 steps 0.5 (0.1 to 0.75, with 24 networks), both 0.1
more, its interval not clear of 0; after 80 steps alike. If both is not ahead after 20 steps, the choice stays.

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
from regime import BUDGETS, load, some
from scipy.stats import spearmanr

from ssnas_colab.core.files import write_atomically
from ssnas_colab.core.seeding import derived_seed
from ssnas_colab.models.genotype import genotype_from_json
from ssnas_colab.models.network import Network
from ssnas_colab.nas.scores import network_scores

OUT = Path(__file__).parent / "rank_beside"
SET, NAMES, SEEDS, STEPS = "cifar10_lt100", [f"random_{i}" for i in range(8)], (10, 11, 12), (20, 80)
TRAINED = "barlow_twins", "rank", "retrieval"
warnings.simplefilter("ignore")


def untrained(row, data, seed):
    "The network of what `experiment.py` says of one, with the weights that its name draws, before any training."
    genotype = genotype_from_json(json.dumps(row["genotype"]))
    torch.manual_seed(derived_seed(seed, "weights", row["name"]))
    return Network(genotype, data.num_classes, in_channels=data.channels, width=row["width"])


def scored(net, data, seed):
    "What the label-free scores that train say of a network."
    return network_scores(net, some(data.images["train"]), scores=TRAINED, steps=STEPS, seed=seed)


def report(draws=10_000):
    "Spearman with balanced accuracy, and its gain by the rank beside, with 95 % bootstraps over the networks."
    rows = [json.loads(path.read_text()) for path in sorted(OUT.glob("*.json"))]
    truth, generator = np.array([row["balanced_accuracy"] for row in rows]), np.random.default_rng(0)
    chosen = [generator.integers(0, len(rows), len(rows)) for _ in range(draws)]
    print(f"{len(rows)} networks, balanced accuracy {100 * truth.mean():.1f} ± {100 * truth.std(ddof=1):.1f} %")
    table = []
    for steps in map(str, STEPS):
        found = {name: np.array([row["scores"][name][steps] for row in rows]) for name in rows[0]["scores"]}
        found["both"] = np.log(found["retrieval"] + 1 / 1024) + np.log(found["rank"]) / 2
        for name, values in found.items():
            drawn = [spearmanr(values[i], truth[i])[0] for i in chosen]
            gains = np.array(drawn) - [spearmanr(found["retrieval"][i], truth[i])[0] for i in chosen]
            low, high = np.nanpercentile(drawn, [2.5, 97.5])
            line = {"score": name, "steps": int(steps), "networks": len(rows), "spearman": spearmanr(values, truth)[0]}
            line |= {"interval": [low, high], "best_3": truth[np.argsort(-values)[:3]].mean()}
            line["gain"] = line["spearman"] - spearmanr(found["retrieval"], truth)[0]
            line["gain_interval"] = [*np.nanpercentile(gains, [2.5, 97.5])]
            table.append(line)
            told = f"{name:13}{steps:>3} steps: {line['spearman']:+.2f} [{low:+.2f}, {high:+.2f}]"
            told += f", best three {100 * line['best_3']:.1f} %, against retrieval {line['gain']:+.2f}"
            print(told, "[{:+.2f}, {:+.2f}]".format(*line["gain_interval"]))
    write_atomically(OUT.with_suffix(".json"), (json.dumps(table, indent=1, default=float) + "\n").encode())


def row_of(folder, seed, name):
    "What `experiment.py` says of a network, and its scores."
    row = json.loads(experiment.path_of(SET, seed, name).read_text())
    kept = {key: row[key] for key in ("name", "genotype", "width", "parameters", "macs", "balanced_accuracy")}
    data = load(folder, SET)
    kept |= {"budgets": BUDGETS, "seed": seed, "scores": scored(untrained(row, data, seed), data, seed)}
    return kept | {"torch": torch.__version__}


def main():
    options = command(__doc__).parse_args()
    if not options.report:
        jobs = [(seed, name) for seed in SEEDS for name in NAMES]
        do(options, jobs, lambda seed, name: OUT / f"{name}_seed_{seed}.json", partial(row_of, options.data))
    report()


if __name__ == "__main__":
    main()
