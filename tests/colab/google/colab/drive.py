"""`mount` links the folder that SSNAS_COLAB_DRIVE names into the place of Google Drive; refuses where there is none.

The place itself is not /content, which a test may not be allowed to make, but beside that folder.
"""

import os
from pathlib import Path

from google.colab import called


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    from ssnas_colab.sessions import colab

    called(f"drive.mount {mountpoint}")
    there = os.environ.get("SSNAS_COLAB_DRIVE")
    if not there:
        raise ValueError("mount failed")  # what Colab says to who does not allow it
    colab.DRIVE = Path(there)
    (colab.DRIVE / "MyDrive").mkdir(parents=True, exist_ok=True)
    print(f"Mounted at {mountpoint}")


def flush_and_unmount(timeout_ms=24 * 60 * 60 * 1000):
    called("drive.flush_and_unmount")
