"""Log lines as people read them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from noria.ledger import GENESIS, Entry, Fact, Kind
from noria.logs import Line, correlation_in, read, silent, told, without_toolkit

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def line(**said: Any) -> Line:
    found = read(json.dumps({"message": "Heard", "level": "INFO"} | said), at=NOW, where="validate-upload")
    assert found
    return found


def test_a_function_says_when_and_what_and_how_it_failed() -> None:
    found = line(
        message="Failed",
        level="ERROR",
        timestamp="2026-11-21 11:59:58,250+0000",
        correlation_id="c",
        event_id="e",
        function_request_id="r",
        function_arn="arn",
        exception='Traceback (most recent call last):\n  File "x"\nLookupError: no model\n',
        model="prices",
        drifted=["temp"],
    )
    assert found.at == NOW - timedelta(seconds=1.75)
    assert found.message == 'Failed model=prices drifted=["temp"] LookupError: no model'
    assert (found.level, found.correlation, found.event, found.request) == ("ERROR", "c", "e", "r")
    assert str(found.exception).startswith("Traceback")


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("START RequestId: 1 Version: $LATEST", None),
        ("REPORT RequestId: 1\tDuration: 2 ms", None),
        ('{"_aws": {"Timestamp": 1}, "Model": "m"}', None),
        ("  ", None),
        ("epoch 3: loss 0.4", ""),
        ('{"no": "message"}', ""),
        ('{"broken', ""),
        ("2026-11-21T10:01:00.123Z r Task timed out after 60.00 seconds", "ERROR"),
        ("RequestId: r Error: Runtime exited with error: signal: killed", "ERROR"),
    ],
)
def test_what_others_write_is_told_as_it_is_or_says_nothing(text: str, level: str | None) -> None:
    found = read(text, at=NOW, where="job")
    assert (found.level if found else None) == level
    assert found is None or (found.message, found.at) == (text.strip(), NOW)


# As sagemaker-training 5.1.4 logged it in a training of this repository, most of its environment left out.
PREAMBLE = [
    "2026-11-22 08:13:49,620 sagemaker-training-toolkit INFO     No GPUs detected (normal if no gpus installed)",
    "2026-11-22 08:13:49,619 sagemaker_training.entry_point INFO     Bypass DNS check.",
    "Training Env:",
    '"channel_input_dirs": {',
    "Invoking script with the following command:",
    "/usr/bin/python3 -- run.py --step train",
]


def test_of_a_job_the_script_is_heard_and_of_the_toolkit_what_went_wrong() -> None:
    said = [
        "2026-11-22 08:13:49,707 sagemaker-training-toolkit INFO     Exceptions not imported for SageMaker Debugger",
        "trained on 21103 rows",
        "2026-11-22 08:14:01,219 sagemaker-training-toolkit ERROR    Reporting training FAILURE",
    ]
    lines = [Line(at=NOW, kind="log", where="Train", message=text) for text in [*PREAMBLE, *said]]
    assert [line.message for line in without_toolkit(lines)] == said[1:]
    assert without_toolkit(lines[:4]) == lines[:4]  # the script was never started


def test_entries_are_told_among_lines_and_what_is_at_one_moment_stays_in_order() -> None:
    fact = Fact(model="m", kind=Kind.DATASET_ACCEPTED, subject="s", at=NOW, summary="It is a dataset.")
    entry = Entry.after(fact, number=7, previous=GENESIS, correlation="c")
    lines = [line(message=text) for text in ("b", "a", "b")]
    late = line(message="z", timestamp="2026-11-21 12:00:01,000+0000")
    found = told([late, *lines], [entry])
    assert [one.message for one in found] == ["It is a dataset.", "b", "a", "b", "z"]
    assert (found[0].where, found[0].level) == ("m #7", "dataset_accepted")


def test_whose_effect_an_event_is_says_who_knew_better_than_the_event() -> None:
    heard, followed = line(event_id="e", correlation_id="e"), line(event_id="e", correlation_id="upload")
    assert correlation_in([heard, followed, heard], "e") == "upload"
    assert correlation_in([heard], "e") == "e"
    assert correlation_in([line(event_id="other", correlation_id="other")], "e") is None


def test_an_invocation_that_said_one_thing_only_may_have_been_killed() -> None:
    lines = [line(function_request_id="1"), line(function_request_id="2"), line(function_request_id="2"), line()]
    assert silent(lines) == [("validate-upload", "1")]
