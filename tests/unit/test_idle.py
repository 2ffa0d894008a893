"""Endpoints that nobody asks: told once a version has had a week, with what they cost."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from noria.aws.endpoints import instances
from noria.idle import idle, looks_idle

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(("days", "looks"), [(6.9, False), (7, True), (30, True)])
def test_a_version_has_a_week_to_be_asked(days: float, looks: bool) -> None:
    assert looks_idle(since=NOW - timedelta(days=days), now=NOW) is looks


def test_what_nobody_asks_is_told_with_its_price_and_the_way_out() -> None:
    told = idle("fares", requests=0, usd=280.32)
    assert told is not None
    assert "280 USD a month" in told
    assert "noria retire fares" in told
    unknown = idle("fares", requests=0, usd=None)
    assert unknown is not None
    assert "by the hour" in unknown


def test_one_request_or_no_instance_is_not_idle() -> None:
    assert idle("fares", requests=1, usd=280) is None
    assert idle("fares", requests=0, usd=0.0) is None


def test_an_endpoint_tells_what_it_runs_on_now_and_not_what_it_began_with() -> None:
    endpoint: Any = {
        "ProductionVariants": [
            {"VariantName": "champion", "CurrentInstanceCount": 5},
            {"VariantName": "idle", "CurrentServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5}},
        ],
        "ShadowProductionVariants": [{"VariantName": "shadow", "CurrentInstanceCount": 1}],
    }
    config: Any = {
        "ProductionVariants": [
            {"VariantName": "champion", "InstanceType": "ml.m5.large", "InitialInstanceCount": 3},
            {"VariantName": "idle", "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5}},
        ],
        "ShadowProductionVariants": [{"VariantName": "shadow", "InstanceType": "ml.m5.xlarge"}],
    }
    assert instances(endpoint, config) == {"champion": ("ml.m5.large", 5), "shadow": ("ml.m5.xlarge", 1)}
