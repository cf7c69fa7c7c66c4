"""Does it help to show clusters evenly? A search without labels, plain and with even clusters, several seeds of each.

python nbs/research/even_clusters/experiment.py DATA --imbalance-factor 100 --out FOLDER --seeds 3

Compared is the balanced test accuracy of a linear classifier on the supernet's features, with the weights of the
derived genotype, after the same number of steps. Arms are taken in turn; results are appended to FOLDER/results.json.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from ssnas_colab.config import search_config
from ssnas_colab.data.augment import normalise
from ssnas_colab.experiment.run import Run
from ssnas_colab.nas.bilevel import Searcher
from ssnas_colab.nas.relaxations import one_hot
from ssnas_colab.stages.derivation import derive_stage
from ssnas_colab.stages.loader import load_data
from ssnas_colab.stages.search import search

ARMS = {"plain": {}, "even": {"cluster_every": 2}}
warnings.simplefilter("ignore")


@torch.no_grad()
def features(level, images, genotype, measure):
    "Features of the supernet with a genotype's weights; `measure`: batch norm's statistics are taken from them first."
    weights = one_hot(genotype)
    parts = torch.from_numpy(images).split(512)
    parts = [level.engine.to(normalise(part, level.mean, level.std)) for part in parts]
    for part in parts if measure else []:
        level.net.train()(part, weights)
    return torch.cat([level.net.eval()(part, weights) for part in parts]).numpy()


def searched(data, arm, seed, folder, steps):
    "Balanced accuracy of the probe after a search."
    changes = {"width": 8, "depth": 5, "batch_size": 64, "steps": steps, "embedding": 256, "seed": seed}
    config = search_config("cpu", **changes, **ARMS[arm], policy=data.policy)
    run = Run.open(folder / f"{arm}_{seed}", {"arm": arm, "seed": seed})
    search(data, run, config)
    level = Searcher(data.images["train"], config)
    level.net.load_state_dict(run.checkpoints.load("search")["state"]["parts"]["net"])
    genotype = derive_stage(run)
    seen = {split: features(level, data.images[split], genotype, split == "train") for split in ("train", "test")}
    scaler = StandardScaler().fit(seen["train"])
    classifier = LogisticRegression(class_weight="balanced", C=0.05, max_iter=300)
    classifier.fit(scaler.transform(seen["train"]), data.labels["train"])
    predicted = classifier.predict(scaler.transform(seen["test"]))
    return balanced_accuracy_score(data.labels["test"], predicted), str(genotype)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--imbalance-factor", type=float)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    data = load_data(options.data, imbalance_factor=options.imbalance_factor, image_size=16, seed=0)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else []
    for seed in range(options.seeds):
        for arm in ARMS:
            if any(row["arm"] == arm and row["seed"] == seed for row in results):
                continue
            begin = time.time()
            accuracy, genotype = searched(data, arm, seed, options.out, options.steps)
            row = {"arm": arm, "seed": seed, "probe_balanced_accuracy": accuracy, "genotype": genotype}
            results.append(row | {"seconds": round(time.time() - begin), "steps": options.steps})
            path.write_text(json.dumps(results, indent=1))
            print(arm, seed, round(accuracy, 4), flush=True)
    for arm in ARMS:
        values = [row["probe_balanced_accuracy"] for row in results if row["arm"] == arm]
        print(f"{arm}: {np.mean(values):.4f}, from {min(values):.4f} to {max(values):.4f}")


if __name__ == "__main__":
    main()
