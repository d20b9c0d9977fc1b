"""No route: the metrics are on a port of their own (`configs.metrics`). The lifespan keeps those of the database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from api.monitoring.backlog import watching_backlog


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with watching_backlog(app.state.database.pool):
        yield


router = APIRouter(lifespan=_lifespan)
