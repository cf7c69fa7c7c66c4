"Reports made by hand: numbers that a test can say without computing them."

from ssnas_colab.reports.build import report_view
from ssnas_colab.reports.pages import report_markdown


def as_markdown(report):
    "The words of a report, laid out as Markdown."
    return report_markdown(report_view(report))


def model(value, parameters=400_000, classes=4, test=25, auc=0.9):
    recall = [None if value is None else value] * classes
    return {
        "parameters": parameters, "macs": 50_000_000, "seconds": 12.5, "best_epoch": 3,
        "validation": {"balanced_accuracy": value, "macro_auc": auc}, "accuracy": value, "balanced_accuracy": value,
        "macro_auc": auc, "macro_f1": value, "mean_average_precision": value, "recall_per_class": recall,
        "auc_per_class": [auc] * classes, "confusion": None, "count_per_class": [test] * classes,
        "class_names": [f"c{k}" for k in range(classes)], "many_shot_accuracy": value, "few_shot_accuracy": None,
    }  # fmt: skip


def report(searched=0.8, small=0.7, large=0.75, randoms=(0.6, 0.7), task="single-label", classes=4, train=None):
    train = train or [100 * (classes - k) for k in range(classes)]
    models = {"searched": model(searched, classes=classes)}
    models |= {} if large == "absent" else {"resnet18": model(large, 11_200_000, classes)}
    models |= {} if small == "absent" else {"resnet_small": model(small, 410_000, classes)}
    models |= {f"random_{i}": model(value, 390_000, classes) for i, value in enumerate(randoms)}
    counts = {"train": train, "val": [5] * classes, "test": [25] * classes}
    return {
        "models": models,
        "data": {
            "name": "hand-made", "task": task, "class_names": [f"c{k}" for k in range(classes)], "counts": counts,
            "images": {split: sum(n) for split, n in counts.items()}, "size": [28, 30], "channels": 1,
            "imbalance_factor": 4.0, "policy": "medical", "set_aside": 3,
        },
        "settings": {"preset": "cpu", "seed": 5, "search": {"epochs": 20, "weight": {"zero_one": 2.5}}},
        "seconds": 240.0, "stage_seconds": {"search": 90.0, "searched": 30.0},
        "versions": {"ssnas_colab": "0.1.0", "torch": "2.14.1", "python": "3.11"}, "device": "cpu",
    }  # fmt: skip


def difference(value, low, high, metric="balanced_accuracy"):
    return {"metric": metric, "difference": value, "low": low, "high": high, "seeds": 1}


def of_seeds(made, differences, seeds=3, **more):
    "The hand-made report as if it were the mean over seeds."
    for one in made["models"].values():
        one["seeds"] = [{"seed": s} for s in range(seeds)]
        one["spread"] = {"balanced_accuracy": 0.012}
    return made | {"seeds": list(range(seeds)), "differences": differences, "searched_once": False} | more


def drawn(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()
    return figure
