"""What a model takes and answers: the typed form of a bundle's `signature.json`, which `serving/inference.py` reads."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from noria.spec import FeatureType, ModelSpec, Task

Label = bool | int | str


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Input(Part):
    """One feature. A category is given to the model as its position in `categories`; any other counts as missing."""

    name: str
    type: FeatureType
    nullable: bool
    categories: tuple[str, ...] = ()


class Signature(Part):
    """Features in the order of the model's columns; labels in the order of its probabilities (none for regression)."""

    model: str
    task: Task
    features: tuple[Input, ...]
    labels: tuple[Label, ...] = ()
    output: tuple[str, ...]

    @property
    def categorical(self) -> list[int]:
        """Positions of the categories among the features."""
        return [index for index, feature in enumerate(self.features) if feature.type is FeatureType.CATEGORY]

    @property
    def label_texts(self) -> list[str]:
        """Labels as the prepared data writes them."""
        return [text_of(label) for label in self.labels]


_OUTPUT = {
    Task.BINARY: ("prediction", "score"),
    Task.MULTICLASS: ("prediction", "scores"),
    Task.REGRESSION: ("prediction",),
}


def signature(spec: ModelSpec, categories: dict[str, tuple[str, ...]], label_texts: Iterable[str]) -> Signature:
    """The signature of a model of `spec`, with the categories and labels that its training rows hold."""
    return Signature(
        model=spec.model,
        task=spec.task,
        features=tuple(
            Input(name=name, type=feature.type, nullable=spec.may_lack(name), categories=categories.get(name, ()))
            for name, feature in spec.features.items()
        ),
        labels=typed_labels(label_texts),
        output=_OUTPUT[spec.task],
    )


def typed_labels(texts: Iterable[str]) -> tuple[Label, ...]:
    """Labels in ascending order: whole numbers and booleans as such where all are, else text.

    >>> typed_labels(["1", "0"])
    (0, 1)
    >>> typed_labels(["true", "false"])
    (False, True)
    """
    found = set(texts)
    if found <= {"false", "true"}:
        return tuple(text == "true" for text in sorted(found))
    if all(text.lstrip("-").isdecimal() and str(int(text)) == text for text in found):
        return tuple(sorted(int(text) for text in found))
    return tuple(sorted(found))


def text_of(label: Label) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)
