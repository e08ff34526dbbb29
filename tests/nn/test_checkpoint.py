"""Checkpoints: bit-exact, atomic, and never executed."""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from autoseg.core.errors import ModelError
from autoseg.core.plan import Configuration, Plan, Topology
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, strip

TOPOLOGY = Topology(
    kind="plain",
    features=(4, 8),
    strides=((1, 1), (2, 2)),
    kernels=((3, 3), (3, 3)),
    encoder_blocks=(1, 1),
    decoder_blocks=(1,),
)
PLAN = Plan(
    dataset_name="Toy",
    planner="small",
    transpose_forward=(0, 1, 2),
    transpose_backward=(0, 1, 2),
    original_median_spacing=(1.0, 0.1 + 0.2, 1 / 3),
    original_median_shape=(1, 32, 32),
    channel_names=("grey",),
    intensities=(),
    configurations={
        "2d": Configuration(
            name="2d",
            spacing=(1.0, 1.0),
            patch_size=(16, 16),
            batch_size=2,
            median_shape=(32.0, 32.5),
            normalization=("zscore",),
            use_mask_for_norm=(False,),
            topology=TOPOLOGY,
            batch_dice=True,
        )
    },
)


@pytest.fixture
def checkpoint():
    torch.manual_seed(0)
    network = build_network(TOPOLOGY, 1, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    sum(output.sum() for output in network(torch.randn(1, 1, 8, 8))).backward()
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.default_rng(0).bit_generator.state,  # holds integers of 128 bits
        "epoch": 3,
        "best": float("inf"),
        "flags": (True, None, "x"),
    }
    return Checkpoint(
        weights=network.state_dict(),
        plan=PLAN,
        configuration="2d",
        dataset={"name": "Toy", "labels": {"background": 0, "cell": 1}},
        mirror_axes=(0, 1),
        fold="0",
        training={"epochs": 5, "schedule": {"kind": "poly"}},
        state=state,
    )


@pytest.fixture
def path(tmp_path, checkpoint):
    save_checkpoint(tmp_path / "model" / "checkpoint_final.pt", checkpoint)
    return tmp_path / "model" / "checkpoint_final.pt"


def test_everything_comes_back_as_it_was(path, checkpoint):
    loaded = load_checkpoint(path)
    assert list(loaded.weights) == list(checkpoint.weights)
    for name, tensor in checkpoint.weights.items():
        assert loaded.weights[name].dtype == tensor.dtype
        assert torch.equal(loaded.weights[name], tensor)
    for field in ("plan", "configuration", "dataset", "mirror_axes", "fold", "training"):
        assert getattr(loaded, field) == getattr(checkpoint, field)
    assert {key: loaded.state[key] for key in ("numpy", "epoch", "best", "flags")} == {
        key: checkpoint.state[key] for key in ("numpy", "epoch", "best", "flags")
    }
    assert torch.equal(loaded.state["torch"], checkpoint.state["torch"])


def test_an_optimiser_goes_on_from_it(path, checkpoint):
    network = build_network(TOPOLOGY, 1, 2)
    network.load_state_dict(load_checkpoint(path).weights)
    optimizer = torch.optim.AdamW(network.parameters())
    optimizer.load_state_dict(load_checkpoint(path).state["optimizer"])
    moments = checkpoint.state["optimizer"]["state"]
    for index, saved in optimizer.state_dict()["state"].items():
        assert torch.equal(saved["exp_avg"], moments[index]["exp_avg"])


def test_special_values_and_types_are_bit_exact(tmp_path, checkpoint):
    bits = torch.tensor([0x7FC00001, 0x00000001, -0x80000000, 0x7F800000], dtype=torch.int64).to(torch.int32)
    weights = {
        "bits": bits.view(torch.float32),  # a NaN with payload, a subnormal, -0.0, infinity
        "half": torch.tensor([1 / 3], dtype=torch.bfloat16),
        "last": torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d),
        "scalar": torch.tensor(7),
    }
    save_checkpoint(tmp_path / "a.pt", replace(checkpoint, weights=weights))
    loaded = load_checkpoint(tmp_path / "a.pt").weights
    assert torch.equal(loaded["bits"].view(torch.int32), bits)
    for name in ("half", "last", "scalar"):
        assert torch.equal(loaded[name], weights[name])
        assert loaded[name].stride() == weights[name].stride()


