"""Which label-free score ranks networks of the wide space as training by our recipe does, and after how many steps?

python nbs/research/wide_space/regime.py DATA                    all jobs that are not done yet
python nbs/research/wide_space/regime.py DATA --set NAME --part 0 2    those of one data set, every second one
python nbs/research/wide_space/regime.py DATA --report           only the table, from what is done

DATA is a folder with cifar10_images.zip and pneumoniamnist_9to1.npz. Data sets, at 16 x 16 pixels: CIFAR-10 cut to a
long tail of factor 100 (seed 0), PneumoniaMNIST 9:1. 40 networks of the wide space are drawn by seed 0 (see `drawn`),
each as wide as 413,850 parameters and 9 M MACs allow: half of the MACs of the cells of earlier experiments. Each is
trained by the recipe (200 steps without labels, 300 with them, batches of 64) with seed 0, and scored on 4,096 training
images (all, where there are fewer): by Barlow Twins, rank and retrieval after 20, 50, 100 and 200 steps, with a second
seed after 20 and 50, by SimCLR and VICReg after 20 and 50, and by what needs no training. Then they are trained with
two more seeds, for the luck of one training hides what a score can know. A job is one network and one
of these; it leaves its JSON in nbs/research/wide_space/regime/SET/ when it is done, so that the same command goes on
after any interruption. One thread, float32; --device cuda: the same on a GPU, which its rows say.
"""

import json
import tempfile
import time
import warnings
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from jobs import command, do
from scipy.stats import rankdata, spearmanr

from ssnas_colab.config import evaluation_config
from ssnas_colab.core.basics import UserError
from ssnas_colab.core.files import write_atomically
from ssnas_colab.core.seeding import derived_seed
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.network import Network, count_macs, count_parameters
from ssnas_colab.models.stages import random_stages
from ssnas_colab.nas.scores import network_scores
from ssnas_colab.stages.loader import load_data
from ssnas_colab.training.recipes import Trainer

OUT = Path(__file__).parent / "regime"
SETS = {
    "cifar10_lt100": ("cifar10_images.zip", {"imbalance_factor": 100}),
    "pneumonia_9to1": ("pneumoniamnist_9to1.npz", {}),
}  # fmt: skip
BUDGETS = {"max_parameters": 413_850, "max_macs": 9_000_000}
RECIPE = {"pretrain_steps": 200, "finetune_steps": 300, "batch_size": 64, "embedding": 256}
NETWORKS, SEED, FULL, IMAGES = 40, 0, 0.85, 4096
LABEL_FREE = "barlow_twins", "rank", "retrieval"
FREE = "expressivity", "naswot", "macs", "parameters", "depth"
JOBS = {  # name -> (scores, steps, seed), or the seed of a training by the recipe
    "train": 0,
    "barlow_twins": (LABEL_FREE, (20, 50, 100, 200), 0),
    "free": (FREE, (0,), 0),
    "train_seed_1": 1,
    "train_seed_2": 2,
    "barlow_twins_seed_1": (LABEL_FREE, (20, 50), 1),
    "simclr": (("simclr",), (20, 50), 0),
    "vicreg": (("vicreg",), (20, 50), 0),
}
warnings.simplefilter("ignore")


@cache
def load(folder, name):
    "The `ImageData` of a set, at 16 pixels."
    path, options = SETS[name]
    return load_data(folder / path, image_size=16, seed=0, **options)


def drawn(number, data, budgets=BUDGETS, seed=SEED):
    """Genotype and a function that makes its network: number `number` of those drawn by the seed.

    What fills no budget to 85 % is drawn again, at most 100 times; then the fullest is taken.
    """
    best = None
    for attempt in range(100):
        genotype = random_stages(derived_seed(seed, "wide space", number, attempt))
        options = {"in_channels": data.channels, "input_size": data.size, **budgets}
        try:
            with torch.device("meta"):
                net = Network.within(genotype, data.num_classes, **options)
                full = count_parameters(net) / budgets["max_parameters"]
                full = max(full, count_macs(net, (data.channels, *data.size)) / budgets["max_macs"])
        except UserError:
            continue
        if best is None or full > best[0]:
            best = full, genotype, net.width
        if full >= FULL:
            break
    _, genotype, width = best
    return genotype, lambda: Network(genotype, data.num_classes, in_channels=data.channels, width=width)


def trained(name, make, data, seed, device="cpu", **changes):
    "What a network scores after the recipe in float32, and what that took."
    config = evaluation_config(RECIPE | changes, seed=seed, device=device, precision="float32")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(name, make, data, Run.open(Path(folder) / "run", {}), config, quiet=True)
        begin, clock = time.process_time(), time.perf_counter()
        trainer.run()
        seconds, lasted = time.process_time() - begin, time.perf_counter() - clock
    scores, net = trainer.metrics("test"), trainer.net
    return {
        "parameters": count_parameters(net), "macs": count_macs(net, (data.channels, *data.size)),
        "width": getattr(net, "width", None), "balanced_accuracy": scores["balanced_accuracy"],
        "accuracy": scores["accuracy"], "macro_auc": scores["macro_auc"],
        "validation": trainer.metrics("val")["balanced_accuracy"], "best_epoch": trainer.best.epoch + 1,
        "cpu_seconds": round(seconds, 1), "seed": seed, "recipe": RECIPE | changes, "torch": torch.__version__,
        "seconds": round(lasted, 1), "device": str(trainer.engine.device),
    }  # fmt: skip


def some(images, count=IMAGES):
    "At most `count` of the images, drawn by the seed."
    order = np.random.default_rng(derived_seed(SEED, "images of the scores")).permutation(len(images))
    return images[np.sort(order[:count])]


