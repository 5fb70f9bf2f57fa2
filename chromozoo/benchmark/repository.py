"""Files of the repository that maintainers' commands change."""

from pathlib import Path

from chromozoo.errors import ChromozooError
from chromozoo.folders import checkout

# An installed package has no repository; `require_checkout` reports that where one is needed.
ROOT = checkout() or Path.cwd()
CONFIGS = ROOT / "configs"
RESULTS = ROOT / "benchmarks" / "results"
LEADERBOARD = ROOT / "benchmarks" / "leaderboard.md"
WEIGHTS = ROOT / "weights"


def require_checkout() -> Path:
    """Return the root of the repository.

    Raises:
        ChromozooError: ChromoZoo was installed without its repository.
    """
    root = checkout()
    if root is None:
        raise ChromozooError(
            "`chromozoo zoo` changes files of the ChromoZoo repository, and this ChromoZoo was "
            "installed without it; clone the repository and run the command there"
        )
    return root


def require_config_of_repository(config: Path, remedy: str) -> None:
    """Check that a config is one of the repository, whose results may change the repository.

    Raises:
        ChromozooError: The config lies elsewhere.
    """
    if CONFIGS.resolve() not in config.resolve().parents:
        raise ChromozooError(
            f"{config}: is none of the configs in {CONFIGS}, and the repository is not changed for "
            f"others; {remedy}"
        )
