#!/usr/bin/env python3
"""Check and measure autoseg on a GPU in under eight minutes: tests, speed, memory, and a run from scribbles to Dice.

python scripts/gpu_check.py [--device D] [--quick] [--output FOLDER] [--parts NAME ...] [--nnunetv2-python PYTHON]

Every part is a process with a time limit of its own; what fails is recorded, and the rest goes on. ``gpu_check.json``
and ``gpu_check.md`` are written anew after every part. ``--device cpu --quick`` tries the whole script without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
BENCHMARK = REPOSITORY / "scripts" / "benchmarks" / "training.py"
WHOLE_S = 465.0
"""Time limit of all parts together, so that one call of ten minutes has room for the rest."""
LEAST_S = 15.0
"""A part is left out if less time than this is left for it."""
TAIL = 4000


@dataclass(frozen=True)
class Part:
    """One process: what to run, for how long, and what to read from it."""

    name: str
    command: Sequence[str]
    limit_s: float
    read: Callable[[str, Path], dict[str, Any]]
    """(output, folder of the part) -> figures."""
    cores: int | None = None
    """Cores that the process may use; None for all."""
    environment: dict[str, str] = field(default_factory=dict)


def main() -> None:
    """Run the parts, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny networks, to try the script")
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT", "gpu_check")))
    parser.add_argument("--parts", nargs="*", help="only these parts")
    parser.add_argument("--nnunetv2-python")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    report: dict[str, Any] = {"device": options.device, "machine": machine(), "parts": {}}
    with tempfile.TemporaryDirectory() as folder:
        for part in parts_of(options, Path(folder)):
            if options.parts and part.name not in options.parts:
                continue
            left = WHOLE_S - (time.monotonic() - started)
            report["parts"][part.name] = run(part, Path(folder), left)
            report["seconds"] = round(time.monotonic() - started, 1)
            write(report, options.output)
    print((options.output / "gpu_check.md").read_text())
    failed = [name for name, result in report["parts"].items() if result["state"] != "done"]
    print(f"{report['seconds']:.0f} s; " + (f"failed or left out: {', '.join(failed)}" if failed else "all parts done"))
    sys.exit(1 if failed else 0)


def parts_of(options: argparse.Namespace, folder: Path) -> list[Part]:
    """Return the parts, the most important first."""
    python, device, quick = sys.executable, options.device, options.quick
    n_cores = len(os.sched_getaffinity(0))

    def speed(name: str, configuration: str, cores: int, limit_s: float, *more: str) -> Part:
        command = [
            python, str(BENCHMARK), "--device", device, "--configurations", configuration,
            "--workers", str(max(1, min(cores - 1, 12))), "--json", str(folder / f"{name}.json"),
            *(["--quick", "--steps", "4", "--warmup", "2"] if quick else []), *more,
        ]  # fmt: skip
        return Part(name, command, limit_s, lambda output, place: read_speed(place / f"{name}.json"), cores)

    other = ["--nnunetv2-python", options.nnunetv2_python] if options.nnunetv2_python else []
    fewer = [cores for cores in ((1,) if quick else (4, 8)) if cores < n_cores or quick]
    return [
        Part(
            "tests",
            [python, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(REPOSITORY / "tests" / "gpu")],
            100,
            read_tests,
            environment={"AUTOSEG_TEST_DEVICE": device},
        ),
        speed("3d_fullres", "3d_fullres", n_cores, 120, *other),
        *(speed(f"3d_fullres_{cores}_cores", "3d_fullres", cores, 60, "--no-split") for cores in fewer),
        speed("2d", "2d", n_cores, 100, *other),
        Part(
            "dice",
            [
                python, "-m", "autoseg.cli.quickstart", "--root", str(folder / "workspace"), "--device", device,
                "--iterations", "20" if quick else "800",
            ],
            130,
            read_dice,
        ),
    ]  # fmt: skip


