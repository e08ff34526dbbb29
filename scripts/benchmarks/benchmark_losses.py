"""Time and memory of the partial loss beside a plain Dice + cross entropy, which knows no unknown voxel.

python scripts/benchmarks/benchmark_losses.py --classes 2 4 14 32

Each number is for forward and backward pass on float32 logits. Plain always gets dense targets; it makes no one-hot
target, so it is faster and smaller than nnU-Net's own loss, which is timed too. Times are medians of repetitions of
all kinds in turn, so that whatever else the machine does hits all of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from autoseg.cli import common
from autoseg.nn.losses.label_sets import LabelSetLoss

N_SAMPLES = 2
SPARSE_SHARE = 0.1
"""Of voxels annotated in sparse codes."""
SET_SHARE = 0.6
"""Of voxels that carry a set of several classes; the others carry one class."""
SMOOTH = 1e-5
TOLERANCE = 1e-4
WARM_UP = 2
Step = Callable[[], None]


@dataclass(frozen=True)
class Row:
    """One line of the table: codes of one kind."""

    n_classes: int
    codes: str
    ours_ms: float
    plain_ms: float
    time_ratio: float
    nnunet_ms: float
    ours_mib: float
    plain_mib: float
    memory_ratio: float
    error: float
    """Largest deviation of the loss, or of its gradient relative to the largest, from those of :func:`spelled_out`."""


@dataclass(frozen=True)
class Content:
    """Codes of one kind, and logits for them."""

    logits: Tensor
    """(B, K, *P) float32, a leaf."""
    codes: Tensor
    """(B, *P) uint8."""
    label_sets: Tensor
    """(B, N, K) bool."""
    classes: Tensor
    """(B, *P) int64: dense targets."""


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(benchmark, lists={"--classes": r"\d+"})


def benchmark(
    classes: Annotated[list[int] | None, typer.Option("--classes", metavar="K ...", min=2, max=60)] = None,
    *,
    edge: Annotated[int, typer.Option(min=4, help="Voxels along each edge of the 3-D patches.")] = 48,
    repetitions: Annotated[int, typer.Option(min=1, help="Repetitions of each kind.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    as_json: common.JsonOption = False,
) -> None:
    """Compare the partial loss with a plain one for dense codes, sparse codes and sets of several classes."""
    torch.set_num_threads(threads)
    rows = [row for n_classes in classes or [2, 4, 8, 32] for row in measure(n_classes, edge, repetitions)]
    if as_json:
        common.print_json([asdict(row) for row in rows])
    else:
        print(table(rows))


def measure(n_classes: int, edge: int, repetitions: int) -> list[Row]:
    """Return a row for each kind of codes; sets need three classes."""
    kinds = [kind for kind in KINDS if n_classes > 2 or kind in ("dense", "sparse")]
    contents = {kind: make_content(kind, n_classes, edge) for kind in kinds}
    steps = {kind: make_step("ours", content) for kind, content in contents.items()}
    others = {name: make_step(name, contents["dense"]) for name in ("plain", "nnunet")}
    ms = time_in_turn(steps | others, repetitions)
    mib = {name: peak_mib(step, contents.get(name, contents["dense"])) for name, step in (steps | others).items()}
    return [
        Row(
            n_classes=n_classes,
            codes=kind,
            ours_ms=ms[kind],
            plain_ms=ms["plain"],
            time_ratio=ms[kind] / ms["plain"],
            nnunet_ms=ms["nnunet"],
            ours_mib=mib[kind],
            plain_mib=mib["plain"],
            memory_ratio=mib[kind] / mib["plain"],
            error=deviation(contents[kind]),
        )
        for kind in kinds
    ]


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    header = (
        "classes",
        "codes",
        "ours ms",
        "plain ms",
        "ratio",
        "nnU-Net ms",
        "ours MiB",
        "plain MiB",
        "ratio",
        "error",
    )
    lines = ["| " + " | ".join(header) + " |", "|" + " ---: |" * len(header)]
    for row in rows:
        cells = (
            str(row.n_classes), row.codes, f"{row.ours_ms:.1f}", f"{row.plain_ms:.1f}", f"{row.time_ratio:.2f}",
            f"{row.nnunet_ms:.1f}", f"{row.ours_mib:.1f}", f"{row.plain_mib:.1f}", f"{row.memory_ratio:.2f}",
            f"{row.error:.0e}",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# The losses.


def plain_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Dice without background + cross entropy of dense targets (B, *P), as short as torch allows."""
    scores, target = logits.flatten(2), classes.flatten(1)
    p = scores.softmax(1)
    empty = p.new_zeros(p.shape[:2])
    overlap = empty.scatter_add(1, target, p.gather(1, target[:, None])[:, 0])
    true = empty.scatter_add(1, target, torch.ones_like(p[:, 0]))
    dice = (2 * overlap + SMOOTH) / (p.sum(2) + true + SMOOTH)
    return functional.cross_entropy(scores, target) + 1 - dice[:, 1:].mean()


