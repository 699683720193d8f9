"""The command `sparkcnn NAME …`: one name a job."""

import ast
import difflib
import importlib
import sys
from importlib.resources import files

from cnnlib.errors import INTERRUPTED, ConfigError

JOBS = (
    "ingest",
    "train",
    "compare",
    "tune",
    "score",
    "evaluate",
    "promote",
    "demo",
    "doctor",
    "plan",
    "models",
    "cost",
    "show",
    "imagenet",
)


def main() -> int:
    """Run the job that the first argument names, and give its exit status."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name not in JOBS:
        nearest = difflib.get_close_matches(name, JOBS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"take one of {', '.join(JOBS)}"
        print(f"sparkcnn: {name} is no job; {hint}", file=sys.stderr)
        return ConfigError.exit_status
    # Only the job asked for is imported: Spark, TensorFlow and MLflow take seconds each.
    try:
        job = importlib.import_module(f"jobs.{name}")
    except KeyboardInterrupt:
        return INTERRUPTED
    return job.main(arguments)


def _help() -> str:
    lines = ["usage: sparkcnn NAME [--config FILE] [--section.setting VALUE …]", ""]
    for name in JOBS:
        source = files("jobs").joinpath(f"{name}.py").read_text()
        lines.append(f"  {name:<8} {ast.get_docstring(ast.parse(source))}")
    return "\n".join([*lines, "", "sparkcnn NAME --help explains every setting of a job, with its default."])


if __name__ == "__main__":
    sys.exit(main())
