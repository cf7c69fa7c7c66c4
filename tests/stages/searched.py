"A run that looks as stages 2 and 3 leave it, for tests of what comes after."

import dataclasses

from ssnas_colab.experiment.run import Run
from ssnas_colab.models.genotype import GENOTYPES
from ssnas_colab.stages.loader import data_stage


def searched_run(path, data=None, *, genotype=GENOTYPES["FairDARTS_a"], depth=3):
    "A run at `path` with a genotype and a search; with what stage 1 leaves of `data`, where that is given."
    run = Run.open(path, {"seed": 0})
    if data is not None:
        data_stage(data, run)
    run.save_text("genotype.json", genotype.to_json())
    run.save_json("search.json", {"depth": depth, "settings": {}, "history": []})
    return run


def below(data, count):
    "The images of the first `count` classes: numbers of fewer classes take less time."
    keep = {split: labels < count for split, labels in data.labels.items()}
    parts = {name: getattr(data, name) for name in ("images", "labels", "indices")}
    cut = {name: {split: of[split][kept] for split, kept in keep.items()} for name, of in parts.items()}
    return dataclasses.replace(data, **cut, class_names=data.class_names[:count])
