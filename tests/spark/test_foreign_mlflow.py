"""A notebook whose MLflow is set up otherwise: autologging, a chosen experiment, variables that name another run."""

from pathlib import Path

from tests.spark.own_process import run


def test_training_is_the_same_with_autologging_and_variables(tmp_path: Path) -> None:
    found = run("foreign_mlflow", tmp_path)
    plain, second, theirs = found["runs"]
    assert plain == second
    assert (second["status"], second["ours"]) == ("FINISHED", True)
    assert found["runs of ours"] == 2
    assert theirs == {"status": "FINISHED", "ours": False, "params": {}, "metrics": []}
    assert found["autologging is on again"]
    assert found["variable is back"]
    assert "MLFLOW_RUN_ID=THEIRS is not used: this job has its own run in tracking.experiment=ours" in found["said"]
