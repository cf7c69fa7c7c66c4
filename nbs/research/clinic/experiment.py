"""What should a user pick for such data? The searched network, what they would pick instead, and what a teacher gives.

python nbs/research/clinic/experiment.py DATA               all jobs that are not done yet, in order
python nbs/research/clinic/experiment.py DATA --part 0 2    every second job, for two processes side by side
python nbs/research/clinic/experiment.py DATA --estimate    only what is left, from timed steps
python nbs/research/clinic/experiment.py --report           only summary.json, from what is done

DATA is a folder with cifar10_images.zip and pneumoniamnist_9to1.npz. Sets: the embedded digits (8 pixels, a long tail
of factor 10), PneumoniaMNIST 9:1 (16 pixels), CIFAR-10 at a long tail of factor 100 (16 pixels). Of each: what
`ssnas run` does by the settings below, for the seeds 0, 1, 2, of the same images, each with its own search:

searched                  the network that the package finds, at most 413,850 parameters and 10 M MACs
resnet_small, resnet18    a ResNet at equal parameters, and whole; mobilenet_v3_small as it is
resnet_macs, mobilenet_v3_macs, shufflenet_v2_macs    hand-made ones at the searched network's MACs
random_0                  a network of the same space that nobody searched
efficientnet_lite0_probe, _finetuned    pretrained on ImageNet, images resized to 64 pixels: frozen, and fine-tuned
taught_by_efficientnet_lite0_finetuned  the searched network, taught by the last one: a row of its own

A job is one seed of one set. It leaves what its report says of each network, nbs/research/clinic/SET_seed_N.json, and
beside it the test answers of each, from which --report pairs the seeds; its run lies below --out (runs/clinic), and
what was killed goes on where it stood. One thread. Seconds are on the clock.

Expected, written down before anything ran (27 November 2026):
1. Fine-tuned, the pretrained network wins on CIFAR-10-LT by over 10 points, at about ten times the parameters and
   several times the MACs: its ImageNet knows these classes. Its frozen features beat the searched network there, too.
2. On PneumoniaMNIST no two networks with training of all weights can be told apart after Holm's correction (234 test
   images of the rare class, three seeds); the frozen features are no worse than 3 points below the best.
3. On the digits, 8 pixels enlarged to 64, the frozen features lose to the searched network by over 5 points, and the
   fine-tuned network is within 3 points of it: nothing in ImageNet looks like them.
4. At equal MACs the searched network cannot be told apart from the best hand-made one on any set.
5. The teacher gives the searched network 1 to 4 points on CIFAR-10-LT, and nothing to be told from 0 elsewhere.
So the first paragraph of the result is expected to say: fine-tune a pretrained network where its size does not matter;
where it must be small, take the searched or a ShuffleNetV2 of its MACs, and teach it.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from ssnas_colab.config import pipeline_config
from ssnas_colab.core.files import write_atomically
from ssnas_colab.reports.verdict import display_name, verdict
from ssnas_colab.stages.pipeline import read_images, run_estimate, run_pipeline
from ssnas_colab.training.comparisons import holm
from ssnas_colab.training.metrics import paired_test_seeds

OUT, SEEDS = Path(__file__).parent, (0, 1, 2)
SETS = {
    "digits": ("digits", {"imbalance_factor": 10}),
    "pneumonia_9to1": ("pneumoniamnist_9to1.npz", {"image_size": 16}),
    "cifar10_lt100": ("cifar10_images.zip", {"imbalance_factor": 100, "image_size": 16}),
}
EVALUATION = {
    "pretrain_steps": 150, "finetune_steps": 250, "batch_size": 64, "embedding": 256, "random_genotypes": 1,
    "published": (), "controls": ("efficientnet_lite0:pretrained",), "control_size": 64,
    "teacher": "efficientnet_lite0:pretrained",
}  # fmt: skip
SEARCH = {"candidates": 30}
TINY = {"pretrain_steps": 2, "finetune_steps": 10, "control_size": 32}  # --tiny: that the way is there


KEPT = (
    "parameters", "macs", "latency_ms", "seconds", "finetune_rate", "width", "depth", "input_size", "pretrained",
    "teacher", "accuracy", "balanced_accuracy", "macro_auc", "recall_per_class", "validation", "genotype",
)  # fmt: skip


def kept(report, run) -> tuple:
    "(what the job keeps of a report, for JSON; arrays: the test answers by network) of a run folder."
    models = {name: {key: of[key] for key in KEPT if key in of} for name, of in report["models"].items()}
    found = {key: report.get(key) for key in ("data", "settings", "differences", "distillation", "costs", "versions")}
    answers = {name: np.load(run / f"models/{name}.npz")["answers"].astype(np.uint8) for name in models}
    return found | {"models": models}, answers


def over_seeds(name) -> list:
    """Rows: what the seeds that are done say of a set, a network each, the best balanced accuracy first.

    "difference" [value, low, high] and "p": the searched network minus this one, paired by seed and test image, p by
    Holm; of the taught one what the teacher gives, which is no part of that.
    """
    done = [seed for seed in SEEDS if (OUT / f"{name}_seed_{seed}.json").is_file()]
    reports = [json.loads((OUT / f"{name}_seed_{seed}.json").read_text())["models"] for seed in done]
    arrays = [np.load(OUT / f"{name}_seed_{seed}.npz") for seed in done]
    networks, labels = (list(reports[0]), arrays[0]["labels"]) if reports else ([], None)
    answers = {other: [of[other] for of in arrays] for other in networks}
    taught = [other for other in networks if other.startswith("taught_by")]
    tests = {}
    for other in networks[1:]:
        pair = (other, "searched") if other in taught else ("searched", other)
        tests[other] = paired_test_seeds(labels, *(answers[one] for one in pair))
    judged = [other for other in tests if other not in taught]
    corrected = dict(zip(judged, holm([tests[other][3] for other in judged]), strict=True))
    rows = []
    for other in networks:
        keys = "balanced_accuracy", "macro_auc", "parameters", "macs", "seconds"
        values = {key: [of[other][key] for of in reports] for key in keys}
        row = {"network": other, "seeds": done} | {key: float(np.mean(of)) for key, of in values.items()}
        row["spread"] = float(np.std(values["balanced_accuracy"], ddof=1)) if len(done) > 1 else None
        if other in tests:
            row |= {"difference": tests[other][:3], "p": corrected.get(other, tests[other][3])}
        rows.append(row)
    return sorted(rows, key=lambda row: -row["balanced_accuracy"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=Path())
    parser.add_argument("--out", type=Path, default=Path("runs/clinic"))
    parser.add_argument("--part", nargs=2, type=int, default=(0, 1), metavar=("K", "N"))
    parser.add_argument("--estimate", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="one seed of the digits in a few steps; proves nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.report:
        found = {name: over_seeds(name) for name in SETS}
        write_atomically(OUT / "summary.json", (json.dumps(found, indent=1) + "\n").encode())
        for name, rows in found.items():
            for row in rows:
                told = f"{name} {row['seeds']} {display_name(row['network'])}: {100 * row['balanced_accuracy']:.1f} %"
                print(told, row.get("difference"), row.get("p"))
        return
    part, parts = options.part
    jobs = [("digits", 0)] if options.tiny else [(name, seed) for seed in SEEDS for name in SETS][part::parts]
    for name, seed in jobs:
        place = (options.out if options.tiny else OUT) / f"{name}_seed_{seed}.json"
        if place.is_file():
            continue
        file, images = SETS[name]
        source, path = file if file == name else options.data / file, options.out / f"{name}_seed_{seed}"
        evaluation = EVALUATION | (TINY if options.tiny else {})
        searching = SEARCH | ({"candidates": 4, "score_steps": 2} if options.tiny else {})
        settings = {"evaluation": evaluation, "search": searching, "device": "cpu"}
        data = read_images(source, pipeline_config(source, "cpu", **images))  # the same for all seeds
        if options.estimate:
            config = pipeline_config(data, "cpu", seed=seed, began=path, **settings)
            print(f"{name}, seed {seed}: {run_estimate(data, path, config)['time']}", flush=True)
            continue
        begin = time.process_time()
        report = run_pipeline(data, path, "cpu", seed=seed, quiet=True, **settings)
        found, answers = kept(report, path)
        found["cpu_seconds_of_this_call"] = round(time.process_time() - begin)
        np.savez_compressed(place.with_suffix(".npz"), labels=data.labels["test"].astype(np.uint8), **answers)
        write_atomically(place, (json.dumps(found, indent=1) + "\n").encode())
        print(f"{name}, seed {seed}: {verdict(report)}\n", flush=True)


if __name__ == "__main__":
    main()
