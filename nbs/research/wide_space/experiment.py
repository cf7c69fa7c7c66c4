"""Does a search by the label-free score earn its keep? Against random networks, rules of thumb, hand-made ones, time.

python nbs/research/wide_space/experiment.py DATA                   all jobs that are not done yet, in order
python nbs/research/wide_space/experiment.py DATA --part 0 2        every second one, for two processes side by side
python nbs/research/wide_space/experiment.py DATA --report          only the tables, from what is done

Data sets, budgets, images and recipe as in regime.py: CIFAR-10 at a long tail of factor 100 and PneumoniaMNIST 9:1, 16
pixels, at most 413,850 parameters and 9 M MACs, 200 steps without labels and 300 with them, batches of 64. For each of
the seeds 10, 11, 12 (regime.py saw 0 to 2) and each data set:

searched          the network that the search of the package takes, by the choice that regime.py decided on
random_0 to _7    networks of the same space, drawn anew until they fill a budget to 85 %, as the search draws
best_of_random    what the same score takes of as many random candidates, the same way
most_macs         of 300 drawn, the one with the most MACs in the budgets; deepest: with the most blocks
uniform           inverted residuals of kernel 3 and expansion 3, two in each of three stages that double
resnet_macs, mobilenet_v3_macs, shufflenet_v2_macs    hand-made ones as wide as the searched network's MACs allow
DARTS_V2, FairDARTS_b    published cells (5 of them deep) within the parameters, at twice the MACs and more
DARTS_V2_within, FairDARTS_b_within    the same within both budgets
resnet18          whole, at 27 times the parameters
resnet_small_time, resnet18_time    trained for as many steps as take as long as search and training together, by the
                  pace of both networks in one process: a machine that is slower on that day is as slow for both
searched_cells    CIFAR-10 alone: the same search of the space of cells (5 of them deep) within both budgets
cells_0 to _3     networks of that space, drawn as random_0 is
searched_mixed    CIFAR-10 alone: the same search of the wide space with stages of cells in it, see mixed.py
mixed_0 to _3     networks of that space
NAME_long         CIFAR-10 alone: the same network, trained for ten times the steps; NAME_longer: for forty times
searched_by_SCORE within 3 M MACs alone: the same search by another score
resnet_small_long_time, resnet_small_longer_time    for as long as the search and searched_long or _longer took together
NAME@RATE         the rates 3 times and a third of the recipe's, for the first seed's network of each family; what is
                  best on its validation split is that family's rate, and trains the other seeds too: NAME_tuned

cifar10_lt100_3M is CIFAR-10 once more, within 3 M MACs instead of 9: what trains faster has more steps in equal time.

A job is one network; it leaves its JSON in nbs/research/wide_space/experiment/SET/ when it is done, so that the same
command goes on after any interruption. One thread. Seconds are CPU seconds.
"""

import json
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jobs import command, do
from mixed import MixedSpace
from regime import BUDGETS, FULL, RECIPE, SETS, drawn, load, trained

from ssnas_colab.config import search_config
from ssnas_colab.core.basics import UserError
from ssnas_colab.core.files import write_atomically
from ssnas_colab.core.seeding import derived_seed
from ssnas_colab.experiment.run import Run
from ssnas_colab.models.baselines import narrow_resnet, resnet18, within_macs
from ssnas_colab.models.genotype import GENOTYPES, genotype_from_json
from ssnas_colab.models.network import Network
from ssnas_colab.models.stages import Block, Stage, StageGenotype
from ssnas_colab.stages.search import search
from ssnas_colab.strategies.runner import take
from ssnas_colab.strategies.space import SPACES, Filled

OUT = Path(__file__).parent / "experiment"
CHOICE = {"space": "stages", "strategy": "evolution", "candidates": 40, "score": "retrieval", "score_steps": 20}
SMALL = "cifar10_lt100_3M"
STEPS = "pretrain_steps", "finetune_steps"
SEEDS, RANDOM, RATES = (10, 11, 12), 8, (6e-3, 7e-4)
PACE = 50, 200  # steps of the trainings that tell how long one takes
ATTEMPTS = {"cells": {"space": "cells", "depth": 5}, "mixed": {"space": "mixed:MixedSpace"}}  # other spaces
ATTEMPTED = [f"searched_{space}" for space in ATTEMPTS] + [f"{space}_{i}" for i in range(4) for space in ATTEMPTS]
TIMES = {"_longer": 40, "_long": 10}  # as many steps as the recipe has NAME_longer and NAME_long
LONG = ["searched", "resnet_small", "uniform", "random_0", "resnet_small_long_time", "random_1", "resnet_macs"]
LONG = [name if name.endswith("_time") else f"{name}_long" for name in [*LONG, "random_2", "DARTS_V2_within"]]
SMALL_ARMS = ["searched", "searched_long", "random_0", "random_0_long", "resnet_small_long_time"]
SMALL_ARMS += ["searched_longer", "resnet_small_longer_time", "random_0_longer"]
SMALL_ARMS += ["random_1", "random_1_long", "uniform", "uniform_long"]
SMALL_FIRST = [f"random_{i}{length}" for length in ("", "_long") for i in range(2, RANDOM)]  # of one seed: rank_long.py
FAMILIES = "searched", "resnet_macs", "mobilenet_v3_macs", "shufflenet_v2_macs", "DARTS_V2_within"  # rates are tuned of
UNIFORM = StageGenotype(tuple(Stage((Block(),) * 2, 2.0**i, 2 if i else 1) for i in range(3)))
warnings.simplefilter("ignore")


