"""Two processes that promote to the same alias at the same time, several times. test_promote.py runs this.

At two points, each waits for the other: before it starts its run, and while it evaluates. There a real promotion takes
long.
"""

import json
import multiprocessing
import sys
from pathlib import Path

import mlflow

from cnnlib.config import StoreSettings
from cnnlib.errors import PromotionError
from pipelines.tracking.aliases import move_alias, promotion_of, version_with
from pipelines.tracking.registry import find_version
from pipelines.tracking.store import connect

ROUNDS = 10
NAMES = [f"model-{number}" for number in range(ROUNDS)]


def compete(uri: str, version: str, together, ended) -> None:
    connect(StoreSettings(uri=uri))
    outcomes = []
    for name in NAMES:
        together.wait()
        with mlflow.start_run() as run:
            entered = False
            try:
                with promotion_of(name, "champion", run.info.run_id) as claim:
                    entered = True
                    together.wait()
                    move_alias(find_version(name, version), "champion", run.info.run_id, "it ran", check=claim.check)
                outcomes.append("moved")
            except PromotionError as error:
                outcomes.append(str(error))
                if not entered:
                    together.wait()
    ended.put((version, outcomes))


def main(folder: Path) -> dict[str, object]:
    uri = f"sqlite:///{folder}/mlflow.db"
    connect(StoreSettings(uri=uri))
    client = mlflow.MlflowClient()
    for name in NAMES:
        client.create_registered_model(name)
        for _ in range(2):
            client.create_model_version(name, source=str(folder))
    spawn = multiprocessing.get_context("spawn")
    together, ended = spawn.Barrier(2, timeout=60), spawn.Queue()
    processes = [spawn.Process(target=compete, args=(uri, version, together, ended)) for version in ("1", "2")]
    for process in processes:
        process.start()
    outcomes = dict(ended.get(timeout=200) for _ in processes)
    for process in processes:
        process.join()
    versions = [version_with(name, "champion") for name in NAMES]
    return {
        "outcomes": outcomes,
        "champions": [version.version if version else None for version in versions],
        "tags": [client.get_registered_model(name).tags for name in NAMES],
        "loser's tags": [
            find_version(name, "2" if version and version.version == "1" else "1").tags
            for name, version in zip(NAMES, versions, strict=True)
        ],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
