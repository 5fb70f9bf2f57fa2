"""Weights files: storage, checks on every load, lookup, download."""

import dataclasses
import hashlib
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.entries import make_entry
from torch import nn

from chromozoo import folders
from chromozoo.errors import WeightsError
from chromozoo.models.weights import checkpoint as checkpoint_weights
from chromozoo.models.weights import download
from chromozoo.models.weights import files as files_weights
from chromozoo.models.weights import storage as storage_weights
from chromozoo.structures import weights_entry as entry_weights
from chromozoo.structures.weights_entry import WeightsEntry


def make_network(width: int = 4, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, width, 3),
        nn.BatchNorm2d(width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 2),
    )
    assert isinstance(network[1], nn.BatchNorm2d)
    network[1].running_var = torch.logspace(-9, 9, width)  # more than fp16 spans
    network[1].num_batches_tracked = torch.tensor(70_000)
    return network.eval()


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's folder or the repository's, or waits."""
    monkeypatch.setenv("CHROMOZOO_HOME", str(tmp_path / "home"))
    repository = tmp_path / "repository"
    monkeypatch.setattr(
        download,
        "weights_folders",
        lambda: [folders.cache_folder() / "weights", repository / "weights"],
    )
    monkeypatch.setattr(
        download, "checkout", lambda: repository if (repository / "hubconf.py").exists() else None
    )
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.0)


@pytest.mark.parametrize(("storage", "tolerance"), [("fp32", 0.0), ("fp16", 5e-4), ("int8", 4e-3)])
def test_round_trip(storage: str, tolerance: float, tmp_path: Path) -> None:
    network = make_network()
    path, entry = storage_weights.save_weights(network, make_entry(), tmp_path, storage)
    assert path.name == entry.file == f"tiny_toy-{entry.sha256[:8]}.safetensors"
    assert (entry.size_bytes, entry.parameters) == (path.stat().st_size, 58)
    assert entry.storage == storage

    loaded = make_network(seed=1)
    storage_weights.load_into(loaded, path, entry)
    for key, wanted in network.state_dict().items():
        found = loaded.state_dict()[key]
        assert found.dtype == wanted.dtype
        if wanted.dim() > 1:
            # fp16 keeps 11 bits, int8 is within half a step of max / 127 of its channel.
            largest = wanted.abs().flatten(1).amax(1).max()
            assert (found - wanted).abs().max() <= tolerance * largest
        else:
            assert torch.equal(found, wanted), key


def test_int8_is_stored_per_output_channel(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    network = make_network()
    assert isinstance(network[0], nn.Conv2d)
    with torch.no_grad():
        network[0].weight[1] *= 1000
        network[0].weight[2] = 0
    path, entry = storage_weights.save_weights(network, make_entry(), tmp_path, "int8")
    stored = load_file(path)
    assert stored["0.weight"].dtype == torch.int8
    assert stored["0.weight::scale"].shape == (4,)
    loaded = make_network(seed=1)
    storage_weights.load_into(loaded, path, entry)
    wanted, found = network.state_dict()["0.weight"], loaded.state_dict()["0.weight"]
    # A channel a thousand times larger does not coarsen the others; an empty one stays empty.
    assert torch.allclose(found[0], wanted[0], atol=float(wanted[0].abs().max()) / 253)
    assert not found[2].any()


def test_fp16_overflow_stays_fp32_and_nan_is_refused(tmp_path: Path) -> None:
    network = make_network()
    assert isinstance(network[4], nn.Linear)
    with torch.no_grad():
        network[4].weight[0, 0] = 1e6
    path, entry = storage_weights.save_weights(network, make_entry(), tmp_path)
    loaded = make_network(seed=1)
    storage_weights.load_into(loaded, path, entry)
    assert torch.equal(loaded.state_dict()["4.weight"], network[4].weight)
    with torch.no_grad():
        network[4].weight[0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"4\.weight: holds NaN"):
        storage_weights.save_weights(network, make_entry(), tmp_path / "nan")
    assert not (tmp_path / "nan").exists()


def test_bytes_are_reproducible_and_nothing_else_is_left(tmp_path: Path) -> None:
    first, entry = storage_weights.save_weights(make_network(), make_entry(), tmp_path / "a")
    second, _ = storage_weights.save_weights(make_network(), make_entry(), tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    # Saving what was loaded, with the complete entry, gives the same file again.
    loaded = make_network(seed=1)
    storage_weights.load_into(loaded, first, entry)
    third, again = storage_weights.save_weights(loaded, entry, tmp_path / "c")
    assert third.read_bytes() == first.read_bytes()
    assert again == entry
    assert os.listdir(tmp_path / "a") == [first.name]


def test_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_weights, "MAX_BYTES", 1000)
    with pytest.raises(WeightsError, match=r"tiny_toy: .* more than 1000"):
        storage_weights.save_weights(make_network(), make_entry(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_storage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="fp8"):
        storage_weights.save_weights(make_network(), make_entry(), tmp_path, "fp8")


def test_entry_json_is_strict() -> None:
    entry = make_entry(metrics={"toy/test": {"accuracy": 0.5}}, urls=["https://example.org/a"])
    assert WeightsEntry.from_json(entry.to_json(), "x.json") == entry
    with pytest.raises(WeightsError, match=r"x\.json.*unknown fields \['sead'\].*\['seed'\]"):
        WeightsEntry.from_json(entry.to_json().replace('"seed"', '"sead"'), "x.json")
    with pytest.raises(WeightsError, match=r"x\.json.*not JSON"):
        WeightsEntry.from_json("{", "x.json")
    with pytest.raises(WeightsError, match=r"x\.json.*not a JSON object"):
        WeightsEntry.from_json("[]", "x.json")
    with pytest.raises(WeightsError, match="file name"):
        make_entry(tag="../toy")


def test_entries_of_other_versions() -> None:
    """A later version may add fields; earlier ones had fewer."""
    entry = make_entry(temperature=1.5)
    values = json.loads(entry.to_json())
    assert values["format"] == entry_weights.FORMAT == 1
    later = values | {"aliases": ["a"], "doi": None}
    with pytest.warns(UserWarning, match=r"x\.json: .*does not know.*\['aliases', 'doi'\]"):
        assert WeightsEntry.from_json(json.dumps(later), "x.json") == entry
    for name in ("format", "conformal", "urls", "intended_use"):
        earlier = {key: value for key, value in values.items() if key != name}
        assert WeightsEntry.from_json(json.dumps(earlier), "x.json") == entry
    with pytest.raises(WeightsError, match=r"x\.json: .*format 2, written by a later version"):
        WeightsEntry.from_json(json.dumps(values | {"format": 2}), "x.json")
    for name in ("model", "classes", "init_args", "licence_weights"):
        missing = {key: value for key, value in values.items() if key != name}
        with pytest.raises(WeightsError, match=rf"x\.json: .*missing fields \['{name}'\]"):
            WeightsEntry.from_json(json.dumps(missing), "x.json")


def test_a_file_of_a_later_version_is_loaded(tmp_path: Path) -> None:
    """One new field in the entry inside it costs a warning."""
    path, _ = storage_weights.save_weights(make_network(), make_entry(), tmp_path)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    entry = json.loads(header["__metadata__"][entry_weights.METADATA_KEY]) | {"new": 1}
    header["__metadata__"][entry_weights.METADATA_KEY] = json.dumps(entry)
    text = json.dumps(header).encode()
    later = tmp_path / "later.safetensors"
    tensors = path.read_bytes()[8 + length :]
    later.write_bytes(len(text).to_bytes(8, "little") + text + tensors)
    with pytest.warns(UserWarning, match=r"later\.safetensors: .*\['new'\]"):
        found = storage_weights.read_entry(later)
    network = make_network(seed=1)
    storage_weights.load_into(network, later, found)
    assert torch.allclose(network[0].weight, make_network()[0].weight, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "1.0"),
        ("temperature", True),
        ("temperature", 10**400),
        ("input_size", [8]),
        ("input_size", [8, 10**9]),
        ("input_size", [8, -4]),
        ("input_size", [8.5, 4]),
        ("input_size", 8),
        ("classes", "1"),
        ("classes", [1, 2]),
        ("classes", ["1", "1"]),
        ("init_args", []),
        ("init_args", None),
        ("preprocessing", [["height", 8]]),
        ("metrics", {"toy/test": {"accuracy": "0.5"}}),
        ("metrics", {"toy/test": 0.5}),
        ("conformal", {"alone": {"0.01": None}}),
        ("conformal", {"alone": {"0.01": float("nan")}}),
        ("conformal", {"alone": [1]}),
        ("urls", "https://example.org"),
        ("urls", [1]),
        ("versions", {"torch": 2}),
        ("model", 3),
        ("model", ["tiny"]),
        ("seed", "0"),
        ("seed", 10**30),
        ("sha256", None),
        ("size_bytes", -1),
        ("parameters", 1.5),
        ("storage", "fp8"),
        ("storage", ["fp16"]),
        ("format", 0),
        ("format", "1"),
        ("format", None),
    ],
)
def test_values_that_cannot_be_are_refused(name: str, value: object) -> None:
    text = json.dumps(json.loads(make_entry().to_json()) | {name: value})
    with pytest.raises(WeightsError, match=rf"^x\.json: .*{name}.*re-save it") as caught:
        WeightsEntry.from_json(text, "x.json")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"seed": 1, "seed": 2}',
        '{"seed": ' + "9" * 5000 + "}",
        '{"doc": "\\ud800"}',
        b"\xff{}",
        "3",
        "",
    ],
)
def test_entries_that_are_no_json(text: str | bytes) -> None:
    with pytest.raises(WeightsError, match=r"^x\.json: weights entry is not .*re-save it$"):
        WeightsEntry.from_json(text, "x.json")


def flip_last_byte(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


Damage = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_last_byte, "has been altered"),
        (lambda data: data[:-10], "is truncated"),
        (lambda data: b"", "is truncated|is empty"),
        (lambda data: LFS_POINTER, "git lfs pull"),
    ],
)
def test_a_damaged_file_is_refused_on_every_load(
    damage: Damage, message: str, tmp_path: Path
) -> None:
    path, entry = storage_weights.save_weights(make_network(), make_entry(), tmp_path)
    network = make_network(seed=1)
    storage_weights.load_into(
        network, path, entry
    )  # a good load does not make the next one trusted
    before = {key: value.clone() for key, value in network.state_dict().items()}
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=message) as caught:
        storage_weights.load_into(network, path, entry)
    for part in (str(path), entry.sha256, "delete it"):
        assert part in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with pytest.raises(WeightsError, match=r"tiny_toy-.*\.safetensors"):
        storage_weights.read_entry(path)


def test_a_file_carries_its_entry(tmp_path: Path) -> None:
    path, entry = storage_weights.save_weights(make_network(), make_entry(), tmp_path)
    assert storage_weights.read_entry(path) == entry
    renamed = path.rename(tmp_path / "mine.safetensors")
    assert storage_weights.read_entry(renamed) == dataclasses.replace(
        entry, file="mine.safetensors"
    )
    renamed.write_bytes(flip_last_byte(renamed.read_bytes()))
    with pytest.raises(WeightsError, match=r"mine\.safetensors: has been altered"):
        storage_weights.read_entry(renamed)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"other\.safetensors: is no weights file"):
        storage_weights.read_entry(path)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match=r"other\.safetensors: is no weights file"):
        storage_weights.read_entry(path)
    with pytest.raises(WeightsError, match=r"absent\.safetensors: cannot be read"):
        storage_weights.read_entry(tmp_path / "absent.safetensors")


def stored(tensors: dict[str, torch.Tensor], path: Path, storage: str = "fp16") -> WeightsEntry:
    """Writes any tensors as a weights file."""
    from safetensors.torch import save

    entry = make_entry(storage=storage)
    data = save(tensors, metadata={entry_weights.METADATA_KEY: entry.to_json()})
    path.write_bytes(data)
    return dataclasses.replace(entry, sha256=hashlib.sha256(data).hexdigest())


def test_tensors_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """They would be loaded without a word, and the model would name at random."""
    path = tmp_path / "a.safetensors"
    network = make_network()
    right = {key: value.clone() for key, value in network.state_dict().items()}
    key, scale = "0.weight", "0.weight::scale"
    quantised = right[key].mul(100).round().to(torch.int8)
    for change, said in (
        ({key: quantised}, r"1 of another kind: 0\.weight torch\.int8 instead of torch\.float32"),
        ({key: quantised, scale: torch.ones(3)}, r"0\.weight .* has a scale of \(3,\)"),
        ({key: quantised, scale: torch.ones(4, dtype=torch.int32)}, "has a scale of"),
        ({key: quantised, scale: torch.ones(4, 1)}, "has a scale of"),
        ({key: quantised, scale: torch.full((4,), float("nan"))}, "NaN or infinite .*0.weight"),
        ({"x::scale": torch.ones(4)}, "x::scale is the scale of nothing"),
        ({"1.running_mean": torch.full((4,), float("inf"))}, "NaN or infinite .*1.running_mean"),
        ({"1.num_batches_tracked": torch.tensor(1.5)}, "of another kind: 1.num_batches_tracked"),
        ({key: right[key].to(torch.complex64)}, "of another kind: 0.weight torch.complex64"),
        ({key: right[key].flatten()}, "of another shape: 0.weight"),
    ):
        entry = stored(right | change, path)
        with pytest.raises(WeightsError, match=rf"a\.safetensors: .*{said}"):
            storage_weights.load_into(network, path, entry)
        assert all(torch.equal(right[name], value) for name, value in network.state_dict().items())
    entry = stored(right | {key: quantised, scale: torch.full((4,), 0.01)}, path)
    storage_weights.load_into(network, path, entry)
    assert torch.allclose(network[0].weight, right[key], atol=0.006)
    entry = stored(
        {key: value.double() for key, value in right.items()}
        | {"1.num_batches_tracked": right["1.num_batches_tracked"]},
        path,
    )
    storage_weights.load_into(network, path, entry)
    assert network[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x10",
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (27).to_bytes(8, "little") + b'{"__metadata__": ["a", "b"]}',
        (34).to_bytes(8, "little") + b'{"__metadata__": {"chromozoo": 33}}',
        (34).to_bytes(8, "little") + b'{"__metadata__": {"chromozoo": {}}}',
    ],
)
def test_headers_that_cannot_be_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"a\.safetensors: is (no weights file|empty)"):
        storage_weights.read_entry(path)
    entry = make_entry(sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(WeightsError, match=r"a\.safetensors: is no safetensors file"):
        storage_weights.load_into(make_network(), path, entry)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
def test_only_files_of_a_sensible_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"a\.safetensors: is no file; check"):
        storage_weights.read_entry(tmp_path / "a.safetensors")
    monkeypatch.setattr(files_weights, "MAX_FILE_BYTES", 100)
    monkeypatch.setattr(checkpoint_weights, "MAX_FILE_BYTES", 100)
    for name, read in (
        ("b.safetensors", storage_weights.read_entry),
        ("b.ckpt", checkpoint_weights.load_checkpoint),
    ):
        (tmp_path / name).write_bytes(bytes(101))
        with pytest.raises(WeightsError, match=rf"{name}: .*101 bytes"):
            read(tmp_path / name)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path, entry = storage_weights.save_weights(make_network(), make_entry(), tmp_path)
    with pytest.raises(WeightsError, match=r"of another shape: 0\.bias \(4,\) instead of \(6,\)"):
        storage_weights.load_into(make_network(width=6), path, entry)
    network = make_network()
    network[0].register_parameter("weight", None)
    network.append(nn.PReLU())
    with pytest.raises(WeightsError, match=r"missing: 5\.weight; 1 unexpected: 0\.weight") as error:
        storage_weights.load_into(network, path, entry)
    assert str(path) in str(error.value)


def test_lookup_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, entry = storage_weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    entry = dataclasses.replace(entry, urls=[saved.as_uri()])
    in_home = tmp_path / "home" / "weights" / entry.file
    in_repository = tmp_path / "repository" / "weights" / entry.file
    for path in (in_home, in_repository):
        path.parent.mkdir(parents=True)
        path.write_bytes(saved.read_bytes())
    assert download.find_weights(entry) == in_home
    in_home.unlink()
    assert download.find_weights(entry) == in_repository
    assert not in_home.exists()
    in_repository.unlink()
    assert download.find_weights(entry) == in_home  # downloaded
    assert in_home.read_bytes() == saved.read_bytes()
    monkeypatch.delenv("CHROMOZOO_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if sys.platform == "linux":
        assert folders.cache_folder() == tmp_path / "cache" / "chromozoo"


def test_nowhere_to_be_found_says_where_to_put_it(tmp_path: Path) -> None:
    _, entry = storage_weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    with pytest.raises(WeightsError, match="installed without its repository") as caught:
        download.find_weights(entry)
    assert entry.file in str(caught.value)
    assert f"put it into {tmp_path / 'home' / 'weights'}" in str(caught.value)
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "hubconf.py").touch()
    with pytest.raises(WeightsError, match="restore it from the repository"):
        download.find_weights(entry)


def test_download_takes_the_next_address(tmp_path: Path) -> None:
    saved, entry = storage_weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    dead, wrong = tmp_path / "dead.safetensors", tmp_path / "wrong.safetensors"
    wrong.write_bytes(flip_last_byte(saved.read_bytes()))
    entry = dataclasses.replace(
        entry, urls=["no address", dead.as_uri(), wrong.as_uri(), saved.as_uri()]
    )
    found = download.find_weights(entry)
    assert found.read_bytes() == saved.read_bytes()
    assert os.listdir(found.parent) == [found.name]


def test_download_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, entry = storage_weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    late = tmp_path / "late.safetensors"
    entry = dataclasses.replace(entry, urls=[late.as_uri()])
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            late.write_bytes(saved.read_bytes())

    monkeypatch.setattr(download, "BACKOFF_SECONDS", 1.0)
    monkeypatch.setattr("time.sleep", sleep)
    assert download.find_weights(entry).is_file()
    assert pauses == [1.0, 2.0]


@pytest.mark.parametrize("damage", [flip_last_byte, lambda data: data[:-10], lambda data: data * 9])
def test_a_failed_download_leaves_nothing(damage: Damage, tmp_path: Path) -> None:
    saved, entry = storage_weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    saved.write_bytes(damage(saved.read_bytes()))
    entry = dataclasses.replace(entry, urls=[saved.as_uri()])
    with pytest.raises(WeightsError, match=r"not found.*file://.*expected") as caught:
        download.find_weights(entry)
    assert entry.sha256 in str(caught.value)
    assert os.listdir(tmp_path / "home" / "weights") == []


def test_an_endless_download_is_cut_off(tmp_path: Path) -> None:
    saved, entry = storage_weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    saved.write_bytes(saved.read_bytes() + bytes(10 << 20))
    with pytest.raises(WeightsError, match=f"got {1 << 20} bytes"):  # the first block
        download.find_weights(dataclasses.replace(entry, urls=[saved.as_uri()]))


def test_an_interrupted_download_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, entry = storage_weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    entry = dataclasses.replace(entry, urls=[saved.as_uri()])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download.find_weights(entry)
    assert os.listdir(tmp_path / "home" / "weights") == []


def test_checkpoint(tmp_path: Path) -> None:
    network = make_network()
    path = tmp_path / "last.ckpt"
    torch.save(
        {
            "state_dict": {
                **{f"network.{key}": value for key, value in network.state_dict().items()},
                "centre_loss.centres": torch.zeros(2),
            },
            "hyper_parameters": {"width": 4, "_class_path": "chromozoo.Tiny"},
        },
        path,
    )
    arguments, tensors = checkpoint_weights.load_checkpoint(path)
    assert arguments == {"width": 4}
    loaded = make_network(seed=1)
    storage_weights.load_tensors(loaded, tensors, path)
    assert torch.equal(loaded.state_dict()["0.weight"], network.state_dict()["0.weight"])


def save_checkpoint(path: Path, arguments: object, **changes: object) -> None:
    states = {f"network.{key}": value for key, value in make_network().state_dict().items()}
    torch.save({"state_dict": states | changes, "hyper_parameters": arguments}, path)


def test_arguments_of_a_checkpoint_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    again: list[object] = []
    for _ in range(60):
        again = [again, again]  # by reference: a pickle of a few bytes, 2**60 values
    for arguments, said in (
        ([1], "is no Lightning checkpoint"),
        ("abc", "is no Lightning checkpoint"),
        ({1: 2}, r"hyper_parameters has names that are no text \(1\)"),
        ({("a",): 2}, "no text"),
        ({"lr": torch.ones(3)}, "hyper_parameters holds 'Tensor', which is no plain value"),
        ({"lr": b"abc"}, "hyper_parameters holds 'bytes'"),
        ({"lr": {"a"}}, "hyper_parameters holds 'set'"),
        ({"lr": 2**70}, "hyper_parameters holds a number of more than 63 bits"),
        ({"lr": again}, "hyper_parameters holds more than 10,000 values"),
        ({"lr": list(range(20_000))}, "hyper_parameters holds more than 10,000 values"),
        ({"lr": {("a", 1): 2}}, "hyper_parameters has a name that is no text"),
    ):
        save_checkpoint(path, arguments)
        with pytest.raises(WeightsError, match=rf"a\.ckpt: .*{said}"):
            checkpoint_weights.load_checkpoint(path)
    # What it started from is of no use any more, and would be fetched.
    save_checkpoint(path, {"width": 4, "init_from": "timm/x", "size": (8, 4), "a": {"b": [None]}})
    assert checkpoint_weights.load_checkpoint(path)[0] == {
        "width": 4,
        "size": (8, 4),
        "a": {"b": [None]},
    }
    save_checkpoint(path, None)
    assert checkpoint_weights.load_checkpoint(path)[0] == {}


def test_tensors_of_a_checkpoint_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    weight = make_network().state_dict()["0.weight"]
    for value, said in (
        (torch.zeros(1).expand(10**14), "no dense one"),
        (torch.zeros(1).expand(weight.shape), "no dense one"),
        (3, "holds 'int' among its tensors"),
        ("a", "holds 'str' among its tensors"),
        (weight.to_sparse(), "_rebuild_sparse_tensor, which no tensor or plain value needs"),
        (weight.to("meta"), "_rebuild_meta_tensor"),
        (bytearray(3), "bytearray, which no tensor or plain value needs"),
    ):
        save_checkpoint(path, {}, **{"network.0.weight": value})
        with pytest.raises(WeightsError, match=rf"a\.ckpt: .*{said}"):
            checkpoint_weights.load_checkpoint(path)
    torch.save({"state_dict": {1: 2, "network.a": weight}}, path)
    assert list(checkpoint_weights.load_checkpoint(path)[1]) == ["a"]
    for damaged in (weight * float("nan"), weight.to(torch.int64), weight.flatten()):
        save_checkpoint(path, {}, **{"network.0.weight": damaged})
        _, tensors = checkpoint_weights.load_checkpoint(path)
        with pytest.raises(WeightsError, match=r"a\.ckpt: .*0\.weight"):
            storage_weights.load_tensors(make_network(seed=1), tensors, path)


class Large:
    """Asks for so many bytes when it is unpickled, which torch allows."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return bytearray, (10**12,)


