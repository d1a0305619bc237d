"""Plain FastAPI and torch, as one would write it in ten lines: `python serve_fastapi.py MODEL PORT`."""

from __future__ import annotations

import sys

import torch
import uvicorn
from digits_and_pictures import SHAPES, ready
from fastapi import FastAPI
from pydantic import BaseModel

NAME, PORT = sys.argv[1], int(sys.argv[2])
MODEL = ready(NAME)


class Question(BaseModel):
    """Rows, each flat."""

    inputs: list[list[float]]


app = FastAPI()


@app.post("/predict")
async def predict(question: Question) -> dict[str, list[list[float]]]:
    """The outputs of each row."""
    with torch.inference_mode():
        rows = torch.tensor(question.inputs).view(-1, *SHAPES[NAME])
        return {"outputs": MODEL(rows).tolist()}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", access_log=False)
