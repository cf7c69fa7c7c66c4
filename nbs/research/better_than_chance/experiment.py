"""Do searched genotypes beat random ones? Same space, parameter budget, recipe and steps; several seeds of each.

python nbs/research/better_than_chance/experiment.py DATA --imbalance-factor 100 --out FOLDER --arms searched:3 random:5

Every network and every search is a run below FOLDER, so a command that was killed goes on where it stood; results are
appended to FOLDER/results.json. Images are shrunk to 16 pixels, networks to 100,000 parameters, to fit two CPU cores.
"""

import argparse
import dataclasses
import json
import platform
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from ssnas_colab.config import evaluation_config, search_config
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.baselines import narrow_resnet, random_genotype, resnet18
from ssnas_colab.models.genotype import Edge
from ssnas_colab.models.network import Network
from ssnas_colab.stages.derivation import derive_stage
from ssnas_colab.stages.loader import load_data
from ssnas_colab.stages.search import search
from ssnas_colab.training.recipes import Trainer, learn, pretrain

SEARCH = {"width": 8, "depth": 5, "batch_size": 64, "steps": 700, "embedding": 256}
RELAXED = {"fair": 200, "darts": 200}  # steps of the arms that blend all operations: a step costs several times as much
RECIPE = {
    "pretrain_steps": 300, "finetune_steps": 500, "batch_size": 64, "embedding": 256, "max_parameters": 100_000,
}  # fmt: skip
warnings.simplefilter("ignore")


def probe(recipe, data):
    "Balanced test accuracy of a linear classifier on the features of the pretrained network."
    found = {}
    recipe.net.eval()
    with torch.no_grad():
        for split in ("train", "test"):
            parts = [recipe.net.features(recipe.inputs(part)) for part in recipe.images[split].split(512)]
            found[split] = torch.cat(parts).float().numpy()
    scaler = StandardScaler().fit(found["train"])
    classifier = LogisticRegression(class_weight="balanced", C=0.05, max_iter=300)
    classifier.fit(scaler.transform(found["train"]), data.labels["train"])
    return balanced_accuracy_score(data.labels["test"], classifier.predict(scaler.transform(found["test"])))


def searched(data, folder, seed, relaxation, **changes):
    "The genotype of a search, and what it took."
    if relaxation == "sampled":
        config = search_config("cpu", **SEARCH, seed=seed, **changes)
    else:
        steps = {"steps": RELAXED[relaxation], "warmup": 0.2}
        config = search_config("cpu", **SEARCH | steps, relaxation=relaxation, seed=seed, **changes)
    run = Run.open(folder / f"search_{relaxation}_{seed}", {"search": dataclasses.asdict(config)})
    search(data, run, config)
    genotype = derive_stage(run)
    facts = run.load_json("search.json")
    return genotype, {"search_seconds": facts["seconds"], "search_steps": config.steps, "stopped": facts["stopped"]}


def trained(name, make, data, folder, seed):
    "One network through the recipe: what it scores."
    config = evaluation_config(RECIPE, seed=seed)
    run = Run.open(folder / name, {"evaluation": dataclasses.asdict(config), "name": name})
    recipe = Trainer(name.split("_")[0], make, data, run, config)
    pretraining = pretrain(recipe)
    linear = probe(recipe, data)
    learn(recipe, "finetune", config.loss, config.sampler)
    scores = recipe.metrics("test")
    found = {
        "parameters": sum(p.numel() for p in recipe.net.parameters()), "width": getattr(recipe.net, "width", None),
        "pretraining_loss": pretraining[-1]["loss"], "probe_balanced_accuracy": linear,
        "balanced_accuracy": scores["balanced_accuracy"], "accuracy": scores["accuracy"],
        "macro_auc": scores["macro_auc"],
        "recall_per_class": scores["recall_per_class"], "best_epoch": recipe.best.epoch + 1,
        "seconds": sum(run.facts(f"{stage}/{recipe.name}")["seconds"] for stage in ("pretrain", "finetune")),
    }  # fmt: skip
    for stage in ("pretrain", "finetune"):
        run.checkpoints.drop(f"{stage}/{recipe.name}")
    return found


def mixed(genotype, seed):
    "A random genotype with the operations of this one: as many of each in each cell, on random edges."
    rng, cells, other = np.random.default_rng(1000 + seed), {}, random_genotype(1000 + seed)
    for kind in ("normal", "reduce"):
        operations = [edge.op for edge in getattr(genotype, kind)]
        places = [edge[1:] for edge in getattr(other, kind)]
        cells[kind] = tuple(Edge(op, *place) for op, place in zip(rng.permutation(operations).tolist(), places))
    return dataclasses.replace(other, **cells)


def contestant(arm, seed, data, folder):
    "Name, maker of the network, and facts."
    options = {"max_parameters": RECIPE["max_parameters"], "depth": SEARCH["depth"], "in_channels": data.channels}
    facts = {}
    if arm == "resnet18":
        return lambda: resnet18(data.num_classes, data.channels), facts
    if arm == "resnet":
        return lambda: narrow_resnet(data.num_classes, data.channels, max_parameters=RECIPE["max_parameters"]), facts
    if arm == "random":
        genotype = random_genotype(seed)
    elif arm == "mixed":
        genotype = mixed(searched(data, folder, seed, "sampled")[0], seed)
    elif arm == "even":
        genotype, facts = searched(data, folder / "even", seed, "sampled", cluster_every=2)
    else:
        genotype, facts = searched(data, folder, seed, "sampled" if arm == "searched" else arm)
    return lambda: Network.within(genotype, data.num_classes, **options), facts | {"genotype": str(genotype)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--imbalance-factor", type=float)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", default=["searched:3", "random:5"], help="NAME:SEEDS, taken in turn")
    parser.add_argument("--image-size", type=int, default=16)
    options = parser.parse_args()
    data = load_data(options.data, imbalance_factor=options.imbalance_factor, image_size=options.image_size, seed=0)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else []
    counts = {arm: int(count) for arm, count in (text.split(":") for text in options.arms)}
    for seed in range(max(counts.values())):
        for arm in [arm for arm, count in counts.items() if seed < count]:
            name = f"{arm}_{seed}"
            if any(row["name"] == name for row in results):
                continue
            begin = time.time()
            make, facts = contestant(arm, seed, data, options.out)
            row = {"name": name, "arm": arm, "seed": seed} | facts | trained(name, make, data, options.out, seed)
            row |= {"wall_seconds": round(time.time() - begin), "threads": torch.get_num_threads()}
            row |= {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
            results.append(row)
            path.write_text(json.dumps(results, indent=1, default=float))
            print(name, {k: round(v, 4) for k, v in row.items() if isinstance(v, float)}, flush=True)
    for arm in counts:
        for key in ("balanced_accuracy", "probe_balanced_accuracy"):
            values = [row[key] for row in results if row["arm"] == arm]
            spread = f"from {min(values):.4f} to {max(values):.4f}"
            print(f"{arm}: {key} {np.mean(values):.4f}, {len(values)} seeds, {spread}")


if __name__ == "__main__":
    main()
