"""Score the weights of a training's last step and means of past weights on dense references, in one table.

python scripts/compare_averages.py DATASET --iterations 400 --seeds 1 2 3 --decays 0.9 0.97 0.999

Averaging does not change a training, so one run per seed gives the answer for all decays (see
``autoseg.training.weight_average``).
"""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from compare_nnunet import Comparison, score
from torch import Tensor

from autoseg.cases.layers import input_channels
from autoseg.cli import common
from autoseg.cli.plan_and_preprocess import plan_and_preprocess
from autoseg.core.atomic import atomic_path, write_json
from autoseg.core.errors import ConfigError
from autoseg.dataset.dataset import Dataset
from autoseg.inference import Predictor
from autoseg.inference.model import Model
from autoseg.nn.precision import choose_dtype
from autoseg.training.batches import batch_size, recipe
from autoseg.training.fold import PRECISIONS, build_parts
from autoseg.training.request import FoldRequest
from autoseg.training.run_config import RunOptions
from autoseg.training.trainer import Parts, training_step
from autoseg.training.weight_average import WeightAverage

log = logging.getLogger("autoseg.compare_averages")

LAST = "last step"
Weights = Mapping[str, Tensor]


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(compare, lists={"--seeds": r"\d+", "--decays": r"0?\.\d+", "--set": r"[A-Za-z_][\w.]*=.*"})


def compare(
    dataset: Annotated[Path, typer.Argument(help="Folder with a dataset.json, or such a file of any name.")],
    iterations: Annotated[int, typer.Option(min=1, help="Optimiser steps of every run.")],
    *,
    seeds: Annotated[list[int] | None, typer.Option("--seeds", metavar="N ...", min=0, help="Default: 1.")] = None,
    decays: Annotated[
        list[float] | None, typer.Option("--decays", metavar="D ...", help="Per step (default: 0.9 0.97 0.999).")
    ] = None,
    references: Annotated[
        Path | None, typer.Option(help="Folder of dense label maps (default: labelsTr of DATASET).", file_okay=False)
    ] = None,
    configuration: Annotated[str, typer.Option("-c", help="2d, 3d_fullres or 3d_lowres.")] = "3d_fullres",
    planner: Annotated[str, typer.Option(help="Planner of the network.")] = "small",
    fold_cases: Annotated[
        int | None, typer.Option(min=1, help="Score only the first so many validation cases.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE ...")] = None,
    mirrors: common.MirrorOption = True,
    work: Annotated[Path, typer.Option(help="Folder of all runs; finished ones are not done again.")] = Path(
        "averages"
    ),
    threads: Annotated[int, typer.Option(min=1, help="Threads of the network.")] = 1,
    workers: Annotated[int, typer.Option("-j", "--workers", min=1, help="Processes that load data.")] = 1,
) -> None:
    """Train once per seed on fold 0; predict and score with the last weights and with each mean of past weights."""
    common.set_up_logging()
    torch.set_num_threads(threads)
    loaded = Dataset.load(dataset)
    options = RunOptions(
        "0", configuration, device="cpu", iterations=iterations, settings=tuple(settings or ()), workers=workers
    )
    folder = (references or loaded.folder / "labelsTr").resolve()
    comparison = Comparison(loaded, work.absolute(), folder, options, threads)
    plan_and_preprocess(
        str(dataset), configurations=[configuration], planner=planner, root=comparison.root, workers=workers
    )
    comparison = replace(comparison, cases=comparison.request("default", 0).val_cases[:fold_cases])
    results = [run_seed(comparison, seed, decays or [0.9, 0.97, 0.999], mirrors=mirrors) for seed in seeds or [1]]
    print(markdown(results))


def run_seed(comparison: Comparison, seed: int, decays: Sequence[float], *, mirrors: bool) -> dict[str, Any]:
    """Return weights and Dice by title, and the seconds of training and averaging; what files hold is not redone."""
    folder = comparison.work / "runs" / f"{comparison.options.iterations}_seed{seed}"
    request = comparison.request(folder.name, seed)
    parts = own_parts(request)
    trained = trained_weights(request, parts, decays, folder / "weights.pt")
    titles, scores = (LAST, *map(title_of, decays)), {}
    if missing := {*titles} - {*trained["weights"]}:
        raise ConfigError(
            f"{folder}: found a training without {', '.join(sorted(missing))}, expected those of --decays. Delete the "
            "folder, or choose another --work."
        )
    for title in titles:
        output = folder / f"{title.replace(' ', '_')}{'' if mirrors else '_not_mirrored'}"
        result = output / "dice.json"
        if not result.is_file():
            predict(request, parts, trained["weights"][title], comparison.cases, output, mirrors=mirrors)
            write_json(result, score(comparison, output)["dense"])
        scores[title] = json.loads(result.read_text(encoding="utf-8"))
        log.info("seed %d, %s: %s", seed, title, scores[title])
    return {**trained, "seed": seed, "dice": scores}


