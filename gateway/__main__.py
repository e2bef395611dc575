"""`python -m gateway`."""

import sys

from glmserve.system.missing_package import not_installed

try:
    from gateway.cli import main
except ModuleNotFoundError as error:
    sys.exit(not_installed(error))

if __name__ == "__main__":
    main()
