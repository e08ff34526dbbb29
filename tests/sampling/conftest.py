"""Small cached cases for the tests of sampling, patches and loader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autoseg.cases.cache import CachedCase, open_case, write_case
from autoseg.cases.case import CaseRecord
from autoseg.cases.entry import CacheEntry
from autoseg.core.geometry import Geometry
from autoseg.core.plan import Configuration, Topology
from autoseg.dataset.labels import Head, Labels, informative_codes


@pytest.fixture(scope="session")
def make_labels() -> Callable[..., Labels]:
    def make(n_classes: int = 3, ignore: int | None = 255) -> Labels:
        heads = tuple(Head(f"class{k}", (k,), (k,), is_background=k == 0) for k in range(n_classes))
        return Labels(tuple(range(n_classes)), tuple(head.name for head in heads), heads, ignore=ignore)

    return make


@pytest.fixture(scope="session")
def make_configuration() -> Callable[..., Configuration]:
    def make(patch: tuple[int, ...], batch_size: int = 2, masked: tuple[bool, ...] = (False,)) -> Configuration:
        n_axes = len(patch)
        topology = Topology(
            kind="plain", features=(4,), strides=((1,) * n_axes,), kernels=((3,) * n_axes,), encoder_blocks=(1,),
            decoder_blocks=(),
        )  # fmt: skip
        return Configuration(
            name=f"{n_axes}d", spacing=(1.0,) * n_axes, patch_size=patch, batch_size=batch_size, median_shape=patch,
            normalization=("zscore",) * len(masked), use_mask_for_norm=masked, topology=topology, batch_dice=False,
        )  # fmt: skip

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., CachedCase]:
    """Write ``codes`` (*S) and an image (by default the codes as intensities) as a cached case."""

    def write(
        name: str, codes: np.ndarray, n_classes: int = 3, image: np.ndarray | None = None, further: tuple = (),
        undrawn: int | None = None, context: tuple[tuple[int, ...], tuple[int, ...]] = ((0, 0, 0), (0, 0, 0)),
    ) -> CachedCase:  # fmt: skip
        sets = (*((k,) for k in range(n_classes)), tuple(range(n_classes)), *further)
        table = np.array([[k in members for k in range(n_classes)] for members in sets])
        found = [np.flatnonzero(codes == code) if known else [] for code, known in enumerate(informative_codes(table))]
        stops = np.cumsum([len(part) for part in found])
        own = tuple(n - a - b for n, a, b in zip(codes.shape, *context, strict=True))
        entry = CacheEntry(
            record=CaseRecord(
                case=name, geometry=Geometry(spacing=(1, 1, 1)), transpose=(0, 1, 2), shape_before_crop=own,
                crop_low=(0, 0, 0), crop_high=own, context_low=context[0], context_high=context[1],
                spacing_before=(1, 1, 1), spacing=(1, 1, 1),
                shape=codes.shape,
            ),
            label_sets=sets,
            undrawn=n_classes if undrawn is None else undrawn,
            n_classes=n_classes,
            locations={c: (int(stops[c]) - len(p), int(stops[c])) for c, p in enumerate(found) if len(p)},
            code_counts={int(c): int(n) for c, n in zip(*np.unique(codes, return_counts=True), strict=True)},
            fingerprint="x",
        )  # fmt: skip
        image = codes[None].astype(np.float32) if image is None else image
        locations = np.concatenate(found).astype(np.int64)
        write_case(tmp_path, name, image=image, codes=codes.astype(np.uint8), locations=locations, entry=entry)
        return open_case(tmp_path, name)

    return write