def trained_weights(request: FoldRequest, parts: Parts, decays: Sequence[float], path: Path) -> dict[str, Any]:
    """Return ``weights`` (title -> weights), and the seconds of training and averaging; trained if no file has them."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        weights, averaging = train(request, parts, decays)
        trained = {"weights": weights, "training_seconds": time.monotonic() - started, "averaging_seconds": averaging}
        with atomic_path(path) as partial:
            torch.save(trained, partial)
    values: dict[str, Any] = torch.load(path, weights_only=True)
    return values


def title_of(decay: float) -> str:
    """Name the mean of past weights of a decay."""
    return f"mean, decay {decay}"


def own_parts(request: FoldRequest) -> Parts:
    """Return the parts of the run, in the arithmetic that is fastest and right on this machine."""
    network = build_parts(request, "float32").network
    channels = input_channels(request.plan, request.configuration, request.dataset.labels)
    shape = (batch_size(request), len(channels), *request.configuration.patch_size)
    dtype = choose_dtype(lambda: network, shape, torch.device("cpu"))
    return build_parts(request, next(name for name, value in PRECISIONS.items() if value is dtype))


def train(request: FoldRequest, parts: Parts, decays: Sequence[float]) -> tuple[dict[str, Weights], float]:
    """Take all steps of the run; return title -> weights, and the seconds that one average took."""
    averages = {title_of(decay): WeightAverage(parts.network, decay) for decay in decays}
    averaging, clip = 0.0, request.config.optimizer.gradient_clip
    for iteration, batch in enumerate(parts.training_batches(0)):
        parts.optimization.set_learning_rate(iteration)
        loss = training_step(parts, batch, iteration, clip).loss
        started = time.monotonic()
        for average in averages.values():
            average.update(parts.network)
        averaging += time.monotonic() - started
        if iteration % 50 == 0:
            log.info("%s: iteration %d, loss %.3f", request.name, iteration, loss)
    last = {LAST: dict(parts.network.state_dict())}
    means = {title: last[LAST] | average.weights for title, average in averages.items()}
    return last | means, averaging / len(averages)


def predict(
    request: FoldRequest, parts: Parts, weights: Weights, cases: Sequence[str], output: Path, *, mirrors: bool
) -> None:
    """Predict cases with these weights, the mean over mirrored copies as the training mirrored if ``mirrors``."""
    network = copy.deepcopy(parts.network)
    network.load_state_dict(weights)
    network.deep_supervision = False  # type: ignore[assignment]
    model = Model(
        request.plan, request.configuration, request.dataset, (network.eval(),), recipe(request).mirror_axes, ("0",),
        request.folder.parent,
    )  # fmt: skip
    images = {name: request.dataset.case(name).images for name in cases}
    predictor = Predictor(model, parts.device, parts.autocast_dtype, mirror=mirrors)
    predicted = predictor.predict_files(images, output, overwrite=True)
    if predicted.failed:
        raise next(iter(predicted.failed.values()))


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a table: a row for each kind of weights, columns for seeds, their mean, and what it gains."""
    seeds = [result["seed"] for result in results]
    lines = [f"| weights | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | minus last step |"]
    lines.append("|---" + "|---:" * (len(seeds) + 2) + "|")
    rows = {title: [result["dice"][title]["foreground"] for result in results] for title in results[0]["dice"]}
    means = {title: sum(row) / len(row) for title, row in rows.items()}
    for title, row in rows.items():
        cells = [*(f"{value:.4f}" for value in row), f"{means[title]:.4f}", f"{means[title] - means[LAST]:+.4f}"]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    share = sum(r["averaging_seconds"] for r in results) / sum(r["training_seconds"] for r in results)
    return "\n".join([*lines, "", f"One average takes {100 * share:.2f} % of the time of training."])


if __name__ == "__main__":
    main()
