"""The stages between a label file and the loss, and the annotation left after each, by the rules of two systems."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from survival_table import ANY
from torch.nn.functional import interpolate

from autoseg.augmentation.recipes import nnunet_recipe
from autoseg.augmentation.warp import Warp
from autoseg.cases.case import Case
from autoseg.cases.entry import CacheEntry
from autoseg.cases.label_codes import read_annotation
from autoseg.cases.store import ArrayStore
from autoseg.core.errors import AutosegError
from autoseg.core.plan import Configuration, Plan
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Labels
from autoseg.io.images import read_image
from autoseg.nn.architectures.unet import output_strides
from autoseg.nn.losses.deep_supervision import DeepSupervisionLoss, downsample_codes
from autoseg.preprocessing.crop import box_slices
from autoseg.preprocessing.keep_small_annotation import find_survivors
from autoseg.preprocessing.locations import find_locations
from autoseg.preprocessing.pipeline import anisotropic_axis, preprocess
from autoseg.preprocessing.resample_codes import resample_codes
from autoseg.sampling.patches import Place, draw_place, read_cutout
from autoseg.sampling.places import Aim

Codes = NDArray[Any]
DRIVER = Path(__file__).with_name("nnunet_rules.py")


@dataclass
class Tally:
    """Stage -> class, or ``ANY`` -> (annotated before, still there in autoseg, and by nnU-Net's rule)."""

    counts: dict[str, dict[int, NDArray[np.float64]]] = field(default_factory=dict)

    def add(self, stage: str, classes: Codes, *kept: NDArray[np.bool_]) -> None:
        """Count voxels or cells of ``classes`` (n,), and for each rule (n,) whether they are kept."""
        rows = self.counts.setdefault(stage, {})
        for key in (ANY, *np.unique(classes).tolist()):
            chosen = np.ones(len(classes), dtype=bool) if key == ANY else classes == key
            added = np.array([chosen.sum(), *(mask[chosen].sum() for mask in kept)], dtype=np.float64)
            rows[key] = rows.get(key, 0) + added

    def add_sizes(self, stage: str, *sizes: float) -> None:
        """Add sizes (before, by autoseg, by nnU-Net) of all classes together."""
        rows = self.counts.setdefault(stage, {})
        rows[ANY] = rows.get(ANY, 0) + np.array(sizes, dtype=np.float64)


@dataclass(frozen=True)
class Grid:
    """The annotation of a case on the grid of its file, after the crop, and on that of the plan."""

    source: Codes
    """(z, y, x), transposed axes."""
    spacing: tuple[float, float, float]
    """mm, of the source."""
    case: ArrayStore
    """On the grid of the plan, in memory only."""
    unknown: int
    outside: int
    """Code beyond the image."""

    @classmethod
    def of(cls, files: CaseFiles, labels: Labels, plan: Plan, configuration: Configuration, coarser: float) -> Grid:
        """Read and preprocess a case; ``coarser`` multiplies the spacing of the configuration."""
        image, geometry = read_image(files.images)
        target = read_annotation(files, labels, image.shape[1:])
        spacing = tuple(edge * coarser for edge in configuration.spacing)
        setting = configuration.model_copy(update={"spacing": spacing})
        unknown = None if labels.is_dense else target.undrawn
        prepared = preprocess(Case(files.name, image, geometry, target), plan, setting, unknown=unknown)
        if prepared.codes is None or prepared.label_sets is None:
            raise AutosegError(f"case {files.name}: found no annotation, expected a label file.")
        locations = find_locations(prepared.codes, prepared.label_sets)
        entry = CacheEntry(
            record=prepared.record,
            label_sets=tuple(tuple(np.flatnonzero(row).tolist()) for row in prepared.label_sets),
            undrawn=target.undrawn,
            n_classes=labels.n_classes,
            locations=locations.slices,
            code_counts=locations.counts,
            fingerprint="",
        )
        case = ArrayStore(prepared.image, prepared.codes, locations.indices, entry)
        box = box_slices(prepared.record.crop_low, prepared.record.crop_high)
        turned = prepared.record.voxel_order.apply(target.codes)
        return cls(turned[box], prepared.record.spacing_before, case, labels.unknown, labels.outside)


@dataclass(frozen=True)
class Patch:
    """A transformed patch, its codes by either rule."""

    place: Place
    ours: Codes
    theirs: Codes


@dataclass(frozen=True)
class NnunetRule:
    """The processing of a label map by nnU-Net, for which ``ignore`` is one more label."""

    python: Path | None
    """Interpreter with nnunetv2; None for the same rules as implemented here for dense maps."""

    @property
    def description(self) -> str:
        """Whose code it is."""
        return "by its rules" if self.python is None else "by its own code"

    def resample(self, grid: Grid) -> Codes:
        """Resample the source of a case to the shape of its cached map."""
        after = grid.case.entry.record.spacing
        if self.python is None:
            separate = anisotropic_axis(grid.spacing, after)
            return resample_codes(grid.source, grid.case.codes.shape, unknown=None, separate_axis=separate)
        job = {"source": grid.source, "shape": grid.case.codes.shape, "before": grid.spacing, "after": after}
        return self._ask("resample", job)["0"]

    def downsample(self, patches: Codes, strides: Sequence[Sequence[int]]) -> list[Codes]:
        """Bring (B, *P) to coarser grids, voxels per cell ``strides``."""
        if self.python is not None:
            scales = np.array([[1 / step for step in stride] for stride in strides])
            found = self._ask("downsample", {"patches": patches, "scales": scales})
            return [found[str(index)] for index in range(len(strides))]
        images = torch.from_numpy(patches)[:, None].float()
        sizes = [
            [round(edge / step) for edge, step in zip(patches.shape[1:], stride, strict=True)] for stride in strides
        ]
        coarse = (interpolate(images, size=size, mode="nearest-exact")[:, 0] for size in sizes)
        return [codes.numpy().astype(patches.dtype) for codes in coarse]

    def _ask(self, what: str, job: dict[str, Any]) -> dict[str, Codes]:
        with tempfile.TemporaryDirectory() as folder:
            asked, answered = Path(folder, "job.npz"), Path(folder, "result.npz")
            np.savez(asked, **job)
            command = [str(self.python), str(DRIVER), what, str(asked), str(answered)]
            done = subprocess.run(command, capture_output=True, encoding="utf-8")
            if done.returncode != 0:
                raise AutosegError(f"{self.python}: nnU-Net failed to {what}:\n{done.stderr[-2000:]}")
            with np.load(answered) as found:
                return dict(found)


def count_resampled(tally: Tally, grid: Grid, rule: NnunetRule) -> None:
    """Count source voxels that find their class again, and the annotated volume, after resampling."""
    theirs = rule.resample(grid)
    annotated, kept = find_survivors(grid.source, grid.case.codes, grid.unknown)
    _, kept_there = find_survivors(grid.source, theirs, grid.unknown)
    tally.add("resampling to the plan's grid", grid.source.reshape(-1)[annotated], kept, kept_there)
    voxel = float(np.prod(grid.case.entry.record.spacing))
    sizes = ((codes != grid.unknown).sum() * voxel for codes in (grid.case.codes, theirs))
    tally.add_sizes("annotated mm3 after resampling", len(annotated) * float(np.prod(grid.spacing)), *sizes)


def draw_patches(grid: Grid, configuration: Configuration, count: int, seed: int) -> list[Patch]:
    """Draw patches as training does (around annotated voxels, classes balanced), those that are rotated or scaled."""
    rng = np.random.default_rng(seed)
    recipe, patch = nnunet_recipe(configuration), configuration.patch_size
    codes = [code for code in sorted(grid.case.entry.locations) if code < grid.unknown]
    settings = {"unknown": grid.case.entry.undrawn, "outside": grid.outside}
    unused = len(grid.case.entry.label_sets)  # no code yields to another then
    patches: list[Patch] = []
    while codes and len(patches) < count:
        place = draw_place(Aim(None, codes[rng.integers(len(codes))]), grid.case, patch, recipe, rng)  # type: ignore[arg-type]
        if place.warp.is_identity:
            continue
        place = replace(place, warp=Warp(place.warp.matrix, (False,) * len(patch)))
        ours = read_cutout(grid.case, place, patch, **settings).moved().codes.numpy()
        theirs = read_cutout(grid.case, place, patch, unknown=unused, outside=0).moved().codes.numpy()
        patches.append(Patch(place, ours, theirs))
    return patches


def count_moved(tally: Tally, grid: Grid, patches: Sequence[Patch]) -> None:
    """Count annotated voxels that fall inside a patch and find their class less than one patch voxel away."""
    for patch in patches:
        codes = grid.case.codes if patch.place.slice_index is None else grid.case.codes[patch.place.slice_index]
        known = np.argwhere(codes != grid.unknown)
        edge = np.array(patch.ours.shape) - 1
        places = (known - patch.place.centre) @ np.linalg.inv(patch.place.warp.array).T + edge / 2
        inside = ((places >= 0) & (places <= edge)).all(axis=1)
        classes = codes[tuple(known[inside].T)]
        single = classes < grid.unknown  # not the unions that ties in resampling made
        kept = [found_near(places[inside], moved, classes) for moved in (patch.ours, patch.theirs)]
        tally.add("rotated or scaled patch", classes[single], *(found[single] for found in kept))


def found_near(places: NDArray[np.float64], moved: Codes, classes: Codes) -> NDArray[np.bool_]:
    """(n,) bool: one of the voxels of ``moved`` less than one voxel from ``places`` (n, axes) is of ``classes``."""
    found = np.zeros(len(places), dtype=bool)
    for rounding in product((np.floor, np.ceil), repeat=places.shape[1]):
        index = tuple(round_(axis).astype(np.intp) for round_, axis in zip(rounding, places.T, strict=True))
        found |= moved[index] == classes
    return found


def count_cells(
    tally: Tally, grid: Grid, patches: Sequence[Patch], configuration: Configuration, rule: NnunetRule
) -> None:
    """Count the cells of each coarse target that hold an annotated voxel, and those of them that are supervised."""
    if not patches:
        return
    stacked = np.stack([patch.ours for patch in patches])
    sets = torch.tensor(grid.case.entry.table.drawn)[None].expand(len(stacked), -1, -1)
    strides = scales(configuration)
    for stride, theirs in zip(strides, rule.downsample(stacked, strides), strict=True):
        undrawn = torch.full((len(stacked),), grid.case.entry.undrawn)
        ours = downsample_codes(torch.from_numpy(stacked), sets, stride, grid.unknown, undrawn).numpy()
        stage = f"target at {' x '.join(f'1/{step}' if step > 1 else '1' for step in stride)}"
        cells = np.stack(list(_offsets(stacked, stride)))  # (voxels of a cell, B, *cells)
        annotated = (cells != grid.unknown).any(axis=0)
        rows = tally.counts.setdefault(stage, {})
        supervised = [(coarse != grid.unknown)[annotated].sum() for coarse in (ours, theirs)]
        rows[ANY] = rows.get(ANY, 0) + np.array([annotated.sum(), *supervised], dtype=np.float64)
        for key in (code for code in sorted(grid.case.entry.locations) if code < grid.unknown):
            holds = (cells == key).any(axis=0)
            kept = [(coarse == key)[holds].sum() for coarse in (ours, theirs)]
            rows[key] = rows.get(key, 0) + np.array([holds.sum(), *kept], dtype=np.float64)


def scales(configuration: Configuration) -> list[tuple[int, ...]]:
    """Return the strides of the coarse heads that have a weight."""
    loss = DeepSupervisionLoss(lambda logits, codes, sets: logits, output_strides(configuration.topology.strides), 0)
    used = zip(loss.scales, loss.weights, strict=True)
    return [scale for scale, weight in used if weight > 0 and any(step > 1 for step in scale)]


def _offsets(codes: Codes, stride: Sequence[int]) -> Iterator[Codes]:
    """Yield for each voxel of a cell its codes in all cells; patch edges are multiples of the stride."""
    for offset in product(*(range(step) for step in stride)):
        yield codes[(slice(None), *(slice(start, None, step) for start, step in zip(offset, stride, strict=True)))]
