"""What is said of a goal."""


def verdict(reached: bool, goal: str) -> str:
    """The goal, and whether it was reached."""
    return f"{goal}: {'reached' if reached else 'MISSED'}"
