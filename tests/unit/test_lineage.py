"""What SageMaker's lineage should hold, from a ledger written by hand."""

from noria.lineage import Action, action, name_of, told
from noria.names import Names
from tests.unit.test_trace import EXECUTION, FEBRUARY, HISTORY, JANUARY, ONE, TWO, at

NAMES = Names(env="dev")


def made(*types: str) -> list[Action]:
    actions = [action(e, HISTORY, names=NAMES, bucket="data", code="c" * 64) for e in told(HISTORY, since=at(-999))]
    return [found for found in actions if found.type in types]


def test_a_training_produced_its_package_from_code_and_the_datasets_that_are_new_in_it() -> None:
    first, second = made("Training")
    assert first.uri == EXECUTION.format(1)
    learnt = {(a.artifact.uri.rpartition("/")[2], a.edge, a.downwards, a.of is not None) for a in first.associations}
    assert learnt == {
        (ONE.rpartition("/")[2], "Produced", True, False),
        (f"sha256:{'c' * 64}", "ContributedTo", False, False),
        ("request.json", "ContributedTo", False, False),
        ("data.csv", "ContributedTo", False, True),
    }
    hashes = [a.artifact.properties["sha256"] for a in second.associations if a.of and a.edge == "ContributedTo"]
    assert hashes == [FEBRUARY]
    (before,) = [a for a in second.associations if a.edge == "DerivedFrom"]
    assert before.artifact.uri == f"s3://data/flight-delay/trainings/{'1' * 64}/request.json"
    assert before.of is not None
    assert before.of.uri == f"s3://data/flight-delay/trainings/{'2' * 64}/request.json"


def test_a_dataset_says_which_upload_it_was_and_who_sent_it() -> None:
    (january,) = [a.artifact for a in made("Training")[0].associations if a.of]
    assert january.uri == f"s3://data/flight-delay/datasets/{JANUARY}/data.csv"
    assert january.properties["key"] == "flight-delay/incoming/january.csv"
    assert january.properties["version"] == "version-of-january.csv"
    assert january.properties["uploaded_by"] == "123456789012"


def test_an_approval_says_who_and_why_and_a_deployment_what_it_was_for() -> None:
    (approval,) = made("Approval")
    assert (approval.properties["by"], approval.properties["reason"]) == ("arn:a", "first")
    assert [a.artifact.uri for a in approval.associations] == [ONE]
    first, second = made("Deployment")
    assert [a.artifact.uri for a in (*first.associations, *second.associations)] == [ONE, TWO]
    assert second.properties["config"] == "config-d2"


def test_an_action_has_one_name_of_its_own_however_often_it_is_told() -> None:
    names = [name_of(entry, NAMES) for entry in told(HISTORY, since=at(-999))]
    assert len(set(names)) == len(names) == 5
    assert names == [name_of(entry, NAMES) for entry in told(HISTORY, since=at(-999))]
    assert all(name.startswith("noria-dev-flight-delay-") for name in names)


def test_what_is_older_is_not_told() -> None:
    assert [entry.subject for entry in told(HISTORY, since=at(6))] == ["d2"]
