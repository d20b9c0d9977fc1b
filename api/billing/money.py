"""Money is integer cents inside, and a number with at most two decimals outside."""

from decimal import Decimal


def to_cents(amount: Decimal) -> int:
    """Cents of an amount with at most two decimals. Raises ValueError where it has more: nothing is rounded here."""
    cents = amount * 100
    if cents != cents.to_integral_value():
        raise ValueError("at most two decimals")
    return int(cents)


def from_cents(cents: int) -> float:
    """The amount, exact to the cent: the nearest float prints with no more than two decimals."""
    return cents / 100
