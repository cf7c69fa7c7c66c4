"""Networks of a run of research/05 by other settings of the evaluation: would something else have served them better?

python nbs/research/does_it_hold/attempts.py DATA --run pneumonia_9to1 --out attempts --set finetune_steps=750

Genotypes are those of RUN's seeds; what is not --set is as there. Results: OUT/results.json, with the paired
differences of the searched network from the others.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from ssnas_colab.config import evaluation_config
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.genotype import Genotype
from ssnas_colab.stages.evaluation import compared, evaluate_network
from ssnas_colab.stages.loader import load_data
from ssnas_colab.training.metrics import paired_test_seeds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--imbalance-factor", type=float)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--networks", default="searched,resnet_small,random_0,random_1")
    options = parser.parse_args()
    changes = {name: json.loads(value) for name, _, value in (text.partition("=") for text in options.set)}
    names = options.networks.split(",")
    data = load_data(options.data, imbalance_factor=options.imbalance_factor, image_size=16, seed=0)
    source, rows, answers = Run.open(options.run), [], {name: [] for name in names}
    config = evaluation_config(source.config["evaluation"], **changes)
    for seed in range(3):
        searched = source if seed == 0 else Run.open(options.run / f"seed_{seed}")
        run = Run.open(options.out / f"seed_{seed}", {"seed": seed, "changes": changes})
        own, depth = dataclasses.replace(config, seed=seed), searched.load_json("search.json")["depth"]
        made = compared(Genotype.from_json(searched.load_text("genotype.json")), data, own, depth)
        found = {name: evaluate_network(name, made[name], data, run, own) for name in names}
        rows.append({"seed": seed} | {name: found[name]["balanced_accuracy"] for name in names})
        for name in names:
            answers[name].append(run.load_arrays(f"models/{name}.npz")["answers"])
        print(rows[-1], flush=True)
    facts = {"changes": changes, "seeds": rows, "differences": {}}
    for name in names[1:]:
        found = paired_test_seeds(data.labels["test"], answers[names[0]], answers[name])[:3]
        facts["differences"][name] = dict(zip(("difference", "low", "high"), found, strict=True))
        print(name, facts["differences"][name], flush=True)
    (options.out / "results.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
