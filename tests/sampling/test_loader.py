"""The loader is a function of seed and iteration, whatever the number of workers and the start."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
from moving import moving

from autoseg.augmentation.recipes import Recipe, nnunet_recipe, no_augmentation
from autoseg.cases.cache import cached_source
from autoseg.core.errors import CacheError, ConfigError, WorkerError
from autoseg.core.ranks import Ranks
from autoseg.sampling.batch import Batch
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.extra_codes import ExtraCodeRule
from autoseg.sampling.loader import make_loader
from autoseg.sampling.raw_batch import Packed


def scribbled(seed: int, shape: tuple[int, int, int] = (6, 20, 18)) -> np.ndarray:
    """Mostly unknown (3), with short scribbles of classes 0, 1 and 2."""
    rng = np.random.default_rng(seed)
    codes = np.full(shape, 3, np.uint8)
    for code in (0, 1, 2):
        z, y, x = (int(rng.integers(edge - 5)) for edge in shape)
        codes[z, y, x : x + 5] = code
    return codes


def same(one: Batch, other: Batch) -> bool:
    assert one.table.weight is None and other.table.weight is None
    tables = zip(one.table[:-1], other.table[:-1], strict=True)
    pairs = ((one.images, other.images), (one.codes, other.codes), *tables)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs) and one.cases == other.cases


@pytest.fixture
def load(write, make_labels, make_configuration):
    cases = [write(f"case{index}", scribbled(index)) for index in range(3)]

    def load(patch=(4, 12, 12), *, recipe="nnunet", batch_size=2, given=None, **options):
        configuration = make_configuration(patch, batch_size)
        recipe = nnunet_recipe(configuration) if recipe == "nnunet" else recipe
        options = {"labels": make_labels(), "start": 0, "stop": 6, "seed": 5} | options
        return make_loader(given or [case.source for case in cases], configuration, SamplingConfig(), recipe, **options)

    load.cases = cases
    return load


@pytest.mark.parametrize("patch", [(12, 12), (4, 12, 12)], ids=["2d", "3d"])
def test_shapes_and_types(load, patch):
    batch = next(load(patch))
    assert batch.images.shape == (2, 1, *patch) and batch.images.dtype == torch.float32
    assert batch.codes.shape == (2, *patch) and batch.codes.dtype == torch.uint8
    assert batch.table.drawn.shape == (2, 4, 3) and batch.table.drawn.dtype == torch.bool
    assert len(batch.cases) == 2 and batch.to("cpu").cases == batch.cases


@pytest.mark.parametrize("patch", [(12, 12), (4, 12, 12)], ids=["2d", "3d"])
def test_a_resumed_run_goes_on_with_the_same_batches(load, patch):
    whole = list(load(patch))
    assert len(whole) == 6
    assert all(same(a, b) for a, b in zip(whole[4:], load(patch, start=4), strict=True))
    assert not same(whole[0], whole[1])
    assert not same(whole[0], next(load(patch, seed=6)))


def test_workers_give_the_same_batches_and_leave_the_global_generator_alone(load):
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    with_worker = list(load(workers=2, stop=3))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(same(a, b) for a, b in zip(with_worker, load(stop=3), strict=True))


def test_the_number_of_threads_does_not_matter(load):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        several = list(load((24, 60, 60), stop=4))
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert all(same(a, b) for a, b in zip(several, load((24, 60, 60), stop=4), strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("patch", [(12, 12), (4, 12, 12)], ids=["2d", "3d"])
def test_a_device_that_moves_and_augments_what_workers_read_gives_the_same_batches(load, patch, workers):
    recipe = moving(share=0.5)
    for chosen in ("nnunet", recipe):
        inside = load(patch, recipe=chosen, stop=4)
        outside = load(patch, recipe=chosen, stop=4, device=torch.device("cpu"), workers=workers)
        assert all(same(one, other) for one, other in zip(inside, outside, strict=True))


def test_a_device_moves_codes_of_several_types_and_extra_codes_alike(load, write):
    rule = ExtraCodeRule(0.5, (1, 4, 4), 3, (2.0, 4.0))
    rich = write("rich", scribbled(9), further=tuple((0, 1) for _ in range(100)))  # 2 x 104 codes and zones: int32
    given = [*(case.source for case in load.cases), rich.source]
    inside = list(load(given=given, recipe=moving(), extra_codes=rule, stop=8))
    outside = load(given=given, recipe=moving(), extra_codes=rule, stop=8, device=torch.device("cpu"))
    assert all(same(one, other) for one, other in zip(inside, outside, strict=True))
    assert {batch.codes.dtype for batch in inside} >= {torch.uint8}


def test_boxes_travel_in_one_piece_and_come_out_as_they_went_in():
    parts = [torch.arange(6).view(2, 3), torch.arange(4).view(1, 2, 2), torch.zeros(0, 3, dtype=torch.long)]
    packed = Packed.of(parts)
    assert packed.values.ndim == 1
    assert all(torch.equal(one, other) for one, other in zip(parts, packed.unpacked(), strict=True))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("patch", [(12, 12), (4, 12, 12)], ids=["2d", "3d"])
def test_the_shares_of_ranks_are_together_the_batch_of_one_process(load, patch, size):
    options = {"batch_size": 4, "stop": 4}
    shares = zip(*(load(patch, ranks=Ranks(rank, size), **options) for rank in range(size)), strict=True)
    for whole, parts in zip(load(patch, **options), shares, strict=True):
        assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
        assert torch.equal(whole.codes, torch.cat([part.codes for part in parts]))
        assert whole.origins == tuple(origin for part in parts for origin in part.origins)
        for index, tensor in enumerate(whole.table[:-1]):  # without weights, of which there are none
            assert torch.equal(tensor, torch.cat([part.table[index] for part in parts]))


def test_fewer_samples_than_ranks_are_refused_with_the_remedy(load):
    with pytest.raises(ConfigError, match=r"2 patches .* 3 processes.*--gpus 2.*batch_size=3"):
        load(batch_size=2, ranks=Ranks(0, 3))


def test_without_recipe_images_are_plain_crops(load):
    for batch in load(recipe=None):
        known = batch.codes != 3
        assert torch.equal(batch.images[:, 0][known], batch.codes[known].float())
    assert all(same(a, b) for a, b in zip(load(recipe=None), load(recipe=no_augmentation()), strict=True))


def test_label_sets_of_unequal_length_are_filled_up_with_unknown(load, write):
    lazy = write("lazy", np.full((4, 6, 6), 4, np.uint8), further=((0, 2),))
    plain = write("plain", np.zeros((4, 6, 6), np.uint8))
    tables = {}
    for batch in load((4, 6, 6), recipe=None, given=[lazy.source, plain.source], batch_size=4, stop=4):
        tables |= {name: table for name, table in zip(batch.cases, batch.table.drawn, strict=True) if len(table) == 5}
    assert tables["plain"][4].all()
    assert tables["lazy"][4].tolist() == [True, False, True]


def test_a_missing_case_is_named_at_once(load, tmp_path):
    with pytest.raises(CacheError, match=r"ghost\.json: found no such file"):
        load(given=[cached_source(tmp_path, "ghost")])


def test_a_case_that_vanishes_is_named(load, write, tmp_path):
    case = write("doomed", scribbled(9))
    batches = load(given=[cached_source(tmp_path, "doomed")])
    (tmp_path / "doomed.image.npy").write_bytes(case.image.tobytes()[:40])
    with pytest.raises(CacheError, match=r"^case doomed: .*doomed\.image\.npy"):
        next(batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_any_other_fault_of_a_case_is_named(load, write, tmp_path, workers):
    case = write("broken", scribbled(1))
    np.save(tmp_path / "broken.locations.npy", np.full(15, 10**9))
    with pytest.raises(WorkerError, match=r"^case broken: ValueError: index 1000000000"):
        next(load(given=[case.source], workers=workers))


@pytest.mark.slow
def test_a_killed_worker_is_reported_with_the_cases_in_flight(load):
    batches = load(workers=1, stop=10**6)
    next(batches)
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    with pytest.raises(WorkerError, match=r"worker process died .* cases \['case"):
        for _ in batches:
            pass


class Replaces:
    """An operation of a user that returns new images, which would have no effect."""

    def change_(self, images, generator):
        return images * 2


@pytest.mark.parametrize("workers", [0, 1])
def test_an_operation_of_a_user_that_breaks_its_contract_is_an_error_of_the_user(load, workers):
    with pytest.raises(ConfigError, match=r"^operation '.*:Replaces': change_ returned"):
        next(load(recipe=Recipe((Replaces(),)), workers=workers))
