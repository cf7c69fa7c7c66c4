"""Make README.md from nbs/index.ipynb, or with --check say whether it is current."""

import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]


def visible(notebook):
    "The notebook without the cells and lines that are addressed to nbdev."
    cells = []
    for cell in notebook.cells:
        lines = cell.source.splitlines()
        marks = [line.replace(" ", "") for line in lines if line.startswith("#|")]
        if any(mark in ("#|hide", "#|eval:false", "#|default_exp") for mark in marks):
            continue
        if cell.metadata.get("cellView") == "form":  # what people fill in in Colab
            continue
        cell.source = "\n".join(line for line in lines if not line.startswith("#|"))
        cells.append(cell)
    notebook.cells = cells
    return notebook


def readme() -> str:
    "What README.md should hold."
    notebook = visible(nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4))
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    text = text.replace("\n```\nfrom ", "\n```python\nfrom ")
    note = "<!-- Made from nbs/index.ipynb by .ci/readme.py: edit the notebook. -->\n\n"
    text = text.replace('src="images/', 'src="nbs/images/')
    for folder in sorted(path.name for path in (ROOT / "nbs").iterdir() if path.is_dir()):
        text = text.replace(f"]({folder}/", f"](nbs/{folder}/")
    for stage in sorted((ROOT / "nbs").glob("*.ipynb")):
        text = text.replace(f"]({stage.name})", f"](nbs/{stage.name})")
    return note + "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


if __name__ == "__main__":
    target, wanted = ROOT / "README.md", readme()
    if "--check" not in sys.argv:
        target.write_text(wanted, encoding="utf-8")
    elif not target.is_file() or target.read_text(encoding="utf-8") != wanted:
        sys.exit("README.md is not what nbs/index.ipynb makes: run python .ci/readme.py")
