"""Share of the annotation that survives on its way to the loss, here and by nnU-Net's rules, stage by stage.

python scripts/annotation_survival.py DATASET [-c 3d_fullres] [--cases 5] [--nnunet-python ENV/bin/python] [--json]
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from nnunet_side import NnunetSide
from survival_stages import Grid, NnunetRule, Tally, count_cells, count_moved, count_resampled, draw_patches
from survival_table import as_json, as_markdown

from autoseg.cli import common
from autoseg.core.errors import ConfigError
from autoseg.core.plan import Configuration, Plan
from autoseg.dataset.dataset import Dataset
from autoseg.planning import extract_fingerprint, plan
from autoseg.training.prepare import default_configuration

log = logging.getLogger("autoseg.annotation_survival")


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(annotation_survival)


def annotation_survival(
    source: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder with a dataset.json, or such a file.")],
    *,
    configuration: Annotated[
        str | None, typer.Option("-c", help="2d, 3d_fullres or 3d_lowres (default: 3d_fullres, else 2d).")
    ] = None,
    planner: Annotated[str, typer.Option(help="As of autoseg_plan_and_preprocess.")] = "default",
    n_cases: Annotated[int, typer.Option("--cases", min=1, help="Cases measured, evenly spaced.")] = 5,
    n_patches: Annotated[int, typer.Option("--patches", min=1, help="Transformed patches per case.")] = 40,
    coarser: Annotated[float, typer.Option(min=0.1, help="Spacing of the grid, times that of the plan.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="The patches and their transforms follow from it.")] = 0,
    nnunet_python: Annotated[
        Path | None, typer.Option(help="Python with nnunetv2: its own code resamples and downsamples then.")
    ] = None,
    json_: common.JsonOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Measure which share of the annotated voxels of DATASET survives resampling, augmentation and deep supervision.

    Without --nnunet-python the column of nnU-Net applies its rules as this project implements them for dense labels,
    with ignore as one more label; the tests compare them with batchgenerators. The transform of patches is always
    done so, with the same draws.
    """
    common.set_up_logging(quiet=quiet)
    dataset = Dataset.load(source)
    if dataset.labels.set_values or dataset.labels.statements:
        raise ConfigError(
            f"{source}: found label_sets or statements about cases, which nnU-Net does not have; expected classes "
            "and ignore. Measure a copy of the data set without them."
        )
    rule = NnunetRule(nnunet_python)
    version = "" if nnunet_python is None else NnunetSide(nnunet_python, Path(), 1, 1).version()
    chosen = [dataset.cases[index] for index in spaced(len(dataset.cases), n_cases)]
    planned, setting = plan_for(dataset, planner, configuration)
    tally = Tally()
    with common.progress("measuring", quiet=quiet) as report:
        for done, case in enumerate(chosen, 1):
            grid = Grid.of(case, dataset.labels, planned, setting, coarser)
            count_resampled(tally, grid, rule)
            patches = draw_patches(grid, setting, n_patches, seed + done)
            count_moved(tally, grid, patches)
            count_cells(tally, grid, patches, setting, rule)
            report(done, len(chosen), case.name)
    names = dataset.labels.class_names
    if json_:
        common.print_json(as_json(tally.counts, names))
    else:
        print(as_markdown(tally.counts, names))
    log.info(
        "%s, %s, %d cases; nnU-Net %s", dataset.name, setting.name, len(chosen), f"{version} {rule.description}".strip()
    )


def spaced(n: int, wanted: int) -> list[int]:
    """Return ``wanted`` of ``n`` indices, evenly spaced; all of them if there are no more."""
    return sorted({int(index) for index in np.linspace(0, n - 1, min(wanted, n)).round()})


def plan_for(dataset: Dataset, planner: str, configuration: str | None) -> tuple[Plan, Configuration]:
    """Plan as autoseg_plan_and_preprocess does, and return the plan with the configuration asked for."""
    planned = plan(dataset, extract_fingerprint(dataset), planner)
    return planned, planned.configuration(configuration or default_configuration(planned))


if __name__ == "__main__":
    main()
