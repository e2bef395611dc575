"""`python -m bench`: every measurement of the project."""

import sys

from bench.servers.malloc_env import start_again
from glmserve.system.missing_package import not_installed

if __name__ == "__main__":
    start_again()  # before all the rest is imported
    try:
        from bench.cli import main
    except ModuleNotFoundError as error:
        sys.exit(not_installed(error))

    main()
