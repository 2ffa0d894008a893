"""Cards: what they say is what the record holds, in each form; names that an enemy chose stay names."""

import json
import re
from datetime import timedelta
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from pypdf import PdfReader

from noria.aws.cards import Cards, Written
from noria.card import page, pdf, sagemaker
from noria.card.document import Card, Facts, Histograms, Interval, Table
from noria.card.facts import card
from noria.ledger import Kind
from noria.names import Names
from noria.record import Record, about
from noria.report.numbers import figure
from noria.spec import Metric
from tests.unit.card_world import ANNA, BEN, CATEGORIES, EXECUTION, NOW, arn, chain, evaluation, fact, record, spec
from tests.unit.report_run import HOSTILE
from tests.unit.serving_world import error
from tests.unit.test_report import read, shape


def hostile() -> Record:
    return record(spec(HOSTILE), HOSTILE, said=HOSTILE[0])


def printed(made: bytes, folder: Any) -> str:
    """All text of a PDF, by a reader that is not ours, without where lines are broken."""
    path = folder / "card.pdf"
    path.write_bytes(made)
    return re.sub(r"[\s\u200b]+", "", "".join(sheet.extract_text() for sheet in PdfReader(path).pages))


def facts(of: Record) -> list[str]:
    """What anybody who asks for a card wants to find in it, by the record alone."""
    measured = of.evaluation
    assert measured
    assert of.spec
    assert of.request
    found = [of.model, of.package.arn, of.spec.owner.team, *of.spec.limits, of.spec.purpose or ""]
    found += [figure(value) for e in measured.metrics.values() for value in (e.value, e.low, e.high)]
    found += [figure(s.metrics[Metric.AUC]) for scores in measured.segments.values() for s in scores.values()]
    found += [f"{measured.trained_on.rows:,}", f"{measured.slice.rows:,}", figure(measured.latency_p95_ms)]
    found += [figure(0.91), figure(0.0231), "january.csv", BEN, ANNA, EXECUTION, "c" * 64, "d" * 64, "b" * 64]
    found += [of.request.token, of.package.model_data or "", of.package.image or "", "HistGradientBoostingClassifier"]
    found += [entry.summary for entry in (*of.decisions, *of.deployments)]
    return found


def test_the_page_says_every_fact_of_the_record() -> None:
    of = record()
    said = read(page.render(card(of))).said
    assert [fact for fact in facts(of) if fact not in said] == []


def test_the_paper_says_every_fact_of_the_record(tmp_path: Any) -> None:
    of = record()
    said = printed(pdf.render(card(of)), tmp_path)
    assert [fact for fact in facts(of) if re.sub(r"\s", "", fact) not in said] == []


def test_page_and_paper_are_of_one_card(tmp_path: Any) -> None:
    made = card(record())
    paper = printed(pdf.render(made), tmp_path)
    for section in made.sections:
        assert re.sub(r"\s", "", section.title) in paper
    assert {e.attributes.get("id") for e in read(page.render(made)).all("section")} == {s.id for s in made.sections}


def test_the_same_record_gives_the_same_bytes() -> None:
    assert page.render(card(record())) == page.render(card(record()))
    assert pdf.render(card(record())) == pdf.render(card(record()))
    assert sagemaker.content(record()).text == sagemaker.content(record()).text
    assert Card.model_validate_json(card(record()).model_dump_json()) == card(record())


def test_names_do_not_change_what_a_page_is_made_of() -> None:
    """Eleven harmless names of columns and categories, and eleven that an enemy chose."""
    harmless = tuple(f"name-{place}" for place in range(len(HOSTILE)))
    usual, enemy = (
        read(page.render(card(record(spec(names), names, said=said))))
        for names, said in ((harmless, "fine"), (HOSTILE, HOSTILE[0]))
    )

    def plain(element: Any) -> Any:
        return re.sub(r", 'title'|'title', |'title'", "", json.dumps(shape(element)).replace('"', "'"))

    assert plain(usual) == plain(enemy)
    assert not [e for e in enemy.everything() if e.name in {"script", "img"}]


def test_names_are_text_on_paper(tmp_path: Any) -> None:
    typeset = ("#panic()", "$x^2$", "= heading", "*bold* _slanted_", "#import sys", "\\u{41}", '"', "a\\", HOSTILE[0])
    of = record(spec(typeset), typeset, said="#eval(1+1) @ref <label> `raw` // no comment")
    said = printed(pdf.render(card(of)), tmp_path)
    for name in (*typeset, of.package.reason):
        assert re.sub(r"\s", "", name) in said


