"What tests of scale share: Ray takes longer to start than most of them to run."

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_here():
    "Ray on this machine, with two processors and the token authentication that its version has by itself."
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ssnas_colab[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
        ray.init(num_cpus=2, log_to_driver=False, configure_logging=False, include_dashboard=False)
        yield ray
        ray.shutdown()
