"""The tables that jobs print at their end."""
