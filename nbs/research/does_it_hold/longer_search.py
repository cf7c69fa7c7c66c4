"""Longer searches for the seeds of a run of research/05: is it the budget of the search that keeps it near chance?

python nbs/research/does_it_hold/longer_search.py DATA --imbalance-factor 100 --run cifar10_lt100 --out out --steps 2100

The searched networks go through the recipe of RUN, whose random genotypes and searched networks' answers are read.
Results: OUT/results.json, with the paired differences of the new searched networks from both.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from ssnas_colab.config import evaluation_config, search_config
from ssnas_colab.experiment.run import Run
from ssnas_colab.stages.derivation import derive_stage
from ssnas_colab.stages.evaluation import compared, evaluate_network
from ssnas_colab.stages.loader import load_data
from ssnas_colab.stages.search import search
from ssnas_colab.training.metrics import paired_test_seeds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--imbalance-factor", type=float)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2100)
    options = parser.parse_args()
    data = load_data(options.data, imbalance_factor=options.imbalance_factor, image_size=16, seed=0)
    source, runs, rows = Run.open(options.run), [], []
    for seed in range(3):
        before = Run.open(options.run / f"seed_{seed}") if seed else source
        run = Run.open(options.out / f"seed_{seed}", {"seed": seed, "steps": options.steps})
        settings = dataclasses.replace(search_config(source.config["search"]), steps=options.steps)
        search(data, run, dataclasses.replace(settings, seed=settings.seed + seed))
        config = evaluation_config(source.config["evaluation"], seed=seed)
        made = compared(derive_stage(run), data, config, settings.depth)
        found = evaluate_network("searched", made["searched"], data, run, config)
        runs.append((run, before))
        rows.append({"seed": seed, "balanced_accuracy": found["balanced_accuracy"], "genotype": found["genotype"]})
        print(rows[-1], flush=True)

    def answers(name, which=1):
        return [pair[which].load_arrays(f"models/{name}.npz")["answers"] for pair in runs]

    own, differences = answers("searched", 0), {}
    drawn = answers("random_0") + answers("random_1")
    pairs = {"shorter searches": (own, answers("searched")), "random": (own * 2, drawn)}
    for name, (new, old) in pairs.items():
        found = paired_test_seeds(data.labels["test"], new, old)[:3]
        differences[name] = dict(zip(("difference", "low", "high"), found, strict=True))
        print(name, differences[name], flush=True)
    facts = {"steps": options.steps, "seeds": rows, "differences": differences}
    (options.out / "results.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
