"What a run has used is kept over sessions and told in the report; where no device tells, that is said."

import sys
import types

import pytest

from ssnas_colab.core.basics import UserError
from ssnas_colab.experiment import energy
from ssnas_colab.experiment.energy import EnergyMeter, energy_counters
from ssnas_colab.experiment.run import Run
from ssnas_colab.reports.build import costs_table


@pytest.fixture
def joules(monkeypatch):
    "A device that tells of as many joules as the test says."
    told = {"now": 100.0}
    made = lambda: EnergyMeter({"GPU 0, Made Up": (lambda: told["now"], None)})  # noqa: E731
    monkeypatch.setattr(energy, "EnergyMeter", made)
    return told


def test_a_run_counts_over_sessions_and_nested_contexts_once(joules, tmp_path):
    run = Run.open(tmp_path / "run", {"seed": 0})
    with run.writing():
        joules["now"] += 3600
        with run.writing():
            joules["now"] += 400
        run.finish("search", seconds=1.0)
        assert run.energy.total() == {"GPU 0, Made Up": 4000.0}, "a kill from here on loses only what follows"
        joules["now"] += 600
    joules["now"] += 9999  # between sessions it is not ours
    again = Run.open(tmp_path / "run")
    with pytest.raises(KeyError), again.writing():
        joules["now"] += 1000
        raise KeyError
    assert Run.open(tmp_path / "run").energy.total() == {"GPU 0, Made Up": 5600.0}


def test_a_lock_that_is_lost_is_no_second_error(joules, tmp_path):
    run = Run.open(tmp_path / "run", {"seed": 0})

    def lost():
        raise UserError("taken over")

    run.before_write.append(lost)
    with run.writing():
        joules["now"] += 1
    assert run.energy.total() == {}


def test_where_no_device_tells_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "EnergyMeter", lambda: EnergyMeter({}))
    run = Run.open(tmp_path / "run", {"seed": 0})
    with run.writing():
        run.finish("search", seconds=1.0)
    assert not run.has("energy.json") and run.energy.total() == {}
    costs = dict.fromkeys(("search", "rates", "training", "others"), 1.0)
    rows = {version: costs_table({"costs": costs} | facts)[1] for version, facts in enumerate(
        ({}, {"energy_wh": {}}, {"energy_wh": {"GPU 0, T4": 12.345}})
    )}  # fmt: skip
    assert rows[1][-1] == ["energy", "not measured: no device here tells it"] and len(rows[0]) == len(rows[1]) - 1
    assert rows[2][-1] == ["energy of GPU 0, T4, whoever used it", "12.3 Wh"]


def test_gpus_tell_in_millijoules_and_old_ones_do_not(monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    facts = types.SimpleNamespace(name="T4", uuid="1-2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: facts)
    nvml = types.ModuleType("pynvml")
    nvml.nvmlInit, nvml.nvmlDeviceGetHandleByUUID = lambda: None, lambda uuid: uuid
    nvml.nvmlDeviceGetTotalEnergyConsumption = {"GPU-1-2": 5000}.__getitem__
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    [(name, (read, again))] = energy_counters(tmp_path).items()
    assert (name, read(), again) == ("GPU 0, T4", 5.0, None)
    nvml.nvmlDeviceGetTotalEnergyConsumption = {}.__getitem__
    assert energy_counters(tmp_path) == {}
