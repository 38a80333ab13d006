"""`python -m pipa`."""

from pipa.cli import main

if __name__ == "__main__":
    main()
