"""The layers of the package: no import upward, no circle, few modules in the root."""

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_ROOT_MODULES = 7
Imports = Mapping[str, Iterable[str]]


def read_layers(guide: Path) -> list[str]:
    """Return the layers that CONTRIBUTING.md lists, lowest first.

    The list is the code block under the heading "Layers": one layer a line, highest first.
    """
    section = guide.read_text(encoding="utf-8").partition("## Layers\n")[2]
    block = section.partition("```text\n")[2].partition("```")[0]
    return [line.split()[0] for line in reversed(block.splitlines()) if line.strip()]


def find_modules(root: Path, package: str) -> dict[str, Path]:
    """Map the dotted names of all modules of a package to their files."""
    modules = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def find_imports(name: str, path: Path, modules: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return the modules of the package that a module imports, and those of ``import_module``.

    Imports inside functions and under ``TYPE_CHECKING`` count as well.
    """
    known = set(modules)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imported: set[str] = set()
    quoted: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            members = {f"{base}.{alias.name}" for alias in node.names}
            imported |= members & known
            if members - known:
                imported.add(base)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            quoted |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return imported & known - {name}, quoted & known - {name}


def find_upward_imports(imports: Imports, layers: list[str]) -> list[str]:
    """List the imports of a higher layer, and the modules that belong to no layer."""
    faults = []
    for name, targets in sorted(imports.items()):
        if "." not in name:
            continue  # the root's __init__ offers the package's public names
        own = name.split(".")[1]
        if own not in layers:
            faults.append(f"{name}: {own} is no layer of CONTRIBUTING.md")
            continue
        for target in sorted(targets):
            other = target.split(".")[1] if "." in target else own
            if other in layers and layers.index(other) > layers.index(own):
                faults.append(f"{name} imports {target}")
    return faults


def find_circles(imports: Imports) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in imports.get(waiting.pop(), ()):
                if "." in target and target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return seen

    reach = {name: reachable(name) for name in imports}
    circles = {
        frozenset(other for other in reach[name] if name in reach.get(other, ()))
        for name in imports
        if name in reach[name]
    }
    return sorted(sorted(circle) for circle in circles)


def root_modules(root: Path, package: str) -> list[str]:
    """Return the files of the package's root."""
    return sorted(path.name for path in (root / package).glob("*.py"))


def test_no_module_imports_a_higher_layer() -> None:
    modules = find_modules(ROOT, "chromozoo")
    layers = read_layers(ROOT / "CONTRIBUTING.md")
    assert len(modules) > 100
    assert sorted(layers) == sorted({name.split(".")[1] for name in modules if "." in name})
    imports = {name: set.union(*find_imports(name, modules[name], modules)) for name in modules}
    assert find_upward_imports(imports, layers) == []


def test_no_modules_import_each_other() -> None:
    modules = find_modules(ROOT, "chromozoo")
    assert find_circles({n: find_imports(n, modules[n], modules)[0] for n in modules}) == []


def test_the_root_holds_few_modules() -> None:
    assert len(root_modules(ROOT, "chromozoo")) <= MAX_ROOT_MODULES


GUIDE = """# Contributing

## Layers

Words before the block.

```text
cli       commands
tasks     steps
images    pixels
errors    exceptions
```
"""
TREE = {
    "zoo/__init__.py": "from zoo.errors import ZooError",
    "zoo/errors.py": "import json",
    "zoo/images/__init__.py": "",
    "zoo/images/reading.py": "from zoo.errors import ZooError\nfrom zoo.images import levels",
    "zoo/images/levels.py": "from zoo import errors",
    "zoo/tasks/base.py": "from zoo.images.reading import read",
    "zoo/cli/main.py": "import zoo.tasks.base",
}


def faults_of(folder: Path, changes: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """Write a small package with some files changed; return its upward imports and circles."""
    for file, text in {**TREE, **changes}.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, encoding="utf-8")
    (folder / "CONTRIBUTING.md").write_text(GUIDE, encoding="utf-8")
    modules = find_modules(folder, "zoo")
    found = {name: find_imports(name, modules[name], modules) for name in modules}
    layers = read_layers(folder / "CONTRIBUTING.md")
    assert layers == ["errors", "images", "tasks", "cli"]
    upward = find_upward_imports({name: one | two for name, (one, two) in found.items()}, layers)
    return upward, find_circles({name: imported for name, (imported, _) in found.items()})


def test_a_package_in_order_has_no_faults(tmp_path: Path) -> None:
    assert faults_of(tmp_path, {}) == ([], [])


@pytest.mark.parametrize(
    "text",
    [
        "from zoo.tasks.base import Task",
        "from zoo.tasks import base",
        "import zoo.tasks.base as base",
        "from ..tasks import base",
        "def late():\n    from zoo.tasks.base import Task\n    return Task",
        "if TYPE_CHECKING:\n    from zoo.tasks.base import Task",
        "import importlib\nbase = importlib.import_module('zoo.tasks.base')",
    ],
)
def test_an_upward_import_is_found(tmp_path: Path, text: str) -> None:
    upward, _ = faults_of(tmp_path, {"zoo/images/levels.py": text})
    assert upward == ["zoo.images.levels imports zoo.tasks.base"]


@pytest.mark.parametrize(
    ("file", "text", "circle"),
    [
        (
            "zoo/images/levels.py",
            "def late():\n    from zoo.images.reading import read\n    return read",
            ["zoo.images.levels", "zoo.images.reading"],
        ),
        (
            "zoo/images/levels.py",
            "from . import reading",
            ["zoo.images.levels", "zoo.images.reading"],
        ),
        (
            "zoo/errors.py",
            "from zoo.cli import main",
            [
                "zoo.cli.main",
                "zoo.errors",
                "zoo.images.levels",
                "zoo.images.reading",
                "zoo.tasks.base",
            ],
        ),
    ],
)
def test_a_circle_is_found(tmp_path: Path, file: str, text: str, circle: list[str]) -> None:
    assert faults_of(tmp_path, {file: text})[1] == [circle]


def test_a_module_without_a_layer_is_found(tmp_path: Path) -> None:
    upward, _ = faults_of(tmp_path, {"zoo/misc/tools.py": ""})
    assert len(upward) == 1 and re.match("zoo.misc.tools: misc is no layer", upward[0])


def test_modules_of_the_root_are_counted(tmp_path: Path) -> None:
    faults_of(tmp_path, {f"zoo/extra{number}.py": "" for number in range(6)})
    assert len(root_modules(tmp_path, "zoo")) == MAX_ROOT_MODULES + 1
