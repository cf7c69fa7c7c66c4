"The project as a whole: what the package offers, and which room may import which."

import ast
import functools
import json
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path

import pytest

import ssnas_colab

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for path in (ROOT / "ssnas_colab").rglob("*.py") if not path.name.startswith("_"))
NOTEBOOKS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
STAGES = {"loader", "search", "derivation", "evaluation"}
# The rooms from the ground up, and which others a room may import.
ROOMS = {
    "core": "",
    "config": "core models",
    "experiment": "core",
    "data": "core",
    "models": "core",
    "plots": "core models",
    "sessions": "core experiment",
    "training": "core config data models experiment",
    "nas": "core config data models training",
    "strategies": "core config data models training nas experiment",
    "inference": "core data models plots training experiment",
    "reports": "core data models plots training inference",
    "widgets": "core data models nas plots reports experiment",
    "scale": "core config experiment sessions",
    "stages": "core config experiment data models plots sessions training nas strategies inference reports scale",
    "cli": "core config experiment data models plots sessions training nas strategies inference reports scale stages",
    "reproduce": "core config experiment data reports sessions stages cli",
}
SIGNPOSTS = {"core.using"}  # old names that point to where things are now
PUBLIC = (
    "load_data long_tailed_counts ImageData Genotype Edge GENOTYPES PRIMITIVES plot_genotype Network count_parameters "
    "count_macs Supernet barlow_twins_loss zero_one_loss nt_xent_loss derive Run UserError search derive_stage "
    "evaluate run_pipeline explore load_model load_genotype network_score"
).split()


def name_of(path):
    "'experiment.run' for ssnas_colab/core/runs.py."
    return ".".join(path.relative_to(ROOT / "ssnas_colab").with_suffix("").parts)


@functools.cache
def tree_of(path):
    "The source as a tree."
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def nodes_of(path):
    "All nodes of that tree."
    return [*ast.walk(tree_of(path))]


def imports_of(path):
    "Everything that the source imports, also inside functions, by absolute name: 'torch', 'ssnas_colab.cli'."
    package = ["ssnas_colab", *path.relative_to(ROOT / "ssnas_colab").parts[:-1]]
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


@functools.cache
def ours(path):
    "The modules of this package that the source imports: 'experiment.run', 'loader'."
    known = {name_of(module) for module in MODULES}
    found = {name.removeprefix("ssnas_colab.") for name in imports_of(path) if name.startswith("ssnas_colab")}
    return frozenset(known & found)


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


def test_importing_the_package_imports_nothing_heavy():
    told = "print(sorted({'torch', 'torchvision', 'matplotlib', 'sklearn', 'numpy'} & set(sys.modules)))"
    assert python(f"import sys, ssnas_colab; dir(ssnas_colab); {told}") == "[]"
    assert python(f"import sys; from ssnas_colab import Genotype; {told}") == "[]"


def room_of(name):
    "'core' for 'core.files', 'config' for 'config'."
    return name.split(".")[0]


def test_the_stages_import_what_takes_a_second_only_where_it_is_used():
    told = "print(sorted({'sklearn', 'scipy', 'matplotlib', 'torchvision', 'pandas', 'ipywidgets'} & set(sys.modules)))"
    assert python(f"import sys, ssnas_colab.stages.pipeline; {told}") == "[]"


