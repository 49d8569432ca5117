"""Orders and replies as NVFlare's Shareables: facts as JSON text, parameters as numpy arrays."""

from __future__ import annotations

from nvflare.apis.shareable import Shareable
from nvflare.app_common.decomposers import numpy_decomposers

from recipes.federated_distillation.messages import Order, Reply, order_from, reply_from

FACTS, PARAMETERS, CHANGES = "facts", "parameters", "changes"


def register_arrays() -> None:
    """Let NVFlare carry numpy arrays."""
    numpy_decomposers.register()


def pack_order(order: Order) -> Shareable:
    """For the sites."""
    shareable = Shareable()
    shareable[FACTS], shareable[PARAMETERS] = order.facts(), order.parameters
    return shareable


def unpack_order(shareable: Shareable) -> Order:
    """The inverse of :func:`pack_order`."""
    return order_from(shareable[FACTS], shareable[PARAMETERS])


def pack_reply(reply: Reply) -> Shareable:
    """For the server.

    Raises:
        DataError: the reply holds something that may not leave a site.
    """
    shareable = Shareable()
    shareable[FACTS], shareable[CHANGES] = reply.facts(), reply.changes
    return shareable


def unpack_reply(shareable: Shareable) -> Reply:
    """The inverse of :func:`pack_reply`.

    Raises:
        DataError: a site sent something that it may not.
    """
    return reply_from(shareable[FACTS], shareable[CHANGES])
