"""More seeds of a run of research/05 for the networks of its search space: is the searched one better than random ones?

python nbs/research/does_it_hold/more_seeds.py DATA --imbalance-factor 100 --run cifar10_lt100 --out more --seeds 6

Settings are those of RUN, of which the first seeds' answers are read; ResNet-18, MobileNetV3-small and the published
genotypes are left out. Results: OUT/results.json, with the paired differences over all seeds.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from ssnas_colab.config import evaluation_config, search_config
from ssnas_colab.experiment.run import Run
from ssnas_colab.stages.derivation import derive_stage
from ssnas_colab.stages.evaluation import evaluate_seed
from ssnas_colab.stages.loader import load_data
from ssnas_colab.stages.search import search
from ssnas_colab.training.metrics import paired_test_seeds


def one_seed(data, source, run, seed):
    "A search of its own and the networks of its space, by the settings of `source`."
    settings = search_config(source.config["search"])
    search(data, run, dataclasses.replace(settings, seed=settings.seed + seed))
    derive_stage(run)
    left_out = {"resnet18": False, "mobilenet": False, "published": ()}
    evaluate_seed(data, run, evaluation_config(source.config["evaluation"], seed=settings.seed + seed, **left_out))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--imbalance-factor", type=float)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    data = load_data(options.data, imbalance_factor=options.imbalance_factor, image_size=16, seed=0)
    source, runs = Run.open(options.run), []
    for seed in range(options.seeds):
        known = options.run / f"seed_{seed}" if seed else options.run
        if not (known / "run.json").is_file():
            run = Run.open(options.out / f"seed_{seed}", {"seed": seed, "search": source.config["search"]})
            one_seed(data, source, run, seed)
        runs.append(Run.open(known if (known / "run.json").is_file() else options.out / f"seed_{seed}"))

        def answers(name):
            return [run.load_arrays(f"models/{name}.npz")["answers"] for run in runs]

        searched, drawn, names = answers("searched"), [], ("searched", "random_0", "random_1", "resnet_small")
        rows = [{name: run.load_json(f"models/{name}.json")["balanced_accuracy"] for name in names} for run in runs]
        facts = {"seeds": rows, "differences": {}}
        for name in ("random", "resnet_small"):
            drawn = answers("random_0") + answers("random_1") if name == "random" else answers(name)
            own = searched * (len(drawn) // len(searched))
            found = paired_test_seeds(data.labels["test"], own, drawn)[:3]
            facts["differences"][name] = dict(zip(("difference", "low", "high"), found, strict=True))
        options.out.mkdir(exist_ok=True)
        (options.out / "results.json").write_text(json.dumps(facts, indent=1) + "\n")
        print(seed, rows[-1], facts["differences"], flush=True)


if __name__ == "__main__":
    main()