def test_no_checkpoint_takes_more_memory_than_it_has_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, {}, other=Large())
    with pytest.raises(WeightsError, match=r"a\.ckpt: is no Lightning checkpoint .*bytearray"):
        checkpoint_weights.load_checkpoint(path)
    save_checkpoint(path, {})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def write(parts: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in parts.items():
                archive.writestr(name, data)

    write(parts)
    assert checkpoint_weights.load_checkpoint(path)[1]
    write(parts, zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="its parts are compressed"):
        checkpoint_weights.load_checkpoint(path)
    pickled = next(name for name in parts if name.endswith("data.pkl"))
    write({name: data for name, data in parts.items() if name != pickled})
    with pytest.raises(WeightsError, match=r"it has no data\.pkl"):
        checkpoint_weights.load_checkpoint(path)
    # A tensor that claims more numbers than are stored.
    claimed = parts[pickled].replace(b"K\x24", b"J\xff\xff\xff\x7f")  # 36 of 0.weight
    assert claimed != parts[pickled]
    write(parts | {pickled: claimed})
    with pytest.raises(WeightsError, match="is no Lightning checkpoint"):
        checkpoint_weights.load_checkpoint(path)
    # As torch wrote it before 1.6: sizes stand in the pickle, and are believed.
    torch.save({"state_dict": {}}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match="not a zip file"):
        checkpoint_weights.load_checkpoint(path)


def test_allocation_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_weights, "SPARE_ELEMENTS", 1000)
    with storage_weights.bounded_allocation(1000):
        assert torch.empty(20, 100).numel() + nn.Linear(8, 9).weight.new_zeros(9).numel() == 2009
    for ask in (
        lambda: nn.Linear(10**7, 10**7),
        lambda: torch.zeros(4000),
        lambda: torch.arange(10**12),
        lambda: torch.full((100, 100), 1.0),
        lambda: torch.zeros(1).new_empty(10**12),
        lambda: torch.randn(10**6, 10**6),
        lambda: [torch.zeros(50) for _ in range(100)],
    ):
        said = r"numbers in \d+ tensors are asked for, and the file has 1,000"
        with pytest.raises(WeightsError, match=said), storage_weights.bounded_allocation(1000):
            ask()
    monkeypatch.setattr(storage_weights, "MAX_ALLOCATIONS", 10)
    with (
        pytest.raises(WeightsError, match="in 11 tensors"),
        storage_weights.bounded_allocation(1000),
    ):
        [torch.zeros(1) for _ in range(20)]


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.victim),)