def run(part: Part, folder: Path, left_s: float) -> dict[str, Any]:
    """Run a part and return its state (done, failed, too slow, left out), time, figures and the end of its output."""
    if left_s < LEAST_S:
        return {"state": "left out", "seconds": 0.0}
    print(f"{part.name}: at most {min(part.limit_s, left_s):.0f} s", flush=True)
    paths = [str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | part.environment
    cores = sorted(os.sched_getaffinity(0))[: part.cores]
    started = time.monotonic()
    with (folder / f"{part.name}.log").open("w+") as log:
        process = subprocess.Popen(
            list(part.command), stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=REPOSITORY,
            start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip
        try:
            code = process.wait(min(part.limit_s, left_s))
            state = "done" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            state = "too slow"
        log.seek(0)
        output = log.read()
    result: dict[str, Any] = {"state": state, "seconds": round(time.monotonic() - started, 1)}
    try:
        result["figures"] = part.read(output, folder)
    except (OSError, ValueError, LookupError, TypeError) as error:
        result["unread"] = f"{type(error).__name__}: {error}"
        state = result["state"] = f"{state}, without figures"
    if state != "done":
        result["output"] = output[-TAIL:]
        print(f"{part.name}: {state}\n{output[-TAIL:]}", flush=True)
    return result


def read_tests(output: str, folder: Path) -> dict[str, Any]:
    """Return how many tests passed, failed and were skipped."""
    words = ("passed", "failed", "error", "skipped")
    counts = {word: sum(map(int, re.findall(rf"(\d+) {word}", output))) for word in words}
    if not counts["passed"] and not counts["failed"]:  # -q -q prints no summary: count the marks of the tests
        marks = "".join(re.findall(r"^([.sFE]+)\s+\[", output, re.MULTILINE))
        counts = dict(zip(words, (marks.count("."), marks.count("F"), marks.count("E"), marks.count("s")), strict=True))
    if not sum(counts.values()):
        raise ValueError("no test ran")
    return counts


def read_speed(path: Path) -> dict[str, Any]:
    """Return the one row of the benchmark."""
    report = json.loads(path.read_text())
    (row,) = report["rows"]
    return {"device": report["device"], "workers": report["workers"], **row}


def read_dice(output: str, folder: Path) -> dict[str, Any]:
    """Return the dense Dice of the run on scribbles."""
    found = re.search(r"dense-test Dice: ([\d.]+)", output)
    if found is None:
        raise ValueError("no Dice printed")
    return {"dense_dice": float(found[1])}


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    code = (
        "import json, torch; c = torch.cuda.is_available(); print(json.dumps({'torch': torch.__version__, "
        "'cudnn': torch.backends.cudnn.version(), 'gpu': torch.cuda.get_device_name() if c else None}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    known = json.loads(done.stdout) if done.returncode == 0 else {"torch": None}
    return known | {"python": sys.version.split()[0], "cores": len(os.sched_getaffinity(0))}


def write(report: dict[str, Any], folder: Path) -> None:
    """Write JSON and table."""
    (folder / "gpu_check.json").write_text(json.dumps(report, indent=1))
    (folder / "gpu_check.md").write_text(table(report))


def table(report: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    known = report["machine"]
    lines = [
        f"{known.get('gpu') or 'CPU'}, {known['cores']} cores, torch {known['torch']}, cuDNN {known.get('cudnn')}",
        "",
        "| part | state | s | result |",
        "|---|---|---:|---|",
    ]
    for name, part in report["parts"].items():
        lines.append(f"| {name} | {part['state']} | {part['seconds']:.0f} | {result_text(part.get('figures', {}))} |")
    return "\n".join(lines) + "\n"


def result_text(figures: dict[str, Any]) -> str:
    """Say the figures of a part in one line."""
    if "dense_dice" in figures:
        return f"dense Dice {figures['dense_dice']:.3f} from scribbles"
    if "passed" in figures:
        return ", ".join(f"{count} {word}" for word, count in figures.items())
    if "iterations_per_s" not in figures:
        return "-"
    parts = [
        f"{figures['batch']}x{'x'.join(map(str, figures['patch']))} {figures['precision']}"
        + (", compiled" if figures["compiled"] else ", not compiled"),
        f"**{figures['iterations_per_s']:.2f} it/s**",
        f"{figures['workers']} workers, {100 * figures['data_wait_share']:.1f} % waiting for data",
    ]
    if "reserved_gb" in figures:
        parts.append(f"{figures['reserved_gb']:.1f} GB reserved, {figures['planned_gb']:.0f} planned")
    if "split_ms" in figures:
        parts.append(", ".join(f"{name} {value:.1f} ms" for name, value in figures["split_ms"].items()))
    if "theirs" in figures:
        parts.append(f"theirs {figures['theirs']['iterations_per_s']:.2f} it/s")
    return "; ".join(parts)


if __name__ == "__main__":
    main()
