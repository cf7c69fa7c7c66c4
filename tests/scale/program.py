"""What `test_ranks.py` has two ranks do: `torchrun --max-restarts=1 program.py OUT`.

The first time one of them is killed; when they are started anew, each leaves what it found as OUT/<rank>.json.
"""

import contextlib
import io
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from ssnas_colab.cli import main
from ssnas_colab.core import ranks
from ssnas_colab.core.basics import UserError
from ssnas_colab.core.device import choose_engine
from ssnas_colab.core.files import Files
from ssnas_colab.scale.ranks import joined
from ssnas_colab.training.ssl_losses import SelfSupervised, Supervised, barlow_twins_loss, nt_xent_loss, vicreg_loss

LOSSES = {"barlow_twins": barlow_twins_loss, "simclr": nt_xent_loss, "vicreg": vicreg_loss}
SEARCH = {"width": 2, "depth": 3, "nodes": 1, "batch_size": 16, "steps": 4, "embedding": 8, "warmup": 0.25}
EVALUATION = {
    "pretrain_steps": 2, "finetune_steps": 2, "batch_size": 15, "embedding": 8, "max_parameters": 4_000,
    "random_genotypes": 0, "resnet18": "false", "mobilenet": "false", "published": "", "equal_macs": "",
}  # fmt: skip
STRATEGY = ["--space", "cells", "--strategy", "random", "--candidates", "2", "--score", "naswot"]
STRATEGY += ["--score-steps", "1", "--max-parameters", "8000", "--set", "search.depth=3", "--set", "search.nodes=1"]


def settings(**more):
    "The options of a small run."
    named = {f"search.{name}": value for name, value in (SEARCH | more).items()}
    named |= {f"evaluation.{name}": value for name, value in EVALUATION.items()}
    return [word for name, value in named.items() for word in ("--set", f"{name}={value}")]


# Numbers --------------------------------------------------------------------------------------------------------------


def models(name):
    "A backbone and an objective without batch norm, in float64, the same in every process."
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6)).double()
    if name == "supervised":
        objective = Supervised(6, num_classes=3, counts=[60, 30, 10], loss="focal")
    else:
        objective = SelfSupervised(LOSSES[name], 6, embedding=5)
        objective.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))
    return backbone, objective.double()


def averaged(*modules):
    found = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    ranks.average(found)
    return torch.cat([g.flatten() for g in found]).tolist()


def batch(size):
    generator = torch.Generator().manual_seed(1)
    views = torch.randn(2, size, 1, 8, 8, generator=generator, dtype=torch.float64)
    return views, torch.randint(3, (size,), generator=generator)


def gradients(name, size):
    "The loss of a batch of `size` images and its gradient, as one list of numbers; of several ranks each has a share."
    (backbone, objective), (views, labels), mine = models(name), batch(size), ranks.share(size)
    loss = objective(*(backbone(view[mine]) for view in views), labels[mine])
    loss.backward()
    return loss.item(), averaged(backbone, objective)


def naive(size):
    "A cross-correlation's loss where the ranks sum the matrix by a plain `all_reduce`, as public code has done."
    (backbone, objective), views = models("barlow_twins"), batch(size)[0]
    z1, z2 = (objective.head(backbone(view[ranks.share(size)])) for view in views)
    correlation = z1.T @ z2 / size
    if ranks.count() > 1:
        torch.distributed.all_reduce(correlation.detach())  # in place: its backward pass knows of no other rank
    (torch.eye(5, dtype=torch.float64) - correlation).square().sum().backward()
    return averaged(backbone, objective)


def refusals(folder):
    "What the ranks say, by what went wrong."
    said, number = {}, ranks.rank()

    def note(name, act):
        try:
            act()
        except (UserError, OSError, ValueError) as error:
            said[name] = f"{type(error).__name__}: {error}"

    def refuse():
        raise UserError(f"no room for {number}")

    files = Files(folder)
    files.before_write.append(refuse)
    note("first", lambda: ranks.by_first(refuse))
    note("disk", lambda: ranks.by_first(lambda: (folder / "nothing").read_bytes()))
    note("second", lambda: ranks.together(lambda: refuse() if number else 0))
    note("write", lambda: files.write("a", b"1"))
    note("images", lambda: ranks.require_same({"images": f"{number}bc"}))
    note("folder", lambda: ranks.require_shared(folder if number == 0 else folder / "elsewhere", seconds=0.1))
    note("small", lambda: ranks.require_share(3, "A batch of the search"))
    return said


