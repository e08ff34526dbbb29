"""Losses and networks of a user are tried before a training: each fault is named, and nothing else changes."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from autoseg.core.errors import ConfigError
from autoseg.core.plan import Topology
from autoseg.nn.architectures.network import Network
from autoseg.nn.architectures.registry import try_network
from autoseg.nn.losses import LabelSetLoss
from autoseg.nn.losses.registry import named_loss, try_loss

REGIONS = torch.tensor([[0, 1, 1], [0, 0, 1]], dtype=torch.bool)


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize(("regions", "n_outputs"), [(None, 3), (REGIONS, 2)], ids=["classes", "regions"])
def test_a_good_loss_passes_without_a_word_and_leaves_the_generator_as_it_was(regions, n_outputs, n_dims, caplog):
    state = torch.get_rng_state()
    for batch_dice in (False, True):
        try_loss("own:Loss", LabelSetLoss(regions, batch_dice), regions, n_outputs, n_dims)
    assert not caplog.records and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda logits, codes, sets: logits.mean(), r"takes 3 positional arguments.*test_trials\.py, line"),
        (lambda logits, codes, sets, weights=None: logits.mean(1), "a tensor of shape"),
        (lambda logits, codes, sets, weights=None: None, "an object of NoneType"),
        (lambda logits, codes, sets, weights=None: logits.mean() * float("nan"), "returned nan"),
        (lambda logits, codes, sets, weights=None: logits.detach().mean(), "a tensor without gradient"),
        (lambda logits, codes, sets, weights=None: logits.mean() * 0, "does not depend on the logits"),
        (
            lambda logits, codes, sets, weights=None: (logits.mean(1) * (codes < 3)).sum() / (codes < 3).sum(),
            "for a batch of which nothing is known, without voxel_weights, it returned nan",
        ),
        (lambda logits, codes, sets, weights=None: logits[codes], r"IndexError.*test_trials\.py, line"),
        (3, "made an object of int"),
    ],
)
def test_a_loss_by_which_nothing_can_be_trained_is_refused(loss, message):
    with pytest.raises(ConfigError, match=f"loss 'own:loss': .*{message}"):
        try_loss("own:loss", loss, None, 3, 2)


def test_a_loss_that_sees_voxels_of_which_nothing_is_known_is_named_in_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        try_loss("own:loss", lambda logits, codes, sets, weights=None: logits.square().mean(), None, 3, 3)
    assert "own:loss" in caplog.text and "where nothing is known" in caplog.text


def test_the_built_in_loss_is_found_by_name_and_another_name_is_refused():
    assert isinstance(named_loss("label_sets", None, False, n_outputs=3, n_dims=2), LabelSetLoss)
    with pytest.raises(ConfigError, match=r"loss: found 'dice', expected one of \['label_sets'\]"):
        named_loss("dice", None, False, n_outputs=3, n_dims=2)


class Two(Network):
    """Outputs at two resolutions, which ``change`` may spoil."""

    def __init__(self, change=lambda outputs, is_deep: outputs, strides=((1, 1), (2, 2))) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5))
        self.change, self.output_strides, self.deep_supervision = change, strides, False

    def forward(self, images):
        logits = self.layers(images)
        outputs = [logits, logits[..., ::2, ::2]] if self.deep_supervision else logits
        return self.change(outputs, self.deep_supervision)


def topology() -> Topology:
    return Topology(
        kind="own:NET", features=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3),) * 2, encoder_blocks=(1, 1),
        decoder_blocks=(1,),
    )  # fmt: skip


def test_a_trial_changes_neither_weights_nor_modes_nor_the_generator():
    network = Two()
    network.layers[2].eval()
    before, state = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    try_network(network, topology(), 1, 3)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training and network.layers[0].training and not network.layers[2].training


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (None, "build returned an object of NoneType"),
        (nn.Conv2d(1, 3, 1), "build returned an object of Conv2d"),
        (Two(lambda outputs, is_deep: [each[..., ::2] for each in outputs] if is_deep else outputs), "returned"),
        (Two(lambda outputs, is_deep: outputs if is_deep else [outputs]), "False the network returned .*single tensor"),
        (Two(lambda outputs, is_deep: tuple(outputs) if is_deep else outputs), "True the network returned tuple"),
        (Two(lambda outputs, is_deep: outputs if is_deep else outputs[:, :2]), r"returned \(1, 2, 8, 8\)"),
        (Two(strides=((1, 1),)), r"expected \[\(1, 3, 8, 8\)\]"),
        (Two(strides=((2, 2), (1, 1))), "found output_strides"),
        (Two(strides=()), "found output_strides"),
        (Two(strides=((1, 1, 1),)), "found output_strides"),
        (Two(lambda outputs, is_deep: outputs["x"]), r"TypeError.*test_trials\.py, line"),
    ],
)
def test_a_network_whose_outputs_are_not_as_it_says_is_refused(network, message):
    with pytest.raises(ConfigError, match=f"architecture 'own:NET': .*{message}"):
        try_network(network, topology(), 1, 3)
