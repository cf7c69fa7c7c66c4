"""Write the forms of the notebooks from ssnas_colab/config.py, or with --check say whether they are current."""

import json
import sys
from pathlib import Path

from ssnas_colab.config import PRESETS, DataConfig, RunConfig, fields_of

NBS = Path(__file__).resolve().parents[1] / "nbs"
FORM = """#@title Settings {{ display-mode: "form" }}
#@markdown {data}:
DATA = "{data_default}"  #@param {{type:"string"}}
#@markdown {factor}:
IMBALANCE_FACTOR = 0  #@param {{type:"number"}}
PRESET = "{preset_default}"  #@param {presets}
SEED = {seed_default}  #@param {{type:"integer"}}
#@markdown {time_budget}:
TIME_BUDGET = ""  #@param {{type:"string"}}
#@markdown {drive_folder}:
DRIVE_FOLDER = "{drive_folder_default}"  #@param {{type:"string"}}"""


def form() -> str:
    "The cell in which a person says what to run."
    fields = fields_of(RunConfig) | {"factor": fields_of(DataConfig)["imbalance_factor"]}
    told = {name: field.metadata["form"] for name, field in fields.items()}
    defaults = {f"{name}_default": field.default for name, field in fields.items()}
    return FORM.format(**told, **defaults, presets=json.dumps(list(PRESETS)))


def written(path) -> bool:
    "Whether the notebook had to be changed."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if "".join(cell["source"]).startswith("#@title Settings")]
    if not cells or all("".join(cell["source"]) == form() for cell in cells):
        return False
    if "--check" not in sys.argv:
        for cell in cells:
            cell["source"] = form().splitlines(keepends=True)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return True


if __name__ == "__main__":
    changed = [path.name for path in sorted(NBS.glob("*.ipynb")) if written(path)]
    if changed and "--check" in sys.argv:
        sys.exit(f"The forms of {', '.join(changed)} are not what the settings make: run python .ci/forms.py")
