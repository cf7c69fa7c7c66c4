"""How long the command takes to start: python tests/benchmarks/startup.py [REPEATS].

Prints, for each way to call it, the median of the seconds beyond `python -c "import argparse"`, both in turn, and what
of the heavy libraries was imported.
"""

import statistics
import subprocess
import sys
import time

CALLS = {"--help": ["--help"], "--version": ["--version"], "show DARTS_V2": ["show", "DARTS_V2"]}
HEAVY = ("torch", "sklearn", "matplotlib", "scipy")


def seconds(*arguments):
    "How long a Python with these arguments runs."
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begin


def heavy(arguments):
    "Which heavy libraries the command has imported at its end."
    code = f"import sys; from ssnas_colab.cli import main; main({arguments!r}); "
    code += f"print('\\n' + ' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.split("\n")[-2]


def measured(repeats):
    "Rows of name, seconds beyond argparse, heavy libraries."
    for name, arguments in CALLS.items():
        pairs = [(seconds("-m", "ssnas_colab", *arguments), seconds("-c", "import argparse")) for _ in range(repeats)]
        yield name, statistics.median(own - bare for own, bare in pairs), heavy(arguments)


if __name__ == "__main__":
    for name, more, imported in measured(int(sys.argv[1]) if len(sys.argv) > 1 else 7):
        print(f"ssnas {name:14} {more:6.3f} s more than importing argparse; imports {imported or 'nothing heavy'}")
