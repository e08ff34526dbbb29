"""Folders of masks become label maps, tables and a data set; what does not fit is said before anything is written."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from autoseg.core.errors import ConfigError, DatasetError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.interop import mask_votes
from autoseg.interop.expert_masks import classes_of, find_mask_sets
from autoseg.interop.expert_tables import write_tables
from autoseg.interop.fused_dataset import FusionRequest, prepare, write
from autoseg.io import images as image_files
from autoseg.io.images import read_header, read_labels, write_labels

FLAT = Geometry(spacing=(1.0, 1.0, 1.0), ndim=2)
DEEP = Geometry(spacing=(3.0, 1.0, 0.5), ndim=3)
DIMENSIONS = pytest.mark.parametrize(
    ("shape", "geometry", "ending"), [((1, 20, 24), FLAT, ".png"), ((5, 12, 10), DEEP, ".nii.gz")], ids=["2d", "3d"]
)


def write_experts(folder, votes, geometry, ending, *, suffix="", first=1):
    """Write votes (image, expert, z, y, x) as masks ``<number><suffix>``, and an image for each."""
    for number, masks in enumerate(votes, first):
        for expert, mask in enumerate(masks):
            write_labels(folder / "masks" / f"expert_{expert}" / f"{number}{suffix}{ending}", mask, geometry)
        grey = np.random.default_rng(number).integers(0, 200, masks.shape[1:]).astype(np.uint8)
        write_labels(folder / "images" / f"{number}{ending}", grey, geometry)


def random_votes(shape, n_classes, n_images=2, n_experts=3, seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, n_classes, (n_images, 1, *shape))
    noise = generator.integers(0, n_classes, (n_images, n_experts, *shape))
    return np.where(generator.random(noise.shape) < 0.8, truth, noise).astype(np.uint8)


def request_of(folder, **options):
    defaults = {
        "masks": folder / "masks", "output": folder / "new", "images": folder / "images", "method": "staple",
        "undecided": "ignore", "instances": False, "unlabelled": None, "names": None, "channel_names": None,
        "mask_suffix": None, "soft": False, "copy": False, "pictures": False, "workers": 1,
    }  # fmt: skip
    return FusionRequest(**(defaults | options))


def prepared_by(request):
    request.masks.parent.joinpath("scratch").mkdir(exist_ok=True)
    return prepare(request, request.masks.parent / "scratch")


def fused(folder, **options):
    request = request_of(folder, **options)
    return write(request, prepared_by(request)).agreements


@DIMENSIONS
def test_masks_become_a_data_set_with_the_geometry_of_the_images(tmp_path, shape, geometry, ending):
    write_experts(tmp_path, random_votes(shape, 3), geometry, ending, suffix="_mask")
    agreements = fused(tmp_path, names=("background", "cell", "fibre"))
    dataset = Dataset.load(tmp_path / "new")
    assert dataset.case_names == ("1", "2") and dataset.labels.class_names == ("background", "cell", "fibre")
    for case in dataset.cases:
        assert read_header(case.label)[1].spacing[1:] == pytest.approx(geometry.spacing[1:])
        assert read_header(case.images[0])[0] == (1, *shape)
    assert [item.name for item in agreements] == ["1_mask", "2_mask"]
    assert all(item.dice.shape == (3, 3) for item in agreements)


def test_one_image_of_a_data_set_is_that_of_its_case(tmp_path):
    write_experts(tmp_path, random_votes((5, 12, 10), 2, n_images=1), DEEP, ".nii.gz")
    (tmp_path / "images" / "1.nii.gz").rename(tmp_path / "images" / "1_0000.nii.gz")
    fused(tmp_path)
    assert Dataset.load(tmp_path / "new").case_names == ("1",)
    assert [path.name for path in (tmp_path / "new" / "imagesTr").iterdir()] == ["1_0000.nii.gz"]


@DIMENSIONS
def test_sets_of_all_images_share_their_file_values(tmp_path, shape, geometry, ending):
    votes = np.zeros((2, 2, *shape), dtype=np.uint8)
    votes[0, 0, 0, 0, :3], votes[0, 1, 0, 0, :3] = (1, 1, 0), (2, 1, 2)  # sets {1, 2}, {1}, {0, 2}
    votes[1, 0, 0, 0, :2], votes[1, 1, 0, 0, :2] = (2, 1), (1, 3)  # sets {1, 2}, {1, 3}
    write_experts(tmp_path, votes, geometry, ending)
    fused(tmp_path, method="sets")
    dataset = Dataset.load(tmp_path / "new")
    sets = {frozenset(members): int(value) for value, members in dataset.json["label_sets"].items()}
    names = dataset.labels.class_names
    one, _ = read_labels(dataset.case("1").label)
    other, _ = read_labels(dataset.case("2").label)
    both = sets[frozenset({names[1], names[2]})]
    assert one[0, 0, :4].tolist() == [both, 1, sets[frozenset({names[0], names[2]})], 0]
    assert other[0, 0, :3].tolist() == [both, sets[frozenset({names[1], names[3]})], 0]


def test_binary_masks_of_255_become_class_1_and_ties_unknown(tmp_path):
    votes = np.zeros((1, 2, 1, 4, 4), dtype=np.uint8)
    votes[0, 0, 0, 0] = votes[0, 1, 0, 0] = 255
    votes[0, 1, 0, 1] = 255
    write_experts(tmp_path, votes, FLAT, ".png")
    fused(tmp_path, method="majority")
    dataset = Dataset.load(tmp_path / "new")
    assert dataset.labels.ignore == 2
    labels, _ = read_labels(dataset.case("1").label)
    np.testing.assert_array_equal(labels[0], np.array([1, 2, 0, 0])[:, None].repeat(4, axis=1))
    fused(tmp_path, method="majority", undecided="background", output=tmp_path / "decided")
    assert Dataset.load(tmp_path / "decided").labels.ignore is None


def test_touching_instances_stay_apart(tmp_path):
    votes = np.zeros((1, 2, 1, 9, 9), dtype=np.uint8)
    votes[0, :, 0, 1:4, 1:8], votes[0, :, 0, 4:8, 1:8] = 3, 9
    write_experts(tmp_path, votes, FLAT, ".png")
    (agreement,) = fused(tmp_path, instances=True)
    assert agreement.precision.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    labels, _ = read_labels(tmp_path / "new" / "labelsTr" / "1.png")
    assert labels[0, 1:4, 1:8].all() and not labels[0, 4, 1:8].any() and labels[0, 5:8, 1:8].all()


def test_what_an_expert_left_out_is_no_vote(tmp_path):
    votes = np.zeros((1, 2, 1, 4, 4), dtype=np.uint8)
    votes[0, 0, 0, 0], votes[0, 0, 0, 1:] = 1, 7
    votes[0, 1, 0, 3], votes[0, 1, 0, :2] = 1, 7
    write_experts(tmp_path, votes, FLAT, ".png")
    fused(tmp_path, unlabelled=7)
    labels, _ = read_labels(tmp_path / "new" / "labelsTr" / "1.png")
    np.testing.assert_array_equal(labels[0, :, 0], [1, 2, 0, 1])


def test_0_may_be_what_is_unlabelled_and_background_another_value(tmp_path):
    votes = np.zeros((1, 1, 1, 4, 4), dtype=np.uint8)
    votes[0, 0, 0, 0], votes[0, 0, 0, 1] = 1, 2
    write_experts(tmp_path, votes, FLAT, ".png")
    fused(tmp_path, unlabelled=0)
    labels, _ = read_labels(tmp_path / "new" / "labelsTr" / "1.png")
    np.testing.assert_array_equal(labels[0, :, 0], [0, 1, 2, 2])
    write_experts(tmp_path, np.zeros_like(votes), FLAT, ".png")
    fused(tmp_path, unlabelled=0, output=tmp_path / "nothing")
    assert (read_labels(tmp_path / "nothing" / "labelsTr" / "1.png")[0] == 2).all()


def test_an_expert_may_lack_images(tmp_path):
    write_experts(tmp_path, random_votes((1, 8, 8), 2, n_images=3), FLAT, ".png")
    (tmp_path / "masks" / "expert_0" / "1.png").unlink()
    (tmp_path / "masks" / "expert_1" / "1.png").unlink()
    (tmp_path / "images" / "3.png").unlink()
    request = request_of(tmp_path)
    prepared = prepared_by(request)
    assert any("one expert only" in line and "1" in line for line in prepared.remarks)
    assert any("masks without an image" in line for line in prepared.remarks)
    agreements = write(request, prepared).agreements
    assert [item.experts for item in agreements] == [("expert_2",), ("expert_0", "expert_1", "expert_2")]


def test_tables_hold_every_expert_and_no_nan(tmp_path):
    votes = random_votes((1, 8, 8), 3)
    votes[votes == 2] = 0
    votes[0, 0, 0, 0, 0] = 2
    write_experts(tmp_path, votes, FLAT, ".png")
    request = request_of(tmp_path, images=None)
    prepared = prepared_by(request)
    written = write(request, prepared)
    write_tables(tmp_path / "new", written.agreements, prepared.settings.names, {"method": "staple"})
    with (tmp_path / "new" / "experts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["expert"]) for row in rows] == [
        (f"{n}", f"expert_{e}") for n in (1, 2) for e in (0, 1, 2)
    ]
    assert rows[3]["dice_class_2"] == ""  # nobody named it there
    summary = json.loads((tmp_path / "new" / "experts.json").read_text(), parse_constant=pytest.fail)
    assert summary["agreement"]["mean_dice"][0][0] == 1 and len(summary["experts"]) == 3
    assert (tmp_path / "new" / "labels" / "1.png").is_file() and not (tmp_path / "new" / "dataset.json").exists()


def test_pictures_are_drawn_with_and_without_image(tmp_path):
    write_experts(tmp_path, random_votes((4, 9, 8), 3, n_images=1), DEEP, ".nii.gz")
    for images in (None, tmp_path / "images"):
        output = tmp_path / f"new_{images is None}"
        fused(tmp_path, images=images, pictures=True, output=output)
        shape, _ = read_header(output / "pictures" / "1.png")
        assert shape[0] == 3 and min(shape[2:]) > 100


def test_faults_are_named_before_anything_is_written(tmp_path):
    with pytest.raises(DatasetError, match="no folder"):
        find_mask_sets(tmp_path / "nothing")
    write_experts(tmp_path, random_votes((1, 8, 8), 2), FLAT, ".png")
    with pytest.raises(DatasetError, match="2 masks, but no folders"):
        find_mask_sets(tmp_path / "masks" / "expert_0")
    with pytest.raises(ConfigError, match="mean 'staple'"):
        prepared_by(request_of(tmp_path, method="stapel"))
    with pytest.raises(ConfigError, match="no class of this name"):
        prepared_by(request_of(tmp_path, undecided="cell"))
    with pytest.raises(ConfigError, match="--channel-names: found 2"):
        prepared_by(request_of(tmp_path, channel_names=("a", "b")))
    for option in ({"channel_names": ("a",)}, {"copy": True}, {"mask_suffix": "_m"}):
        with pytest.raises(ConfigError, match="without --images"):
            prepared_by(request_of(tmp_path, images=None, **option))
    with pytest.raises(ConfigError, match="contains files"):
        prepared_by(request_of(tmp_path, output=tmp_path / "masks"))
    (tmp_path / "masks" / "expert_9").mkdir()
    with pytest.raises(DatasetError, match="no mask"):
        prepared_by(request_of(tmp_path))
    (tmp_path / "masks" / "expert_9").rmdir()
    write_labels(tmp_path / "masks" / "expert_0" / "2.png", np.ones((1, 8, 9), dtype=np.uint8), FLAT)
    with pytest.raises(DatasetError, match=r"case '2', expert 'expert_0' .*shape \(1, 8, 9\)"):
        prepared_by(request_of(tmp_path))
    with pytest.raises(DatasetError, match="different shapes"):
        prepared_by(request_of(tmp_path, images=None))
    with pytest.raises(ConfigError, match="--soft: found with --method sets"):
        prepared_by(request_of(tmp_path, method="sets", soft=True))
    with pytest.raises(ConfigError, match="--undecided: found with --method sets"):
        prepared_by(request_of(tmp_path, method="sets", undecided="background"))
    assert not (tmp_path / "new").exists()


def test_masks_that_share_no_name_are_refused(tmp_path):
    votes = random_votes((1, 8, 8), 2, n_images=1)
    write_experts(tmp_path, votes, FLAT, ".png")
    for expert in range(3):
        (tmp_path / "masks" / f"expert_{expert}" / "1.png").rename(
            tmp_path / "masks" / f"expert_{expert}" / f"1_{expert}.png"
        )
    with pytest.raises(DatasetError, match="no name that two experts share"):
        find_mask_sets(tmp_path / "masks")


def test_values_of_classes_are_kept_or_ranked():
    values = [0, 2, 40]
    assert classes_of(values).names == ("background", "class_2", "class_40")
    assert classes_of(values, names=["bg", "a", "b"]).class_of == {0: 0, 2: 1, 40: 2}
    with pytest.raises(DatasetError, match="one for each of the names"):
        classes_of(values, names=["bg", "a"])
    with pytest.raises(DatasetError, match="two with --instances"):
        classes_of(values, names=["bg", "a", "b"], are_instances=True)
    with pytest.raises(DatasetError, match="leave out --unlabelled"):
        classes_of([0, 255], unlabelled=0)


def test_too_many_values_for_classes_are_said_once(tmp_path):
    votes = np.arange(2 * 200, dtype=np.uint16).reshape(2, 1, 1, 10, 20)
    write_experts(tmp_path, votes, FLAT, ".png")
    with pytest.raises(DatasetError, match="--instances") as raised:
        prepared_by(request_of(tmp_path))
    assert len(raised.value.faults) == 1
    fused(tmp_path, instances=True)


@DIMENSIONS
@pytest.mark.parametrize("options", [{}, {"method": "sets"}, {"soft": True}, {"instances": True}])
def test_each_mask_is_read_once(tmp_path, monkeypatch, shape, geometry, ending, options):
    write_experts(tmp_path, random_votes(shape, 3), geometry, ending)
    opened = []

    def counting(path, **given):
        opened.append(path)
        return read_labels(path, **given)

    monkeypatch.setattr(mask_votes, "read_labels", counting)
    monkeypatch.setattr(image_files, "read_labels", counting)
    fused(tmp_path, **options)
    masks = [path for path in opened if path.parent.parent == tmp_path / "masks"]
    assert len(masks) == len(set(masks)) == 6


@DIMENSIONS
def test_soft_labels_have_the_share_of_votes_as_weight(tmp_path, shape, geometry, ending):
    votes = random_votes(shape, 3, n_experts=5)
    write_experts(tmp_path, votes, geometry, ending)
    fused(tmp_path, method="majority", soft=True)
    fused(tmp_path, method="majority", output=tmp_path / "hard")
    dataset, hard = Dataset.load(tmp_path / "new"), Dataset.load(tmp_path / "hard")
    for number, (case, same) in enumerate(zip(dataset.cases, hard.cases, strict=True)):
        values, _ = read_labels(case.label)
        codes, sets = dataset.labels.encode(values)
        expected, expected_sets = hard.labels.encode(read_labels(same.label)[0])
        np.testing.assert_array_equal(sets[codes], expected_sets[expected])
        share = np.stack([(votes[number] == index).mean(axis=0) for index in range(3)]).max(axis=0)
        weight = np.vectorize(lambda value: dataset.labels.value_weights.get(int(value), 1.0))(values)
        decided = expected < 3
        np.testing.assert_allclose(weight[decided], share[decided])
        assert (weight[~decided] == 1).all()


def test_values_that_no_mask_has_are_remarked(tmp_path):
    write_experts(tmp_path, random_votes((1, 8, 8), 2), FLAT, ".png")
    remarks = prepared_by(request_of(tmp_path, unlabelled=7)).remarks
    assert len(remarks) == 1 and "--unlabelled 7" in remarks[0]
    remarks = prepared_by(request_of(tmp_path, unlabelled=1)).remarks
    assert len(remarks) == 1 and "one class only" in remarks[0]


def test_without_images_the_report_says_what_values_mean(tmp_path):
    write_experts(tmp_path, random_votes((1, 8, 8), 3), FLAT, ".png")
    request = request_of(tmp_path, images=None, method="sets")
    written = write(request, prepared_by(request))
    assert set(written.values) <= {"labels", "label_sets"} and written.values["label_sets"]
    assert written.values["labels"]["background"] == 0


def test_real_experts_give_the_ground_truth_of_their_authors(tmp_path, real_data):
    for lab in ("lab-inns1", "lab-wue2"):
        labels = real_data / "multiexpert" / lab / "labels"
        masks = tmp_path / lab
        masks.mkdir()
        for folder in labels.iterdir():
            if folder.name != "est_GT":
                (masks / folder.name).symlink_to(folder)
        request = request_of(
            tmp_path, masks=masks, images=real_data / "multiexpert" / lab / "images", output=tmp_path / f"new_{lab}"
        )
        write(request, prepared_by(request))
        for case in Dataset.load(tmp_path / f"new_{lab}").cases:
            (truth_file,) = (labels / "est_GT").glob(f"{case.name}_*")
            truth = read_labels(truth_file)[0] > 0
            mine = read_labels(case.label)[0] == 1
            assert 2 * (mine & truth).sum() / (mine.sum() + truth.sum()) > 0.99


@pytest.mark.parametrize("with_images", [True, False], ids=["images", "masks only"])
def test_masks_with_mirrored_or_moved_voxels_are_refused(tmp_path, with_images):
    directed = DEEP.model_copy(update={"is_directed": True})
    votes = random_votes((5, 12, 10), 3)
    write_experts(tmp_path, votes, directed, ".nii.gz")
    images = {} if with_images else {"images": None}
    prepared_by(request_of(tmp_path, **images))
    mask = tmp_path / "masks" / "expert_1" / "2.nii.gz"
    mirrored = {"direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1), "origin": (9 * DEEP.spacing[2], 0.0, 0.0)}
    write_labels(mask, votes[1, 1, :, :, ::-1], directed.model_copy(update=mirrored))
    with pytest.raises(DatasetError, match=r"'2', expert 'expert_1'.*the voxels in the order RPS, expected LPS"):
        prepared_by(request_of(tmp_path, **images))
    write_labels(mask, votes[1, 1], directed.model_copy(update={"origin": (0.0, 0.0, 30.0)}))
    with pytest.raises(
        DatasetError, match=r"expert 'expert_1'.*origin \(0.0, 0.0, 30.0\), expected origin \(0.0, 0.0, 0.0\)"
    ):
        prepared_by(request_of(tmp_path, **images))


def test_masks_in_a_format_without_direction_have_the_geometry_of_their_image(tmp_path):
    directed = DEEP.model_copy(update={"is_directed": True, "origin": (4.0, 5.0, 6.0)})
    votes = random_votes((5, 12, 10), 3)
    write_experts(tmp_path, votes, directed, ".nii.gz")
    for number, mask in enumerate(votes[:, 0], 1):
        (tmp_path / "masks" / "expert_0" / f"{number}.nii.gz").unlink()
        write_labels(tmp_path / "masks" / "expert_0" / f"{number}.tif", mask, FLAT.model_copy(update={"ndim": 3}))
    assert len(fused(tmp_path)) == 2
