"""Write what the notebooks that people open begin with, or with --check say whether it is current.

The form is made from ssnas_colab/config.py, the install cell from the text below, and the notebooks ask for a GPU.
"""

import configparser
import json
import sys
from pathlib import Path

from ssnas_colab.config import PRESETS, DataConfig, RunConfig, fields_of

ROOT = Path(__file__).resolve().parents[1]
OPENED = [*sorted((ROOT / "nbs").glob("0[1-6]_*.ipynb")), ROOT / "nbs/index.ipynb"]
GPU = {"accelerator": "GPU", "colab": {"gpuType": "T4", "provenance": []}}  # as Colab writes it
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
DRIVE_FOLDER = "{drive_folder_default}"  #@param {{type:"string"}}
#@markdown {repository}:
REPOSITORY = "{repository_default}"  #@param {{type:"string"}}"""


def form() -> str:
    "The cell in which a person says what to run."
    fields = fields_of(RunConfig) | {"factor": fields_of(DataConfig)["imbalance_factor"]}
    told = {name: field.metadata["form"] for name, field in fields.items()}
    defaults = {f"{name}_default": field.default for name, field in fields.items()}
    return FORM.format(**told, **defaults, presets=json.dumps(list(PRESETS)))


def install() -> str:
    "The cell that makes the package importable, whole in each notebook: nothing of ours can be imported before it."
    settings = configparser.ConfigParser(interpolation=None, delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    text = (ROOT / ".ci/install.py").read_text(encoding="utf-8")
    return text.replace("GIT_URL", settings["DEFAULT"]["git_url"]).strip()


def written(path) -> bool:
    "Whether the notebook had to be changed."
    before = path.read_text(encoding="utf-8")
    notebook = json.loads(before)
    notebook["metadata"] |= GPU
    for title, made in (("Settings", form), ("Install", install)):
        cells = [cell for cell in notebook["cells"] if "".join(cell["source"]).startswith(f"#@title {title} ")]
        if not cells and title == "Install":
            sys.exit(f"{path.name} has no cell that begins with #@title Install")
        for cell in cells:
            cell["metadata"]["cellView"], cell["source"] = "form", made().splitlines(keepends=True)
    now = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if json.loads(now) != json.loads(before) and "--check" not in sys.argv:
        path.write_text(now, encoding="utf-8")
    return json.loads(now) != json.loads(before)


if __name__ == "__main__":
    changed = [path.name for path in OPENED if written(path)]
    if changed and "--check" in sys.argv:
        sys.exit(f"{', '.join(changed)} do not begin as the settings make it: run python .ci/forms.py")
