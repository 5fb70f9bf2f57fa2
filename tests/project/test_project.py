"""Consistency of the repository: dependencies, versions, commands, paths and links."""

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
import yaml

import chromozoo
from chromozoo.cli.main import COMMANDS, TRAINER_COMMANDS, main
from chromozoo.models import registry

ROOT = Path(chromozoo.__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LEADERBOARD = ROOT / "benchmarks" / "leaderboard.md"
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (".", ".github", "docs", "benchmarks", "benchmarks/notes")
    for path in (ROOT / folder).glob("*.md")
)
TABLES = {
    *("bioimlab", "bioimlab-folds", "bioimlab-segmentation", "laboratories"),
    *("karyotyping", "karyotyping-laboratories", "aneuploidy", "calibration", "ablations"),
}

# Packages that the model of a torch.hub user imports.
HUB_PACKAGES = ("models", "tasks", "losses", "karyotype", "images", "structures")
# Optional libraries, and the only modules that may import them.
EXTRAS = {
    "figures": (
        "visualization/classification.py",
        "visualization/grad_cam.py",
    )
}

# Folders of results, which .gitignore lists.
NOT_OURS = {"runs", "data", "dist", "build", "chromozoo-results", "lightning_logs"}
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(?:home|Users|root|work|mnt|srv|opt)/\w|[A-Z]:\\Users\\")
GROUPS = ("data", "zoo")  # commands with actions
PACKAGE_HOST = re.compile(
    r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|anaconda\.(?:org|com)"
)


def declared(*extras: str) -> set[str]:
    """Return the dependencies and those of some extras, normalised as in PEP 503."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"]]
    lines += [line for extra in extras for line in project["optional-dependencies"][extra]]
    names = (re.match(r"[\w.-]+", line) for line in lines)
    return {normalised(name[0]) for name in names if name}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def third_party_imports(*paths: Path) -> set[str]:
    """Return the top-level names that files import, without the standard library and ChromoZoo."""
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
    """Return the lines of code blocks, and code within sentences and tables."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"```\w*\n(.*?)```", text.replace("\\\n", ""), flags=re.DOTALL)
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
            and not (name.startswith(".") and name not in (".ci", ".github"))
            and not (top and name in NOT_OURS)
            and not name.endswith(".egg-info")
        ]
        files += [Path(folder) / name for name in names if name != ".git"]  # of a worktree
    return [f for f in files if f.suffix not in (".png", ".safetensors", ".pyc", ".ckpt", ".zip")]


@pytest.mark.parametrize("name", hub_dependencies())
def test_a_hub_dependency_is_a_declared_one(name: str) -> None:
    distributions = {normalised(found) for found in packages_distributions().get(name, [])}
    assert distributions & declared(), f"no line of pyproject.toml brings the module {name}"


def test_the_hub_asks_for_all_that_a_model_imports() -> None:
    package = ROOT / "chromozoo"
    paths = [*(package / name for name in HUB_PACKAGES), *package.glob("*.py")]
    # Only a download shows rich's bar, and a clone from the hub holds its weights.
    assert third_party_imports(*paths) - {"rich"} <= set(hub_dependencies())


def undeclared(names: set[str], known: set[str]) -> set[str]:
    of = packages_distributions()
    return {name for name in names if not {normalised(found) for found in of.get(name, [])} & known}


def test_every_import_is_declared() -> None:
    package = ROOT / "chromozoo"
    for extra, files in EXTRAS.items():
        paths = [package / file for file in files]
        assert undeclared(third_party_imports(*paths), declared()) != set(), "needs no extra"
        assert undeclared(third_party_imports(*paths), declared(extra)) == set()
    optional = {package / file for files in EXTRAS.values() for file in files}
    paths = [path for path in package.rglob("*.py") if path not in optional]
    assert undeclared(third_party_imports(*paths, ROOT / "hubconf.py"), declared()) == set()
    scripts = third_party_imports(ROOT / "benchmarks", ROOT / "examples")
    assert undeclared(scripts, declared("benchmark")) == set()
    tests = third_party_imports(ROOT / "tests") - {path.stem for path in (ROOT / "tests").iterdir()}
    assert undeclared(tests, declared("test", "figures")) == set()


