"""The federation without an engine: all sites in this process, one after the other.

The reference that NVFlare's runs are compared with, and a way to debug a site's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from recipes.federated_distillation.coordinator import Coordinator
from recipes.federated_distillation.messages import Order, Reply, order_from, reply_from
from recipes.federated_distillation.plan import make_plan
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.site_worker import SiteWorker
from recipes.federated_distillation.sites import digital_site, labels_of_sites
from recipes.federated_distillation.state import State
from recipes.federated_distillation.watch import History


def run_in_process(
    settings: Settings,
    home: Path,
    workers: dict[str, SiteWorker] | None = None,
    say: Callable[[str], None] = lambda line: None,
    rounds: int = 0,
) -> State:
    """Run an experiment, or go on with it.

    Args:
        settings: the experiment's.
        home: ``server/<experiment>`` and ``sites/<name>`` are made in it.
        workers: sites by name; digital ones where None.
        say: gets a line per event.
        rounds: stop after so many rounds of training; 0 for none.

    Returns:
        The breakpoint, with all results.
    """
    plan = make_plan(settings, labels_of_sites(settings))
    known = workers if workers is not None else {}

    def ask(order: Order, sites: Sequence[str]) -> Iterator[Reply]:
        for name in sites:
            if name not in known:
                site = digital_site(name, settings)
                known[name] = SiteWorker(site, settings.for_sites(), plan, home / "sites" / name)
            # Through text and back, as on the wire.
            reply = known[name].handle(order_from(order.facts(), order.parameters))
            yield reply_from(reply.facts(), reply.changes)

    folder = home / "server" / settings.exp_name
    state = State(folder, settings)
    history = History(folder, say)
    # Sums depend on the number of threads; the sites' own processes obey the same setting.
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads or threads)
    try:
        Coordinator(settings, plan, state, ask, history).run(rounds)
    finally:
        torch.set_num_threads(threads)
        history.close()
    return state
