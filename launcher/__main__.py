"""`python -m launcher`: what `make serve` runs."""

from launcher.cli import main

if __name__ == "__main__":
    main()