def aws_schema(kind: str) -> Any:
    """From cfn-lint's files: to import it takes seconds."""
    spec = find_spec("cfnlint")
    assert spec
    assert spec.origin
    schemas = Path(spec.origin).parent / "data" / "schemas"
    name = json.loads((schemas / "providers" / "us-east-1.json").read_text())[kind]
    return json.loads((schemas / "resources" / f"{name}.json").read_text())


def test_the_content_validates_against_aws_own_schema() -> None:
    """AWS::SageMaker::ModelCard as cfn-lint has it from AWS, whose members are those of the JSON schema in capitals."""
    schema = aws_schema("AWS::SageMaker::ModelCard")
    content = schema["definitions"]["Content"] | {"definitions": schema["definitions"]}

    def capital(value: Any, *, free: bool = False) -> Any:
        if isinstance(value, dict):
            return {
                key if free else "".join(part.capitalize() for part in key.split("_")): capital(
                    each, free=key in {"custom_details", "metadata"}
                )
                for key, each in value.items()
            }
        return [capital(each) for each in value] if isinstance(value, list) else value

    for of in (record(), hostile(), Record(package=record().package), record(version=999)):
        text = sagemaker.content(of).text
        assert len(text) < sagemaker.LARGEST
        problems = Draft7Validator(content).iter_errors(capital(json.loads(text)))
        assert [(list(problem.path), problem.message) for problem in problems] == []
    assert list(Draft7Validator(content).iter_errors({"ModelOverview": {"Wrong": 1}}))


def test_the_content_holds_the_records_facts() -> None:
    of = record()
    made = json.loads(sagemaker.content(of).text)
    assert of.evaluation
    assert made["model_overview"]["model_id"] == of.package.arn
    assert made["model_overview"]["model_owner"] == "team"
    assert made["intended_uses"]["risk_rating"] == "Medium"
    assert of.spec
    assert made["intended_uses"]["purpose_of_model"] == of.spec.purpose
    groups = {g["name"]: g["metric_data"] for g in made["evaluation_details"][0]["metric_groups"]}
    assert {m["name"]: m["value"] for m in groups["Quality"]} == {
        "auc": 0.7123,
        "brier": 0.1817,
        "latency_p95_ms": 3.417,
        "calibration_error": 0.0231,
    }
    assert [m["value"] for m in groups["Better than the champion by"]] == [0.0223]
    assert {m["name"]: m["value"] for m in groups["Quality by color"]} == {
        f"auc, {value}": 0.6 + place / 50 for place, value in enumerate(CATEGORIES)
    }
    assert groups["What predictions rest on"][0]["value"] == [0.55, 0.3, 0.15]
    assert groups["Calibration"][0]["value"] == [[0.21, 0.2], [0.72, 0.75]]
    custom = made["additional_information"]["custom_details"]
    assert (custom["code"], custom["execution"], custom["training"]) == (
        "c" * 64,
        EXECUTION,
        of.request and of.request.token,
    )
    assert ANNA in custom["decision_1"]


def test_content_that_would_be_too_large_loses_segments_and_stays_valid() -> None:
    values = tuple(f"{place}-{'v' * 240}" for place in range(60))
    of = record(spec(contract={}), values)
    assert of.evaluation
    many = {f"segment {n}": of.evaluation.segments["color"] for n in range(15)}
    large = of.model_copy(update={"evaluation": of.evaluation.model_copy(update={"segments": many})})
    text = sagemaker.content(large).text
    assert len(text) <= sagemaker.LARGEST
    names = [g["name"] for g in json.loads(text)["evaluation_details"][0]["metric_groups"]]
    assert names[0] == "Quality"
    assert 0 < sum(name.startswith("Quality by") for name in names) < 15


# --- what is shown, and what is not


def test_values_of_sensitive_features_are_nowhere(tmp_path: Any) -> None:
    usual = spec()
    color = usual.features["color"].model_copy(update={"sensitive": True})
    of = record(usual.model_copy(update={"features": usual.features | {"color": color}}))
    shown = read(page.render(card(of))).said + printed(pdf.render(card(of)), tmp_path) + sagemaker.content(of).text
    assert [value for value in CATEGORIES if re.search(rf"\b{value}\b", shown)] == []
    assert "value 1" in shown


