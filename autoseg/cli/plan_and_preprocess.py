"""``autoseg_plan_and_preprocess DATASET``: check the files, plan, and write the caches that training reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli import common
from autoseg.core.errors import ConfigError

if TYPE_CHECKING:
    from autoseg.core.errors import Fault
    from autoseg.core.parallel import Workers
    from autoseg.core.plan import Plan
    from autoseg.dataset.dataset import Dataset

log = logging.getLogger("autoseg.plan_and_preprocess")

CONFIGURATIONS = "2d|3d_fullres|3d_lowres|3d_cascade_fullres"


def main() -> None:
    """Entry point of the command."""
    common.run(plan_and_preprocess, lists={"-c": CONFIGURATIONS, "--set": r"[A-Za-z_][\w.]*=.*"})


def plan_and_preprocess(
    dataset: Annotated[
        str,
        typer.Argument(help="Folder with a dataset.json, a name under ROOT/raw, nnU-Net's id, or a run's .toml."),
    ],
    *,
    configurations: Annotated[
        list[str] | None,
        typer.Option(
            "-c",
            metavar="NAME ...",
            help=f"{CONFIGURATIONS} (default: as before, at first all but the cascade, which needs 3d_lowres trained).",
        ),
    ] = None,
    planner: Annotated[
        str | None,
        typer.Option(help="default, resenc_m, resenc_l, resenc_xl, or small for CPUs (default: as planned before)."),
    ] = None,
    gpu_memory_gb: Annotated[
        float | None, typer.Option(min=0.1, help="Plan for a GPU with this much memory (default: as planned before).")
    ] = None,
    plan_of: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Checkpoint or model folder, with whose networks to plan, so that its weights fit "
            "(autoseg_train --pretrained MODEL).",
        ),
    ] = None,
    replan: Annotated[
        bool, typer.Option("--replan", help="Plan again from the data, and discard the edits of plans.json.")
    ] = False,
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Only check the files, and report what is annotated.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE ...",
            help="Change the network: network.levels=4 network.activation=relu; docs/training.md has all.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file whose table [network] has the same.", dir_okay=False)
    ] = None,
    root: common.RootOption = None,
    workers: Annotated[
        int | None,
        typer.Option("-j", "--workers", min=0, help="Worker processes (default: as many as cores and memory allow)."),
    ] = None,
    cluster: common.ClusterOption = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Check every file of DATASET, plan its networks, and preprocess its cases into NumPy caches.

    Results go to ROOT/preprocessed/DATASET. A second run repeats only the work for files that have changed. It keeps
    the plan, with the edits of plans.json, unless another planner, memory or network, or --replan is given.
    """
    from autoseg.dataset.dataset import Dataset

    common.set_up_logging(verbose=verbose, quiet=quiet)
    if check_only:
        refuse_options_of_planning(
            {
                "-c": configurations,
                "--planner": planner,
                "--gpu-memory-gb": gpu_memory_gb,
                "--plan-of": plan_of,
                "--replan": replan,
                "--set": settings,
                "--config": config,
            }
        )
    space = common.workspace(root)
    described, faults = Dataset.examine(common.find_dataset(space, dataset))
    folder = space.preprocessed(described.name)
    if not faults and described.labels.task is not None:
        from autoseg.training.check_task import check_task

        check_task(described.labels)  # a task that breaks its contract is reported before any file is read
    if check_only or faults:
        with common.workers_of(workers, cluster, [described.folder]) as given:
            check(described, faults, folder, given, as_json=json_, quiet=quiet)
        return
    for warning in described.warnings:
        log.warning("%s", warning)
    described = common.with_fused_labels(space, described, workers)
    files = common.config_files(space, described, dataset, config)
    from autoseg.planning.plan_dataset import plan_dataset
    from autoseg.planning.plan_edits import PlanningOptions
    from autoseg.planning.preprocess_dataset import write_caches
    from autoseg.training.cascade import previous_maps_in

    stages = common.stages(quiet=quiet)
    options = PlanningOptions(
        planner, gpu_memory_gb, replan, model_plan(plan_of), settings or (), files.run, files.user
    )
    with common.workers_of(workers, cluster, [described.folder], output=folder) as given:
        made = plan_dataset(described, space, options, given, stages, configurations=configurations)
        planned, chosen = made.plan, made.configurations
        previous = previous_maps_in(space, described)
        write_caches(described, planned, made.fingerprint, chosen, folder, given, stages, previous)
    if json_:
        common.print_json(
            {
                "plan": planned.model_dump(mode="json"),
                "folder": str(folder),
                "preprocessed": chosen,
                "edited": made.edits,
            }
        )
    elif not quiet:
        print_planned(planned, chosen, folder)


def refuse_options_of_planning(given: Mapping[str, object]) -> None:
    """Raise ``ConfigError`` if one of the options is given; ``given``: option -> its value, None or False if not."""
    names = [name for name, value in given.items() if value is not None and value is not False]
    if names:
        raise ConfigError(
            f"{' '.join(names)}: found with --check-only, which plans nothing, expected without it. Leave out "
            "--check-only to plan, or leave out the rest to check."
        )


def check(
    dataset: Dataset, faults: Sequence[Fault], folder: Path, workers: Workers | None, *, as_json: bool, quiet: bool
) -> None:
    """Report the content of the files; raise ``DatasetError`` with every fault, those of dataset.json first.

    ``folder`` is that of the preprocessed data set, which may hold the splits.
    """
    from autoseg.cli.integrity_table import print_report
    from autoseg.cli.promise_table import print_promises
    from autoseg.interop.expert_labels import labels_for_check
    from autoseg.planning.check_dataset import check_dataset
    from autoseg.planning.workers import readers

    stages = common.stages(quiet=quiet)
    has_experts = any(case.experts for case in dataset.cases)
    local = workers if isinstance(workers, int) else None
    reading = local if has_experts else workers  # their masks are fused into a temporary folder of this machine
    with labels_for_check(dataset, faults, folder, workers=common.n_workers(local)) as (described, found):
        report = check_dataset(described, found, folder, readers(described, reading), stages)
    if as_json:
        common.print_json(report.as_json())
    else:
        print_report(report.integrity, report.fold_gaps)
        if report.promises is not None:
            print_promises(report.promises)
    report.raise_if_faulty()


def model_plan(model: Path | None) -> Plan | None:
    """Return the plan of a checkpoint or model folder; None for None, so that torch is not imported."""
    if model is None:
        return None
    from autoseg.training.pretrained import plan_of_model

    return plan_of_model(model)


def print_planned(planned: Plan, chosen: Sequence[str], folder: Path) -> None:
    """Print the planned configurations and their folder."""
    print(f"planned and preprocessed in {folder}")
    for name in chosen:
        configuration = planned.configuration(name)
        shape = " x ".join(map(str, configuration.patch_size))
        spacing = " x ".join(f"{edge:.3g}" for edge in configuration.spacing)
        print(f"  {name}: patches of {shape} voxels at {spacing} mm, {configuration.batch_size} per batch")
    for name, configuration in planned.configurations.items():
        if configuration.previous_stage is not None and name not in chosen:
            print(f"  {name}: possible with -c {name}, after all folds of {configuration.previous_stage} are trained")


if __name__ == "__main__":
    main()
