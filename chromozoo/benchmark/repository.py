"""The repository that maintainers measure and publish in."""

from pathlib import Path

from chromozoo.errors import ChromozooError
from chromozoo.folders import checkout

# An installed package has no repository; `require_checkout` says so where one is needed.
ROOT = checkout() or Path.cwd()


def require_checkout() -> Path:
    """Root of the repository.

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
