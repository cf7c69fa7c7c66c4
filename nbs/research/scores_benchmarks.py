"""Do the scores rank networks as their published accuracies do, and beyond what MACs and depth say?

python nbs/research/scores_benchmarks.py DATA                 all jobs that are not done yet, then the table
python nbs/research/scores_benchmarks.py DATA --part 0 2      every second job, for two processes side by side
python nbs/research/scores_benchmarks.py DATA --report        only the table, from what is done
python nbs/research/scores_benchmarks.py DATA --list          the jobs, and which are done

DATA is a folder with nas_bench_301_half.json, nas_bench_macro_half.json and cifar10_images.zip. A job is a few networks
of one benchmark: 20 that are scored without training, or one that is trained by one loss. Each leaves a JSON in
nbs/research/scores/BENCHMARK/ when it is done, so that the same command goes on after any interruption. One thread.

NAS-Bench-301: all 221 genotypes at width 16 and depth 8 (published: width 32). NAS-Bench-Macro: 400 networks drawn.
Trained: 40 of each. All are drawn by seed 0, as are the images: 4,000 of CIFAR-10's training images, 400 a class; no
score sees a label. Scores without training see them at 32 pixels, trained ones at `--pixels` (16: a quarter of the
cost).

The table has Spearman's rank correlation with the published accuracy and the partial one given the ranks of MACs and
depth, each with a bootstrap interval over networks, and the share of the best tenth that is among the best third by the
score. Seconds are those of a whole training, to the last number of steps. It is written to
nbs/research/scores/benchmarks.json.
"""

import argparse
import io
import json
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import kendalltau, rankdata

from ssnas_colab.core.files import write_atomically
from ssnas_colab.core.seeding import derived_seed
from ssnas_colab.models.genotype import Genotype
from ssnas_colab.models.network import Network, count_parameters
from ssnas_colab.nas.scores import network_scores

OUT = Path(__file__).parent / "scores"
KINDS = {  # what is scored together: without training, or after one training
    "free": ("expressivity", "naswot", "macs", "parameters", "depth"),
    "barlow_twins": ("barlow_twins", "rank", "retrieval"), "simclr": ("simclr",), "vicreg": ("vicreg",),
}  # fmt: skip
STEPS = (20, 50, 100, 200)
SEED, A_CLASS, DRAWN, TRAINED_NETWORKS, TOGETHER = 0, 400, 400, 40, 20


class NasBench301:
    "Genotypes of cells; the name of one is its number in the file."

    name = "nas_bench_301"

    def __init__(self, folder):
        self.rows = json.loads((folder / "nas_bench_301_half.json").read_text())["rows"]
        self.names = [str(i) for i in range(len(self.rows))]

    def accuracy(self, name):
        return self.rows[int(name)]["val_accuracy"]

    def make(self, name):
        return Network(Genotype.parse(self.rows[int(name)]["genotype"]), 10, width=16, depth=8)


class NasBenchMacro:
    "Networks of inverted residuals; the name of one is its eight digits."

    name = "nas_bench_macro"

    def __init__(self, folder):
        self.networks = json.loads((folder / "nas_bench_macro_half.json").read_text())["networks"]
        order = np.random.default_rng(derived_seed(SEED, self.name)).permutation(sorted(self.networks))
        self.names = [str(name) for name in order[:DRAWN]]

    def accuracy(self, name):
        return float(np.mean(self.networks[name]["test_accuracy"]))

    def make(self, name):
        from ssnas_colab.models.stages import macro_genotype

        network = Network(macro_genotype(name), 10, width=32)
        published = self.networks[name]["parameters"]
        if count_parameters(network) != published:
            raise SystemExit(f"{name} has {count_parameters(network):,} parameters, published are {published:,}")
        return network