def path_of(name, kind, number):
    return OUT / name / f"{kind}_{number}.json"


def row_of(folder, device, name, kind, number):
    "What a job finds of a network: its training by the recipe, or its scores."
    data = load(folder, name)
    genotype, make = drawn(number, data)
    row = {"number": number, "kind": kind, "genotype": genotype.to_dict()}
    if kind.startswith("train"):
        return row | trained(f"random_{number}", make, data, JOBS[kind], device)
    scores, steps, seed = JOBS[kind]
    torch.manual_seed(derived_seed(seed, "weights", number))
    net, begin = make().to(device), time.process_time()
    row |= {"scores": network_scores(net, some(data.images["train"]), scores=scores, steps=steps, seed=seed)}
    row |= {"cpu_seconds": round(time.process_time() - begin, 1), "seed": seed, "torch": torch.__version__}
    return row | {"device": device}


def report():
    "The table: rank correlation with balanced accuracy by score and steps, what the best third by it has, agreement."
    table = []
    for name in SETS:
        rows = [json.loads(path.read_text()) for path in sorted((OUT / name).glob("*.json"))]
        kinds = {kind: {row["number"]: row for row in rows if row["kind"] == kind} for kind in JOBS}
        trainings = {k: {n: row["balanced_accuracy"] for n, row in v.items()} for k, v in kinds.items() if "train" in k}
        first, *more = trainings.values()
        truth = {n: np.mean([each[n] for each in trainings.values() if n in each]) for n in first}
        if len(truth) < 8:
            continue
        values = np.array(list(truth.values()))
        seconds = np.array([row["cpu_seconds"] for row in kinds["train"].values()])
        pairs = [(first[n], each[n]) for each in more for n in each.keys() & first.keys()]
        agree = f", trainings agree {spearmanr(*zip(*pairs)).statistic:.3f}" if len(pairs) > 8 else ""
        own = [(row["validation"], row["balanced_accuracy"]) for row in kinds["train"].values()]
        agree += f", validation and test of one training agree {spearmanr(*zip(*own)).statistic:.3f}"
        told = f"balanced accuracy {values.mean():.4f} (sd {values.std(ddof=1):.4f}, from {values.min():.4f} to"
        print(f"{name}: {len(truth)} networks, {told} {values.max():.4f}){agree}, training took"
              f" {seconds.mean():.0f} CPU s each")  # fmt: skip
        for kind, known in kinds.items():
            if kind in trainings:
                continue
            both = sorted(known.keys() & truth.keys())
            if len(both) < 8:
                continue
            of, seconds = np.array([truth[n] for n in both]), np.mean([known[n]["cpu_seconds"] for n in both])
            columns = {
                (score, int(steps)): np.array([known[n]["scores"][score][steps] for n in both])
                for score, found in known[both[0]]["scores"].items() for steps in found
            }  # fmt: skip
            for steps in {steps for score, steps in columns if score == "rank"}:
                both_ranks = rankdata(columns["barlow_twins", steps]) + rankdata(columns["rank", steps])
                columns["barlow_twins+rank", steps] = both_ranks
            for (score, steps), x in sorted(columns.items()):
                rng, draws = np.random.default_rng(SEED), []
                for _ in range(500):
                    at = rng.integers(len(x), size=len(x))
                    draws.append(spearmanr(x[at], of[at]).statistic)
                order = np.argsort(-x, kind="stable")
                third, best = order[: len(x) // 3], order[: max(len(x) // 8, 2)]
                low, high = np.nanpercentile(draws, [2.5, 97.5])
                line = {
                    "set": name, "job": kind, "score": score, "steps": steps, "networks": len(x),
                    "spearman": round(float(spearmanr(x, of).statistic), 3),
                    "low": round(float(low), 3), "high": round(float(high), 3),
                    "mean": round(float(of.mean()), 4), "first": round(float(of[order[0]]), 4),
                    "best_eighth": round(float(of[best].mean()), 4), "best_third": round(float(of[third].mean()), 4),
                    "cpu_seconds_of_job": round(float(seconds), 1),
                    "within_third": round(float(spearmanr(x[third], of[third]).statistic), 3),
                }  # fmt: skip
                first = kinds["barlow_twins"]
                if kind.endswith("seed_1") and score in LABEL_FREE and set(both) <= first.keys():
                    other = [first[n]["scores"][score][str(steps)] for n in both]
                    line["agreement_of_seeds"] = round(float(spearmanr(x, other).statistic), 3)
                table.append(line)
                print(f"  {kind:20}{score:18}{steps:4} steps: {line['spearman']:6.3f} [{low:.3f}, {high:.3f}], "
                      f"mean {of.mean():.3f}, first {line['first']:.3f}, best eighth {line['best_eighth']:.3f}, third "
                      f"{line['best_third']:.3f}, within it {line['within_third']:6.3f}"
                      f", seeds agree {line.get('agreement_of_seeds', '-')}")  # fmt: skip
    write_atomically(OUT.with_suffix(".json"), (json.dumps(table, indent=1) + "\n").encode())


def main():
    parser = command(__doc__)
    parser.add_argument("--set", choices=SETS, nargs="+", default=tuple(SETS))
    parser.add_argument("--kind", choices=JOBS, nargs="+", default=tuple(JOBS))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    early = [kind for kind in list(JOBS)[:3] if kind in options.kind]
    late = [kind for kind in options.kind if kind not in early]
    # of each network first what decides; further seeds and losses when all data sets have that
    jobs = [(name, kind, number) for kinds in (early, late) for number in range(NETWORKS) for name in options.set
            for kind in kinds]  # fmt: skip
    if not options.report:
        do(options, jobs, path_of, partial(row_of, options.data, options.device))
    report()


if __name__ == "__main__":
    main()
