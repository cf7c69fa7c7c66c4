"""Memory and time to load a folder of many small images: python tests/benchmarks/loader_memory.py [FILES [SIZE]].

Each way runs in a process of its own. Peak: the most memory the process had at once; of this, pages of a mapped file
can be taken back by the system at any time, so the rest ("own") is given too.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

LOAD = """
import sys, threading, time
from pathlib import Path
from ssnas_colab.stages.loader import load_data

def own():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) / 1024, int(lines["VmRSS"].split()[0]) / 1024

before, most, done = own()[0], [0.0, 0.0], threading.Event()
def watch():
    while not done.wait(0.02):
        most[:] = [max(pair) for pair in zip(most, own())]

watcher = threading.Thread(target=watch)
watcher.start()
begin = time.perf_counter()
limit = None if sys.argv[2] == "None" else int(sys.argv[2])
data = load_data(sys.argv[1], cache=sys.argv[3], memory_limit=limit)
seconds = time.perf_counter() - begin
done.set()
watcher.join()
size = sum(images.nbytes for images in data.images.values()) / 2**20
print(f"{type(data.images['train']).__name__:8} images {size:6.0f} MiB, peak {most[1]:6.0f} MiB, "
      f"own {most[0]:6.0f} MiB (before loading {before:.0f}), {seconds:.0f} s")
"""


def make(folder, files, size):
    "A folder of `files` grey PNGs in ten classes."
    rng = np.random.default_rng(0)
    for c in range(10):
        (folder / f"class{c}").mkdir(parents=True)
        for i in range(files // 10):
            pixels = rng.integers(0, 256, (size, size), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{c}" / f"{i}.png", compress_level=0)


def main(files=100_000, size=32):
    with tempfile.TemporaryDirectory() as temporary:
        folder, begin = Path(temporary) / "images", time.perf_counter()
        make(folder, files, size)
        print(f"{files:,} files of {size} x {size} pixels, made in {time.perf_counter() - begin:.0f} s")
        for name, limit in [("in memory", "None"), ("in a file", "0"), ("in a file, found again", "0")]:
            arguments = [sys.executable, "-c", LOAD, str(folder), limit, str(Path(temporary) / "cache")]
            done = subprocess.run(arguments, capture_output=True, text=True)
            print(f"{name:23}", done.stdout.strip() or done.stderr[-500:])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