def pictures(folder):
    "uint8 (4000, 3, 32, 32): 400 training images of each class, drawn by the seed."
    with zipfile.ZipFile(folder / "cifar10_images.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.startswith("train/") and not n.endswith("/"))
        classes, rng, found = sorted({n.split("/")[1] for n in names}), np.random.default_rng(SEED), []
        for each in classes:
            own = [n for n in names if n.split("/")[1] == each]
            found += [own[i] for i in rng.permutation(len(own))[:A_CLASS]]
        read = [np.asarray(Image.open(io.BytesIO(archive.read(n))).convert("RGB")) for n in found]
    return np.ascontiguousarray(np.stack(read).transpose(0, 3, 1, 2))


def shrunk(images, pixels):
    "Images of `pixels` x `pixels`, a divisor of their size: each the mean of a square."
    count, channels, size, _ = images.shape
    squares = images.reshape(count, channels, pixels, size // pixels, pixels, size // pixels)
    return squares.mean((3, 5)).round().astype(np.uint8)


def jobs(benchmarks):
    "(benchmark, kind, networks): without training first, then each training, the networks of the benchmarks in turn."
    for benchmark in benchmarks:
        for first in range(0, len(benchmark.names), TOGETHER):
            yield benchmark, "free", benchmark.names[first : first + TOGETHER]
    chosen = [
        np.random.default_rng(derived_seed(SEED, each.name, "trained")).permutation(each.names)[:TRAINED_NETWORKS]
        for each in benchmarks
    ]
    for kind in list(KINDS)[1:]:
        for names in zip(*chosen, strict=True):
            for benchmark, name in zip(benchmarks, names, strict=True):
                yield benchmark, kind, [str(name)]


def path_of(job, options):
    benchmark, kind, names = job
    views = "" if kind == "free" else f"_{options.pixels}px"
    seed = f"_seed_{options.seed}" if options.seed else ""
    return OUT / benchmark.name / f"{kind}{views}_{names[0]}{seed}.json"


def done(job, options):
    "Whether a job has left its JSON, with all the numbers of steps that are wanted now."
    path = path_of(job, options)
    if not path.is_file():
        return False
    rows = json.loads(path.read_text())["rows"]
    return job[1] == "free" or all(
        set(map(str, options.steps)) <= found.keys() for row in rows for found in row["scores"].values()
    )


def run(job, images, options):
    "Score the networks of a job and write what was found."
    benchmark, kind, names = job
    images = images if kind == "free" else shrunk(images, options.pixels)
    # counting takes no training: one score at a time, to know what each takes
    groups, rows = [[score] for score in KINDS[kind]] if kind == "free" else [KINDS[kind]], []
    for name in names:
        torch.manual_seed(derived_seed(options.seed, benchmark.name, name))
        network, found, seconds = benchmark.make(name), {}, {}
        for group in groups:
            begin = time.perf_counter()
            found |= network_scores(network, images, scores=group, steps=options.steps, seed=options.seed)
            seconds |= dict.fromkeys(group, round(time.perf_counter() - begin, 3))
        rows.append({"network": name, "accuracy": benchmark.accuracy(name), "scores": found, "seconds": seconds})
    facts = {
        "benchmark": benchmark.name, "kind": kind, "seed": options.seed, "pixels": images.shape[-1],
        "torch": torch.__version__, "rows": rows,
    }  # fmt: skip
    write_atomically(path_of(job, options), (json.dumps(facts, indent=1) + "\n").encode())


def spearman(x, y, given=()):
    "Rank correlation of x and y; given: what is taken out of both ranks, linearly, before."
    x, y = rankdata(x), rankdata(y)
    known = np.stack([np.ones(len(x)), *(rankdata(g) for g in given)], 1)
    x, y = (v - known @ np.linalg.lstsq(known, v, rcond=None)[0] for v in (x, y))
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / scale) if scale > 1e-9 * len(x) else float("nan")


def with_interval(x, y, given=(), draws=500):
    "`spearman` and the interval in which 95 % of it lie when the networks are drawn anew."
    x, y, given, rng = np.asarray(x), np.asarray(y), [np.asarray(g) for g in given], np.random.default_rng(SEED)
    drawn = []
    for _ in range(draws):
        some = rng.integers(len(x), size=len(x))
        drawn.append(spearman(x[some], y[some], [g[some] for g in given]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return {"spearman": round(spearman(x, y, given), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def report():
    "The table of what is done, printed and written; None where nothing is."
    table = []
    for folder in sorted(path for path in OUT.iterdir() if path.is_dir()):
        files = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        counted = {row["network"]: row["scores"] for each in files if each["kind"] == "free" for row in each["rows"]}
        kinds = sorted({(each["kind"], each["pixels"], each["seed"]) for each in files})
        for kind in kinds:
            rows = [r for e in files if (e["kind"], e["pixels"], e["seed"]) == kind for r in e["rows"]]
            keys = sorted({(s, k) for row in rows for s, values in row["scores"].items() for k in values})
            for score, steps in sorted(keys, key=lambda key: (key[0], int(key[1]))):
                have = [r for r in rows if steps in r["scores"].get(score, {})]
                x, y = [r["scores"][score][steps] for r in have], [r["accuracy"] for r in have]
                line = {
                    "benchmark": folder.name, "score": score, "steps": int(steps), "pixels": kind[1], "seed": kind[2],
                    "networks": len(have), "seconds": round(float(np.mean([r["seconds"][score] for r in have])), 2),
                }  # fmt: skip
                if len(have) >= 10:
                    line |= with_interval(x, y) | {"kendall": round(float(kendalltau(x, y).statistic), 3)}
                    known = [counted[r["network"]] for r in have if r["network"] in counted]
                    if len(known) == len(have) and score not in ("macs", "depth"):
                        controls = [[k[control]["0"] for k in known] for control in ("macs", "depth")]
                        line["given_macs_and_depth"] = with_interval(x, y, controls)
                    best = np.argsort(x)[::-1][: max(len(x) // 3, 1)]
                    line["kept_of_best_tenth"] = round(
                        float(np.isin(np.argsort(y)[::-1][: max(len(y) // 10, 1)], best).mean()), 3
                    )
                table.append(line)
    for line in table:
        given, of = line.get("given_macs_and_depth", {}).get("spearman", ""), line.get("spearman", "")
        print(
            f"{line['benchmark']:16} {line['score']:13} {line['steps']:4} steps {line['pixels']:3} px, "
            f"seed {line['seed']}: {line['networks']:4} networks {line['seconds']:8.2f} s {of!s:>7} given {given!s:>7}"
        )
    write_atomically(OUT / "benchmarks.json", (json.dumps(table, indent=1) + "\n").encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=("nas_bench_301", "nas_bench_macro"), help="one of the benchmarks")
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=tuple(KINDS), help="some kinds of jobs")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="every N-th job from I")
    parser.add_argument("--jobs", type=int, help="stop after so many")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order, views; the networks stay")
    parser.add_argument("--pixels", type=int, default=16, choices=(8, 16, 32), help="for the trained scores")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.report:
        return report()
    benchmarks = [NasBench301(options.data), NasBenchMacro(options.data)]
    listed = [job for job in jobs(benchmarks) if options.only in (None, job[0].name)]
    listed = [job for job in listed if job[1] in options.kind]
    listed = listed[options.part[0] :: options.part[1]]
    waiting = [job for job in listed if not done(job, options)]
    print(f"{len(listed)} jobs, {len(waiting)} of them to do", flush=True)
    if options.list:
        for job in listed:
            print("waits" if job in waiting else "done ", job[0].name, job[1], *job[2])
        return None
    images = pictures(options.data)
    for job in waiting[: options.jobs]:
        begin = time.perf_counter()
        run(job, images, options)
        print(f"{path_of(job, options).relative_to(OUT)}: {time.perf_counter() - begin:.0f} s", flush=True)
    return report()


if __name__ == "__main__":
    main()