def test_a_malicious_checkpoint_is_not_executed(tmp_path: Path) -> None:
    path, victim = tmp_path / "evil.ckpt", tmp_path / "executed"
    payload = {"state_dict": {"network.0.weight": Malicious(victim)}}
    for write in (
        lambda: torch.save(payload, path),
        lambda: path.write_bytes(pickle.dumps(payload, protocol=2)),
    ):
        write()
        with pytest.raises(WeightsError, match=r"evil\.ckpt: is no Lightning checkpoint"):
            checkpoint_weights.load_checkpoint(path)
        assert not victim.exists()
    # The control: the payload works where nothing protects.
    pickle.loads(path.read_bytes())
    assert victim.exists()


def test_damaged_and_foreign_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    with pytest.raises(WeightsError, match=r"a\.ckpt: no such file"):
        checkpoint_weights.load_checkpoint(path)
    torch.save({"state_dict": {"layer.weight": torch.zeros(1)}}, path)
    with pytest.raises(WeightsError, match=r"a\.ckpt: holds no tensors named 'network"):
        checkpoint_weights.load_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"a\.ckpt: is no Lightning checkpoint"):
        checkpoint_weights.load_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(WeightsError, match=r"a\.ckpt: is no Lightning checkpoint"):
        checkpoint_weights.load_checkpoint(path)
