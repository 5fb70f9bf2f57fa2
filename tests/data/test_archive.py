"""Reading of folders and zip files, including malicious ones."""

import io
import os
import struct
import warnings
import zipfile
from pathlib import Path

import pytest

from chromozoo.data.io import archive
from chromozoo.data.io.archive import name_bytes, open_archive
from chromozoo.errors import DatasetError

PNG = b"an image" * 100


def write(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def patch(path: Path, offset: int, value: bytes, local: int | None = None) -> None:
    """Write into the first entry of the central directory, and into its local header if given."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02")
    data[start + offset : start + offset + len(value)] = value
    if local is not None:
        data[local : local + len(value)] = value
    path.write_bytes(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_folders_and_zip_files_are_read(method: int, tmp_path: Path) -> None:
    files = {"a/1.png": PNG, "b.json": b"{}", "empty.txt": b""}
    path = write(tmp_path / "set.zip", files, method)
    (tmp_path / "set" / "a").mkdir(parents=True)
    for name, data in files.items():
        (tmp_path / "set" / name).write_bytes(data)
    for place in (path, tmp_path / "set"):
        with open_archive(place) as opened:
            assert opened.names() == sorted(files)
            assert {name: opened.read(name) for name in opened.names()} == files
            with pytest.raises(DatasetError, match=r"none\.png.*(not there|no such file)"):
                opened.read("none.png")


def test_separators_of_windows(tmp_path: Path) -> None:
    path = write(tmp_path / "set.zip", {"a\\b\\1.png": PNG})
    with open_archive(path) as opened:
        assert opened.names() == ["a/b/1.png"] and opened.read("a/b/1.png") == PNG


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["../1.png"], "'../1.png' leads out of the zip file; pack it again"),
        (["a/../../1.png"], "leads out"),
        (["/etc/1.png"], "leads out"),
        (["..\\1.png"], "leads out"),
        (["a.png", "a.png"], "holds two files named 'a.png'; pack it again"),
        (["a\\b.png", "a/b.png"], "holds two files named 'a/b.png'"),
    ],
)
def test_dangerous_names_are_refused(names: list[str], said: str, tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # zipfile's own, of two of one name
                file.writestr(name, PNG)
    with pytest.raises(DatasetError, match=rf"set\.zip: .*{said}"), open_archive(path):
        pass


def test_zip_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"

    def refused(said: str) -> None:
        with pytest.raises(DatasetError, match=rf"set\.zip: .*{said}"), open_archive(path):
            pass

    write(path, {"1.png": PNG})
    patch(path, 6, struct.pack("<H", 99))
    refused(r"of a kind that cannot be read \(zip file version 9\.9\); pack it again")
    write(path, {"1.png": PNG})
    patch(path, 8, struct.pack("<H", 0x800))
    patch(path, 46, b"\xff")
    refused("said to be UTF-8 and is not .*; pack it again")
    path.write_bytes(b"PK\x05\x06" + bytes(10))
    refused("not a whole zip file .*; fetch or copy it again")
    path.unlink()
    refused("no such folder or zip file; check the path")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "set.zip")
    with pytest.raises(DatasetError, match="no such folder"), open_archive(tmp_path / "set.zip"):
        pass
    with open_archive(tmp_path) as opened:
        assert opened.names() == []
        with pytest.raises(DatasetError, match="no such file"):
            opened.read("set.zip")


@pytest.mark.parametrize(
    ("offset", "local", "value", "said"),
    [
        (8, 6, struct.pack("<H", 1), "is encrypted; unpack the archive with its password"),
        (
            10,
            8,
            struct.pack("<H", 12),
            r"is packed by a method that is not read \(number 12\); pack",
        ),
        (10, 8, struct.pack("<H", 99), "is packed by a method"),
        (16, 14, b"\0\0\0\0", "is damaged .*Bad CRC"),
        (24, 22, struct.pack("<I", 2**32 - 2), "has 4,294,967,294 bytes, more than any file"),
        (24, 22, struct.pack("<I", 10), "is damaged"),
    ],
)
def test_members_that_cannot_be_read(
    offset: int, local: int, value: bytes, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "set.zip", {"1.png": PNG})
    patch(path, offset, value, local)
    with open_archive(path) as opened:
        assert opened.names() == ["1.png"]
        with pytest.raises(DatasetError, match=rf"set\.zip: 1\.png {said}"):
            opened.read("1.png")


def test_decompression_stops_at_the_declared_size(tmp_path: Path) -> None:
    """A file with 200 MB in place of the declared 100 bytes takes the memory of one step."""
    resource = pytest.importorskip("resource")
    path = write(tmp_path / "set.zip", {"1.png": bytes(200_000_000)})
    patch(path, 24, struct.pack("<I", 100), 22)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_archive(path) as opened, pytest.raises(DatasetError, match="is damaged"):
        opened.read("1.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    # A method that may decompress everything in one step is refused.
    path = write(tmp_path / "rare.zip", {"1.png": bytes(2_000_000)}, zipfile.ZIP_BZIP2)
    with (
        open_archive(path) as opened,
        pytest.raises(DatasetError, match="by a method that is"),
    ):
        opened.read("1.png")


def test_files_of_any_size_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 100)
    (tmp_path / "1.png").write_bytes(bytes(101))
    zipped = write(tmp_path / "set.zip", {"1.png": bytes(101)})
    for path in (tmp_path, zipped):
        with open_archive(path) as opened, pytest.raises(DatasetError, match="has 101 bytes, more"):
            opened.read("1.png")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    try:
        (tmp_path / "b\udce9.png").write_bytes(PNG)
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes no such names")
    with open_archive(tmp_path) as opened:
        (name,) = opened.names()
        assert opened.read(name) == PNG and name_bytes(name) == b"b\xe9.png"
    assert name_bytes("ä") == "ä".encode()
    assert io.BytesIO(name_bytes(name)).read()
