"""Plain FastAPI: a synchronous endpoint in Starlette's thread pool, no batching."""

from typing import Annotated

import uvicorn
from fastapi import Body, FastAPI, Response

from benchmarks.serving import work

app = FastAPI()
model = work.session()


@app.get("/ready")
def ready() -> None:
    """Whether requests are answered."""


@app.post("/segment")
def segment(photo: Annotated[bytes, Body(media_type="image/jpeg")]) -> Response:
    """The mask of a photo."""
    return Response(work.segment(model, photo), media_type="image/png")


if __name__ == "__main__":
    uvicorn.run(app, port=work.PORT, log_level="warning")
