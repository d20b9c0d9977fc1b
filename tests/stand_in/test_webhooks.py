"""Deliveries of events, regular and disturbed as Stripe's may be. The receiver verifies with the library."""

from collections import Counter
from typing import Any


def test_events_arrive_signed_and_in_order(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        subscription = scene.subscribed(scene.price())
        scene.running.flush()
        kinds = scene.receiver.kinds()
        assert kinds.index("customer.subscription.created") < kinds.index("invoice.paid")
        assert kinds.index("invoice.paid") < kinds.index("customer.subscription.updated")
        updated = scene.receiver.events[kinds.index("customer.subscription.updated")]
        assert updated.data.object["id"] == subscription.id
        assert updated.data.previous_attributes.to_dict() == {"status": "incomplete"}
        assert [event.id for event in scene.receiver.events] == [
            event.id for event in reversed(scene.client.v1.events.list({"limit": 100}).data)
        ]
        assert scene.client.v1.events.retrieve(updated.id).pending_webhooks == 0


def test_delivery_is_tried_again_until_it_is_taken(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        scene.receiver.statuses += [500, 302, 503]
        scene.client.v1.customers.create({"email": "a@b.example"})
        scene.running.flush()
        assert scene.receiver.kinds() == ["customer.created"] * 4
        assert len({event.id for event in scene.receiver.events}) == 1
        (delivery,) = scene.running.control("webhooks")["deliveries"]
        assert (delivery["state"], delivery["attempts"], delivery["statuses"]) == ("delivered", 4, [200])


def test_deliveries_wait_and_come_in_another_order(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        scene.running.control("webhooks", paused=True)
        for name in ("first", "second", "third"):
            scene.client.v1.customers.create({"name": name})
        assert scene.running.control("webhooks/flush", seconds=0.3) == {"waiting": 3}
        assert scene.receiver.events == []
        scene.running.control("webhooks", paused=False, order="reversed")
        scene.running.flush()
        assert [event.data.object["name"] for event in scene.receiver.events] == ["third", "second", "first"]


def test_copies_losses_and_redelivery(scene_at: Any) -> None:
    with scene_at("2026-03-01T00:00:00Z") as scene:
        scene.running.control("webhooks", duplicates=2, drop=["product.created"])
        scene.client.v1.products.create({"name": "lost"})
        scene.client.v1.customers.create({"name": "thrice"})
        scene.running.flush()
        assert Counter(scene.receiver.kinds()) == {"customer.created": 3}
        scene.running.control("webhooks", duplicates=0, drop=[])
        assert scene.running.control("webhooks/redeliver", type="product.created") == {"queued": 1}
        scene.running.flush()
        assert Counter(scene.receiver.kinds()) == {"customer.created": 3, "product.created": 1}
