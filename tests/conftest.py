"What holds for all tests: the long ones run only where they are asked for, and which of the others run together."

import io

import pytest

# Files whose tests share what takes long to make: one worker runs all of them. (With pytest 9.1 and newer,
# pytest-xdist 3.8 no longer reads the mark `xdist_group`.)
TOGETHER = (
    "sessions/test_colab.py", "widgets/test_browser.py", "experiment/test_soak.py", "stages/test_evaluation.py",
    "stages/test_search.py", "scale/test_ranks.py",
)  # fmt: skip
RAY = "scale/test_sweep.py", "scale/test_tasks.py"  # share one start of Ray
# What takes a second or more a test comes first: at the end short tests keep all workers busy.
FIRST = ("experiment/test_soak", "scale/", "stages/", "test_cli", "experiment/test_old_runs", "training/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class TogetherScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return "ray" if file.endswith(RAY) else file if file.endswith(TOGETHER) else nodeid

    return TogetherScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_configure(config):
    config.addinivalue_line("markers", "colab: all notebooks as Colab runs them; `pytest -m colab tests/sessions`")
    config.addinivalue_line("markers", "gpu: on CUDA, skipped where there is none; `pytest tests/gpu`")
    config.addinivalue_line("markers", "soak: a hundred kills, a quarter of an hour; run with `pytest -m soak`")


def pytest_collection_modifyitems(config, items):
    if not config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("soak") or item.get_closest_marker("colab")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)

    def place(item):
        return next((i for i, name in enumerate(FIRST) if f"tests/{name}" in item.nodeid), len(FIRST))

    items.sort(key=place)


@pytest.fixture(scope="session")
def blank():
    "The bytes of a PNG of one pixel."
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "png")
    return file.getvalue()


def _paint(patch, blank):
    from matplotlib.figure import Figure

    patch.setattr(Figure, "savefig", lambda figure, file, **how: file.write(blank))


@pytest.fixture
def unpainted(monkeypatch, blank):
    """Figures are made and kept as ever, but each is painted as one pixel.

    For tests of what a run computes: to paint its dozen pictures takes longer than its few steps of training.
    """
    _paint(monkeypatch, blank)


@pytest.fixture(scope="module")
def unpainted_module(blank):
    "As `unpainted`, for all tests of a file and the runs that they share."
    with pytest.MonkeyPatch.context() as patch:
        _paint(patch, blank)
        yield
