from __future__ import annotations

import numpy as np
import pytest
from em_table import EmRun, cells, count_cells, count_missed, markdown, pairs
from measure_em import TITLES, annotated_sections, checked_source, chosen_systems, thinned
from skimage.metrics import adapted_rand_error, variation_of_information
from toy import write_toy_dataset

from autoseg.core.errors import ConfigError
from autoseg.dataset.dataset import Dataset
from autoseg.planning.splits import make_splits, read_splits

NAMES = [f"section_{number:02d}" for number in range(20)]


def grid(*, gap: bool = False) -> np.ndarray:
    """Return four cells of 7 x 7 pixels, parted by a cross of membrane, in which a pixel is missing if ``gap``."""
    membrane = np.zeros((15, 15), dtype=np.uint8)
    membrane[7], membrane[:, 7] = 1, 1
    if gap:
        membrane[7, 3] = 0
    return membrane


def run(system: str, seed: int, dice: float, every: int = 1) -> EmRun:
    return EmRun(every, 16, system, seed, 1.0, dice, 0.5 - dice / 4, 0.25, 0.75, 0.1, 0.2)


def test_every_third_section_is_annotated_and_the_same_ones_are_held_out():
    everything, held_out = annotated_sections(NAMES, 1)
    third, same = annotated_sections(NAMES, 3)
    assert (tuple(everything), tuple(held_out)) == (make_splits(NAMES)[0].train, make_splits(NAMES)[0].val)
    assert same == held_out
    assert third == everything[1::3]
    assert len(third) == 5


def test_a_distance_beyond_the_sections_is_refused():
    with pytest.raises(ConfigError, match="--every 40: found 16 training sections"):
        annotated_sections(NAMES, 40)


def test_a_thinned_data_set_holds_only_annotated_and_held_out_sections(tmp_path):
    source = Dataset.load(write_toy_dataset(tmp_path / "Dataset900_Dense", n_cases=10, shape=(1, 8, 8), sparse=False))
    data = thinned(source, 3, tmp_path / "new")
    training, held_out = annotated_sections(source.case_names, 3)
    assert data.case_names == tuple(sorted([*training, *held_out]))
    (split,) = read_splits(tmp_path / "new" / "splits_final.json")
    assert (list(split.train), list(split.val)) == (training, held_out)
    assert thinned(source, 3, tmp_path / "new").case_names == data.case_names


def test_more_than_a_membrane_is_refused(tmp_path):
    folder = write_toy_dataset(tmp_path / "Dataset900_Sparse", n_cases=2, sparse=True)
    with pytest.raises(ConfigError, match="expected background and a membrane, densely drawn"):
        checked_source(folder)


def test_systems_of_nnunet_need_its_python():
    assert chosen_systems(None, None) == ["autoseg", "autoseg-em"]
    with pytest.raises(ConfigError, match="Give --nnunet-python"):
        chosen_systems(["nnunet"], None)
    with pytest.raises(ConfigError, match="found other, expected some of"):
        chosen_systems(["other"], None)


def test_cells_are_parted_by_membranes_that_meet_at_corners():
    diagonal = np.eye(5, dtype=np.uint8)
    assert cells(diagonal).max() == 2
    assert cells(np.ones((3, 3))).max() == 0


def test_a_thin_membrane_is_no_error_and_a_gap_merges_cells():
    wide = grid()
    wide[6:9], wide[:, 6:9] = 1, 1
    thin = count_cells(wide, grid())
    assert (thin.rand_error, thin.split, thin.merge, thin.n_voxels) == (0, 0, 0, 4 * 36)
    merged = count_cells(grid(), grid(gap=True))
    assert (merged.split, merged.merge) == (0, pytest.approx(0.5))  # two of four equal cells are one: 1 bit for half
    drawn, predicted = 4 * 49 * 48 / 2, 2 * 49 * 48 / 2 + 98 * 97 / 2  # pairs of pixels in one cell
    assert merged.rand_error == pytest.approx(1 - 2 * drawn / (predicted + drawn))


def test_pixels_of_cells_predicted_as_membrane_are_an_object_of_their_own():
    everything = count_cells(grid(), np.ones_like(grid()))
    assert (everything.split, everything.merge, everything.rand_error) == (0, pytest.approx(2), 1)


@pytest.mark.parametrize("shape", [(40, 60), (1, 40, 60), (3, 40, 60)], ids=["2d", "one section", "3d"])
def test_missed_voxels_are_counted_apart_in_thin_and_wide_membranes(shape):
    reference = np.zeros(shape, dtype=np.uint8)
    reference[..., :, 40:45] = 1  # a membrane of five pixels
    reference[..., 5:35, 5:35] = 1  # a spot of 30 x 30, of which the opening takes corners away
    n_sections = reference.size // 2400
    thin, wide = count_missed(reference, reference)
    assert (thin[0], wide[0]) == (0, 0)
    assert thin.sum() + wide.sum() == np.count_nonzero(reference)
    assert 800 * n_sections < wide[1] < 900 * n_sections
    found = reference.copy()
    found[..., :10, 40:45] = 0
    assert count_missed(reference, found)[:, 0].tolist() == [50 * n_sections, 0]
    found[..., 20, 20] = 0
    assert count_missed(reference, found)[:, 0].tolist() == [50 * n_sections, n_sections]
    assert not count_missed(np.zeros(shape), np.ones(shape)).any()


def test_scores_are_those_of_scikit_image_within_the_cells_of_the_reference():
    rng = np.random.default_rng(0)
    reference, prediction = ((rng.random((40, 40)) < 0.45).astype(np.uint8) for _ in range(2))
    prediction[reference == 0] = 0  # no pixel of a cell is missed, where the two differ by design
    drawn, predicted = cells(reference), cells(prediction)
    inside = drawn != 0
    counts = count_cells(reference, prediction)
    split, merge = variation_of_information(drawn[inside], predicted[inside])
    assert {round(counts.split, 6), round(counts.merge, 6)} == {round(split, 6), round(merge, 6)}
    assert counts.rand_error == pytest.approx(adapted_rand_error(drawn, predicted)[0], abs=1e-3)


def test_the_table_shows_mean_and_range_over_the_seeds():
    runs = [run("autoseg", 2, 0.8), run("autoseg", 1, 0.7), run("autoseg-em", 1, 0.75), run("autoseg", 1, 0.6, 3)]
    table = markdown(runs, TITLES).splitlines()
    assert [line.split(" | ")[2] for line in table[2:]] == ["1, 2", "1", "1"]
    assert "0.750 (0.700 to 0.800)" in table[2]
    assert table[4].startswith("| every 3. (16) | autoseg |")


def test_differences_are_of_pairs_with_equal_seeds():
    runs = [run("autoseg", 1, 0.7), run("autoseg", 2, 0.8), run("autoseg-em", 2, 0.78), run("autoseg-em", 3, 0.9)]
    (line,) = pairs(runs, TITLES).splitlines()[2:]
    assert line == "| all | autoseg, `augmentation=em` | 1 | -0.020 | 0 | +0.005 | 0 |"
