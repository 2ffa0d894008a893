import pytest

from noria.names import Names, ObjectKey


def test_a_name_leads_back_to_its_model() -> None:
    names = Names(env="dev")
    assert names.model_of(names.model("flight-delay")) == "flight-delay"


def test_a_name_of_another_environment_is_not_ours() -> None:
    assert Names(env="dev").model_of("noria-prod-flight-delay") is None
    assert Names(env="dev").model_of("noria-dev-") is None


def test_a_key_keeps_what_stands_behind_its_area() -> None:
    key = ObjectKey.parse("flight-delay/incoming/2013/may be.csv")
    assert (key.model, key.area, key.rest, key.filename) == (
        "flight-delay",
        "incoming",
        "2013/may be.csv",
        "may be.csv",
    )
    assert str(key) == "flight-delay/incoming/2013/may be.csv"


@pytest.mark.parametrize("key", ["", "file.csv", "model/incoming", "model/incoming/", "//x"])
def test_a_key_of_another_form_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        ObjectKey.parse(key)
