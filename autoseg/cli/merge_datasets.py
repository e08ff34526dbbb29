"""``autoseg_merge_datasets A B ... -o C``: one data set from several with different classes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from autoseg.cli import common

if TYPE_CHECKING:
    from autoseg.interop.merging import Merger

log = logging.getLogger("autoseg.merge_datasets")


def main() -> NoReturn:
    """Entry point of the command."""
    common.run(merge_datasets)


def merge_datasets(
    datasets: Annotated[
        list[str], typer.Argument(help="Folders with a dataset.json, names under ROOT/raw, or nnU-Net's ids.")
    ],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the merged data set.", file_okay=False)],
    name: Annotated[str | None, typer.Option("--name", help="Its name (default: that of its folder).")] = None,
    copy: common.CopyOption = False,
    root: common.RootOption = None,
    workers: common.WorkersOption = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Merge DATASETS, whose classes may differ, into one that can be trained on.

    Classes of the same name are the same class. The new dataset.json lists for each case the classes that its
    annotators knew, so that background of one data set may be a class of another. If a class of one data set is
    probably a part of a class of another (a liver with tumours, and one without), a warning names the entry to add to
    the other dataset.json. Channels, file endings and regions must be the same in all. dataset.json is written last.
    """
    from autoseg.interop.doubtful_classes import doubtful_classes
    from autoseg.interop.merged_files import write_merged
    from autoseg.interop.merging import plan_merger

    common.set_up_logging(verbose=verbose, quiet=quiet)
    workspace = common.workspace(root)
    merger = plan_merger([common.load_dataset(workspace, given) for given in datasets], name or output.name)
    for warning in merger.warnings:
        log.warning("%s", warning)
    with common.progress("compare classes", quiet=quiet) as report:
        doubtful = doubtful_classes(merger, workers=common.n_workers(workers), progress=report)
    with common.progress("labels", quiet=quiet) as report:
        write_merged(merger, output, copy=copy, workers=common.n_workers(workers), progress=report)
    result = merger_report(merger, output) | {"doubtful_classes": [str(item) for item in doubtful]}
    if json_:
        common.print_json(result)
    elif not quiet:
        for line in report_lines(result):
            print(line)
    for item in doubtful:
        log.warning("%s", item)
    log.info("written: %s", output)


def merger_report(merger: Merger, output: Path) -> dict[str, Any]:
    """Return cases, values and names of each source in the merged data set, as plain JSON values."""
    return {
        "output": str(output),
        "labels": dict(merger.content["labels"]),
        "cases": merger.content["numTraining"],
        "warnings": list(merger.warnings),
        "sources": [
            {
                "name": source.dataset.name,
                "cases": len(source.case_names),
                "renamed": {old: new for old, new in source.case_names.items() if old != new},
                "values": {str(old): new for old, new in source.values.items()},
                "not_annotated": list(source.added),
            }
            for source in merger.sources
        ],
    }


def report_lines(report: dict[str, Any]) -> list[str]:
    """Return the report as text: a line for the merged data set and one for each source."""
    classes = ", ".join(f"{name} {value}" for name, value in report["labels"].items())
    lines = [f"{report['cases']} cases, labels: {classes}"]
    for source in report["sources"]:
        line = f"  {source['name']}: {source['cases']} cases"
        if source["not_annotated"]:
            line += f", not annotated: {', '.join(source['not_annotated'])}"
        if source["renamed"]:
            line += f", {len(source['renamed'])} renamed: {next(iter(source['renamed'].values()))}, ..."
        lines.append(line)
    return lines


if __name__ == "__main__":
    main()
