"""The features, for programs of environments that have no Noria."""

NUMBERS = [
    "hour",
    "minute",
    "month",
    "day",
    "flight",
    "distance",
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "precip",
    "pressure",
    "visib",
]
CATEGORIES = ["carrier", "origin", "dest"]
FEATURES = [*NUMBERS, *CATEGORIES]
