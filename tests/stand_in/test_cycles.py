"""Subscriptions over time: periods, invoices, waiting items, dunning, ends. Sums are computed by hand."""

from datetime import UTC, datetime
from typing import Any

import pytest
import stripe

from tests.fixtures.stripe.running import stand_in

DAY, HOUR = 86_400, 3_600


def text(moment: int | None) -> str:
    assert moment is not None
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def period(subscription: stripe.Subscription) -> tuple[str, str]:
    (item,) = subscription["items"].data
    return text(item.current_period_start), text(item.current_period_end)


def invoices(scene: Any, subscription: stripe.Subscription) -> list[stripe.Invoice]:
    """Oldest first."""
    found: list[stripe.Invoice] = scene.client.v1.invoices.list({"subscription": subscription.id}).data
    return found[::-1]


def test_periods_of_a_subscription_that_began_on_the_31st(scene_at: Any) -> None:
    with scene_at("2026-01-31T10:00:00Z") as scene:
        subscription = scene.subscribed(scene.price())
        assert subscription.status == "active"
        assert period(subscription) == ("2026-01-31T10:00:00Z", "2026-02-28T10:00:00Z")
        scene.running.advance_to("2026-02-28T09:59:59Z")
        assert period(scene.now(subscription))[1] == "2026-02-28T10:00:00Z"
        scene.running.advance(1)
        assert period(scene.now(subscription)) == ("2026-02-28T10:00:00Z", "2026-03-31T10:00:00Z")
        scene.running.advance_to("2026-05-01T00:00:00Z")
        assert period(scene.now(subscription)) == ("2026-04-30T10:00:00Z", "2026-05-31T10:00:00Z")
        assert text(scene.now(subscription).billing_cycle_anchor) == "2026-01-31T10:00:00Z"
        paid = invoices(scene, subscription)
        assert [(each.amount_paid, each.status) for each in paid] == [(4_900, "paid")] * 4
        assert [text(each.created) for each in paid] == [
            "2026-01-31T10:00:00Z",
            "2026-02-28T10:00:00Z",
            "2026-03-31T10:00:00Z",
            "2026-04-30T10:00:00Z",
        ]
        assert [str(each.number)[-4:] for each in paid] == ["0001", "0002", "0003", "0004"]


