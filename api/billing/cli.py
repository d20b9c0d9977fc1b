"""The commands of billing. Stripe's library is imported where one runs: other commands need not wait for it."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from api.database.engine import Database
from api.http.problems import Problem
from api.terminal import database_url, fail
from configs.billing import BillingSettings
from configs.plans import plans

app = typer.Typer()


@app.command()
def report_overage(
    as_of: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%SZ"],
            help="charge cycles that ended before this time in UTC; a future time needs a test key of Stripe",
        ),
    ] = None,
) -> None:
    """Charge the overage of cycles that have ended, and print how many charges were sent to Stripe.

    The API does this by itself. Use the command where no API runs, or to charge now. No charge is made twice.
    """
    moment = as_of and as_of.replace(tzinfo=UTC)
    try:
        print(asyncio.run(_report(moment)))
    except Problem as problem:
        fail(str(problem.detail))
    except (FileNotFoundError, ValueError) as error:
        fail(str(error))


@app.command()
def create_prices() -> None:
    """Create the missing prices of the listed plans at Stripe, and print their lookup keys."""
    try:
        for key in asyncio.run(create_missing_prices(BillingSettings())):
            print(key)
    except Problem as problem:
        fail(str(problem.detail))


async def create_missing_prices(settings: BillingSettings) -> list[str]:
    """Create the prices of the listed plans that Stripe does not have, and return their lookup keys."""
    from api.billing.gateway import Gateway
    from api.billing.subscriptions import INTERVALS, lookup_key

    gateway, created = Gateway(settings), []
    try:
        for plan in plans().values():
            for interval in INTERVALS.values():
                key = lookup_key(plan.id, interval)
                async with gateway.answering():
                    if plan.listed and await gateway.price(key) is None:
                        await gateway.create_price(plan, interval)
                        created.append(key)
        return created
    finally:
        await gateway.close()


async def _report(as_of: datetime | None) -> int:
    from api.billing.gateway import Gateway
    from api.billing.overage import report_overage as charge_overage

    gateway, database = Gateway(BillingSettings()), Database(database_url(), pool_min=1)
    try:
        gateway.require()
        if as_of is not None and as_of > datetime.now(UTC) and not gateway.for_tests:
            raise ValueError("--as-of: a cycle is charged after its end")
        return await charge_overage(database, gateway, as_of, wait=True)
    finally:
        await gateway.close()
        await database.close()