def primitives(folder):
    "What `core.ranks` makes of two ranks."
    number, made = ranks.rank(), {}
    for name in (*LOSSES, "supervised"):
        made[name] = {size: gradients(name, size) for size in (8, 7)}
    made["naive"] = naive(8)
    made["told"] = [ranks.told(number), ranks.largest_of_all(number), ranks.together(lambda: number + 1)]
    made["bytes"] = len(ranks.by_first(lambda: bytes(range(256)) * 400))
    with ranks.alone():
        made["alone"] = [ranks.count(), ranks.told(number), ranks.rank()]
    Files(folder).write("written.txt", f"by {number}".encode())
    made["written"], made["said"] = (folder / "written.txt").read_text(), refusals(folder)
    engine, layer = choose_engine("cpu", "float32"), nn.Linear(2, 1, bias=False)
    nn.init.ones_(layer.weight)
    engine.update((layer(torch.ones(1, 2)) * (number + 1)).sum(), torch.optim.SGD(layer.parameters(), 1.0))
    made["step"] = layer.weight.tolist()
    ranks.copy_first(buffers := [torch.full((2,), float(number)), torch.tensor([number])])
    made["copied"] = [buffer.tolist() for buffer in buffers]
    try:
        engine.spared(out_of_memory)
    except torch.cuda.OutOfMemoryError:
        made["parts"] = engine.parts
    return made


def out_of_memory():
    raise torch.cuda.OutOfMemoryError("none left")


# Runs -----------------------------------------------------------------------------------------------------------------


def quickly():
    "Paint every figure as nothing, and write a checkpoint after every step."
    from matplotlib.figure import Figure
    from PIL import Image

    from ssnas_colab.training import loop

    pixel = io.BytesIO()
    Image.new("L", (1, 1)).save(pixel, "png")
    Figure.savefig = lambda figure, file, **how: file.write(pixel.getvalue())
    loop.CHECKPOINT_SECONDS = 0


@contextlib.contextmanager
def at_step(number, act):
    "Context in which `act()` is called as the search begins the step of that number, from 0."
    from ssnas_colab.nas import bilevel

    honest, seen = bilevel.Searcher.weight_step, [0]

    def weight_step(searcher, batch, step_seed):
        if seen[0] == number:
            act()
        seen[0] += 1
        return honest(searcher, batch, step_seed)

    bilevel.Searcher.weight_step = weight_step
    try:
        yield
    finally:
        bilevel.Searcher.weight_step = honest


def told_to_stop():
    if ranks.rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def out_of_time():
    "Of the first rank alone the clock says that the time is up."
    from ssnas_colab.experiment import interrupts

    interrupts.StopSignal.left = lambda stop: 0.0 if ranks.rank() == 0 else 1e9


def runs(folder):
    "Exit codes of commands, and what was said, by name."
    from ssnas_colab.experiment import interrupts

    quickly()
    made, honest, number = {}, interrupts.StopSignal.left, ranks.rank()

    def command(name, *words, act=None):
        error, out = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(out):
            with at_step(2, act) if act else contextlib.nullcontext(), interrupts.stopping("9h"):
                code = main([*words])  # in a context of its own: a signal is for this command alone
        interrupts.StopSignal.left = honest
        made[name] = [code, error.getvalue(), out.getvalue()]

    whole, stopped = str(folder / "whole"), str(folder / "stopped")
    command("killed", "search", str(folder / "killed_run"), *settings())
    command("search", "search", whole, *settings())
    command("stopped", "search", stopped, *settings(), act=told_to_stop)
    command("again", "search", stopped, *settings())
    command("late", "search", str(folder / "late"), *settings(), "--time-budget", "1h", act=out_of_time)
    command("derive", "derive", whole)
    command("evaluate", "evaluate", whole, *settings())
    command("strategy", "search", str(folder / "strategy"), *STRATEGY)
    command("images", "search", str(folder / "images"), *settings(), "--imbalance-factor", str(2 + number))
    command("small", "search", str(folder / "small"), *settings(batch_size=3))
    return made


def first_time(folder):
    "A search of which rank 1 is killed at its third step, or as SSNAS_TEST_ACT says: rank, step, signal."
    quickly()
    number, (who, step, name) = int(os.environ["RANK"]), os.environ.get("SSNAS_TEST_ACT", "1 2 KILL").split()

    def act():
        (folder / "killed").write_text(str(time.time()))
        os.kill(os.getpid(), getattr(signal, f"SIG{name}"))

    with at_step(int(step), act) if number == int(who) else contextlib.nullcontext():
        code = main(["search", str(folder / "killed_run"), *settings()])
    (folder / f"first.{number}.json").write_text(json.dumps([code, time.time()]))
    return code


def second_time(folder):
    "What `torchrun` starts then: that search goes on, and all else, unless only another kill was wanted."
    if "SSNAS_TEST_ACT" in os.environ:
        quickly()
        return main(["search", str(folder / "killed_run"), *settings()])
    with joined("cpu"):
        found, number = primitives(folder) | {"runs": runs(folder)}, ranks.rank()
        print(f"rank {number} speaks")
    (folder / f"{number}.json").write_text(json.dumps(found | {"after": [ranks.rank(), ranks.count()]}))


if __name__ == "__main__":
    times = {"0": first_time, "1": second_time}
    raise SystemExit(times[os.environ["TORCHELASTIC_RESTART_COUNT"]](Path(sys.argv[1])))
