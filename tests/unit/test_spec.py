"""The YAML a data scientist writes: what works, and what each mistake is told."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from noria import spec
from noria.cli import commands
from noria.spec import Metric, ModelSpec, SpecError

MINIMAL = """\
model: churn
task: binary_classification
target: left
time: seen_at
features:
  age: {type: integer, min: 0}
owner: {team: growth}
"""

FROM_THE_DESIGN = """\
model: flight-delay
task: binary_classification
target: late
time: ts
features:
  hour:    {type: integer, min: 0, max: 23}
  carrier: {type: category}
  origin:  {type: category}
  temp:    {type: number, missing: 0.2}
segments: [origin, carrier]
gates:   {auc: {min: 0.60, beats_champion_by: 0.0}, latency_p95_ms: 50}
serve:   {mode: realtime, instance: ml.m5.large, count: 3, strategy: canary, bake: 10m}
monitor: {every: 1h, min_rows: 500, psi: 0.25, when: 2 of 3}
retrain: {cooldown: 24h, budget: 4 per month}
owner:   {team: operations-research, page: oncall@example.com}
"""


def parse(text: str) -> ModelSpec:
    return spec.parse(text, name="models/m.yaml")


def error(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse(text)
    return str(caught.value)


def biased(*segments: str) -> str:
    """Features (to follow those of `MINIMAL`) that are segments with a limit on bias."""
    features = "".join(f"  {segment}: {{type: category}}\n" for segment in segments)
    limits = ", ".join(f"{segment}: {{disparate_impact: 0.8}}" for segment in segments)
    return f"{features}segments: [{', '.join(segments)}]\nmonitor: {{bias: {{{limits}}}}}\n"


def test_the_full_spec_is_read_into_typed_values() -> None:
    flight = parse(FROM_THE_DESIGN)
    assert flight.serve.bake == timedelta(minutes=10)
    assert (flight.monitor.when.breaching, flight.monitor.when.of) == (2, 3)
    assert (flight.retrain.budget.count, flight.retrain.budget.period) == (4, timedelta(days=30))
    assert flight.gates.metrics[Metric.AUC].beats_champion_by == 0.0
    assert flight.columns == ("ts", "hour", "carrier", "origin", "temp", "late")


def test_everything_but_the_essentials_has_a_default() -> None:
    churn = parse(MINIMAL)
    assert churn.serve.strategy == "canary"
    assert churn.retrain.after == ("upload", "drift", "quality", "bias")
    assert churn.primary_metric is Metric.AUC


def test_a_spec_survives_the_way_to_the_functions() -> None:
    flight = parse(FROM_THE_DESIGN)
    assert ModelSpec.model_validate_json(flight.model_dump_json()) == flight


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("task: binary_classification", "task: guessing"), "models/m.yaml:2: task = 'guessing'"),
        (("model: churn", "model: Churn Model"), "models/m.yaml:1: model = 'Churn Model'"),
        (("time: seen_at\n", ""), "time: add this field"),
        (("owner:", "colour: red\nowner:"), "models/m.yaml:7: colour = 'red': no such field: remove it"),
        (("min: 0}", "min: 3, max: 1}"), "models/m.yaml:6: features.age: min 3 is larger than max 1: exchange them"),
        (("{type: integer, min: 0}", "{type: category, min: 0}"), "a category has no min or max"),
        (("owner:", "serve: {count: 1, strategy: canary}\nowner:"), "serve: step 1 of 1 instances is more than half"),
        (
            ("owner:", "serve: {step: 5%}\nowner:"),
            "step 5% of 3 instances is less than one: raise count or step, or use",
        ),
        (
            ("owner:", "serve: {count: 20, strategy: linear}\nowner:"),
            "step 1 of 20 instances is too small for linear: use 2",
        ),
        (("owner:", "serve: {mode: serverless, strategy: canary}\nowner:"), "which mode serverless does not have"),
        (
            ("owner:", "serve: {mode: async, strategy: progressive}\nowner:"),
            "splits requests by weight, which mode async",
        ),
        (("owner:", "serve: {weights: [25, 5]}\nowner:"), "weights [25, 5] must grow"),
        (("owner:", "serve: {scale: {min: 1, max: 4, target: 9}}\nowner:"), "scale goes down to 1 instances, of which"),
        (("owner:", "serve: {scale: {min: 4, max: 6, target: 9}}\nowner:"), "count 3 is outside of scale's 4 to 6"),
        (
            ("owner:", "serve: {count: 4, step: 25%, scale: {min: 1, max: 8, target: 9}}\nowner:"),
            "scale goes down to 1 instances, of which step 25% is less than one: use min 4",
        ),
        (
            ("owner:", "serve: {strategy: linear, count: 4, step: 2, scale: {min: 4, max: 40, target: 9}}\nowner:"),
            "scale goes up to 40 instances, of which step 2 is too small for linear: write step as a percentage, 10%",
        ),
        (
            ("owner:", "serve: {strategy: linear, count: 10, bake: 1h}\nowner:"),
            "strategy linear with step 1 and bake 1h takes up to 725m; SageMaker allows 8h: raise step, or lower bake",
        ),
        (("owner:", "serve: {mode: batch, front_door: {}}\nowner:"), "front_door answers at once, which mode batch"),
        (("owner:", "train: {estimator: lightgbm.LGBMClassifier}\nowner:"), "is not in AWS's scikit-learn image: name"),
        (
            ("owner:", "serve: {server: aws, instance: ml.c7g.large}\nowner:"),
            "serve.instance ml.c7g.large is one of Graviton's (arm64), and AWS's scikit-learn image is for x86",
        ),
        (
            ("owner:", "serve: {mode: batch, instance: ml.m6gd.large}\nowner:"),
            "instance ml.m6gd.large is one of Graviton's, which transform jobs do not have",
        ),
        (("owner:", "serve: {bake: 10 minutes}\nowner:"), "serve.bake = '10 minutes': write a whole number and a unit"),
        (
            ("owner:", 'serve: {hours: {days: MON-FRY, from: "07:00", to: "20:00"}}\nowner:'),
            "serve.hours.days = 'MON-FRY': write days as in MON-FRI, or in MON,WED,FRI; known are MON, TUE",
        ),
        (("owner:", "monitor: {when: 4 of 3}\nowner:"), "monitor.when = '4 of 3': 4 of 3 can never happen"),
        (("owner:", "retrain: {budget: lots}\nowner:"), "retrain.budget = 'lots': write it as in: 4 per month"),
        (("owner:", "segments: [country]\nowner:"), "segment 'country' is not a feature: add it to features"),
        (("owner:", "gates: {rmse: {max: 1}}\nowner:"), "gate 'rmse' does not measure binary_classification"),
        (("owner:", "gates: {auc: {max: 1}}\nowner:"), "gate 'auc' is better when higher: use min, not max"),
        (("target: left", "target: age"), "target 'age' is a feature too: a model must not see it"),
        (("target: left", "target: AGE"), "columns 'AGE' and 'age' are one to SQL, which takes no notice of case"),
        (("target: left", "target: seen_at"), "columns 'seen_at' and 'seen_at' are one to SQL"),
        (("owner:", "monitor: {every: 90s}\nowner:"), "every 90s must be whole minutes between 5m and 1d"),
        (
            ("owner:", "monitor: {labels: {within: 46d}}\nowner:"),
            "monitor.labels: within 46d is too long: quality looks back twice as far",
        ),
        (
            ("owner:", biased("zip_code", "zip-code") + "owner:"),
            "monitor.bias names 'zip_code' and 'zip-code', whose alarms would have one name, 'zip-code': rename one",
        ),
        (("owner:", biased("zip code", "Zip_Code") + "owner:"), "whose alarms would have one name, 'zip-code'"),
        (("owner:", biased("_") + "owner:"), "monitor.bias names '_', which leaves an alarm no name: give"),
    ],
)
def test_a_mistake_is_told_with_file_line_field_value_and_remedy(change: tuple[str, str], expected: str) -> None:
    assert expected in error(MINIMAL.replace(*change))


@pytest.mark.parametrize(
    ("change", "field", "example"),
    [
        (("model: churn", "model: Churn"), "model = 'Churn'", "flight-delay"),
        (("owner:", "image: python:3.12\nowner:"), "image = 'python:3.12'", "123456789012.dkr.ecr."),
        (("owner:", "train: {estimator: lgbm}\nowner:"), "train.estimator = 'lgbm'", "lightgbm.LGBMClassifier"),
        (("owner:", "train: {instance: m5.large}\nowner:"), "train.instance = 'm5.large'", "ml.m5.large"),
        (("owner:", "serve: {instance: large}\nowner:"), "serve.instance = 'large'", "ml.m5.large"),
        (("owner:", "retrain: {schedule: weekly}\nowner:"), "retrain.schedule = 'weekly'", "rate(7 days)"),
        (
            ("owner:", "serve: {scale: {min: 3, max: 6, target: 9, schedule: [{at: noon, min: 3, max: 6}]}}\nowner:"),
            "serve.scale.schedule.0.at = 'noon'",
            "cron(0 7 ? * MON-FRI *)",
        ),
        (("team: growth", "team: growth, page: ann"), "owner.page = 'ann'", "oncall@example.com"),
    ],
)
def test_what_is_written_otherwise_than_its_pattern_gets_an_example(
    change: tuple[str, str], field: str, example: str
) -> None:
    told = error(MINIMAL.replace(*change))
    assert f"{field}: write it as in {example}" in told
    assert "pattern" not in told


def test_all_mistakes_are_told_at_once() -> None:
    told = error(MINIMAL.replace("model: churn", "model: X").replace("team: growth", "crew: growth"))
    assert "model = 'X'" in told
    assert "owner.team: add this field" in told
    assert "owner.crew" in told


@pytest.mark.parametrize("text", ["a: [1", "- just\n- a list", "", "\t:"])
def test_what_is_not_a_spec_at_all_is_said_plainly(text: str) -> None:
    assert error(text).startswith("models/m.yaml:")


def test_two_files_for_one_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(MINIMAL)
    (tmp_path / "b.yaml").write_text(MINIMAL)
    with pytest.raises(SpecError, match=r"b\.yaml: model: 'churn' is described by another file already"):
        spec.load_all(tmp_path)


def test_the_models_of_this_repository_are_valid() -> None:
    models = spec.load_all(Path(__file__).parents[2] / "models")
    assert "flight-delay" in [model.model for model in models]


def test_the_published_schema_accepts_what_noria_accepts() -> None:
    schema = ModelSpec.model_json_schema(mode="validation")
    Draft202012Validator.check_schema(schema)
    for text in (MINIMAL, FROM_THE_DESIGN):
        assert list(Draft202012Validator(schema).iter_errors(yaml.safe_load(text))) == []
    wrong = yaml.safe_load(FROM_THE_DESIGN.replace("2 of 3", "often"))
    assert [error.json_path for error in Draft202012Validator(schema).iter_errors(wrong)] == ["$.monitor.when"]


def test_the_schema_in_docs_is_the_one_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    commands.schema()
    assert (Path(__file__).parents[2] / "docs" / "model.schema.json").read_text() == capsys.readouterr().out
