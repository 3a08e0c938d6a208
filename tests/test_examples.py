"""The example that makes thumbnails, run as a user runs it: by the name of its handlers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from actors import Await, Job, ListJobs, Settings, Submit, System, start
from actors.errors import InvalidJob

#: Seconds after which a test gives up; nothing waits for so long unless it is broken.
LIMIT = 60.0
#: Where EXIF says how the camera was held, and what it says there if it was held upright.
ORIENTATION, UPRIGHT = 0x0112, 6


@pytest.fixture
def system() -> Iterator[System]:
    with start(Settings(handlers="examples.thumbnails:handlers")) as system:
        yield system


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Return a landscape: 640 x 480 pixels."""
    path = tmp_path / "photo.png"
    Image.new("RGB", (640, 480), "green").save(path)
    return path


def run(system: System, source: Path, destination: Path, size: int = 64) -> Job:
    payload = {"source": str(source), "destination": str(destination), "size": size}
    submitted = system.store.ask(Submit("thumbnail", payload), block=True)
    job: Job = system.store.ask(Await(submitted.id), block=True, timeout=LIMIT)
    return job


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_image_becomes_a_thumbnail_of_the_size_asked_for(system: System, photo: Path) -> None:
    destination = photo.with_name("small.jpg")
    job = run(system, photo, destination, size=64)
    assert job.last_error is None
    assert job.result == {"path": str(destination), "width": 64, "height": 48}
    with Image.open(destination) as image:
        assert (image.format, image.size) == ("JPEG", (64, 48))
    assert files(photo.parent) == {"photo.png", "small.jpg"}


def test_a_photo_taken_with_the_camera_upright_stays_upright(system: System, tmp_path: Path) -> None:
    source, destination = tmp_path / "photo.jpg", tmp_path / "small.jpg"
    exif = Image.Exif()
    exif[ORIENTATION] = UPRIGHT
    Image.new("RGB", (640, 480)).save(source, exif=exif)
    job = run(system, source, destination, size=64)
    assert job.result == {"path": str(destination), "width": 48, "height": 64}
    with Image.open(destination) as image:
        assert (image.size, image.getexif().get(ORIENTATION)) == ((48, 64), None)


def test_a_thumbnail_may_be_read_by_whom_the_umask_allows(system: System, photo: Path) -> None:
    run(system, photo, photo.with_name("small.png"))
    assert photo.with_name("small.png").stat().st_mode == photo.stat().st_mode


@pytest.mark.parametrize(
    ("field", "wrong"), [("source", None), ("destination", 5), ("size", 15), ("size", 2049), ("size", "64")]
)
def test_a_payload_that_does_not_fit_is_refused_with_the_path_of_the_wrong_field(
    system: System, photo: Path, field: str, wrong: Any
) -> None:
    payload = {"source": str(photo), "destination": str(photo.with_name("small.jpg")), "size": 64}
    with pytest.raises(InvalidJob, match=rf"`\$\.payload\.{field}`"):
        system.store.ask(Submit("thumbnail", payload | {field: wrong}))
    assert system.store.ask(ListJobs()) == []
    assert files(photo.parent) == {"photo.png"}


def test_a_file_that_is_no_image_fails_the_job_and_nothing_is_written(system: System, tmp_path: Path) -> None:
    source = tmp_path / "letter.png"
    source.write_text("Dear Sir or Madam")
    job = run(system, source, tmp_path / "small.png")
    assert (job.status, job.attempts) == ("failed", 1)
    assert job.last_error == f"UnidentifiedImageError: cannot identify image file {str(source)!r}"
    assert files(tmp_path) == {"letter.png"}


def test_half_an_image_fails_the_job_and_nothing_is_written(system: System, photo: Path) -> None:
    whole = photo.read_bytes()
    photo.write_bytes(whole[: len(whole) // 2])
    job = run(system, photo, photo.with_name("small.png"))
    assert (job.status, "truncated" in str(job.last_error)) == ("failed", True)
    assert files(photo.parent) == {"photo.png"}


def test_a_folder_that_does_not_exist_fails_the_job_and_is_not_made(system: System, photo: Path) -> None:
    missing = photo.parent / "missing"
    job = run(system, photo, missing / "small.png")
    assert job.status == "failed"
    assert str(job.last_error).startswith("FileNotFoundError: [Errno 2] No such file or directory: ")
    assert str(missing) in str(job.last_error)
    assert files(photo.parent) == {"photo.png"}


def test_a_thumbnail_that_cannot_be_written_leaves_the_one_that_was_there(
    system: System, tmp_path: Path
) -> None:
    source, destination = tmp_path / "logo.png", tmp_path / "small.jpg"
    Image.new("RGBA", (640, 480)).save(source)
    destination.write_bytes(b"yesterday's")
    job = run(system, source, destination)
    assert (job.status, job.last_error) == ("failed", "OSError: cannot write mode RGBA as JPEG")
    assert destination.read_bytes() == b"yesterday's"
    assert files(tmp_path) == {"logo.png", "small.jpg"}
