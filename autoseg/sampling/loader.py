"""Batches of training patches, built ahead by worker processes; batch i is the same for any number of workers."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from autoseg.augmentation.recipes import Recipe
from autoseg.cases.code_table import CodeTable
from autoseg.cases.layers import LayerInfo, further_inputs
from autoseg.cases.store import CaseSource, CaseStore
from autoseg.core.errors import AutosegError, CacheError, ConfigError, WorkerError
from autoseg.core.parallel import available_cores
from autoseg.core.plan import Configuration
from autoseg.core.ranks import ONE_PROCESS, Ranks
from autoseg.dataset.labels import Labels
from autoseg.sampling.augment import augment_batch_
from autoseg.sampling.batch import Batch, BatchTable, stack_codes, stack_images
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.extra_codes import ExtraCodeRule, ExtraCodes, choose_extra_codes
from autoseg.sampling.origin import Origin, origin_of
from autoseg.sampling.patches import Cutout, Sample, draw_place, read_cutout
from autoseg.sampling.places import CaseContent, Sampler, intensity_generators, sample_rng
from autoseg.sampling.raw_batch import RawBatch
from autoseg.sampling.rejection import ALL_CASES
from autoseg.sampling.workers import process_context, serve

_log = logging.getLogger(__name__)
_AnyBatch = TypeVar("_AnyBatch", Batch, RawBatch)

MAX_OPEN_CASES = 64
"""Per process: each open case holds three file descriptors, of which a process commonly has 1024."""
BATCHES_AHEAD = 2
"""Finished batches that each worker keeps waiting."""


def make_loader(
    cases: Sequence[CaseSource],
    configuration: Configuration,
    sampling: SamplingConfig,
    recipe: Recipe | None,
    *,
    labels: Labels,
    start: int,
    stop: int,
    seed: int,
    workers: int = 0,
    batch_size: int | None = None,
    device: torch.device | None = None,
    changes_intensities: bool = True,
    extra_codes: ExtraCodeRule | None = None,
    layers: Sequence[LayerInfo] = (),
    ranks: Ranks = ONE_PROCESS,
) -> Iterator[Batch]:
    """Return an iterator over the batches of iterations ``start`` to ``stop - 1``, or over a rank's shares of them.

    Batch i follows from ``seed``, i and the arguments alone, whatever ``start`` and ``workers`` are: a resumed run goes
    on with the same batches. Validation uses ``recipe=None`` and another seed.

    Parameters
    ----------
    cases
        Preprocessed cases; those without an annotated voxel are never drawn.
    configuration
        Patch size (2 or 3 axes) and batch size.
    sampling
        Where patches lie.
    recipe
        Augmentation; None for none.
    labels
        Of the data set: heads, and the codes for unknown and outside.
    start, stop
        Iterations.
    seed
        At least 0.
    workers
        Processes that build batches ahead (never more than there are cores); 0 builds each batch when it is asked for,
        in this process. They start at once, from a server process that has imported what they need.
    batch_size
        Instead of the configuration's; of all ranks together.
    device
        Where batches are to lie, if that is a GPU: workers then only read, and patches are moved and augmented there,
        with the same result up to rounding and the noise field. None: workers do all, and batches lie on the CPU.
    changes_intensities
        Whether the operations of the recipe that change intensities are applied.
    extra_codes
        What is held out from training, and which distance zones the code tables of the batches have; None for nothing.
    layers
        Layers that the batches hold besides the further inputs of the configuration, which they always do.
    ranks
        Each rank gets its share of the samples of every batch.

    Raises
    ------
    CacheError
        If a case is missing or damaged: of one whose entry is known, while iterating, naming the case.
    ConfigError
        If no case has an annotated voxel, or there are fewer samples in a batch than ranks.
    WorkerError
        While iterating: a sample failed otherwise, or a worker process died; names the case, or those in flight.
    """
    contents = [CaseContent.from_entry(case, case.entry, labels) for case in cases]
    batches = BatchBuilder(
        sampler=Sampler(contents, sampling),
        patch=configuration.patch_size,
        samples=share_of_batch(configuration.batch_size if batch_size is None else batch_size, ranks),
        recipe=recipe,
        moves=device is None,
        augments_intensity=changes_intensities and recipe is not None,
        seed=seed,
        start=start,
        stop=stop,
        outside=labels.outside,
        extra_codes=extra_codes,
        inputs=further_inputs(configuration, labels.n_classes),
        layers=tuple(layers),
    )
    workers = min(workers, available_cores(), max(len(batches), 1))
    options: dict[str, Any] = {}
    lifeline, held = process_context(__name__).Pipe(duplex=False)
    if workers > 0:
        options = {
            "multiprocessing_context": process_context(__name__),
            "prefetch_factor": BATCHES_AHEAD,
            "worker_init_fn": partial(serve, lifeline),
        }
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        pin_memory=device is not None and device.type == "cuda",
        generator=Generator().manual_seed(0),  # or the loader would draw from the global one
        **options,
    )
    checked = _checked(iter(loader), batches, workers, held)
    if device is None:
        return cast("Iterator[Batch]", checked)
    return _finished(cast("Iterator[RawBatch]", checked), batches, device)


def share_of_batch(batch_size: int, ranks: Ranks) -> range:
    """Return which samples of a batch this rank builds; raise ``ConfigError`` if some rank would have none."""
    if batch_size < ranks.size:
        raise ConfigError(
            f"batch size: found {batch_size} patches a step for {ranks.size} processes, expected at least one each. "
            f"Start at most {batch_size} (--gpus {batch_size}), or more patches: --set batch_size={ranks.size}."
        )
    return ranks.share(batch_size)


@dataclass(frozen=True)
class Failure:
    """Result of a worker instead of a batch: an exception would reach the user wrapped in a traceback."""

    message: str
    kind: type[AutosegError]
    """CacheError, ConfigError (an operation of a user's), or WorkerError for anything else."""


class _OpenCase(NamedTuple):
    """A case as the builder keeps it, with all that follows from it once and for all."""

    case: CaseStore
    extra_codes: ExtraCodes | None
    table: CodeTable
    """With the extra codes."""
    base: Tensor | None
    """``table.base``; None if every code is its own base."""

    @classmethod
    def of(cls, case: CaseStore, rule: ExtraCodeRule | None) -> _OpenCase:
        """Work out what patches of a case need."""
        table = case.entry.table
        extra_codes = None if rule is None else choose_extra_codes(case, rule)
        if extra_codes is not None:
            table = extra_codes.extend(table)
        is_own_base = bool((table.base == np.arange(len(table))).all())
        return cls(case, extra_codes, table, None if is_own_base else torch.tensor(table.base))


@dataclass
class BatchBuilder(Dataset[Batch | RawBatch]):
    """Builds the batch of an iteration; a map-style data set over iterations, pickled to the workers."""

    sampler: Sampler
    patch: tuple[int, ...]
    samples: range
    """Of the samples of a batch, those that are built here."""
    recipe: Recipe | None
    moves: bool
    """Whether patches are cut out, and intensities augmented, here; otherwise boxes are only read."""
    augments_intensity: bool
    seed: int
    start: int
    stop: int
    outside: int
    extra_codes: ExtraCodeRule | None = None
    inputs: tuple[LayerInfo, ...] = ()
    layers: tuple[LayerInfo, ...] = ()
    _open_cases: OrderedDict[str, _OpenCase] = field(default_factory=OrderedDict, init=False, repr=False)

    def __len__(self) -> int:
        return max(self.stop - self.start, 0)

    def __getitem__(self, index: int) -> Batch | RawBatch | Failure:  # type: ignore[override]
        with _one_thread():
            return self._build(self.start + index)

    def _build(self, iteration: int) -> Batch | RawBatch | Failure:
        samples: list[Sample] = []
        cutouts: list[Cutout] = []
        tables: list[CodeTable] = []
        names: list[str] = []
        origins: list[Origin] = []
        for sample in self.samples:
            rng = sample_rng(self.seed, iteration, sample)
            aim = self.sampler.draw(rng)
            try:
                opened = self._open(aim.case)
                place = draw_place(aim, opened.case, self.patch, self.recipe, rng, self.sampler.rejection)
                cutout = read_cutout(
                    opened.case,
                    place,
                    self.patch,
                    unknown=opened.table.undrawn,
                    outside=self.outside,
                    base=opened.base,
                    extra_codes=opened.extra_codes,
                    layers=(*self.inputs, *self.layers),
                )
                if self.moves:
                    samples.append(cutout.moved())
                else:
                    cutouts.append(cutout)
            except ConfigError as error:  # the same in every case
                return Failure(str(error), ConfigError)
            except Exception as error:  # any fault of one case must name it
                known = isinstance(error, AutosegError)
                message = str(error) if known else f"{type(error).__name__}: {error}"
                return Failure(
                    f"case {aim.case.name}: {message}", CacheError if isinstance(error, CacheError) else WorkerError
                )
            tables.append(opened.table)
            names.append(aim.case.name)
            origins.append(origin_of(aim, place))
        table = BatchTable.stack(tables)
        if not self.moves:
            return self._with_notes(RawBatch.of(cutouts, table, names, origins, self.inputs))
        images = stack_images([sample.image for sample in samples])
        codes = stack_codes([sample.codes for sample in samples])
        layers = {name: torch.stack([sample.layers[name] for sample in samples]) for name in samples[0].layers}
        batch = Batch(images, codes, table, tuple(names), tuple(origins), layers=layers, inputs=self.inputs)
        if self.augments_intensity and self.recipe is not None:
            try:
                augment_batch_(batch, self.recipe, intensity_generators(self.seed, iteration, self.samples))
            except ConfigError as error:
                return Failure(str(error), ConfigError)
        return self._with_notes(batch)

    def _with_notes(self, batch: _AnyBatch) -> _AnyBatch:
        """Return the batch with what was noted of its cases since the last one."""
        rejection = self.sampler.rejection
        if rejection is None or not rejection.notes:
            return batch
        notes = tuple(rejection.notes.items())
        rejection.notes.clear()
        return replace(batch, notes=notes)

    def case_names(self, index: int) -> tuple[str, ...]:
        """Names of the cases that the batch at ``index`` is made of."""
        rngs = (sample_rng(self.seed, self.start + index, sample) for sample in self.samples)
        return tuple(self.sampler.draw(rng).case.name for rng in rngs)

    def _open(self, content: CaseContent) -> _OpenCase:
        """Open a case once per process; the least recently used one is closed when there are too many."""
        opened = self._open_cases
        key = content.name
        if key not in opened:
            opened[key] = _OpenCase.of(content.source.open(), self.extra_codes)
        opened.move_to_end(key)
        if len(opened) > MAX_OPEN_CASES:
            opened.popitem(last=False)
        return opened[key]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread, as workers do: sums over many voxels depend on the number of threads in the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _finished(batches: Iterator[RawBatch], builder: BatchBuilder, device: torch.device) -> Iterator[Batch]:
    """Move and augment the patches of raw batches on ``device``."""
    for iteration, raw in enumerate(_copied(batches, device), builder.start):
        batch = raw.moved()
        if builder.augments_intensity and builder.recipe is not None:
            augment_batch_(batch, builder.recipe, intensity_generators(builder.seed, iteration, builder.samples))
        yield batch


def _copied(batches: Iterator[RawBatch], device: torch.device) -> Iterator[RawBatch]:
    """Yield the batches on ``device``; on CUDA the next is copied, on a stream of its own, during the step on this one.

    So it is asked for one step earlier.
    """
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: RawBatch | None = None
    for batch in batches:
        if ahead is not None:
            _hand_over(ahead, copying, device)
        with torch.cuda.stream(copying):
            following = batch.to(device, non_blocking=True)
        if ahead is not None:
            yield ahead
        ahead = following
    if ahead is not None:
        _hand_over(ahead, copying, device)
        yield ahead


def _hand_over(batch: RawBatch, copying: torch.cuda.Stream, device: torch.device) -> None:
    """Let the present stream wait for all copies so far, and the allocator keep the batch until it has been used."""
    computing = torch.cuda.current_stream(device)
    computing.wait_stream(copying)
    batch.record_stream(computing)


def _checked(
    batches: Iterator[Batch | RawBatch | Failure], builder: BatchBuilder, workers: int, held: Connection
) -> Iterator[Batch | RawBatch]:
    """Pass batches on; raise what a worker reported, and name the cases in flight if a worker process died.

    What was noted of a case is said once, here, where logging is set up.
    ``held`` is the trainer's end of the workers' lifeline: closed after they have been told to leave.
    """
    said: set[str] = set()
    try:
        for index in range(len(builder)):
            batch = _next(batches, builder, workers, index)
            if isinstance(batch, Failure):
                raise batch.kind(batch.message)
            for case, note in batch.notes:
                if case not in said:
                    _log.log(logging.INFO if case == ALL_CASES else logging.WARNING, "%s", note)
                said.add(case)
            yield batch
    finally:
        del batches
        held.close()


def _next(
    batches: Iterator[Batch | RawBatch | Failure], builder: BatchBuilder, workers: int, index: int
) -> Batch | RawBatch | Failure:
    try:
        return next(batches)
    except RuntimeError as error:
        if workers == 0:
            raise
        ahead = range(index, min(index + workers * BATCHES_AHEAD, len(builder)))
        names = sorted({name for later in ahead for name in builder.case_names(later)})
        raise WorkerError(
            f"patch loader: a worker process died ({str(error).splitlines()[0]}), expected a batch. "
            f"One of the cases {names} was in work. If memory ran out, use fewer workers."
        ) from error