def jobs():
    "(data set, seed, name) in the order in which they matter."
    groups = [
        ["searched"],
        [f"random_{i}" for i in range(RANDOM)],
        ["best_of_random", "most_macs", "deepest", "uniform"],
    ]
    groups += [["resnet_macs", "mobilenet_v3_macs", "shufflenet_v2_macs", "DARTS_V2", "FairDARTS_b", "resnet18"]]
    groups += [[f"{name}_within" for name in ("DARTS_V2", "FairDARTS_b")], ["resnet_small_time", "resnet18_time"]]
    for names in groups:
        for seed in SEEDS:
            for name in names:
                for data in SETS:
                    yield data, seed, name
    for names in (LONG, ATTEMPTED):
        for seed in SEEDS:
            for name in names:
                yield "cifar10_lt100", seed, name
    for seed in SEEDS:
        for name in [*SMALL_ARMS, *SMALL_FIRST * (seed == SEEDS[0])]:
            yield SMALL, seed, name
    for name in FAMILIES:
        for rate in RATES:
            for data in SETS:
                yield data, SEEDS[0], f"{name}@{rate:g}"
    for name in FAMILIES:
        for data in SETS:
            if best := tuned(data, name):
                for seed in SEEDS[1:]:
                    yield data, seed, best


def length_of(name) -> tuple:
    "(name without it, its suffix of `TIMES` or none): resnet_small_long_time is of the length of searched_long."
    own, time = name.removesuffix("_time"), "_time" * name.endswith("_time")
    suffix = next((suffix for suffix in TIMES if own.endswith(suffix)), "")
    return own.removesuffix(suffix) + time, suffix


def budgets_of(set_name):
    "The bounds of a data set's networks."
    return BUDGETS | ({"max_macs": 3_000_000} if set_name == SMALL else {})


def path_of(data, seed, name):
    return OUT / data / f"{name}_seed_{seed}.json"


def done(data, seed, name):
    return json.loads(path_of(data, seed, name).read_text())


def tuned(data, name):
    "The arm with the rate that is best for a family on the first seed's validation split; None while one is missing."
    arms = [name, *(f"{name}@{rate:g}" for rate in RATES)]
    if not all(path_of(data, SEEDS[0], arm).is_file() for arm in arms):
        return None
    return max(arms, key=lambda arm: done(data, SEEDS[0], arm)["validation"])


def searched(data, seed, bounds, **changes):
    "Genotype, width and facts of a search by the package, of the images alone."
    config = search_config(CHOICE | changes | {"seed": seed, "device": "cpu", "processes": 1})
    budgets = {name.removeprefix("max_"): most for name, most in bounds.items()}
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        found = search(data, Run.open(Path(folder) / "run", {}), config, budgets=budgets, quiet=True)
        facts = {"search_cpu_seconds": round(time.process_time() - begin, 1), "search": found}
    number = found["pick"]["number"]
    return take(found, number), {row["number"]: row for row in found["candidates"]}[number]["width"], facts


def found_before(known, data):
    "A function that makes the network of a search that is done, from its JSON."
    genotype = genotype_from_json(json.dumps(known["genotype"]))
    return lambda: Network(genotype, data.num_classes, width=known["width"], in_channels=data.channels)


def drawn_of(space, number, data, seed, bounds):
    "Genotype and a function that makes its network, of a space of `ATTEMPTS`, drawn anew until it fills a budget."
    budgets = {name.removeprefix("max_"): most for name, most in bounds.items()}
    options = {"depth": ATTEMPTS[space]["depth"]} if space == "cells" else {}
    fits = Filled(data.num_classes, budgets, (data.channels, *data.size), **options)
    known, best = SPACES["cells"] if space == "cells" else MixedSpace, None
    for attempt in range(100):
        genotype = known(fits).draw(derived_seed(seed, space, number, attempt))
        try:
            sizes = fits(genotype)
        except UserError:
            continue
        full = max(sizes[name] / most for name, most in budgets.items())
        if best is None or full > best[0]:
            best = full, genotype, sizes["width"]
        if full >= FULL:
            break
    return best[1], lambda: fits.network(best[1], best[2])


