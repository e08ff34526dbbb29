"""Prediction of a volume that is killed again and again: ``python killed_volume.py MODEL VOLUME OUTPUT KILLS``.

Each attempt is a process that is forked from this one, which has only imported what it needs, and gets SIGKILL a random
time after it began to predict. The last attempt is left alone. Prints how many attempts ended before they were killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import tensorstore  # noqa: F401 (imported once here, and not used before the fork)
import yaozarrs.v05  # noqa: F401

from autoseg.inference import Predictor, predict_volume, predictor, volume_arrays, volume_options
from autoseg.inference.predictor_group import PredictorGroup

LONGEST_S = 0.25


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


def main(model, volume, output, n_kills):
    rng, n_ended = random.Random(0), 0
    for number in range(int(n_kills) + 1):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            attempt(model, volume, output, writing)
        if number < int(n_kills):
            os.read(reading, 1)
            time.sleep(rng.uniform(0, LONGEST_S))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        n_ended += os.WIFEXITED(status)
    sys.stdout.write(str(n_ended))


if __name__ == "__main__":
    main(*sys.argv[1:])
