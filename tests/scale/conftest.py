"What tests of scale share: Ray takes longer to start than most of them to run."

import os
from pathlib import Path

import pytest

from ssnas_colab.scale.tasks import ray_session


@pytest.fixture(scope="session")
def ray_here():
    "Ray on this machine, with the token authentication that its version has by itself."
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ssnas_colab[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
        with ray_session() as ray:
            yield ray
