"A report whose networks do not exist: their answers are drawn, and everything after that is computed as in a run."

import numpy as np

from ssnas_colab.reports.compare import aggregate
from ssnas_colab.training.metrics import paired_test_seeds, report_metrics

_GENOTYPE = (
    "Genotype(normal=[('sep_conv_3x3', 2, 0), ('skip_connect', 2, 1), ('dil_conv_5x5', 3, 2), ('sep_conv_3x3', 3, 0), "
    "('max_pool_3x3', 4, 1), ('dil_conv_3x3', 5, 4)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 2, 0), "
    "('sep_conv_5x5', 2, 1), ('avg_pool_3x3', 3, 2), ('sep_conv_5x5', 4, 3), ('dil_conv_5x5', 5, 1)], "
    "reduce_concat=range(2, 6))"
)
_SIZES = {"searched": 409_834, "resnet18": 11_173_962, "resnet_small": 411_210, "mobilenet_v3_small": 1_528_106}


def _data(classes, factor, largest, task):
    train = [int(largest * factor ** (-k / max(1, classes - 1))) for k in range(classes)]
    counts = {"train": train, "val": [10] * classes, "test": [40] * classes}
    return {
        "name": "made_up", "task": task, "class_names": [f"class {k}" for k in range(classes)], "counts": counts,
        "size": [28, 28], "channels": 1, "images": {split: sum(n) for split, n in counts.items()},
        "imbalance_factor": train[0] / train[-1], "policy": "medical", "set_aside": 0,
    }  # fmt: skip


def _scores(train, gain, targets, rng):
    "Scores (N, K) of a network whose recall grows with the size of the class, and is `gain` above another's."
    recall = np.clip(0.35 + 0.09 * np.log(train) + gain, 0.02, 0.98)
    scores = rng.random((len(targets), len(train))) * 0.5
    scores[np.arange(len(targets)), targets] += 0.5 * (rng.random(len(targets)) < recall[targets])
    return scores / scores.sum(1, keepdims=True)


def _curves(gain, rng, epochs=12):
    fall, noise = np.exp(-np.arange(epochs) / 4), rng.normal(0, 0.02, (3, epochs))
    rows = {"pretraining_loss": 0.9 * fall + 0.3 + noise[0], "finetuning_loss": 1.8 * fall + 0.4 - gain + noise[1]}
    rows["validation"] = np.clip(0.72 + gain - 0.5 * fall + noise[2], 0, 1)
    return {name: row.round(4).tolist() for name, row in rows.items()}


def _network(i, name, scores, data, training):
    "One model's part of a report."
    size = _SIZES.get(name, 380_000 + 7_001 * i)
    made = {"parameters": size, "macs": 140 * size, "latency_ms": 4 + i / 10, "seconds": 20.0 + i}
    made |= {"best_epoch": 7 + training % 3, "validation": {"balanced_accuracy": 0.7, "macro_auc": 0.9}}
    made |= {"genotype": _GENOTYPE, "width": 24, "depth": 5} if name == "searched" else {}
    targets = np.repeat(np.arange(len(data["class_names"])), data["counts"]["test"])
    truth = np.eye(scores.shape[1], dtype=int)[targets] if data["task"] == "multi-label" else targets
    return made | report_metrics(scores, truth, data["task"], data["class_names"], data["counts"]["train"])


def _report(data, models, curves, seed):
    settings = {"preset": "cpu", "seed": seed, "search": {"epochs": 20, "width": 8, "seed": seed}}
    settings["evaluation"] = {"depth": 5, "loss": "logit_adjustment", "seed": seed}
    return {
        "models": models, "curves": curves, "data": data, "settings": settings, "seeds": [seed], "searched_once": False,
        "recipe": "pretrain+finetune", "seconds": 251.0, "stage_seconds": {"search": 120.0, "searched": 60.5},
        "versions": {"ssnas_colab": "0.1.0", "torch": "2.14.1", "python": "3.11"}, "device": "cpu", "threads": 1,
    }  # fmt: skip


def _differences(targets, answers, seeds):
    "Searched minus every other, paired by seed and image; all random genotypes together too."
    own, drawn = answers["searched"], sum((a for name, a in answers.items() if name.startswith("random_")), [])
    pairs = {name: (own, other) for name, other in answers.items() if name != "searched"}
    pairs |= {"random": (own * (len(drawn) // seeds), drawn)} if drawn else {}
    found = {name: paired_test_seeds(targets, *pair, resamples=200)[:3] for name, pair in pairs.items()}
    named = {name: dict(zip(("difference", "low", "high"), three, strict=True)) for name, three in found.items()}
    return {name: {"metric": "balanced_accuracy"} | three | {"seeds": seeds} for name, three in named.items()}


def example_report(
    classes=10, factor=100, largest=500, *, searched=0.03, randoms=(0.0, 0.01), mobilenet=None, published=(),
    task="single-label", seeds=1, seed=0,
) -> dict:  # fmt: skip
    """A report as in `report.json` with made-up networks, to try the report's words and pictures on.

    classes, factor, largest: of the training images, 40 test images a class; searched, randoms, mobilenet: how much
    higher their recalls are than the narrowed ResNet's; published: names, at 0; seeds: how many, from `seed` on
    (`aggregate` puts them together). The metrics, intervals (of single-label data) and spreads are computed.
    """
    data = _data(classes, factor, largest, task)
    targets = np.repeat(np.arange(classes), data["counts"]["test"])
    gains = {"searched": searched, "resnet18": 0.02, "resnet_small": 0.0}
    gains |= {} if mobilenet is None else {"mobilenet_v3_small": mobilenet}
    gains |= {f"random_{i}": gain for i, gain in enumerate(randoms)} | dict.fromkeys(published, 0.0)
    reports, answers = [], {name: [] for name in gains}
    for training in range(seed, seed + seeds):
        rng, models, curves = np.random.default_rng(training), {}, {}
        for i, (name, gain) in enumerate(gains.items()):
            scores = _scores(data["counts"]["train"], gain + rng.normal(0, 0.005), targets, rng)
            answers[name].append(scores.argmax(1))
            models[name], curves[name] = _network(i, name, scores, data, training), _curves(gain, rng)
        reports.append(_report(data, models, curves, training))
    return aggregate(reports, _differences(targets, answers, seeds) if task == "single-label" else {})