def test_without_a_spec_no_value_is_shown_because_nobody_knows_which_may_be() -> None:
    of = record().model_copy(update={"spec": None, "unknown": {"spec": "older than it"}})
    made = card(of)
    shown = page.render(made) + sagemaker.content(of).text
    assert not [value for value in CATEGORIES if re.search(rf"\b{value}\b", shown)]
    assert not [block for section in made.sections for block in section.blocks if isinstance(block, Histograms)]
    (unknown,) = [section for section in made.sections if section.id == "unknown"]
    assert isinstance(unknown.blocks[0], Facts)
    assert {"spec", "baseline", "evaluation"} <= {term for term, _ in unknown.blocks[0].pairs}


def test_of_a_package_that_somebody_registered_by_hand_the_card_says_what_is_not_known(tmp_path: Any) -> None:
    unknown = {"evaluation": "the package has no noria:evaluation in its metadata", "spec": "nor a spec"}
    made = card(Record(package=record().package, unknown=unknown))
    assert made.standing == "Approved"
    for said in (read(page.render(made)).said, printed(pdf.render(made), tmp_path)):
        assert [why for why in unknown.values() if why not in said and why.replace(" ", "") not in said] == []


def test_histograms_hold_all_rows_of_their_column() -> None:
    (data,) = [section for section in card(record()).sections if section.id == "data"]
    (histograms,) = [block for block in data.blocks if isinstance(block, Histograms)]
    assert {each.name for each in histograms.of} == {"(prediction)", "x", "size", "color"}
    for each in histograms.of:
        assert sum(share for _, share in each.shares) + each.missing == pytest.approx(1)
        assert all(share >= 0 for _, share in each.shares)
    x = next(each for each in histograms.of if each.name == "x")
    heights = [share for _, share in x.shares]
    assert heights.index(max(heights)) in range(5, 11)  # rows of a normal distribution are in the middle
    assert max(heights) > 3 * heights[0]


def test_intervals_are_drawn_within_their_scale() -> None:
    drawn = [
        cell
        for section in card(record()).sections
        for block in section.blocks
        if isinstance(block, Table)
        for row in block.rows
        for cell in row
        if isinstance(cell, Interval)
    ]
    assert len(drawn) == 5
    for cell in drawn:
        places = [cell.low, cell.estimate.low, cell.estimate.value, cell.estimate.high, cell.high]
        assert all(a <= b for a, b in pairwise(places))


def test_gates_say_what_was_asked_and_what_was_measured() -> None:
    (gates,) = [section for section in card(record()).sections if section.id == "gates"]
    (asked,) = [block for block in gates.blocks if isinstance(block, Table)]
    measured = evaluation(spec(), CATEGORIES)
    assert asked.rows == (
        ("auc", "at least 0.6", figure(measured.metrics[Metric.AUC].value)),
        ("auc", "better than the champion by 0", "0.0223"),
        ("latency_p95_ms", "at most 50", "3.42"),
        ("bias by color", "auc of its values apart by at most 0.1", "0.04"),
    )


# --- where a version stands


@pytest.mark.parametrize(
    ("last", "standing", "status"),
    [
        (None, "live", "Approved"),
        (fact(Kind.DEPLOYED, "deploy-2", 20, "Version 3 is live.", package=arn(3)), "approved", "Approved"),
        (fact(Kind.ROLLED_BACK, "deploy-1", 20, "An alarm.", package=arn(2), blamed=arn(2)), "live", "Approved"),
        (fact(Kind.MODEL_RETIRED, "deploy-3", 20, "Retired.", package=arn(2)), "retired", "Archived"),
    ],
)
def test_a_version_stands_where_the_ledger_last_saw_it(last: Any, standing: str, status: str) -> None:
    of = record()
    every = chain(*of.entries, *([last] if last else []))
    moved = of.model_copy(update={"entries": about(every, of.package.arn, of.request)})
    assert moved.standing == standing
    assert sagemaker.STATUS[moved.standing] == status


def test_a_retired_version_stays_so_once_nothing_answers_any_more() -> None:
    of = record()
    asked = fact(Kind.MODEL_RETIRED, "deploy-3", 20, "Retired.", package=arn(2))
    gone = fact(Kind.DEPLOYED, "deploy-3", 25, "Nothing answers any more.", package="none")
    moved = of.model_copy(update={"entries": about(chain(*of.entries, asked, gone), arn(2), of.request)})
    assert moved.standing == "retired"
    assert moved.entries[-1].kind is Kind.DEPLOYED


def test_a_version_that_an_alarm_took_back_never_was_live() -> None:
    blamed = fact(Kind.ROLLED_BACK, "deploy-1", 9, "An alarm spoke.", package=arn(1), blamed=arn(2))
    of = record(live=False)
    taken = of.model_copy(update={"entries": about(chain(*of.entries, blamed), arn(2), of.request)})
    assert taken.standing == "rolled back"
    assert card(taken).good is False
    assert "taken back by an alarm" in card(taken).said


