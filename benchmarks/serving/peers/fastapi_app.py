"""The model behind FastAPI, as tutorials write it: rows into a pandas data frame."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.serving.peers.tabular import Tabular

app = FastAPI()
model = Tabular(Path(os.environ["BUNDLE"]))


class Request(BaseModel):
    instances: list[dict[str, Any]]


class Answer(BaseModel):
    predictions: list[Any]


@app.post("/invocations")
def predict(request: Request) -> Answer:
    return Answer(predictions=model.scores(pd.DataFrame(request.instances)))
