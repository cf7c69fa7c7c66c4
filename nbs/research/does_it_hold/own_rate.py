"""ResNet-18 with learning rates of its own, in three seeds, against the searched networks of a run of research/05.

python nbs/research/does_it_hold/own_rate.py DATA --imbalance-factor 100 --run cifar10_lt100 --out own_rate --rate 5e-4

Everything but ResNet-18's two learning rates is as in RUN, of which the searched networks' answers are read. Results:
OUT/results.json, with the paired difference.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from ssnas_colab.config import evaluation_config
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.baselines import resnet18
from ssnas_colab.stages.evaluation import evaluate_network
from ssnas_colab.stages.loader import load_data
from ssnas_colab.training.metrics import paired_test_seeds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--imbalance-factor", type=float)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=5e-4)
    options = parser.parse_args()
    data = load_data(options.data, imbalance_factor=options.imbalance_factor, image_size=16, seed=0)
    source, own, other, rows = Run.open(options.run), [], [], []
    config = evaluation_config(source.config["evaluation"], pretrain_rate=options.rate, finetune_rate=options.rate)
    for seed in range(3):
        searched = source if seed == 0 else Run.open(options.run / f"seed_{seed}")
        run = Run.open(options.out / f"seed_{seed}", {"seed": seed, "rate": options.rate})

        def make():
            return resnet18(data.num_classes, data.channels)

        found = evaluate_network("resnet18", make, data, run, dataclasses.replace(config, seed=seed))
        rows.append({"seed": seed} | {key: found[key] for key in ("balanced_accuracy", "macro_auc", "seconds")})
        own.append(searched.load_arrays("models/searched.npz")["answers"])
        other.append(run.load_arrays("models/resnet18.npz")["answers"])
        print(rows[-1], flush=True)
    difference, low, high = paired_test_seeds(data.labels["test"], own, other)[:3]
    facts = {"rate": options.rate, "seeds": rows, "difference": difference, "low": low, "high": high}
    (options.out / "results.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(f"searched minus ResNet-18 at {options.rate:g}: {difference:+.4f} [{low:+.4f}, {high:+.4f}]")


if __name__ == "__main__":
    main()
