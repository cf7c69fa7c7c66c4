"A run that looks as stages 2 and 3 leave it, for tests of what comes after."

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
