"""``wit``, and ``python -m wit_builder``: signals to stop are heeded before much is imported."""

from __future__ import annotations

from wit_builder import interrupts


def main() -> None:
    """Run the program, and leave with its exit status."""
    interrupts.leave_until_begun()
    from wit_builder import cli  # noqa: PLC0415 - heeds signals first

    cli.main()


if __name__ == "__main__":
    main()