def test_a_citation_is_of_this_version():
    assert f"version: {ssnas_colab.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_walls_are_read_from_the_sources():
    "The walls below would hold of anything if `ours` saw nothing."
    by_name = {name_of(path): path for path in MODULES}
    assert {"nas.derive", "models.genotype", "core.basics"} <= ours(by_name["stages.derivation"])
    assert {f"stages.{stage}" for stage in STAGES} <= ours(by_name["stages.pipeline"])
    assert {room_of(name) for name in by_name} == set(ROOMS)


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path) not in SIGNPOSTS], ids=name_of)
def test_walls(path):
    name, source = name_of(path), path.read_text(encoding="utf-8")
    room, found = room_of(name), {module.split(".")[0] for module in imports_of(path)}
    for other in ours(path):
        assert room_of(other) in {room, *ROOMS[room].split()}, f"{name} imports {other}"
        assert other not in SIGNPOSTS, f"{name} imports the old name {other}"
        assert not (room == "stages" and room_of(other) == "stages" and name != "stages.pipeline"), (
            f"{name} imports another stage, {other}"
        )
    if name in ("models.genotype", "models.stages", "core.basics"):
        assert ours(path) <= {"core.basics", "models.stages"} and found <= {*sys.stdlib_module_names, "ssnas_colab"}
    assert not found & {"nbdev", "fastcore", "execnb"}
    assert room == "widgets" or "ipywidgets" not in found, f"{name} makes widgets outside of widgets/"
    lazily = {node.lineno for node in tree_of(path).body}
    for line, text in enumerate(source.splitlines(), 1):
        assert not (line in lazily and text.split()[:2] in (["import", "matplotlib"], ["from", "matplotlib"])), (
            f"{name} imports matplotlib before a picture is asked for"
        )
    if name not in ("experiment.checkpoints", "models.pretrained"):  # the latter reads weights that others published
        attributes = [node for node in nodes_of(path) if isinstance(node, ast.Attribute)]
        files = [ast.unparse(node) for node in attributes if node.attr in ("load", "save")]
        assert not {"torch.load", "torch.save"} & {*files}, f"{name} reads or writes checkpoint files by itself"


def test_no_private_name_leaves_its_room():
    for path in MODULES:
        for node in nodes_of(path):
            if isinstance(node, ast.ImportFrom) and node.level and node.module:
                away = node.level > 1 or name_of(path).count(".") == 0
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert not (away and private), f"{name_of(path)} takes {private} out of {node.module}"


def test_no_circles():
    "Imports inside functions count."
    left = {name_of(path): ours(path) - {name_of(path)} for path in MODULES if name_of(path) not in SIGNPOSTS}
    while free := {name for name, imported in left.items() if not imported & left.keys()}:
        left = {name: imported for name, imported in left.items() if name not in free}
    assert not left, f"these import each other: {sorted(left)}"


def test_no_room_is_crowded():
    rooms = Counter(room_of(name_of(path)) for path in MODULES)
    print(dict(rooms))
    assert max(rooms.values()) <= 9


def own_classes():
    "Every class of the package, by its module and name, with the names of those that it is made from."
    for path in MODULES:
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef):
                yield f"{name_of(path)}.{node.name}", [ast.unparse(base).split(".")[-1] for base in node.bases]


def test_one_class_a_thing(capsys):
    "A class with one subclass alone is usually half of a thing; a tall pile of classes is read from the bottom up."
    named = list(own_classes())
    bases = {name.rsplit(".", 1)[1]: made_from for name, made_from in named}
    below = Counter(base for _, made_from in named for base in made_from if base in bases)
    depth = {}

    def depth_of(name):
        if name not in depth:
            depth[name] = 1  # a name that two modules give to different classes must not send us round
            depth[name] = 1 + max((depth_of(base) for base in bases[name] if base in bases), default=0)
        return depth[name]

    only, deepest = sorted(name for name, count in below.items() if count == 1), max(map(depth_of, bases))
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES)
    with capsys.disabled():
        print(f"\n{len(MODULES)} modules, {lines} lines, {len(named)} classes, {deepest} deep at most;", end=" ")
        print(f"{len(only)} have one subclass: {', '.join(only)}")
    assert len(only) <= 12 and deepest <= 3


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_eval_and_no_pickles(path):
    for node in nodes_of(path):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            options = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            plain = isinstance(node.func, ast.Name)
            assert not (plain and called in ("eval", "exec", "__import__")), f"line {node.lineno}: {called}"
            assert options.get("weights_only", True) is True, f"line {node.lineno}: weights_only"
            assert not options.get("allow_pickle"), f"line {node.lineno}: allow_pickle"
            loads = ast.unparse(node.func) if called == "load" else ""
            if loads == "torch.load":
                assert "weights_only" in options, f"line {node.lineno}: torch.load without weights_only"
            if loads == "np.load":
                assert "allow_pickle" in options, f"line {node.lineno}: np.load without allow_pickle"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks(path):
    text = path.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
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
