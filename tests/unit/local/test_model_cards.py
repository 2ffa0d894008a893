"""Model cards of the local SageMaker, through the adapter and the reaction that write them."""

import json
from typing import Any

import pytest

from lambdas.write_card.handler import concerned, write_card
from local.sagemaker.api import Api, Problem
from local.sagemaker.authorization import permissions
from local.sagemaker.cards import Cards as LocalCards
from local.sagemaker.tags import Tags
from noria.aws.cards import Cards, Written
from noria.card.sagemaker import STATUS, content
from noria.ledger import Kind
from noria.names import Names
from noria.record import Record
from tests.unit.card_world import arn, chain, fact, record

NAME = "noria-local-example-2"


class Client:
    """As boto3's: each call goes over the wire's checks, by botocore's model of SageMaker."""

    class exceptions:  # noqa: N801 (as boto3 has it)
        class ResourceNotFound(Exception): ...

    def __init__(self, api: Api) -> None:
        self.api = api
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        operation = "".join(part.capitalize() for part in name.split("_"))

        def call(**request: Any) -> dict[str, Any]:
            self.calls.append(operation)
            try:
                return self.api.call(operation, request)
            except Problem as problem:
                if problem.code == "ResourceNotFound":
                    raise self.exceptions.ResourceNotFound from problem
                raise

        return call


@pytest.fixture
def client(cloud: Any) -> Client:
    tags = Tags()
    return Client(Api([tags, LocalCards(cloud, tags)]))


class Records:
    """What is known, as it changes: one record after the other, the last one from then on."""

    names = Names(env="local")

    def __init__(self, *records: Record) -> None:
        self.records = list(records)

    def of(self, package: str) -> Record:
        found = self.records[0] if len(self.records) == 1 else self.records.pop(0)
        assert found.package.arn == package
        return found


def written(client: Client, *records: Record) -> Written:
    known: Any = Records(*records)
    sagemaker: Any = client
    return write_card(package=arn(2), records=known, cards=Cards(client=sagemaker), key="k")


def approval(of: Record, word: str) -> Record:
    return of.model_copy(update={"package": of.package.model_copy(update={"approval": word})})


def test_the_card_of_a_version_follows_its_record(client: Client) -> None:
    waiting = approval(record(live=False), "PendingManualApproval")
    assert written(client, waiting) is Written.CREATED
    card = client.describe_model_card(ModelCardName=NAME)
    assert (card["ModelCardStatus"], card["ModelCardVersion"]) == ("PendingReview", 1)
    assert card["Content"] == content(waiting).text
    assert card["SecurityConfig"] == {"KmsKeyId": "k"}
    tags = client.list_tags(ResourceArn=card["ModelCardArn"])["Tags"]
    assert tags == [{"Key": "noria:env", "Value": "local"}, {"Key": "noria:model", "Value": "example"}]

    assert written(client, waiting) is Written.SAME
    assert written(client, record()) is Written.UPDATED
    card = client.describe_model_card(ModelCardName=NAME)
    assert (card["ModelCardStatus"], card["ModelCardVersion"]) == ("Approved", 2)
    assert "answers requests since" in card["Content"]
    assert client.describe_model_card(ModelCardName=NAME, ModelCardVersion=1)["Content"] == content(waiting).text


def test_an_older_record_does_not_have_the_last_word(client: Client) -> None:
    """The function read its record before another approved the version, and writes after that."""
    waiting, live = approval(record(live=False), "PendingManualApproval"), record()
    written(client, live)
    assert written(client, waiting, live) is Written.UPDATED
    card = client.describe_model_card(ModelCardName=NAME)
    assert (card["Content"], card["ModelCardStatus"]) == (content(live).text, STATUS["live"])


def test_a_card_goes_with_its_package(client: Client) -> None:
    written(client, record())
    cards: Any = client
    Cards(client=cards).delete(NAME)
    Cards(client=cards).delete(NAME)
    assert client.list_model_cards()["ModelCardSummaries"] == []


def test_cards_are_listed_by_name_and_status(client: Client) -> None:
    for place, status in enumerate(("Draft", "Approved", "Approved")):
        client.create_model_card(ModelCardName=f"card-{place}", Content="{}", ModelCardStatus=status)
    found = client.list_model_cards(ModelCardStatus="Approved", SortBy="Name", SortOrder="Ascending")
    assert [card["ModelCardName"] for card in found["ModelCardSummaries"]] == ["card-1", "card-2"]
    assert [c["ModelCardName"] for c in client.list_model_cards(NameContains="d-0")["ModelCardSummaries"]] == ["card-0"]


def test_content_that_is_not_of_the_schema_is_refused_with_its_place(client: Client) -> None:
    for wrong, place in (
        ({"model_overview": {"model_nme": "x"}}, "model_overview.model_nme"),
        ({"intended_uses": {"risk_rating": "Huge"}}, "intended_uses.risk_rating"),
        ({"model_overview": {"model_description": "x" * 1025}}, "model_overview.model_description"),
    ):
        with pytest.raises(Problem, match=place):
            client.create_model_card(ModelCardName="c", Content=json.dumps(wrong), ModelCardStatus="Draft")


def test_content_and_status_are_not_updated_together_and_a_name_is_given_once(client: Client) -> None:
    client.create_model_card(ModelCardName="c", Content="{}", ModelCardStatus="Draft")
    with pytest.raises(Problem, match="exactly one"):
        client.update_model_card(ModelCardName="c", Content="{}", ModelCardStatus="Draft")
    with pytest.raises(Problem, match="already exists"):
        client.create_model_card(ModelCardName="c", Content="{}", ModelCardStatus="Draft")


def test_who_may_not_decrypt_is_told_what_it_is_about(client: Client) -> None:
    written(client, record())
    told = client.describe_model_card(ModelCardName=NAME, IncludedData="MetadataOnly")
    assert json.loads(told["Content"]) == {
        "model_overview": {"model_id": arn(2), "model_name": "example"},
        "intended_uses": {"risk_rating": "Medium"},
    }


def test_permission_is_asked_for_on_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISTACK_REGION", "eu-west-1")
    monkeypatch.setenv("MINISTACK_ACCOUNT_ID", "123456789012")
    tags = [{"Key": "a", "Value": "b"}]
    asked = permissions("CreateModelCard", {"ModelCardName": "c", "Tags": tags})
    card = "arn:aws:sagemaker:eu-west-1:123456789012:model-card/c"
    assert [(p.action, p.resource) for p in asked] == [("sagemaker:CreateModelCard", card), ("sagemaker:AddTags", card)]


def test_a_deployment_concerns_what_it_brought_and_what_was_there_before() -> None:
    entries = chain(
        fact(Kind.DEPLOYED, "d1", 1, "", package=arn(1)),
        fact(Kind.DEPLOYED, "d2", 2, "", package=arn(2), challenger=arn(3), percent=10),
        fact(Kind.DEPLOYMENT_REQUESTED, "d3", 3, "", package=arn(4)),
        fact(Kind.ROLLED_BACK, "d3", 4, "", package=arn(2), blamed=arn(4)),
    )
    assert concerned(entries, "d1") == [arn(1)]
    assert concerned(entries, "d2") == [arn(2), arn(3), arn(1)]
    assert set(concerned(entries, "d3")) == {arn(2), arn(3), arn(4)}
