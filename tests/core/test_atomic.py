import errno
import json

import pytest

from autoseg.core.atomic import atomic_path, atomic_paths, write_json, write_text
from autoseg.core.errors import StorageError


def test_the_file_appears_when_the_block_succeeds_and_the_temporary_name_keeps_the_ending(tmp_path):
    target = tmp_path / "new" / "case.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.startswith(".")
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_block_leaves_the_former_file_and_no_debris(tmp_path):
    target = tmp_path / "case.txt"
    write_text(target, "former")
    with pytest.raises(RuntimeError, match="interrupted"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("interrupted")
    assert target.read_text() == "former"
    assert list(tmp_path.iterdir()) == [target]


def test_a_block_that_writes_nothing_is_an_error_and_leaves_the_former_file(tmp_path):
    target = tmp_path / "case.txt"
    write_text(target, "former")
    with pytest.raises(FileNotFoundError), atomic_path(target):
        pass
    assert target.read_text() == "former"


def test_several_files_appear_together_or_not_at_all(tmp_path):
    targets = [tmp_path / "a.npy", tmp_path / "b.npy"]
    with pytest.raises(FileNotFoundError), atomic_paths(targets) as temporaries:
        temporaries[0].write_bytes(b"half")
    assert not list(tmp_path.iterdir())
    with atomic_paths(targets) as temporaries:
        for number, temporary in enumerate(temporaries):
            temporary.write_bytes(bytes([number]))
        assert not any(target.exists() for target in targets)
    assert [target.read_bytes() for target in targets] == [b"\0", b"\1"]
    assert sorted(tmp_path.iterdir()) == targets


def test_json_is_valid_json_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"dice": 0.5, "name": "größe"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"dice": 0.5, "name": "größe"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"dice": float("nan")})
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=errno.errorcode.get)
def test_a_full_disk_is_reported_and_leaves_the_existing_file(tmp_path, number):
    path = tmp_path / "x.json"
    write_text(path, "old")
    with pytest.raises(StorageError, match=r"x\.json: cannot be written"), atomic_path(path) as temporary:
        temporary.write_text("half")
        try:
            raise OSError(number, "there is no room")
        except OSError as error:
            raise RuntimeError("a writer that wraps it") from error
    assert [item.name for item in tmp_path.iterdir()] == ["x.json"]
    assert path.read_text() == "old"


def test_other_errors_of_a_writer_are_left_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"), atomic_path(tmp_path / "x"):
        raise RuntimeError("a bug")
