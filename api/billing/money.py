"""Money is integer cents inside, a number with at most two decimals outside, and Stripe's smallest units at Stripe.

A cent is the hundredth part of a unit of the subscription's currency, whatever its coins are.
"""

from decimal import Decimal

# https://docs.stripe.com/currencies: currencies without and with three decimals; all others have two.
ZERO_DECIMALS = frozenset(
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"]
)
THREE_DECIMALS = frozenset(["bhd", "jod", "kwd", "omr", "tnd"])
WHOLE_AMOUNTS = frozenset(["isk", "ugx"])
"""Sent with two decimals, which must be zero."""


def to_cents(amount: Decimal) -> int:
    """Cents of an amount with at most two decimals. Raises ValueError where it has more: nothing is rounded here."""
    cents = amount * 100
    if cents != cents.to_integral_value():
        raise ValueError("at most two decimals")
    return int(cents)


def from_cents(cents: int) -> float:
    """The amount, exact to the cent: the nearest float prints with no more than two decimals."""
    return cents / 100


def to_stripe(cents: int, currency: str) -> int:
    """Cents as Stripe takes them in this currency, rounded down to what the currency can express.

    >>> to_stripe(749, "usd"), to_stripe(749, "jpy"), to_stripe(749, "kwd"), to_stripe(749, "isk")
    (749, 7, 7490, 700)
    """
    currency = currency.lower()
    if currency in ZERO_DECIMALS:
        return cents // 100
    if currency in THREE_DECIMALS:
        return cents * 10  # Stripe wants the third decimal to be zero
    return cents // 100 * 100 if currency in WHOLE_AMOUNTS else cents


def from_stripe(amount: int, currency: str) -> float:
    """Stripe's amount in whole units of its currency.

    >>> from_stripe(749, "usd"), from_stripe(749, "jpy"), from_stripe(7490, "kwd")
    (7.49, 749.0, 7.49)
    """
    currency = currency.lower()
    return amount / (1 if currency in ZERO_DECIMALS else 1_000 if currency in THREE_DECIMALS else 100)
