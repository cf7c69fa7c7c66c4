"""A stand-in for Colab's own package, for tests: `drive`, `output` and `files` as far as this project uses them.

SSNAS_COLAB_CALLS names a file to which each call is appended, a line each.
"""

import os


def called(what):
    "Note the call."
    if "SSNAS_COLAB_CALLS" in os.environ:
        with open(os.environ["SSNAS_COLAB_CALLS"], "a", encoding="utf-8") as file:
            file.write(f"{what}\n")
