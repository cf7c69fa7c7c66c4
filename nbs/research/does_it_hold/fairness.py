"""Is ResNet-18 held back by the recipe? Other learning rates, and three times the fine-tuning, for both networks.

python nbs/research/does_it_hold/fairness.py DATA --imbalance-factor 100 --run cifar10_lt100 --out fairness

The genotype is that of RUN, a run of research/05; everything else is as there, one seed. Results: OUT/results.json.
"""

import argparse
import json
from pathlib import Path

from ssnas_colab.experiment.run import Run
from ssnas_colab.stages.evaluation import evaluate
from ssnas_colab.stages.loader import load_data

ARMS = {
    "rates 5e-4": {"pretrain_rate": 5e-4, "finetune_rate": 5e-4},
    "rates 1e-3": {"pretrain_rate": 1e-3, "finetune_rate": 1e-3},
    "fine-tuning of 1,200 steps": {"finetune_steps": 1200},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--imbalance-factor", type=float)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = load_data(options.data, imbalance_factor=options.imbalance_factor, image_size=16, seed=0)
    source, results = Run.open(options.run), []
    config = source.config["evaluation"] | {"random_genotypes": 0, "mobilenet": False, "published": []}
    for arm, changes in ARMS.items():
        run = Run.open(options.out / arm.replace(" ", "_").replace(",", ""), {"seed": 0, "arm": arm})
        run.save_text("genotype.json", source.load_text("genotype.json"))
        run.save_json("search.json", source.load_json("search.json"))
        report = evaluate(data, run, config | changes)
        for name, model in report["models"].items():
            scores = {key: model[key] for key in ("balanced_accuracy", "macro_auc", "seconds", "best_epoch")}
            results.append({"arm": arm, "model": name, "seed": 0, "threads": report["threads"]} | scores)
            print(arm, name, f"{model['balanced_accuracy']:.4f}", flush=True)
        (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
