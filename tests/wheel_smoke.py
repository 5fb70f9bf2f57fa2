"""Smoke test of the wheel: install it alone in a fresh environment and karyotype an example.

Run: ``python tests/wheel_smoke.py [--wheel FILE] [--folder DIR]``. It needs uv, and a network for
the dependencies. The environment lies outside the repository, and all commands run in another
folder, so nothing of the clone can be imported by chance. The weights are copied into
``CHROMOZOO_HOME``.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Of `chromozoo karyotype`, which loads the segmenter of dark images for every run.
DEFAULT_WEIGHTS = ("chr_fast_metaphase", "chr_fast_cil", "chrnet4_metaphase")
EXAMPLE, ISCN = ROOT / "examples" / "trisomy_47XX.png", "47,XX,+21"
WEIGHTS = tuple(f"{name}-*.safetensors" for name in DEFAULT_WEIGHTS)
# Files that are no Python, and how many of them the package holds at least.
CONTENTS = {
    "chromozoo/py.typed": 1,
    "chromozoo/models/weights/entries/*.json": 17,
    "chromozoo/models/classifiers/*.md": 18,
    "chromozoo/models/segmenters/*.md": 5,
    "chromozoo/data/splits/*.json": 6,
    "chromozoo/karyotype/iscn_bands/*.json": 3,
    "chromozoo/visualization/templates/*.j2": 1,
}
IMPORTS = """
import chromozoo, pathlib, sys
package = pathlib.Path(chromozoo.__file__).parent
assert package.is_relative_to(sys.prefix), f"imported from {package}"
assert (package / "py.typed").is_file()
assert "torch" not in sys.modules
assert "chrnet4" in chromozoo.list_models()
print(f"chromozoo {chromozoo.__version__} from {package}")
"""


def check(condition: bool, message: str) -> None:
    """End the script with a message unless a condition holds."""
    if not condition:
        sys.exit(f"wheel_smoke: {message}")


def check_contents(wheel: Path) -> None:
    """Check that the wheel holds all data files, and neither weights, tests nor configs."""
    with zipfile.ZipFile(wheel) as archive:
        names = [Path(name) for name in archive.namelist()]
    for pattern, count in CONTENTS.items():
        found = sum(name.match(pattern) for name in names)
        check(found >= count, f"{wheel.name} holds {found} of {count} files {pattern}")
    top = {name.parts[0] for name in names}
    metadata = {name for name in top if name.endswith(".dist-info")}
    check(top - metadata == {"chromozoo"}, f"{wheel.name} holds {sorted(top)}")
    suffixes = {name.suffix for name in names}
    check(not suffixes & {".safetensors", ".pyc", ".ckpt"}, f"{wheel.name} holds {suffixes}")
    print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1000:.0f} kB")


def smoke(wheel: Path, folder: Path) -> None:
    """Install a wheel below a folder and use it there."""
    environment, work, home = folder / "venv", folder / "work", folder / "home"
    work.mkdir()
    shutil.copy(EXAMPLE, work / "metaphase.png")
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    python, chromozoo = scripts / "python", scripts / "chromozoo"
    install = ["uv", "pip", "install", "--quiet", "--python", str(environment), str(wheel)]
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, environment], check=True)
    subprocess.run(install, check=True)

    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables["CHROMOZOO_HOME"] = str(home)

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*map(str, command)], cwd=work, env=variables, capture_output=True, text=True
        )

    done = run(python, "-c", IMPORTS)
    check(done.returncode == 0, f"the import fails:\n{done.stderr}")
    print(done.stdout, end="")

    karyotype: list[str | Path] = [chromozoo, "karyotype", "metaphase.png", "--output", "results"]
    done = run(*karyotype)
    text = done.stdout + done.stderr
    check(done.returncode != 0, "karyotypes without weights")
    check(str(home / "weights") in text, f"does not say where it looked for weights:\n{text}")

    (home / "weights").mkdir(parents=True)
    for pattern in WEIGHTS:
        for path in (ROOT / "weights").glob(pattern):
            shutil.copy(path, home / "weights")
    done = run(*karyotype)
    check(done.returncode == 0, f"the example fails:\n{done.stdout}{done.stderr}")
    results = work / "results"
    iscn = [json.loads(path.read_text("utf-8")).get("iscn") for path in results.glob("*.json")]
    check(iscn == [ISCN], f"the karyotypes of the example are {iscn}")
    check((results / "index.html").is_file(), "there is no page of the results")
    check(len([*results.glob("*.png")]) >= 2, "there is no karyogram and overlay")
    print(f"{EXAMPLE.name}: {iscn[0]}")


def main() -> None:
    """Build the wheel, check its contents and use it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wheel", type=Path, help="an existing wheel (default: build one)")
    parser.add_argument("--folder", type=Path, help="an empty folder to work in, which is kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        check(not folder.is_relative_to(ROOT), f"{folder} lies in the repository; name another")
        wheel = arguments.wheel
        if wheel is None:
            build = ["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT)]
            subprocess.run(build, check=True)
            (wheel,) = folder.glob("*.whl")
        check_contents(wheel)
        smoke(wheel.resolve(), folder)


if __name__ == "__main__":
    main()