def extreme(data, seed, by, bounds):
    "Of 300 drawn within the budgets the one with the most MACs or blocks."
    best = None
    for number in range(300):
        genotype, make = drawn(number, data, bounds, derived_seed(seed, "rules of thumb"))
        with torch.device("meta"):
            worth = by(genotype, make)
        if best is None or worth > best[0]:
            best = worth, genotype, make
    return best[1:]


def contestant(data, name, seed, set_name):
    "(a function that makes the network, facts, changes of the recipe) of a name."
    from ssnas_colab.models.network import count_macs

    name, _, rate = name.partition("@")
    changes = {"finetune_rate": float(rate)} if rate else {}
    name, length = length_of(name)
    again = rate or length  # another training of a network that is known
    if length and not name.endswith("_time"):
        changes |= {key: TIMES[length] * RECIPE[key] for key in STEPS}
    sizes = {"in_channels": data.channels}
    shape, bounds = (data.channels, *data.size), budgets_of(set_name)
    space = name.removeprefix("searched_")
    if space in ATTEMPTS:
        genotype, width, facts = searched(data, seed, bounds, **ATTEMPTS[space])
        facts |= {"genotype": genotype.to_dict()}
        depth = {"depth": ATTEMPTS[space]["depth"]} if space == "cells" else {}
        return lambda: Network(genotype, data.num_classes, width=width, **sizes, **depth), facts, changes
    if (space := name.rpartition("_")[0]) in ATTEMPTS:
        genotype, make = drawn_of(space, int(name.rpartition("_")[2]), data, seed, bounds)
        return make, {"genotype": genotype.to_dict()}, changes
    if name in ("searched", "best_of_random") or name.startswith("searched_by_"):
        if again:
            known = done(set_name, seed, name)
            return found_before(known, data), {"genotype": known["genotype"]}, changes
        other = {"strategy": "random"} if name == "best_of_random" else {}
        if name.startswith("searched_by_"):
            other = {"score": name.removeprefix("searched_by_")}
        genotype, width, facts = searched(data, seed, bounds, **other)
        facts |= {"genotype": genotype.to_dict()}
        return lambda: Network(genotype, data.num_classes, width=width, **sizes), facts, changes
    if name.startswith("random_"):
        genotype, make = drawn(int(name.removeprefix("random_")), data, bounds, seed)
        return make, {"genotype": genotype.to_dict()}, changes
    if name in ("most_macs", "deepest"):
        blocks = lambda g, make: sum(len(stage.blocks) for stage in g.stages)  # noqa: E731
        by = (lambda g, make: count_macs(make(), shape)) if name == "most_macs" else blocks  # noqa: E731
        genotype, make = extreme(data, seed, by, bounds)
        return make, {"genotype": genotype.to_dict()}, changes
    if name == "uniform":
        return lambda: Network.within(UNIFORM, data.num_classes, input_size=data.size, **sizes, **bounds), {}, changes
    if (cells := name.removesuffix("_within")) in GENOTYPES:
        own = bounds | {"input_size": data.size} if cells != name else {"max_parameters": bounds["max_parameters"]}
        own |= {"depth": 5}
        return lambda: Network.within(GENOTYPES[cells], data.num_classes, **sizes, **own), {}, changes
    if name.endswith("_macs"):
        macs = {"max_macs": done(set_name, seed, "searched")["macs"], "input_size": data.size}
        return lambda: within_macs(name.removesuffix("_macs"), data.num_classes, data.channels, **macs), {}, changes
    if name.startswith("resnet18"):
        make = lambda: resnet18(data.num_classes, data.channels)  # noqa: E731
    else:
        make = lambda: narrow_resnet(data.num_classes, data.channels, bounds["max_parameters"])  # noqa: E731
    if name.endswith("_time"):
        known, recipe = done(set_name, seed, "searched"), sum(RECIPE[key] for key in STEPS)
        allowed = known["search_cpu_seconds"] + done(set_name, seed, f"searched{length}")["cpu_seconds"]
        few, pace = paces([found_before(known, data), make], data, seed)
        today = (few[0] + pace[0] * (recipe - PACE[0])) / known["cpu_seconds"]
        times = ((today * allowed - few[1]) / pace[1] + PACE[0]) / recipe
        changes |= {key: max(1, round(RECIPE[key] * times)) for key in STEPS}
        return make, {"cpu_seconds_allowed": allowed, "times_as_slow": round(today, 3)}, changes
    return make, {}, changes


