"""Generated cases and plans of a training benchmark: the patches, batches and networks of the default planner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from autoseg.cases.cache import cached_source, write_case
from autoseg.cases.case import CaseRecord
from autoseg.cases.entry import CacheEntry
from autoseg.cases.store import CaseSource
from autoseg.core.geometry import Geometry
from autoseg.core.plan import Configuration
from autoseg.dataset.labels import Head, Labels
from autoseg.planning.fit_memory import ConfigurationInput, fit
from autoseg.planning.presets import PLANNERS

N_CLASSES = 4
MEDIAN_SHAPES = {
    "default": {"3d_fullres": (160, 192, 192), "2d": (20, 512, 512)},
    "small": {"3d_fullres": (36, 50, 35), "2d": (9, 256, 216)},
    "quick": {"3d_fullres": (24, 40, 40), "2d": (6, 64, 64)},
}
"""Size -> shapes of the generated cases. The default planner gives nnU-Net's largest patches for them, 128^3 and 512^2;
those of the small planner are a hippocampus and a heart, which a CPU can train on."""


def labels() -> Labels:
    """Return background, three classes, and unannotated voxels."""
    names = ("background", "one", "two", "three")
    heads = tuple(Head(name, (k,), (k,), is_background=k == 0) for k, name in enumerate(names))
    return Labels(tuple(range(N_CLASSES)), names, heads, ignore=N_CLASSES)


def planned(name: str, size: str) -> Configuration:
    """Return the configuration of the default planner, which fills 8 GB, or of the small one if ``size`` is another."""
    shape = MEDIAN_SHAPES[size][name]
    axes = shape if name != "2d" else shape[1:]
    settings = PLANNERS["default" if size == "default" else "small"]
    start = ConfigurationInput((1.0,) * len(axes), tuple(map(float, axes)), 1e9, N_CLASSES)
    chosen = fit(start, settings)
    return Configuration(
        name=name,
        spacing=start.spacing,
        patch_size=chosen.patch_size,
        batch_size=min(chosen.batch_size, 2) if size == "quick" else chosen.batch_size,
        median_shape=start.median_shape,
        normalization=("zscore",),
        use_mask_for_norm=(False,),
        topology=chosen.topology,
        batch_dice=False,
    )


def write_cases(folder: Path, name: str, size: str, *, n_cases: int = 2) -> list[CaseSource]:
    """Write cases with blobs of each class, brighter than what is around them; four voxels of five are unannotated."""
    shape = MEDIAN_SHAPES[size][name]
    sources = []
    for index in range(n_cases):
        case = f"{name}_{index}"
        rng = np.random.default_rng(index)
        smooth = ndimage.gaussian_filter(rng.normal(size=shape).astype(np.float32), 4)
        edges = np.quantile(smooth, np.linspace(0, 1, N_CLASSES + 1)[1:-1])
        classes = np.digitize(smooth, edges).astype(np.uint8)
        image = (classes + rng.normal(scale=0.5, size=shape)).astype(np.float32)[None]
        codes = np.where(np.arange(shape[0])[:, None, None] % 5 == 0, classes, N_CLASSES).astype(np.uint8)
        places = [np.flatnonzero(codes == code)[:10_000] for code in range(N_CLASSES)]
        stops = np.cumsum([len(part) for part in places])
        counts = np.bincount(codes.ravel(), minlength=N_CLASSES + 1)
        entry = CacheEntry(
            record=CaseRecord(
                case=case, geometry=Geometry(spacing=(1, 1, 1)), transpose=(0, 1, 2), shape_before_crop=shape,
                crop_low=(0, 0, 0), crop_high=shape, spacing_before=(1, 1, 1), spacing=(1, 1, 1), shape=shape,
            ),
            label_sets=(*((k,) for k in range(N_CLASSES)), tuple(range(N_CLASSES))),
            undrawn=N_CLASSES,
            n_classes=N_CLASSES,
            locations={c: (int(stops[c]) - len(part), int(stops[c])) for c, part in enumerate(places) if len(part)},
            code_counts={code: int(count) for code, count in enumerate(counts)},
            fingerprint="generated",
        )  # fmt: skip
        write_case(folder, case, image=image, codes=codes, locations=np.concatenate(places), entry=entry)
        sources.append(cached_source(folder, case))
    return sources
