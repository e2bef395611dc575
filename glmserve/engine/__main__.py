"""`python -m glmserve.engine` says what is wrong with the engine's settings, one line each; exit code 1 if anything."""

import sys

from glmserve.engine.settings import EngineSettings
from glmserve.errors import BadSettings

if __name__ == "__main__":
    try:
        EngineSettings.read()
    except BadSettings as error:
        print(error.message, file=sys.stderr)
        sys.exit(1)
