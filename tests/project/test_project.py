"""What the repository says of itself: dependencies, versions, commands, paths and links."""

import argparse
import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import chromozoo
from chromozoo.benchmark.tables.classification import readme_is_current
from chromozoo.cli.main import COMMANDS, TRAINER_COMMANDS
from chromozoo.models import registry

ROOT = Path(chromozoo.__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")

# What a torch.hub user's model imports; leaderboard and command line are not among it.
HUB_PACKAGES = ("classifiers", "tasks", "images", "cells", "registry.py", "weights.py")

# Folders that are made here and never committed, as in .gitignore.
NOT_OURS = {"runs", "data", "dist", "build", "chromozoo-results", "lightning_logs"}
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(?:home|Users|root|work|mnt|srv|opt)/\w|[A-Z]:\\Users\\")
PACKAGE_HOST = re.compile(
    r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|anaconda\.(?:org|com)"
)


def declared(*extras: str) -> set[str]:
    """Distributions in pyproject.toml, normalised as PEP 503 asks, with those of some extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"]]
    lines += [line for extra in extras for line in project["optional-dependencies"][extra]]
    names = (re.match(r"[\w.-]+", line) for line in lines)
    return {normalised(name[0]) for name in names if name}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def third_party_imports(*paths: Path) -> set[str]:
    """Top-level names that the files import anywhere, without those of Python and our own."""
    files = [f for path in paths for f in (path.rglob("*.py") if path.is_dir() else [path])]
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"chromozoo"}


def hub_dependencies() -> list[str]:
    spec = importlib.util.spec_from_file_location("hubconf_of_the_project", ROOT / "hubconf.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dependencies: list[str] = module.dependencies
    return dependencies


def code_of(document: str) -> list[str]:
    """Lines of code blocks, and code within sentences and tables."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [line for block in blocks for line in block.splitlines()] + spans


def text_files() -> list[Path]:
    files = []
    for folder, inside, names in os.walk(ROOT):
        top = Path(folder) == ROOT
        inside[:] = [
            name
            for name in inside
            if name != "__pycache__"
            and not (name.startswith(".") and name != ".ci")
            and not (top and name in NOT_OURS)
            and not name.endswith(".egg-info")
        ]
        files += [Path(folder) / name for name in names]
    return [f for f in files if f.suffix not in (".png", ".safetensors", ".pyc", ".ckpt", ".zip")]


@pytest.mark.parametrize("name", hub_dependencies())
def test_a_hub_dependency_is_a_declared_one(name: str) -> None:
    distributions = {normalised(found) for found in packages_distributions().get(name, [])}
    assert distributions & declared(), f"no line of pyproject.toml brings the module {name}"


def test_the_hub_asks_for_all_that_a_model_imports() -> None:
    paths = [ROOT / "chromozoo" / name for name in HUB_PACKAGES]
    # Only a download shows tqdm's bar, and a clone from the hub holds its weights.
    assert third_party_imports(*paths) - {"tqdm"} <= set(hub_dependencies())


def test_every_import_is_declared() -> None:
    of = packages_distributions()
    folder = ROOT / "chromozoo" / "visualization"
    drawing = [folder / "classification.py", folder / "grad_cam.py"]
    files = [*(ROOT / "chromozoo").rglob("*.py"), ROOT / "hubconf.py"]
    for paths, known in (
        ([file for file in files if file not in drawing], declared()),
        (drawing, declared("figures")),
    ):
        undeclared = {
            name
            for name in third_party_imports(*paths)
            if not {normalised(found) for found in of.get(name, [])} & known
        }
        assert undeclared == set()


def test_every_bound_has_its_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    bounds = [line for line in lines if re.match(r'\s+"[^"]+>=', line)]
    assert len(bounds) > len(declared())  # those of the extras, too
    assert [line for line in bounds if "#" not in line] == []


def test_one_version_everywhere() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    assert hatch["version"]["path"] == "chromozoo/__init__.py"
    assert re.findall(r"^## \[(.+?)\]", changelog, flags=re.MULTILINE)[0] == chromozoo.__version__
    assert re.findall(r"^version: (.+)$", citation, flags=re.MULTILINE) == [chromozoo.__version__]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_the_documents_exist(document: str) -> None:
    """Sub-command and options; those of a config are LightningCLI's own."""
    named = re.compile(
        r"(?:(?<![\w/.\\-])chromozoo|python3 run\.py(?: chromozoo)?) +([a-z][\w-]*)(.*)"
    )
    calls = [match.groups() for code in code_of(document) for match in named.finditer(code)]
    assert calls or document == "CHANGELOG.md"
    for command, rest in calls:
        assert command in COMMANDS
        if command in TRAINER_COMMANDS:
            continue
        parser = argparse.ArgumentParser()
        import_module(f"chromozoo.cli.{command.replace('-', '_')}").add_arguments(parser)
        parsers = [parser]
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):  # `chromozoo data from-karyogram`
                parsers += action.choices.values()
        usage = "".join(each.format_help() for each in parsers)
        assert [word for word in re.findall(r"--[\w-]+", rest) if word not in usage] == []


