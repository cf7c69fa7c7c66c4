"""Every relaxation and every objective, each in a search on the embedded digits, to a genotype.

python nbs/research/every_search/experiment.py --out FOLDER
"""

import argparse
import json
import warnings
from pathlib import Path

from ssnas_colab.config import DRAWING_NAMES, search_config
from ssnas_colab.experiment.run import Run
from ssnas_colab.nas.relaxations import RELAXATIONS
from ssnas_colab.stages.derivation import derive_stage
from ssnas_colab.stages.loader import load_data
from ssnas_colab.stages.search import search
from ssnas_colab.training.ssl_losses import OBJECTIVES

warnings.simplefilter("ignore")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = load_data("digits", imbalance_factor=10)
    chosen = [(relaxation, "barlow_twins") for relaxation in RELAXATIONS]
    chosen += [("sampled", objective) for objective in OBJECTIVES if objective != "barlow_twins"]
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    for relaxation, objective in chosen:
        steps = 160 if relaxation in DRAWING_NAMES else 80
        config = search_config("quick", relaxation=relaxation, objective=objective, steps=steps)
        run = Run.open(options.out / f"{relaxation}_{objective}", {})
        search(data, run, config)
        found = run.load_json("search.json")
        last = found["history"][-1]
        row = {"relaxation": relaxation, "objective": objective, "steps": steps, "seed": config.seed}
        row |= {"first_loss": found["history"][0]["alpha_loss"]} | {key: found[key] for key in ("stopped", "seconds")}
        row |= {name: last[name] for name in ("alpha_loss", "derived", "gap", "decided", "rank", "parameterless")}
        results.append(row | {"genotype": str(derive_stage(run))})
        (options.out / "results.json").write_text(json.dumps(results, indent=1))
        print(relaxation, objective, {k: round(v, 3) for k, v in row.items() if isinstance(v, float)}, flush=True)


if __name__ == "__main__":
    main()
