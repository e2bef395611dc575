"""`python -m gateway`."""

import sys

from glmserve.packages import not_installed

try:
    from gateway.cli import main
except ModuleNotFoundError as error:
    sys.exit(not_installed(error))

if __name__ == "__main__":
    main()
