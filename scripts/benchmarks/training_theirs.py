"""nnU-Net's training step on a batch that is always there; for an interpreter that has nnU-Net v2.

python training_theirs.py SETTINGS, where SETTINGS is JSON; the last line of the output is JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from benchmark_rows.step_theirs import network_of, nnunet_loss


def main() -> None:
    """Train, and print iterations per second."""
    settings = json.loads(sys.argv[1])
    device = torch.device(settings["device"])
    torch.manual_seed(0)
    network = network_of(settings["topology"], settings["classes"]).to(device)
    if settings["compile"]:
        network = torch.compile(network)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # as their command line does
    shape = (settings["batch"], 1, *settings["patch"])
    images = torch.randn(shape, device=device)
    classes = torch.randint(0, settings["classes"], shape, device=device, dtype=torch.int16)
    scaler = torch.amp.GradScaler("cuda") if device.type == "cuda" else None
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    with torch.no_grad():
        sizes = [output.shape[2:] for output in network(images)]
    targets = [torch.nn.functional.interpolate(classes.float(), size=size, mode="nearest-exact") for size in sizes]
    loss = nnunet_loss(len(sizes))

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, enabled=device.type == "cuda"):
            value = loss(network(images), targets)
        if scaler is None:
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
            optimizer.step()
        else:
            scaler.scale(value).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
            scaler.step(optimizer)
            scaler.update()
        return value.detach().cpu()  # as theirs, every step

    for _ in range(settings["warmup"]):
        step()
    n_steps, started, computed = settings["steps"], time.perf_counter(), time.process_time()
    for _ in range(n_steps):
        step()
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - computed
    print(json.dumps({"iterations_per_s": n_steps / seconds, "processor_s": processor_seconds / n_steps}))


if __name__ == "__main__":
    main()
