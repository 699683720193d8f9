"""The text that a table shows for a goal."""


def verdict(reached: bool, goal: str) -> str:
    """Return the goal, and whether it was reached."""
    return f"{goal}: {'reached' if reached else 'MISSED'}"