def paces(makes, data, seed):
    """(CPU seconds of `PACE[0]` steps, seconds of a further step) of each network, measured in turn, twice.

    By trainings of two lengths, so that what begins one cancels. A searched network among them tells how much slower
    the machine is than on the day on which it was trained: its seconds of that day are worth as many more of these.
    """
    took = [
        [trained("pace", make, data, seed, pretrain_steps=2 * n // 5, finetune_steps=3 * n // 5)["cpu_seconds"]
         for make in makes]
        for n in 2 * PACE
    ]  # fmt: skip
    few, more = np.mean(took[::2], 0), np.mean(took[1::2], 0)
    return few, (more - few) / (PACE[1] - PACE[0])


def lead(searched, others, draws=10_000):
    "(mean, low, high) of searched minus others by seed: a 95 % bootstrap over seeds and the networks in each."
    seeds, generator, found = sorted(searched.keys() & others.keys()), np.random.default_rng(0), []
    if not seeds:
        return None
    gap = float(np.mean([np.mean(searched[s]) - np.mean(others[s]) for s in seeds]))
    for _ in range(draws if len(seeds) > 1 else 0):
        chosen = generator.choice(seeds, len(seeds))
        own = [np.mean(searched[s]) - generator.choice(others[s], len(others[s])).mean() for s in chosen]
        found.append(np.mean(own))
    low, high = np.percentile(found, [2.5, 97.5]) if found else (None, None)
    return gap, low, high


def report():
    "The tables: each arm's mean and spread over networks and seeds, and the searched network's lead."
    rows = []
    for data in (*SETS, SMALL):
        files = sorted((OUT / data).glob("*.json"))
        if data == SMALL:  # a network that no bound of MACs changes
            files += sorted((OUT / SMALL.removesuffix("_3M")).glob("resnet_small_long_seed_*.json"))
        found = [json.loads(path.read_text()) | {"file": path.stem} for path in files]
        arms = {}
        for row in found:
            kind, length = length_of(row["name"])
            arm = kind.rpartition("_")[0]
            arm = f"{arm}{length}" if arm in ("random", *ATTEMPTS) else row["name"]
            arms.setdefault(arm, []).append(row)
        by_seed = {arm: {} for arm in arms}
        for arm, own in arms.items():
            for row in own:
                by_seed[arm].setdefault(int(row["file"].rsplit("_", 1)[1]), []).append(row["balanced_accuracy"])
        for name in FAMILIES:
            if len(by_seed.get(best := tuned(data, name), ())) == len(SEEDS):
                arms[f"{name}_tuned"], by_seed[f"{name}_tuned"] = arms[best], by_seed[best]
        for arm, own in arms.items():
            values = np.array([row["balanced_accuracy"] for row in own])
            line = {"set": data, "arm": arm, "count": len(own), "balanced_accuracy": round(float(values.mean()), 4)}
            line |= {"sd": round(float(values.std(ddof=1)), 4) if len(own) > 1 else None}
            for key in ("macro_auc", "macs", "parameters", "cpu_seconds", "validation"):
                line[key] = round(float(np.mean([row[key] for row in own])), 4)
            ours = f"searched{length_of(arm)[1] or '_tuned' * arm.endswith('_tuned')}"
            ours = ours if ours in by_seed else "searched"
            gap = lead(by_seed[ours], by_seed[arm]) if arm != ours else None
            line["lead"] = gap and [None if end is None else round(end, 4) for end in gap]
            rows.append(line)
            told = f"{100 * values.mean():6.2f} % sd {100 * (line['sd'] or 0):5.2f}"
            told += f", macro AUC {line['macro_auc']:.4f}, {line['macs'] / 1e6:6.2f} M MACs"
            told += f", {line['parameters']:12,.0f} parameters, {line['cpu_seconds']:6.0f} s"
            if line["lead"]:
                told += f", searched minus this {100 * gap[0]:+.1f}"
                told += f" [{100 * gap[1]:+.1f}, {100 * gap[2]:+.1f}]" if gap[1] is not None else ""
            print(f"{data:18}{arm:24}{len(own):3} {told}")
    write_atomically(OUT.with_suffix(".json"), (json.dumps(rows, indent=1) + "\n").encode())


def row_of(folder, set_name, seed, name):
    "What a job finds; None where the search that it starts from is not done."
    known, length = length_of(name)
    own = known.partition("@")[0]
    first = own if own.startswith("searched") else f"searched{length * own.endswith('_time')}"
    needs = known.endswith(("_macs", "_time")) or "@" in name or known.startswith("searched") and length
    if needs and known != "most_macs" and not path_of(set_name, seed, first).is_file():
        return None
    data = load(folder, set_name.removesuffix("_3M"))
    make, facts, changes = contestant(data, name, seed, set_name)
    weights_of = name if name.endswith("_time") else own  # the name draws the first weights
    return {"name": name} | facts | trained(weights_of, make, data, seed, **changes)


def main():
    options = command(__doc__).parse_args()
    if not options.report:
        do(options, jobs(), path_of, partial(row_of, options.data))
    report()


if __name__ == "__main__":
    main()
