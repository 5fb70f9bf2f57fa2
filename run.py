"""Set-up and start in one: `python3 run.py classify IMAGES` or `python3 run.py test`.

The first call makes .venv beside this file and installs ChromoZoo into it; later calls do so again
only when pyproject.toml has changed. The rest of the line is then a `chromozoo` command. Two words
are for contributors: `test` runs the test suite, with arguments of pytest, and `check` runs ruff,
mypy and the test of the layers. `test --config FILE` is the `chromozoo` command, as on its own.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - older versions read the file up to this line
    sys.exit(f"run.py: ChromoZoo needs Python 3.11 or newer, this is {sys.version.split()[0]}")

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / "chromozoo.stamp"
CHECKS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
    ("pytest", "-q", "tests/project/test_layers.py"),
)


def succeeds(*command: str | Path) -> bool:
    """Run a command of the set-up; its output goes to stderr, because stdout is for results."""
    return subprocess.run([*map(str, command)], cwd=ROOT, stdout=sys.stderr).returncode == 0


def set_up(extra: str) -> None:
    """Make .venv fit pyproject.toml, with one of its extras: ``"test"`` or ``"dev"``."""
    sha256 = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    installed = STAMP.read_text() if PYTHON.exists() and STAMP.exists() else ""
    # The extra `dev` holds `test`.
    if installed in (f"{extra} {sha256}", f"dev {sha256}"):
        return
    print(f"run.py: installing ChromoZoo into {VENV}; this takes minutes once", file=sys.stderr)
    venv = (sys.executable, "-m", "venv", "--clear", "--without-pip", VENV)
    if not PYTHON.exists() and not succeeds(*venv):
        sys.exit(f"run.py: {VENV} cannot be made; is the folder writable?")
    pip = (PYTHON, "-m", "pip", "install", "--disable-pip-version-check")
    uv = shutil.which("uv")
    if uv is None:
        if not succeeds(PYTHON, "-m", "ensurepip"):
            sys.exit("run.py: this Python has no ensurepip; on Debian: apt install python3-venv")
        uv = str(BIN / "uv") if succeeds(*pip, "uv") else None
    project = ("--editable", f".[{extra}]")
    by_uv = uv is not None and succeeds(uv, "pip", "install", "--python", PYTHON, *project)
    if not by_uv and not (succeeds(PYTHON, "-m", "ensurepip") and succeeds(*pip, *project)):
        sys.exit("run.py: not installed, see above; is there a network? Then run it again.")
    STAMP.write_text(f"{extra} {sha256}")


def check() -> int:
    """Run all checks, also after one that fails, and return 1 if any failed."""
    results = []
    for tool, *arguments in CHECKS:
        print(f"run.py: {' '.join([tool, *arguments])}", file=sys.stderr)
        results.append(succeeds(PYTHON, "-m", tool, *arguments))
    return 0 if all(results) else 1


words = sys.argv[1:] or ["--help"]
# pytest has no configs, and a test of LightningCLI does not go without one.
is_suite = words[0] == "test" and not any(word.startswith("--config") for word in words)
set_up("dev" if words[0] == "check" else "test")
if words[0] == "check":
    sys.exit(check())
command = [str(BIN / "chromozoo"), *words]
if is_suite:
    os.chdir(ROOT)
    # The whole suite in two processes; chosen tests in one, as they were asked for.
    command = [str(PYTHON), "-m", "pytest", *(words[1:] or ["-n", "2"])]
if os.name == "nt":
    sys.exit(subprocess.call(command))
os.execv(command[0], command)  # so that Ctrl-C reaches the command alone
