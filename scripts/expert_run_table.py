"""Tables of ``measure_experts.py``: fused masks and trained models beside single experts, all against the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Any


@dataclass(frozen=True)
class ModelRun:
    """One training, and the Dice of its predictions with the truth."""

    lab: str
    system: str
    """Key of the row."""
    seed: int
    processor_seconds: float
    """Of the training process, its workers not counted."""
    dice: Mapping[str, float]
    """Held-out case -> Dice with the truth, 0 to 1."""
    agreed: Mapping[str, float]
    """Held-out case -> Dice at the voxels that all experts labelled alike, 0 to 1."""
    size: Mapping[str, float]
    """Held-out case -> predicted foreground as a share of the truth's."""

    @property
    def score(self) -> float:
        """Mean Dice over the held-out images."""
        return mean(self.dice.values())

    def as_json(self) -> dict[str, Any]:
        """Return the run as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class LabScores:
    """Dice with the truth in one lab."""

    lab: str
    fused: Mapping[str, Mapping[str, float]]
    """Method -> case -> Dice of the fused masks, of all images."""
    experts: Mapping[str, Mapping[str, float]]
    """Expert -> case -> Dice of his masks, of all images."""
    undecided: Mapping[str, float]
    """Method -> undecided voxels of the fused masks as a share of the truth's foreground."""
    held_out: tuple[str, ...]

    def expert_scores(self) -> list[float]:
        """Return the mean Dice of each expert over the held-out images, ascending."""
        return sorted(mean(dice[case] for case in self.held_out) for dice in self.experts.values())

    def as_json(self) -> dict[str, Any]:
        """Return the scores as plain values."""
        return asdict(self)


def fusion_table(labs: Iterable[LabScores]) -> str:
    """Return a row for each lab: Dice (mean, smallest) of fused masks and of single experts, undecided voxels."""
    labs = list(labs)
    methods, unsure = (list(labs[0].fused), list(labs[0].undecided)) if labs else ([], [])
    header = [
        "lab", "experts", "images", *(f"{name}: mean, min" for name in methods), "single experts: min to max",
        f"undecided, of the truth's foreground: {', '.join(unsure)}",
    ]  # fmt: skip
    lines = [_row(header), "|---" + "|---:" * (len(header) - 1) + "|"]
    for scores in labs:
        shown = [f"{mean(dice.values()):.4f}, {min(dice.values()):.4f}" for dice in (scores.fused[m] for m in methods)]
        single = [mean(dice.values()) for dice in scores.experts.values()]
        n_images = len(next(iter(scores.experts.values())))
        spread = f"{min(single):.3f} to {max(single):.3f}"
        shares = ", ".join(f"{share:.2f}" for share in scores.undecided.values())
        lines.append(_row([scores.lab, f"{len(single)}", f"{n_images}", *shown, spread, shares]))
    return "\n".join(lines)


def verdict(score: float, experts: Sequence[float]) -> str:
    """Return where a Dice lies among those of single experts (ascending, at least one)."""
    if score < experts[0]:
        return "below the worst"
    return "above the best" if score > experts[-1] else "between"


def model_table(labs: Iterable[LabScores], runs: Iterable[ModelRun], titles: Mapping[str, str]) -> str:
    """Return a row for each lab and system: seeds, median Dice and range, its ratio to the best expert, the verdict.

    Then medians: Dice where all experts agree, predicted foreground, processor time of training. ``titles`` gives the
    text of each system, and their order. The verdict is that of the median.
    """
    header = (
        "lab", "experts: worst, median, best", "model", "seeds", "Dice, median (range)", "of best expert",
        "among the experts", "Dice where all experts agree", "foreground, of the truth's", "processor s",
    )  # fmt: skip
    lines = [_row(header), "|---|---:|---|---|---:|---:|---|---:|---:|---:|"]
    runs = list(runs)
    for scores in labs:
        experts = scores.expert_scores()
        shown = f"{experts[0]:.3f}, {median(experts):.3f}, {experts[-1]:.3f}"
        for system, title in titles.items():
            own = [run for run in runs if (run.lab, run.system) == (scores.lab, system)]
            if own:
                lines.append(_row([scores.lab, shown, title, *_model_cells(own, experts)]))
    return "\n".join(lines)


def _model_cells(runs: Sequence[ModelRun], experts: Sequence[float]) -> list[str]:
    values = [run.score for run in runs]
    middle = median(values)
    spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return [
        ", ".join(f"{run.seed}" for run in runs), f"{middle:.3f}{spread}", f"{middle / experts[-1]:.3f}",
        verdict(middle, experts), f"{median(mean(run.agreed.values()) for run in runs):.3f}",
        f"{median(mean(run.size.values()) for run in runs):.2f}",
        f"{median(run.processor_seconds for run in runs):.0f}",
    ]  # fmt: skip


def pair_table(runs: Iterable[ModelRun], first: str, titles: Mapping[str, str]) -> str:
    """Return a row for each system but the first: its Dice minus that of the first, in labs and seeds that both have.

    The numbers of pairs in which it is higher and lower stand beside the median and range.
    """
    found: dict[str, dict[tuple[str, int], float]] = {}
    for run in runs:
        found.setdefault(run.system, {})[run.lab, run.seed] = run.score
    ours = found.get(first, {})
    lines = [f"| minus {titles[first]} | pairs (lab, seed) | median (range) | ratio of means | higher, lower |"]
    lines.append("|---|---:|---:|---:|---:|")
    for system, title in titles.items():
        pairs = [(found[system][key], ours[key]) for key in found.get(system, {}) if key in ours]
        if system == first or not pairs:
            continue
        differences = [other - own for other, own in pairs]
        spread = f"{median(differences):+.3f} ({min(differences):+.3f} to {max(differences):+.3f})"
        base = mean(own for _, own in pairs)
        ratio = f"{mean(other for other, _ in pairs) / base:.3f}" if base else "-"
        signs = f"{sum(d > 0 for d in differences)}, {sum(d < 0 for d in differences)}"
        lines.append(_row([title, f"{len(pairs)}", spread, ratio, signs]))
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
