"""Federated distillation: task CNNs by FedAvg, pseudo-labels at each site, one multi-head transformer by FedAvg.

The two-stage training of Tölle et al. (npj Digital Medicine 2025, 8:88), its competitors (FedAvg on partial labels,
conditional distillation, local training), and the way from one laptop (NVFlare's simulator) to hospitals (NVFlare with
mutual TLS). ``python -m recipes.federated_distillation --help`` shows the commands, ``README.md`` how to run it.

Modules, engine-free first: ``settings`` → ``networks``, ``plan`` → ``scans``, ``sites`` → ``examples``,
``pseudo_labels``, ``objectives``, ``scoring`` → ``local_training`` (what a site does) and ``aggregation``, ``state``,
``coordinator`` (what the server does). NVFlare only carries messages between the two: ``executor``, ``controller``,
``nvflare_job``, ``simulator``, ``provisioning``, ``deployed``. ``comparison`` runs all methods without engine on the
same digital patients, ``comparison_table`` says what that found.
"""
