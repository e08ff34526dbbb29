from __future__ import annotations

import pytest
import torch

from autoseg.core.errors import ConfigError
from autoseg.nn import device as device_module
from autoseg.nn.device import autocast_dtype, select_device


def test_auto_takes_the_best_device_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert select_device("auto") == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert select_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert select_device("auto") == torch.device("cpu")


def test_a_named_device_is_returned_as_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert select_device("cuda:1") == torch.device("cuda", 1)
    assert select_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "meta"])
def test_a_name_that_is_no_device_is_refused(name):
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda, cuda:<index> or mps"):
        select_device(name)


def test_a_cuda_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"'cuda:2'.*this machine has 2"):
        select_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="this machine has 0"):
        select_device("cuda")


def test_mps_on_a_machine_without_it_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="Metal"):
        select_device("mps")


@pytest.mark.parametrize(("seconds_bfloat16", "expected"), [(0.5, torch.bfloat16), (1.0, None), (2.0, None)])
def test_the_cpu_takes_bfloat16_only_where_it_is_faster(monkeypatch, seconds_bfloat16, expected):
    monkeypatch.setattr(device_module, "_probe_seconds", lambda dtype: 1.0 if dtype is None else seconds_bfloat16)
    device_module._bfloat16_is_faster_on_cpu.cache_clear()
    assert autocast_dtype(torch.device("cpu")) is expected
    device_module._bfloat16_is_faster_on_cpu.cache_clear()


def test_the_probe_runs_once_and_leaves_the_random_stream_alone():
    device_module._bfloat16_is_faster_on_cpu.cache_clear()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = autocast_dtype(torch.device("cpu"))
    assert torch.equal(torch.rand(4), expected)
    assert autocast_dtype(torch.device("cpu")) is first
    assert device_module._bfloat16_is_faster_on_cpu.cache_info().misses == 1


@pytest.mark.parametrize(
    ("capability", "expected"), [((9, 0), torch.bfloat16), ((8, 0), torch.bfloat16), ((7, 5), torch.float16)]
)
def test_cuda_takes_bfloat16_where_the_hardware_has_it(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert autocast_dtype(torch.device("cuda", 0)) is expected
    assert autocast_dtype(torch.device("mps")) is None
