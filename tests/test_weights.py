"""Weights files: storage, checks on every load, lookup, download."""

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from chromozoo import weights
from chromozoo.errors import WeightsError
from chromozoo.weights import WeightsEntry


def make_entry(**changes: object) -> WeightsEntry:
    entry = WeightsEntry(
        model="tiny",
        tag="toy",
        classes=["1", "2"],
        input_size=[8, 4],
        init_args={"width": 4},
        preprocessing={"height": 8},
        dataset="toy_v1",
        split="toy_v1",
        split_sha256="0" * 64,
        config="configs/tiny.yaml",
        seed=0,
        training="none",
        versions={"torch": "2"},
        licence_code="Apache-2.0",
        licence_data="CC0",
        licence_weights="CC0",
        created="2026-01-01",
    )
    return dataclasses.replace(entry, **changes)  # type: ignore[arg-type]


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
    monkeypatch.setattr(weights, "REPOSITORY", tmp_path / "repository")
    monkeypatch.setattr(weights, "BACKOFF_SECONDS", 0.0)


@pytest.mark.parametrize(("storage", "tolerance"), [("fp32", 0.0), ("fp16", 5e-4), ("int8", 4e-3)])
def test_round_trip(storage: str, tolerance: float, tmp_path: Path) -> None:
    network = make_network()
    path, entry = weights.save_weights(network, make_entry(), tmp_path, storage)
    assert path.name == entry.file == f"tiny_toy-{entry.sha256[:8]}.safetensors"
    assert (entry.size_bytes, entry.parameters) == (path.stat().st_size, 58)
    assert entry.storage == storage

    loaded = make_network(seed=1)
    weights.load_into(loaded, path, entry)
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
    path, entry = weights.save_weights(network, make_entry(), tmp_path, "int8")
    stored = load_file(path)
    assert stored["0.weight"].dtype == torch.int8
    assert stored["0.weight::scale"].shape == (4,)
    loaded = make_network(seed=1)
    weights.load_into(loaded, path, entry)
    wanted, found = network.state_dict()["0.weight"], loaded.state_dict()["0.weight"]
    # A channel a thousand times larger does not coarsen the others; an empty one stays empty.
    assert torch.allclose(found[0], wanted[0], atol=float(wanted[0].abs().max()) / 253)
    assert not found[2].any()


def test_fp16_overflow_stays_fp32_and_nan_is_refused(tmp_path: Path) -> None:
    network = make_network()
    assert isinstance(network[4], nn.Linear)
    with torch.no_grad():
        network[4].weight[0, 0] = 1e6
    path, entry = weights.save_weights(network, make_entry(), tmp_path)
    loaded = make_network(seed=1)
    weights.load_into(loaded, path, entry)
    assert torch.equal(loaded.state_dict()["4.weight"], network[4].weight)
    with torch.no_grad():
        network[4].weight[0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"4\.weight: holds NaN"):
        weights.save_weights(network, make_entry(), tmp_path / "nan")
    assert not (tmp_path / "nan").exists()


def test_bytes_are_reproducible_and_nothing_else_is_left(tmp_path: Path) -> None:
    first, entry = weights.save_weights(make_network(), make_entry(), tmp_path / "a")
    second, _ = weights.save_weights(make_network(), make_entry(), tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    # Saving what was loaded, with the complete entry, gives the same file again.
    loaded = make_network(seed=1)
    weights.load_into(loaded, first, entry)
    third, again = weights.save_weights(loaded, entry, tmp_path / "c")
    assert third.read_bytes() == first.read_bytes()
    assert again == entry
    assert os.listdir(tmp_path / "a") == [first.name]


def test_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_BYTES", 1000)
    with pytest.raises(WeightsError, match=r"tiny_toy: .* more than 1000"):
        weights.save_weights(make_network(), make_entry(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_storage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="fp8"):
        weights.save_weights(make_network(), make_entry(), tmp_path, "fp8")


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
    path, entry = weights.save_weights(make_network(), make_entry(), tmp_path)
    network = make_network(seed=1)
    weights.load_into(network, path, entry)  # a good load does not make the next one trusted
    before = {key: value.clone() for key, value in network.state_dict().items()}
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=message) as caught:
        weights.load_into(network, path, entry)
    for part in (str(path), entry.sha256, "delete it"):
        assert part in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with pytest.raises(WeightsError, match=r"tiny_toy-.*\.safetensors"):
        weights.read_entry(path)


def test_a_file_carries_its_entry(tmp_path: Path) -> None:
    path, entry = weights.save_weights(make_network(), make_entry(), tmp_path)
    assert weights.read_entry(path) == entry
    renamed = path.rename(tmp_path / "mine.safetensors")
    assert weights.read_entry(renamed) == dataclasses.replace(entry, file="mine.safetensors")
    renamed.write_bytes(flip_last_byte(renamed.read_bytes()))
    with pytest.raises(WeightsError, match=r"mine\.safetensors: has been altered"):
        weights.read_entry(renamed)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"other\.safetensors: is no weights file"):
        weights.read_entry(path)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match=r"other\.safetensors: is no weights file"):
        weights.read_entry(path)
    with pytest.raises(WeightsError, match=r"absent\.safetensors: cannot be read"):
        weights.read_entry(tmp_path / "absent.safetensors")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path, entry = weights.save_weights(make_network(), make_entry(), tmp_path)
    with pytest.raises(WeightsError, match=r"of another shape: 0\.bias \(4,\) instead of \(6,\)"):
        weights.load_into(make_network(width=6), path, entry)
    network = make_network()
    network[0].register_parameter("weight", None)
    network.append(nn.PReLU())
    with pytest.raises(WeightsError, match=r"missing: 5\.weight; 1 unexpected: 0\.weight") as error:
        weights.load_into(network, path, entry)
    assert str(path) in str(error.value)


