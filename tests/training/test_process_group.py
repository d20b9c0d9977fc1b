"""Processes of a group listen where the first of them is reached."""

import socket

from training.process_group import interface_of, interface_to


def test_the_interface_is_that_of_the_route_to_the_other_machine() -> None:
    assert interface_to("127.0.0.1") == interface_to("localhost") == "lo"
    assert interface_of("192.0.2.1") is None  # an address for documentation, which no machine has
    assert interface_of("127.0.0.1") in {name for _, name in socket.if_nameindex()}
