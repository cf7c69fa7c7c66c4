"The project as a whole: what the package offers, which module may import which, and how long a cell may be."

import ast
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import ssnas_colab

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for path in (ROOT / "ssnas_colab").rglob("*.py") if not path.name.startswith("_"))
NOTEBOOKS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
# A code cell has at most 45 lines; these notebooks have a class or function that is longer. The numbers may only fall.
LONGER = {"28_levels": 52}
STAGES = {"loader", "search", "derivation", "evaluation"}
PUBLIC = (
    "load_data long_tailed_counts ImageData Genotype Edge GENOTYPES PRIMITIVES plot_genotype Network count_parameters "
    "count_macs Supernet barlow_twins_loss zero_one_loss nt_xent_loss derive Run UserError search derive_stage "
    "evaluate run_pipeline explore load_model"
).split()


def name_of(path):
    "'core.runs' for ssnas_colab/core/runs.py."
    return ".".join(path.relative_to(ROOT / "ssnas_colab").with_suffix("").parts)


def imports_of(path):
    "Everything that the source imports, also inside functions, by absolute name: 'torch', 'ssnas_colab.core.runs'."
    package = ["ssnas_colab", *path.relative_to(ROOT / "ssnas_colab").parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def ours(path):
    "The modules of this package that the source imports: 'core.runs', 'loader'."
    known = {name_of(module) for module in MODULES}
    found = {name.removeprefix("ssnas_colab.") for name in imports_of(path) if name.startswith("ssnas_colab")}
    return known & found


def python(code):
    "What a fresh Python prints that runs `code`."
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_public_names():
    assert set(PUBLIC) == set(ssnas_colab.__all__) <= set(dir(ssnas_colab))
    for name in PUBLIC:
        assert not isinstance(getattr(ssnas_colab, name), types.ModuleType), name
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        ssnas_colab.serach  # noqa: B018


def test_star_import_and_version():
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    assert f"\nversion = {ssnas_colab.__version__}\n" in settings
    assert python("from ssnas_colab import *; print(derive_stage.__name__, search.__name__)") == "derive_stage search"


@pytest.mark.parametrize(
    "before",
    [
        "",
        "import ssnas_colab.search; ",
        "from ssnas_colab.search import SEARCH_PRESETS; ",
        "import ssnas_colab.pipeline; ",
    ],
)
def test_search_is_the_function_whatever_was_imported_before(before):
    after = "from ssnas_colab.search import SEARCH_PRESETS, search as same; import ssnas_colab.search; "
    told = "print(callable(search), search is same is ssnas_colab.search, 'quick' in SEARCH_PRESETS)"
    assert python(f"{before}from ssnas_colab import search; {after}{told}") == "True True True"


def test_importing_the_package_imports_nothing_heavy():
    told = "print(sorted({'torch', 'torchvision', 'matplotlib', 'sklearn', 'numpy'} & set(sys.modules)))"
    assert python(f"import sys, ssnas_colab; dir(ssnas_colab); {told}") == "[]"
    assert python(f"import sys; from ssnas_colab import Genotype; {told}") == "[]"


def test_walls_are_read_from_the_sources():
    "The walls below would hold of anything if `ours` saw nothing."
    by_name = {name_of(path): path for path in MODULES}
    assert {"core.derive", "core.genotype", "core.runs"} <= ours(by_name["derivation"])
    assert STAGES <= ours(by_name["pipeline"])


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_walls(path):
    name = name_of(path)
    others = (STAGES | {"pipeline", "explorer"}) - {name}
    if name.startswith("core."):
        assert not ours(path) & others, f"{name} imports a stage"
    if name in STAGES:
        assert not ours(path) & others, f"{name} imports another stage"
    if name == "core.genotype":
        found = {module.split(".")[0] for module in imports_of(path)}
        assert not ours(path) and not found & {"torch", "numpy", "ssnas_colab"}
    assert not {module.split(".")[0] for module in imports_of(path)} & {"nbdev", "fastcore", "execnb"}
    if name != "core.files":
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save")), (
                f"{name} reads or writes checkpoint files by itself"
            )


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_eval_and_no_pickles(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            options = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            plain = isinstance(node.func, ast.Name)
            assert not (plain and called in ("eval", "exec", "__import__")), f"line {node.lineno}: {called}"
            assert options.get("weights_only", True) is True, f"line {node.lineno}: weights_only"
            assert not options.get("allow_pickle"), f"line {node.lineno}: allow_pickle"
            if ast.unparse(node.func) == "torch.load":
                assert "weights_only" in options, f"line {node.lineno}: torch.load without weights_only"
            if ast.unparse(node.func) == "np.load":
                assert "allow_pickle" in options, f"line {node.lineno}: np.load without allow_pickle"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks(path):
    text = path.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            most = LONGER.get(path.stem, 45)
            assert len(source.splitlines()) <= most, f"cell {number} has more than {most} lines: {source[:60]!r}"
            raised = [output["ename"] for output in cell["outputs"] if output["output_type"] == "error"]
            assert not raised, f"cell {number} keeps an error"
            outputs = json.dumps(cell["outputs"])
            for place in ("/tmp/", "/root/", "/home/", "/work/"):
                assert place not in outputs, f"cell {number} shows a path of the machine it ran on"
    first = "".join(cells[0]["source"])
    assert first.startswith("# ") and "\n> " in first, "a notebook begins with a title and a line that says what it is"


TELLING = [path for path in NOTEBOOKS if path.stem != "index" and path.parent.name != "research"]


@pytest.mark.parametrize("path", TELLING, ids=lambda path: path.stem)
def test_every_notebook_exports_its_module(path):
    sources = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    [name] = [source.split("default_exp")[1].split()[0] for source in sources if source.startswith("#| default_exp")]
    written = (ROOT / "ssnas_colab" / Path(*name.split("."))).with_suffix(".py").read_text(encoding="utf-8")
    assert f"File to edit: {'../' * (name.count('.') + 1)}nbs/{path.relative_to(ROOT / 'nbs').as_posix()}" in written
