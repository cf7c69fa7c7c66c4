"""Write what Colab needs into the notebooks that people open, or with --check say whether it is current.

The form is made from ssnas_colab/config.py, the install cell from install.py, and the notebooks ask for a GPU. Cells
that define the package are folded under a title, and what only shows something is marked as a demonstration. The JSON
Schema of report.json, ssnas_colab/report.schema.json, is made of its form in core.forms.
"""

import ast
import configparser
import json
import sys
from pathlib import Path

from ssnas_colab.config import PRESETS, DataConfig, RunConfig, fields_of
from ssnas_colab.core.forms import report_schema

ROOT = Path(__file__).resolve().parents[1]
OPENED = [*sorted((ROOT / "nbs").glob("0[1-69]_*.ipynb")), ROOT / "nbs/index.ipynb"]
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
ASKED = """
#@markdown run the demonstrations, too, which the notebook on GitHub shows:
DEMONSTRATIONS = False  #@param {type:"boolean"}"""
RUN = "## Run this stage"


def form(stage) -> str:
    "The cell in which a person says what to run; of the notebook of a stage also whether its demonstrations run."
    fields = fields_of(RunConfig) | {"factor": fields_of(DataConfig)["imbalance_factor"]}
    told = {name: field.metadata["form"] for name, field in fields.items()}
    defaults = {f"{name}_default": field.default for name, field in fields.items()}
    return FORM.format(**told, **defaults, presets=json.dumps(list(PRESETS))) + ASKED * stage


def install() -> str:
    "The cell that makes the package importable, whole in each notebook: nothing of ours can be imported before it."
    settings = configparser.ConfigParser(interpolation=None, delimiters=["="])
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    text = (ROOT / ".ci/install.py").read_text(encoding="utf-8")
    return text.replace("GIT_URL", settings["DEFAULT"]["git_url"]).strip()


def title(code) -> str:
    "What a cell defines: its public names, or where it has none its private ones."
    names = []
    for node in ast.parse(code).body:
        names += [getattr(node, "name", None)]
        names += [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
    names = [name for name in names if name]
    names = [name for name in names if not name.startswith("_")] or names
    return f"Defines {', '.join(names[:4])}{' ...' * (len(names) > 4)}" if names else "Imports"


def folded(cells):
    "Have Colab show the cells that define the package by their titles alone."
    for cell in cells:
        first, *lines = "".join(cell["source"]).split("\n")
        if cell["cell_type"] == "code" and first == "#| export":
            lines = lines[lines[0].startswith("#@title ") :]
            lines = [first, f"#@title {title(chr(10).join(lines))}", *lines]
            cell["metadata"]["cellView"], cell["source"] = "form", "\n".join(lines).splitlines(keepends=True)


def marked(cells):
    "Mark the code before *Run this stage* that is neither the package's nor the notebook's head."
    run = next(i for i, cell in enumerate(cells) if "".join(cell["source"]).startswith(RUN))
    for cell in cells[:run]:
        code = "".join(cell["source"])
        if cell["cell_type"] == "code" and not code.startswith("#") and "run_demonstrations(" not in code:
            cell["source"] = f"#| demo\n{code}".splitlines(keepends=True)


def written(path) -> bool:
    "Whether the notebook had to be changed."
    before = path.read_text(encoding="utf-8")
    notebook = json.loads(before)
    notebook["metadata"] |= GPU
    stage = any("".join(cell["source"]).startswith(RUN) for cell in notebook["cells"])
    for name, made in (("Settings", form(stage)), ("Install", install())):
        cells = [cell for cell in notebook["cells"] if "".join(cell["source"]).startswith(f"#@title {name} ")]
        if not cells and name == "Install":
            sys.exit(f"{path.name} has no cell that begins with #@title Install")
        for cell in cells:
            cell["metadata"]["cellView"], cell["source"] = "form", made.splitlines(keepends=True)
    folded(notebook["cells"])
    if stage:
        marked(notebook["cells"])
    now = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if json.loads(now) != json.loads(before) and "--check" not in sys.argv:
        path.write_text(now, encoding="utf-8")
    return json.loads(now) != json.loads(before)


def schema_written() -> bool:
    "Whether the JSON Schema of report.json, which is made of its form, had to be changed."
    path, made = ROOT / "ssnas_colab/report.schema.json", json.dumps(report_schema(), indent=1) + "\n"
    changed = not path.is_file() or path.read_text(encoding="utf-8") != made
    if changed and "--check" not in sys.argv:
        path.write_text(made, encoding="utf-8")
    return changed


if __name__ == "__main__":
    changed = [path.name for path in OPENED if written(path)] + ["report.schema.json"] * schema_written()
    if changed and "--check" in sys.argv:
        sys.exit(f"{', '.join(changed)} are not as the settings and forms make them: run python .ci/forms.py")
