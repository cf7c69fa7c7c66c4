"What holds for all tests: the long ones run only where they are asked for."


def pytest_configure(config):
    config.addinivalue_line("markers", "colab: all notebooks as Colab runs them; `pytest -m colab tests/sessions`")
    config.addinivalue_line("markers", "soak: a hundred kills, a quarter of an hour; run with `pytest -m soak`")


def pytest_collection_modifyitems(config, items):
    if not config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=long)