def test_the_pipeline_calls_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "python3 run.py test"
    assert "```bash\npython3 run.py test\n```" in README
    assert os.name == "nt" or os.access(script, os.X_OK)


def test_the_readme_has_a_place_for_the_leaderboard() -> None:
    assert readme_is_current(ROOT / "README.md", "bioimlab", "no such table") is False


def test_the_readme_leads_to_every_part_of_a_model() -> None:
    section = README.partition("## Where to find things")[2].partition("\n## ")[0]
    places = re.findall(r"^\|.*`([\w/.<>-]+/[\w/.<>-]+)`", section, flags=re.MULTILINE)
    assert len(places) >= 7
    assert [p for p in places if not list(ROOT.glob(p.replace("<sha256>", "*")))] == []


def test_paths_in_the_commands_of_the_readme_exist() -> None:
    paths = {
        p
        for code in code_of("README.md")
        for p in re.findall(r"\b(?:examples|configs)/[\w/.]+", code)
    }
    assert len(paths) >= 2
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []


def test_no_file_names_a_machine_or_a_package_host() -> None:
    files = text_files()
    assert ROOT / "README.md" in files
    assert ROOT / "chromozoo" / "data" / "splits" / "bioimlab_v1.json" in files
    found = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in files
        for pattern in (MACHINE_PATH, PACKAGE_HOST)
        for match in pattern.finditer(file.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "parts",
    [("see /home", "/me/x"), ("'/work", "/venv'"), ("C:\\Users", "\\me"), ("root=/root", "/data")],
)
def test_the_pattern_finds_paths_of_a_machine(parts: tuple[str, str]) -> None:
    assert MACHINE_PATH.search("".join(parts))  # in parts, or it would find this file


def test_the_model_of_the_contributing_guide_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    file = tmp_path / "my_net.py"
    file.write_text(text.partition("```python\n")[2].partition("```")[0], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("my_net", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_net", module)
    spec.loader.exec_module(module)
    model = registry.get_model("my_net", weights=None)
    count = sum(parameter.numel() for parameter in model.network.parameters())
    assert f"{count:,} parameters" in registry.model_info("my_net").doc
    image = np.zeros((60, 40), np.uint8)
    image[10:50, 15:25] = 200
    assert model.classify(image)[0].label in chromozoo.CLASSES


# A stand-in for uv: notes the call, and makes a command `chromozoo` that tells how it was called.
FAKE_UV = """#!/bin/sh
echo "$@" >> uv-calls
printf '#!/bin/sh\\necho "$@ in $(pwd)"\\nexit 3\\n' > .venv/bin/chromozoo
chmod +x .venv/bin/chromozoo
"""


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for uv is a shell script")
def test_run_sets_up_once_and_passes_everything_on(tmp_path: Path) -> None:
    clone, tools, elsewhere = tmp_path / "a clone", tmp_path / "tools", tmp_path / "elsewhere"
    for folder in (clone, tools, elsewhere):
        folder.mkdir()
    for name in ("run.py", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    (tools / "uv").write_text(FAKE_UV)
    (tools / "uv").chmod(0o755)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(clone / "run.py"), *words],
            cwd=elsewhere,
            env=os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )

    def installations() -> int:
        return len((clone / "uv-calls").read_text().splitlines())

    first = run("classify", "my image.png")
    assert (first.stdout, first.returncode) == (f"classify my image.png in {elsewhere}\n", 3)
    assert "--editable .[test]" in (clone / "uv-calls").read_text()
    assert run("chromozoo", "test", "--config", "x").stdout.startswith("test --config x in ")
    assert "No module named pytest" in run("test").stderr  # the stand-in installs nothing
    assert installations() == 1
    with (clone / "pyproject.toml").open("a") as file:
        file.write("\n")
    run("env")
    assert installations() == 2