@pytest.mark.parametrize(
    ("approval", "status"),
    [("PendingManualApproval", "PendingReview"), ("Approved", "Approved"), ("Rejected", "Draft")],
)
def test_a_cards_status_follows_the_registry(approval: str, status: str) -> None:
    of = record(live=False)
    moved = of.model_copy(update={"package": of.package.model_copy(update={"approval": approval})})
    assert sagemaker.STATUS[moved.standing] == status


def test_entries_of_other_versions_are_not_about_this_one() -> None:
    other = fact(Kind.PACKAGE_APPROVED, f"{arn(22)}#{NOW.isoformat()}", 30, "Another.", package=arn(22))
    replaced = fact(Kind.DEPLOYED, "deploy-9", 40, "Version 22 is live.", package=arn(22))
    of = record()
    every = chain(*of.entries, other, replaced)
    assert [e.subject for e in about(every, arn(2), of.request)][-1] == "deploy-9"  # it replaced this one
    assert other.subject not in {e.subject for e in about(every, arn(2), of.request)}
    assert of.live_since == NOW + timedelta(minutes=9)


def test_a_cards_name_fits_sagemakers_pattern() -> None:
    assert sagemaker.name("noria-local-example", 2) == "noria-local-example-2"
    longest = sagemaker.name(Names(env="prod").model("m" * 32), 999_999)
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", longest)


# --- in SageMaker


class SageMaker:
    """Model cards as SageMaker keeps them: one of content and status a call."""

    class exceptions:  # noqa: N801 (as boto3 has it)
        class ResourceNotFound(Exception): ...

        class ConflictException(Exception): ...

    def __init__(self) -> None:
        self.card: dict[str, Any] | None = None
        self.calls: list[str] = []

    def describe_model_card(self, *, ModelCardName: str) -> dict[str, Any]:  # noqa: N803
        if self.card is None:
            raise self.exceptions.ResourceNotFound
        return dict(self.card)

    def create_model_card(self, **card: Any) -> None:
        self.calls.append("create")
        self.card = card

    def update_model_card(self, *, ModelCardName: str, **change: Any) -> None:  # noqa: N803
        assert self.card
        if len(change) != 1:
            raise error("UpdateModelCard", "ValidationException", "one of the two")
        if "Content" in change and self.card["ModelCardStatus"] == "Archived":
            raise error("UpdateModelCard", "ValidationException", "archived")
        self.calls.append(next(iter(change)))
        self.card |= change


@pytest.mark.parametrize("theirs", ["{}", '{"a":1}'])
def test_of_two_that_write_a_card_at_once_the_later_is_done_if_it_says_the_same(theirs: str) -> None:
    client: Any = SageMaker()
    create = client.create_model_card

    def at_once(**card: Any) -> None:
        create(**card | {"Content": theirs})
        raise client.exceptions.ConflictException

    client.create_model_card = at_once
    cards = Cards(client=client)
    if theirs == "{}":
        assert cards.write("n", "{}", "PendingReview", tags={}, key="k") is Written.UPDATED
    else:
        with pytest.raises(client.exceptions.ConflictException):  # it comes again, and says what is known by then
            cards.write("n", "{}", "PendingReview", tags={}, key="k")


def test_a_card_is_written_once_and_changed_only_where_it_differs() -> None:
    client: Any = SageMaker()
    cards = Cards(client=client)
    tags = {"noria:model": "example"}
    assert cards.write("n", "{}", "PendingReview", tags=tags, key="k") is Written.CREATED
    assert client.card["SecurityConfig"] == {"KmsKeyId": "k"}
    assert client.card["Tags"] == [{"Key": "noria:model", "Value": "example"}]
    assert cards.write("n", "{}", "PendingReview", tags=tags, key="k") is Written.SAME
    assert cards.write("n", "{}", "Approved", tags=tags, key="k") is Written.UPDATED
    assert cards.write("n", '{"a":1}', "Approved", tags=tags, key="k") is Written.UPDATED
    assert cards.write("n", '{"a":2}', "Archived", tags=tags, key="k") is Written.UPDATED
    assert cards.write("n", '{"a":3}', "Approved", tags=tags, key="k") is Written.UPDATED
    assert client.calls == [
        "create",
        "ModelCardStatus",
        "Content",
        "Content",
        "ModelCardStatus",
        "ModelCardStatus",
        "Content",
    ]
