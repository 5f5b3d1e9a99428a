"""``python -m wit_builder`` is ``wit``."""

from wit_builder.cli import main

if __name__ == "__main__":
    main()