def nnunet_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the same, with the one-hot target that nnU-Net's ``MemoryEfficientSoftDiceLoss`` makes."""
    scores, target = logits.flatten(2), classes.flatten(1)
    p = scores.softmax(1)[:, 1:]
    one_hot = torch.zeros(scores.shape, dtype=torch.bool).scatter_(1, target[:, None], 1)[:, 1:]
    dice = (2 * (p * one_hot).sum(2) + SMOOTH) / (one_hot.sum(2) + p.sum(2) + SMOOTH)
    return functional.cross_entropy(scores, target) + 1 - dice.mean()


def spelled_out(logits: Tensor, content: Content) -> Tensor:
    """Return the partial loss of float64 logits, with every voxel's set written out class by class."""
    scores = logits.flatten(2)
    codes = content.codes.flatten(1).long()
    sets = torch.stack([rows[sample] for rows, sample in zip(content.label_sets, codes, strict=True)]).mT  # (B, K, V)
    informative = ~sets.all(1)
    inside = scores.masked_fill(~sets, -torch.inf)
    entropy = ((scores.logsumexp(1) - inside.logsumexp(1)) * informative).sum() / informative.sum()
    positive = sets & (sets.sum(1, keepdim=True) == 1)
    decided = (positive.any(1, keepdim=True) | ~sets) & informative[:, None]
    p = scores.softmax(1)
    dice = (2 * (p * positive).sum(2) + SMOOTH) / ((p * decided).sum(2) + positive.sum(2) + SMOOTH)
    return entropy + (1 - dice)[:, 1:][decided.any(2)[:, 1:]].mean()


# What is measured.


def make_content(kind: str, n_classes: int, edge: int) -> Content:
    """Return random logits and codes of a kind, the same every time."""
    generator = torch.Generator().manual_seed(0)
    shape = (N_SAMPLES, edge, edge, edge)
    logits = torch.empty(N_SAMPLES, n_classes, *shape[1:]).normal_(generator=generator).requires_grad_()
    classes = torch.empty(shape, dtype=torch.int64).random_(0, n_classes, generator=generator)
    table = torch.zeros(n_classes + 4, n_classes, dtype=torch.bool)
    table[:n_classes] = torch.eye(n_classes, dtype=torch.bool)
    table[n_classes] = True
    table[n_classes + 1, 1:] = True
    table[n_classes + 2, : n_classes // 2 + 1] = n_classes > 2
    table[n_classes + 3, [0, -1]] = n_classes > 2
    share, first, last = KINDS[kind]
    codes = classes.to(torch.uint8)
    chosen = torch.empty(shape).uniform_(generator=generator) < share
    others = torch.empty(shape, dtype=torch.uint8).random_(n_classes + first, n_classes + last + 1, generator=generator)
    return Content(logits, torch.where(chosen, others, codes), table.expand(N_SAMPLES, -1, -1), classes)


KINDS = {
    "dense": (0.0, 0, 0),
    "sparse": (1 - SPARSE_SHARE, 0, 0),
    "one set": (SET_SHARE, 1, 1),
    "three sets": (SET_SHARE, 1, 3),
}
"""Kind -> share of voxels that carry no single class; first and last of their codes, less the number of classes."""


def make_step(name: str, content: Content) -> Step:
    """Return one forward and backward pass of "ours", "plain" or "nnunet"."""
    partial = LabelSetLoss(None, batch_dice=False, smooth=SMOOTH)

    def step() -> None:
        content.logits.grad = None
        if name == "ours":
            loss = partial(content.logits, content.codes, content.label_sets)
        else:
            loss = (plain_loss if name == "plain" else nnunet_loss)(content.logits, content.classes)
        torch.autograd.backward(loss)

    return step


def time_in_turn(steps: dict[str, Step], repetitions: int) -> dict[str, float]:
    """Return the median milliseconds of each step."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(WARM_UP + repetitions):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(values[WARM_UP:]) for name, values in seconds.items()}


def deviation(content: Content) -> float:
    """Return how far value and gradient are from those of :func:`spelled_out`."""
    make_step("ours", content)()
    value = LabelSetLoss(None, batch_dice=False, smooth=SMOOTH)(content.logits, content.codes, content.label_sets)
    exact = content.logits.detach().double().requires_grad_()
    expected = spelled_out(exact, content)
    (wanted,) = torch.autograd.grad(expected, exact)
    found = content.logits.grad
    if found is None:
        return float("inf")
    error = max((value - expected).abs().item(), ((found - wanted).abs().max() / wanted.abs().max()).item())
    if not error <= TOLERANCE:
        raise RuntimeError(f"the loss is off by {error:.1e}, expected at most {TOLERANCE:.0e}.")
    return error


def peak_mib(step: Step, content: Content) -> float:
    """Return the memory that a step has allocated at most at a time, the gradient that it leaves included."""
    content.logits.grad = None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(sizes)) / 2**20


if __name__ == "__main__":
    main()
