"""Prediction of a volume that is killed again and again: ``python killed_volume.py MODEL VOLUME OUTPUT KILLS``.

Each attempt is a process that is forked from this one, which has only imported what it needs, and gets SIGKILL a random
time after it began to predict: at most 0.3 of the time that an undisturbed prediction took. The last attempt is left
alone. Prints how many attempts ended before they were killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import tensorstore  # noqa: F401 (imported once here, and not used before the fork)
import yaozarrs.v05  # noqa: F401

from autoseg.inference import Predictor, predict_volume, predictor, volume_arrays, volume_options
from autoseg.inference.predictor_group import PredictorGroup

LONGEST_PART = 0.3
"""Of the time of an undisturbed prediction: after this part an attempt is killed at the latest."""


def predict(model, volume, output, **options):
    """Predict a volume in shards of 4 x 16 x 16 voxels, so that there are many."""
    volume_arrays.CHUNK, volume_arrays.SHARD = 4, 16
    loaded = Predictor.load(model, device="cpu", mirror=False)
    group = PredictorGroup((replace(loaded, autocast_dtype=None),))
    settings = volume_options.VolumeOptions(**options)
    return predict_volume.predict_volume(
        group, (volume,), Path(output), settings, save_probabilities=True, save_uncertainty=True
    )


def attempt(model, volume, output, began):
    """Predict in this process, which then ends; write a byte to the pipe ``began`` after all preparations."""
    original = predict_volume._predict_units

    def announced(*arguments, **options):
        os.write(began, b"!")
        original(*arguments, **options)

    predict_volume._predict_units = announced
    predictor.choose_dtype = lambda *arguments: None  # it measures for a while
    try:
        predict(model, volume, output)
    finally:
        os.write(began, b"?")
        os._exit(0)


def run(model, volume, output, kill_after_s=None):
    """Predict in a process of its own; return whether it ended by itself, and the seconds from its beginning."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        attempt(model, volume, output, writing)
    os.read(reading, 1)
    began = time.perf_counter()
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    return os.WIFEXITED(status), time.perf_counter() - began


def main(model, volume, output, n_kills):
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as undisturbed:
        _, seconds = run(model, volume, undisturbed)
    kills = [run(model, volume, output, rng.uniform(0, LONGEST_PART * seconds)) for _ in range(int(n_kills))]
    n_ended = sum(ended for ended, _ in kills) + run(model, volume, output)[0]
    sys.stdout.write(str(n_ended))


if __name__ == "__main__":
    main(*sys.argv[1:])
