"""What should a user pick for such data? The searched network, what they would pick instead, and what a teacher gives.

python nbs/research/clinic/experiment.py DATA               all jobs that are not done yet, in order
python nbs/research/clinic/experiment.py DATA --part 0 2    every second set, for two processes side by side
python nbs/research/clinic/experiment.py DATA --estimate    only what is left, from timed steps
python nbs/research/clinic/experiment.py --report           only the verdicts, from what is done

DATA is a folder with cifar10_images.zip and pneumoniamnist_9to1.npz. Sets: the embedded digits (8 pixels, a long tail
of factor 10), PneumoniaMNIST 9:1 (16 pixels), CIFAR-10 at a long tail of factor 100 (16 pixels). Of each: `ssnas run`
by the settings below, for the seeds 0, 1, 2, of the same images, each with its own search:

searched                  the network that the package finds, at most 413,850 parameters and 10 M MACs
resnet_small, resnet18    a ResNet at equal parameters, and whole; mobilenet_v3_small as it is
resnet_macs, mobilenet_v3_macs, shufflenet_v2_macs    hand-made ones at the searched network's MACs
random_0                  a network of the same space that nobody searched
efficientnet_lite0_probe, _finetuned    pretrained on ImageNet, images resized to 64 pixels: frozen, and fine-tuned
taught_by_efficientnet_lite0_finetuned  the searched network, taught by the last one: a row of its own

A job is one more seed of one set. It leaves the report over the seeds so far, nbs/research/clinic/SET_SEEDS.json, and
its run below --out (runs/clinic); what was killed goes on where it stood. One thread. Seconds are on the clock.

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

import torch

from ssnas_colab.config import pipeline_config
from ssnas_colab.core.files import write_atomically
from ssnas_colab.reports.verdict import verdict
from ssnas_colab.stages.pipeline import read_images, run_estimate, run_pipeline

OUT, SEEDS = Path(__file__).parent, (1, 2, 3)
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
    part, parts = options.part
    names = ["digits"] if options.tiny else list(SETS)[part::parts]
    for seeds in SEEDS[:1] if options.tiny else SEEDS:
        for name in names:
            done = (options.out if options.tiny else OUT) / f"{name}_{seeds}.json"
            if options.report:
                if done.is_file():
                    print(f"{name}, {seeds} seeds: {verdict(json.loads(done.read_text()))}\n")
                continue
            if done.is_file():
                continue
            file, images = SETS[name]
            source, path = file if file == name else options.data / file, options.out / name
            evaluation = EVALUATION | (TINY if options.tiny else {})
            searching = SEARCH | ({"candidates": 4, "score_steps": 2} if options.tiny else {})
            settings = {"evaluation": evaluation, "search": searching, "device": "cpu", **images}
            if options.estimate:
                if seeds == SEEDS[-1]:
                    config = pipeline_config(source, "cpu", began=path, **settings)
                    found = run_estimate(read_images(source, config), path, config, seeds)
                    print(f"{name}: {found['time']}", flush=True)
                continue
            begin = time.process_time()
            report = run_pipeline(source, path, "cpu", seeds=seeds, quiet=True, **settings)
            took = {"cpu_seconds_of_this_call": round(time.process_time() - begin)}
            write_atomically(done, (json.dumps(report | took, indent=1) + "\n").encode())
            print(f"{name}, {seeds} seeds: {verdict(report)}\n", flush=True)


if __name__ == "__main__":
    main()