def test_lookup_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, entry = weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    entry = dataclasses.replace(entry, urls=[saved.as_uri()])
    in_home = tmp_path / "home" / "weights" / entry.file
    in_repository = tmp_path / "repository" / "weights" / entry.file
    for path in (in_home, in_repository):
        path.parent.mkdir(parents=True)
        path.write_bytes(saved.read_bytes())
    assert weights.find_weights(entry) == in_home
    in_home.unlink()
    assert weights.find_weights(entry) == in_repository
    assert not in_home.exists()
    in_repository.unlink()
    assert weights.find_weights(entry) == in_home  # downloaded
    assert in_home.read_bytes() == saved.read_bytes()
    monkeypatch.delenv("CHROMOZOO_HOME")
    assert weights.home() == Path.home() / ".cache" / "chromozoo"


def test_nowhere_to_be_found_says_where_to_put_it(tmp_path: Path) -> None:
    _, entry = weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    with pytest.raises(WeightsError, match="installed without its repository") as caught:
        weights.find_weights(entry)
    assert entry.file in str(caught.value)
    assert f"put it into {tmp_path / 'home' / 'weights'}" in str(caught.value)
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "hubconf.py").touch()
    with pytest.raises(WeightsError, match="restore it from the repository"):
        weights.find_weights(entry)


def test_download_takes_the_next_address(tmp_path: Path) -> None:
    saved, entry = weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    dead, wrong = tmp_path / "dead.safetensors", tmp_path / "wrong.safetensors"
    wrong.write_bytes(flip_last_byte(saved.read_bytes()))
    entry = dataclasses.replace(
        entry, urls=["no address", dead.as_uri(), wrong.as_uri(), saved.as_uri()]
    )
    found = weights.find_weights(entry)
    assert found.read_bytes() == saved.read_bytes()
    assert os.listdir(found.parent) == [found.name]


def test_download_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, entry = weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    late = tmp_path / "late.safetensors"
    entry = dataclasses.replace(entry, urls=[late.as_uri()])
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            late.write_bytes(saved.read_bytes())

    monkeypatch.setattr(weights, "BACKOFF_SECONDS", 1.0)
    monkeypatch.setattr("time.sleep", sleep)
    assert weights.find_weights(entry).is_file()
    assert pauses == [1.0, 2.0]


@pytest.mark.parametrize("damage", [flip_last_byte, lambda data: data[:-10], lambda data: data * 9])
def test_a_failed_download_leaves_nothing(damage: Damage, tmp_path: Path) -> None:
    saved, entry = weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    saved.write_bytes(damage(saved.read_bytes()))
    entry = dataclasses.replace(entry, urls=[saved.as_uri()])
    with pytest.raises(WeightsError, match=r"not found.*file://.*expected") as caught:
        weights.find_weights(entry)
    assert entry.sha256 in str(caught.value)
    assert os.listdir(tmp_path / "home" / "weights") == []


def test_an_endless_download_is_cut_off(tmp_path: Path) -> None:
    saved, entry = weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    saved.write_bytes(saved.read_bytes() + bytes(10 << 20))
    with pytest.raises(WeightsError, match=f"got {1 << 20} bytes"):  # the first block
        weights.find_weights(dataclasses.replace(entry, urls=[saved.as_uri()]))


def test_an_interrupted_download_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, entry = weights.save_weights(make_network(), make_entry(), tmp_path / "server")
    entry = dataclasses.replace(entry, urls=[saved.as_uri()])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        weights.find_weights(entry)
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
    arguments, tensors = weights.load_checkpoint(path)
    assert arguments == {"width": 4}
    loaded = make_network(seed=1)
    weights.load_tensors(loaded, tensors, path)
    assert torch.equal(loaded.state_dict()["0.weight"], network.state_dict()["0.weight"])


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
            weights.load_checkpoint(path)
        assert not victim.exists()
    # The control: the payload works where nothing protects.
    pickle.loads(path.read_bytes())
    assert victim.exists()


def test_damaged_and_foreign_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    with pytest.raises(WeightsError, match=r"a\.ckpt: no such file"):
        weights.load_checkpoint(path)
    torch.save({"state_dict": {"layer.weight": torch.zeros(1)}}, path)
    with pytest.raises(WeightsError, match=r"a\.ckpt: holds no tensors named 'network"):
        weights.load_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"a\.ckpt: is no Lightning checkpoint"):
        weights.load_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(WeightsError, match=r"a\.ckpt: is no Lightning checkpoint"):
        weights.load_checkpoint(path)
