"""NVFlare's side of a site: unpack the order, let :class:`SiteWorker` do it, pack the reply. Nothing else.

Where the data lies is said by the site itself, in ``local/cardiac_site.json``; a job cannot name a path. Without that
file the site is a digital one, as long as the settings are for one machine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from cardiac_ct_fm.errors import CardiacCTError, DataError, OutputError
from recipes.federated_distillation.messages import Reply
from recipes.federated_distillation.plan import make_plan
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.site_worker import SiteWorker
from recipes.federated_distillation.sites import CONFIG_FILE, digital_site, labels_of_sites, site_from_config
from recipes.federated_distillation.wire import pack_reply, register_arrays, unpack_order

HOME_VARIABLE = "CARDIAC_FEDERATION_HOME"
"""Set by :mod:`recipes.federated_distillation.simulator` for its processes: where breakpoints and working files go."""


class SiteExecutor(Executor):  # type: ignore[misc]  # NVFlare has no annotations
    """Carries orders to a :class:`SiteWorker`.

    Args:
        settings: the experiment's, as :meth:`Settings.to_dict` gives them.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        register_arrays()
        self._settings = Settings.from_dict(settings)
        self._worker: SiteWorker | None = None

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """See :meth:`SiteWorker.handle`."""
        order = unpack_order(shareable)
        name = fl_ctx.get_identity_name()
        try:
            if self._worker is None:
                self._worker = self._prepare(name, fl_ctx)
        except CardiacCTError as error:
            self.logger.error("%s cannot begin: %s", name, error)
            reason = "disk full" if isinstance(error, OutputError) else "no data"
            return pack_reply(Reply(name, order.step, order.round, left_out=reason))
        return pack_reply(self._worker.handle(order))

    def _prepare(self, name: str, fl_ctx: FLContext) -> SiteWorker:
        settings = self._settings
        if settings.threads:
            torch.set_num_threads(settings.threads)
        plan = make_plan(settings, labels_of_sites(settings))
        workspace = fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
        config = Path(workspace.get_site_config_dir()) / CONFIG_FILE
        if config.exists():
            site, work = site_from_config(name, config, settings)
        elif settings.local and HOME_VARIABLE in os.environ:
            site, work = digital_site(name, settings), Path(os.environ[HOME_VARIABLE]) / "sites" / name
        else:
            raise DataError(f"{config} is missing; the site's engineer names the data list in it.")
        return SiteWorker(site, settings, plan, work)