def test_a_view_does_not_drag_its_storage_along(tmp_path, checkpoint):
    whole = torch.randn(1000, 1000)
    save_checkpoint(tmp_path / "a.pt", replace(checkpoint, weights={"row": whole[3]}))
    assert (tmp_path / "a.pt").stat().st_size < 100_000
    assert torch.equal(load_checkpoint(tmp_path / "a.pt").weights["row"], whole[3])


def test_stripped_checkpoints_hold_no_training_state(path, tmp_path):
    save_checkpoint(tmp_path / "shared.pt", strip(load_checkpoint(path)))
    shared = load_checkpoint(tmp_path / "shared.pt")
    assert shared.state == {}
    assert shared.plan == PLAN
    assert (tmp_path / "shared.pt").stat().st_size < path.stat().st_size


def test_a_failed_save_leaves_the_old_file(path, checkpoint):
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"checkpoint: state\['history'\]\[1\]: found ndarray, expected tensors"):
        save_checkpoint(path, replace(checkpoint, state={"history": [1.0, np.zeros(3)]}))
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.pt: no such file.*model folder"):
        load_checkpoint(tmp_path / "gone.pt")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"checkpoint_final\.pt: .*(empty|truncated).*Copy it again"):
        load_checkpoint(path)


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7])
def test_a_flipped_bit_is_found(path, place):
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
    content[largest.header_offset + 128 + int(place * largest.file_size)] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="found a wrong checksum in its part"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "content", [b"hello world", b"\x80\x02}q\x00.", b"\x00" * 100], ids=["text", "pickle", "zeros"]
)
def test_a_file_of_another_format_is_refused(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ModelError, match="found a file of another format"):
        load_checkpoint(tmp_path / "a.pt")


def test_weights_of_another_program_are_refused(tmp_path):
    torch.save({"network_weights": {}}, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="found weights of another program"):
        load_checkpoint(tmp_path / "a.pt")


def rewrite(path, **changes):
    content = torch.load(path, weights_only=True) | changes
    torch.save(content, path)


def test_another_version_is_refused(path):
    rewrite(path, version=99)
    with pytest.raises(ModelError, match="found checkpoint version 99, expected 1"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "changes", [{"plan": "{}"}, {"plan": 3}, {"dataset": "not json"}, {"mirror_axes": None}], ids=str
)
def test_a_malformed_part_is_refused(path, changes):
    rewrite(path, **changes)
    with pytest.raises(ModelError, match="a part missing or malformed"):
        load_checkpoint(path)


class Malicious:
    """Creates a file when unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("key", ["weights", "state", "training"])
def test_code_in_a_checkpoint_is_refused_and_not_run(path, tmp_path, key):
    target = tmp_path / "executed"
    rewrite(path, **{key: {"x": Malicious(target)}})
    with pytest.raises(ModelError, match=r"not only tensors.*not executed"):
        load_checkpoint(path)
    assert not target.exists()
    pickle.loads(pickle.dumps(Malicious(target))).close()  # noqa: S301 - proves that the trap works
    assert target.exists()


def test_a_bare_malicious_pickle_is_refused_and_not_run(tmp_path):
    target = tmp_path / "executed"
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Malicious(target)))
    with pytest.raises(ModelError, match="another format"):
        load_checkpoint(tmp_path / "a.pt")
    buffer = io.BytesIO()
    torch.save(Malicious(target), buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "b.pt").write_bytes(buffer.getvalue())
    with pytest.raises(ModelError, match="another format"):
        load_checkpoint(tmp_path / "b.pt")
    assert not target.exists()


def test_tensors_go_to_the_device_asked_for(path):
    assert all(tensor.is_meta for tensor in load_checkpoint(path, device="meta").weights.values())
