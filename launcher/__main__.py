"""`python -m launcher`: the same as `glm-serve`."""

from launcher.cli import main

if __name__ == "__main__":
    main()