def test_no_dependency_is_idle() -> None:
    """Each declared library is imported, or needed by another library that does not install it."""
    needed_by_others = {"jsonargparse"}  # of LightningCLI
    used = third_party_imports(ROOT / "chromozoo", ROOT / "hubconf.py")
    of = packages_distributions()
    assert declared() - needed_by_others <= {
        normalised(found) for name in used for found in of.get(name, [])
    }


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
def test_commands_of_the_documents_exist(
    document: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sub-commands and options; LightningCLI checks those of configs."""
    monkeypatch.setenv("COLUMNS", "1000")
    named = re.compile(
        r"(?:(?<![\w/.\\-])chromozoo|python3 run\.py(?: chromozoo)?) +([a-z][\w-]*)(.*)"
    )
    calls = [match.groups() for code in code_of(document) for match in named.finditer(code)]
    assert calls or document not in ("README.md", "CONTRIBUTING.md")
    for command, rest in calls:
        if command == "check":  # of run.py
            continue
        assert command in COMMANDS, f"chromozoo {command} {rest}"
        if command in TRAINER_COMMANDS:
            continue
        action = re.match(r" +([a-z][a-z-]*)(?= |$)", rest) if command in GROUPS else None
        words = [command, *([action[1]] if action else [])]
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        usage = capsys.readouterr().out
        assert ended.value.code == 0, f"chromozoo {' '.join(words)}"
        options = re.findall(r"(?<!\S)--[a-z][\w-]*", rest)
        assert [word for word in options if not re.search(rf"{word}(?![\w-])", usage)] == []


def test_the_pipeline_calls_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    commands = script.read_text(encoding="utf-8").splitlines()
    assert commands[-2:] == ["python3 run.py check", "python3 run.py test"]
    assert "```bash\npython3 run.py test\n```" in README
    assert os.name == "nt" or os.access(script, os.X_OK)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200
    assert "leaderboard:" not in README


def test_the_leaderboard_has_a_place_for_every_table() -> None:
    marks = re.findall(
        r"^<!-- leaderboard:(.+):(begin|end) -->$", LEADERBOARD.read_text(), re.MULTILINE
    )
    assert [side for _, side in marks] == ["begin", "end"] * len(TABLES)
    assert [name for name, _ in marks[::2]] == [name for name, _ in marks[1::2]]
    assert {name for name, _ in marks} == TABLES


def test_figures_of_the_readme_are_those_of_the_leaderboard() -> None:
    """The leaderboard itself is compared with the result files in tests/models/test_shipped.py."""
    leaderboard = [line for line in LEADERBOARD.read_text().splitlines() if line.startswith("|")]
    published = (ROOT / "benchmarks" / "results").glob("published*.csv")
    others = " ".join(path.read_text(encoding="utf-8") for path in published)
    section = README.partition("## Results\n")[2].partition("\n## ")[0]
    rows = [
        line.strip("|").split("|") for line in section.splitlines() if "`" in line and "|" in line
    ]
    assert len(rows) >= 8
    for _, data, models, measured, theirs in rows:
        names = [*re.findall(r"`(\w+)`", models), measured.strip()]
        shown = [line for line in leaderboard if all(name in line for name in names)]
        assert shown, f"{data} {models}: {measured}"
        for figure in re.findall(r"\d+\.\d+", theirs):
            assert f"{float(figure) / 100:.4g}" in others


def test_code_of_the_readme_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "46,XY ['" in printed and "47,XX,+21" in printed


def test_the_guide_leads_to_every_part_of_a_model() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = guide.partition("## Add a model\n")[2].partition("\n## ")[0]
    places = re.findall(r"^\|.*`([\w/.<>-]+/[\w/.<>-]+)`", section, flags=re.MULTILINE)
    assert len(places) >= 7
    assert [p for p in places if not list(ROOT.glob(p.replace("<sha256>", "*")))] == []


def test_the_workflows_run_on_the_declared_pythons() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "classifiers"
    ]
    matrix = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["tests"]
    pythons = matrix["strategy"]["matrix"]["python"]
    assert [f"Programming Language :: Python :: {version}" for version in pythons] == [
        line for line in classifiers if re.search(r":: 3\.\d+$", line)
    ]
    assert len(matrix["strategy"]["matrix"]["system"]) == 3


def test_scripts_of_the_workflows_exist() -> None:
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert len(workflows) >= 4
    steps = [
        step
        for path in workflows
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        for step in job["steps"]
    ]
    scripts = [word for step in steps for word in re.findall(r"[\w/.]+\.py", step.get("run", ""))]
    assert "run.py" in scripts and "tests/wheel_smoke.py" in scripts
    assert [script for script in scripts if not (ROOT / script).exists()] == []


def test_paths_in_the_commands_of_the_readme_exist() -> None:
    paths = {
        p
        for code in code_of("README.md")
        for p in re.findall(r"\b(?:examples|configs)/[\w/.]+", code)
    }
    assert len(paths) >= 2
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_names_of_the_documents_exist(document: str) -> None:
    """Dotted names of modules, classes and functions of the package."""
    names = {
        n for code in code_of(document) for n in re.findall(r"\bchromozoo(?:\.[a-z]\w*)+", code)
    }
    for name in sorted(names):
        found = import_module("chromozoo")
        for part in name.split(".")[1:]:
            if not hasattr(found, part):
                import_module(f"{found.__name__}.{part}")
            found = getattr(found, part)


def headings(path: Path) -> set[str]:
    """Return the anchors of the headings of a document, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    broken = []
    for link in links:
        file, _, anchor = link.partition("#")
        path = (ROOT / document).parent / file if file else ROOT / document
        if not path.exists() or (anchor and anchor not in headings(path)):
            broken.append(link)
    assert broken == []


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


# A stand-in for uv: it records the call and makes a command `chromozoo` that prints its own call.
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

    checked = run("check")
    assert "--editable .[dev]" in (clone / "uv-calls").read_text().splitlines()[-1]
    assert checked.returncode == 1 and checked.stdout == ""  # the stand-in installs no tools
    for tool in ("ruff", "mypy", "pytest"):
        assert f"No module named {tool}" in checked.stderr
    run("env")
    run("check")
    assert installations() == 3  # `dev` holds `test`