def test_renewal_is_a_draft_for_an_hour_and_takes_what_is_added(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        subscription = scene.subscribed(scene.price())
        customer, items = str(subscription.customer), scene.client.v1.invoice_items
        waiting = items.create(
            {
                "customer": customer,
                "currency": "usd",
                "quantity": 3,
                "unit_amount_decimal": "0.5",
                "metadata": {"tenant": "acme", "cycle": "2026-03"},
            }
        )
        assert (waiting.amount, waiting.invoice) == (2, None)  # a cent and a half, rounded up
        scene.running.advance_to("2026-04-01T00:30:00Z")
        _, renewal = invoices(scene, subscription)
        assert (renewal.status, renewal.amount_due, renewal.number) == ("draft", 4_902, None)
        assert renewal.billing_reason == "subscription_cycle"
        assert (text(renewal.period_start), text(renewal.period_end)) == (
            "2026-03-01T00:00:00Z",
            "2026-04-01T00:00:00Z",
        )
        late = items.create({"customer": customer, "invoice": renewal.id, "amount": 1_000, "currency": "usd"})
        scene.running.advance(HOUR)
        paid = scene.client.v1.invoices.retrieve(str(renewal.id))
        assert (paid.status, paid.amount_paid) == ("paid", 5_902)
        assert [line.amount for line in paid.lines.data] == [2, 4_900, 1_000]
        assert paid.lines.data[0].metadata.to_dict() == {"tenant": "acme", "cycle": "2026-03"}
        (own,) = [line for line in paid.lines.data if line.amount == 4_900]
        assert (text(own.period.start), text(own.period.end)) == ("2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z")
        assert {each.id for each in items.list({"customer": customer}).data} == {waiting.id, late.id}
        assert items.list({"customer": customer, "pending": True}).data == []
        with pytest.raises(stripe.InvalidRequestError) as closed:
            items.create({"customer": customer, "invoice": renewal.id, "amount": 1, "currency": "usd"})
        assert closed.value.code == "invoice_not_editable"
        scene.running.flush()
        kinds = scene.receiver.kinds()[scene.receiver.kinds().index("invoiceitem.created") :]
        of_invoice = [kind for kind in kinds if kind.startswith("invoice.")]
        assert [kind for kind in of_invoice if kind != "invoice.updated"] == [
            "invoice.created",
            "invoice.finalized",
            "invoice.paid",
            "invoice.payment_succeeded",
        ]


@pytest.mark.parametrize("after_dunning", ["canceled", "unpaid"])
def test_failed_payment_is_retried_and_ends_in(scene_at: Any, after_dunning: str) -> None:
    """Attempts after 0, 3, 8 and 15 days, as the dashboard's schedule has it."""
    with scene_at("2026-03-01T00:00:00Z", "--after-dunning", after_dunning) as scene:
        subscription = scene.subscribed(scene.price())
        scene.running.control(f"cards/{subscription.customer}", card="pm_card_chargeCustomerFail")
        scene.running.advance_to("2026-04-01T01:00:00Z")
        assert scene.now(subscription).status == "past_due"
        _, renewal = invoices(scene, subscription)
        assert (renewal.status, renewal.attempt_count, text(renewal.next_payment_attempt)) == (
            "open",
            1,
            "2026-04-04T01:00:00Z",
        )
        scene.running.advance_to("2026-04-16T00:59:59Z")
        _, renewal = invoices(scene, subscription)
        assert (renewal.attempt_count, text(renewal.next_payment_attempt)) == (3, "2026-04-16T01:00:00Z")
        assert scene.now(subscription).status == "past_due"
        scene.running.advance(1)
        ended, (_, renewal) = scene.now(subscription), invoices(scene, subscription)
        assert ended.status == after_dunning
        assert (renewal.status, renewal.attempt_count, renewal.next_payment_attempt) == ("open", 4, None)
        scene.running.flush()
        kinds = scene.receiver.kinds()
        assert kinds.count("invoice.payment_failed") == 4
        assert kinds.count("customer.subscription.deleted") == (after_dunning == "canceled")
        scene.running.advance_to("2026-06-15T00:00:00Z")
        drafts = [each.status for each in invoices(scene, subscription)[2:]]
        assert drafts == ([] if after_dunning == "canceled" else ["draft", "draft"])
        if after_dunning == "canceled":
            assert ended.cancellation_details is not None
            assert (ended.cancellation_details.reason, text(ended.ended_at)) == (
                "payment_failed",
                "2026-04-16T01:00:00Z",
            )


def test_good_card_recovers_a_subscription_that_is_past_due(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        subscription = scene.subscribed(scene.price())
        scene.running.control(f"cards/{subscription.customer}", card="pm_card_chargeCustomerFail")
        scene.running.advance_to("2026-04-02T00:00:00Z")
        customer = scene.client.v1.customers.retrieve(str(subscription.customer))
        assert (scene.now(subscription).status, customer.delinquent) == ("past_due", True)
        with pytest.raises(stripe.CardError, match="declined"):
            scene.client.v1.invoices.pay(str(scene.now(subscription).latest_invoice))
        assert invoices(scene, subscription)[1].attempt_count == 1  # those of the schedule are counted
        scene.running.control(f"cards/{subscription.customer}", card="pm_card_visa")
        assert scene.now(subscription).status == "past_due"
        scene.running.advance(3 * DAY)
        assert scene.now(subscription).status == "active"
        assert [each.status for each in invoices(scene, subscription)] == ["paid", "paid"]
        assert scene.client.v1.customers.retrieve(customer.id).delinquent is False


def test_first_payment_that_fails_leaves_it_incomplete_for_23_hours(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        subscription = scene.subscribed(scene.price(), "pm_card_chargeCustomerFail")
        assert subscription.status == "incomplete"
        scene.running.advance(23 * HOUR - 1)
        assert scene.now(subscription).status == "incomplete"
        scene.running.advance(1)
        assert scene.now(subscription).status == "incomplete_expired"
        assert [each.status for each in invoices(scene, subscription)] == ["void"]
        scene.running.advance(60 * DAY)
        assert len(invoices(scene, subscription)) == 1


def test_cancellation_at_the_period_end_can_be_withdrawn_and_then_holds(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        subscription = scene.subscribed(scene.price())
        update = scene.client.v1.subscriptions.update
        asked = update(subscription.id, {"cancel_at_period_end": True})
        assert (asked.status, asked.cancel_at_period_end, text(asked.cancel_at)) == (
            "active",
            True,
            "2026-04-01T00:00:00Z",
        )
        withdrawn = update(subscription.id, {"cancel_at_period_end": False})
        assert (withdrawn.cancel_at, withdrawn.canceled_at) == (None, None)
        scene.running.advance_to("2026-04-02T00:00:00Z")
        assert scene.now(subscription).status == "active"
        update(subscription.id, {"cancel_at_period_end": True})
        scene.client.v1.invoice_items.create({"customer": str(subscription.customer), "amount": 700, "currency": "usd"})
        scene.running.advance_to("2026-05-01T00:00:00Z")
        ended = scene.now(subscription)
        assert (ended.status, text(ended.ended_at)) == ("canceled", "2026-05-01T00:00:00Z")
        assert text(ended.canceled_at) == "2026-04-02T00:00:00Z"
        scene.running.advance_to("2026-07-01T00:00:00Z")
        last = invoices(scene, subscription)[-1]
        assert (len(invoices(scene, subscription)), last.amount_paid, last.status) == (3, 700, "paid")
        with pytest.raises(stripe.InvalidRequestError):
            scene.client.v1.subscriptions.cancel(subscription.id)


def test_cancellation_at_once_charges_what_waits_at_the_end_of_the_period(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        subscription = scene.subscribed(scene.price())
        scene.client.v1.invoice_items.create({"customer": str(subscription.customer), "amount": 700, "currency": "usd"})
        scene.running.advance_to("2026-03-10T00:00:00Z")
        assert scene.client.v1.subscriptions.cancel(subscription.id).status == "canceled"
        scene.running.advance_to("2026-03-31T23:59:59Z")
        assert len(invoices(scene, subscription)) == 1
        scene.running.advance_to("2026-04-02T00:00:00Z")
        assert [each.amount_paid for each in invoices(scene, subscription)] == [4_900, 700]


def test_dearer_plan_is_prorated_by_the_second_and_charged_with_the_next_period(scene_at: Any) -> None:
    """Half of March's 31 days left: 24.50 back, 74.50 to pay, then 149 for April."""
    with scene_at("2026-03-01T00:00:00Z") as scene:
        growth = scene.price("plan-growth-monthly", 14_900)
        subscription = scene.subscribed(scene.price())
        scene.running.advance_to("2026-03-16T12:00:00Z")
        item = {"id": subscription["items"].data[0].id, "price": growth.id}
        changed = scene.client.v1.subscriptions.update(subscription.id, {"items": [item]})
        assert changed["items"].data[0].price.lookup_key == "plan-growth-monthly"
        assert period(changed) == ("2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z")
        assert len(invoices(scene, subscription)) == 1
        scene.running.advance_to("2026-04-01T01:00:00Z")
        renewal = invoices(scene, subscription)[1]
        assert [line.amount for line in renewal.lines.data] == [-2_450, 7_450, 14_900]
        assert (renewal.amount_paid, renewal.status) == (19_900, "paid")


def test_cheaper_plan_gives_credit_that_the_next_invoices_use_up(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        starter = scene.price()
        subscription = scene.subscribed(scene.price("plan-growth-monthly", 14_900))
        scene.running.advance_to("2026-03-16T12:00:00Z")
        item = {"id": subscription["items"].data[0].id, "price": starter.id}
        scene.client.v1.subscriptions.update(subscription.id, {"items": [item], "proration_behavior": "always_invoice"})
        credit = invoices(scene, subscription)[1]
        assert (credit.total, credit.amount_due, credit.status) == (-5_000, 0, "paid")
        assert scene.client.v1.customers.retrieve(str(subscription.customer)).balance == -5_000
        scene.running.advance_to("2026-05-01T01:00:00Z")
        assert [each.amount_paid for each in invoices(scene, subscription)[2:]] == [0, 4_800]
        assert scene.client.v1.customers.retrieve(str(subscription.customer)).balance == 0


def test_change_to_an_annual_price_begins_a_new_period_and_is_paid_now(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        annual = scene.price("plan-starter-annual", 47_000)
        subscription = scene.subscribed(scene.price())
        scene.running.advance_to("2026-03-16T12:00:00Z")
        item = {"id": subscription["items"].data[0].id, "price": annual.id}
        changed = scene.client.v1.subscriptions.update(subscription.id, {"items": [item]})
        assert period(changed) == ("2026-03-16T12:00:00Z", "2027-03-16T12:00:00Z")
        assert text(changed.billing_cycle_anchor) == "2026-03-16T12:00:00Z"
        switched = invoices(scene, subscription)[1]
        assert ([line.amount for line in switched.lines.data], switched.amount_paid) == ([-2_450, 47_000], 44_550)
        scene.running.advance_to("2027-03-16T13:00:00Z")
        assert [each.amount_paid for each in invoices(scene, subscription)] == [4_900, 44_550, 47_000]


def test_invoice_made_by_hand_charges_what_waits(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        customer = scene.client.v1.customers.create({"email": "a@b.example", "payment_method": "pm_card_visa"})
        scene.client.v1.invoice_items.create({"customer": customer.id, "amount": 1_234, "currency": "usd"})
        (card,) = scene.client.v1.payment_methods.list({"customer": customer.id}).data
        made = scene.client.v1.invoices.create(
            {
                "customer": customer.id,
                "pending_invoice_items_behavior": "include",
                "auto_advance": True,
                "default_payment_method": card.id,
            }
        )
        assert (made.status, made.amount_due) == ("draft", 1_234)
        scene.running.advance(HOUR)
        assert scene.client.v1.invoices.retrieve(str(made.id)).status == "paid"


def test_killed_stand_in_goes_on_from_its_file(scene_at: Any, tmp_path: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        subscription = scene.subscribed(scene.price())
        scene.running.process.kill()
        scene.running.process.wait()
        with stand_in(tmp_path / "state.json", scene.receiver.url) as again:
            assert again.control("clock")["frozen"]
            found = again.client.v1.subscriptions.retrieve(subscription.id)
            assert found.to_dict() == subscription.to_dict()
            again.advance_to("2026-04-01T01:00:00Z")
            again.flush()
            assert scene.receiver.kinds().count("invoice.paid") == 2
            assert len({event.id for event in scene.receiver.events}) >= 20


def test_attempt_by_hand_leaves_the_plan_of_the_dunning_alone(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        subscription = scene.subscribed(scene.price())
        scene.running.control(f"cards/{subscription.customer}", card="pm_card_chargeCustomerFail")
        scene.running.advance_to("2026-04-02T00:00:00Z")
        with pytest.raises(stripe.CardError):
            scene.client.v1.invoices.pay(str(scene.now(subscription).latest_invoice))
        assert text(invoices(scene, subscription)[1].next_payment_attempt) == "2026-04-04T01:00:00Z"


def test_deleted_customer_is_left_alone(scene_at: Any) -> None:
    """Nothing that was planned for it happens any more."""
    with scene_at("2026-03-01T00:00:00Z") as scene:
        subscription = scene.subscribed(scene.price())
        customer, client = str(subscription.customer), scene.client.v1
        client.invoice_items.create({"customer": customer, "amount": 700, "currency": "usd"})
        client.invoices.create(
            {"customer": customer, "pending_invoice_items_behavior": "include", "auto_advance": True}
        )
        assert client.customers.delete(customer).deleted
        assert client.customers.retrieve(customer).deleted
        scene.running.advance(60 * DAY)
        assert scene.now(subscription).status == "canceled"
        assert [each.status for each in client.invoices.list({"customer": customer}).data] == ["draft", "paid"]
        with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
            client.customers.update(customer, {"name": "again"})
