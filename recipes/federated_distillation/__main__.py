"""Command line of the federation, thin: ``python -m recipes.federated_distillation COMMAND``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cardiac_ct_fm.errors import CardiacCTError, ConfigError, MissingExtraError
from recipes.federated_distillation.options import add_options, settings_from
from recipes.federated_distillation.plan import make_plan
from recipes.federated_distillation.settings import METHODS, NETWORKS, Settings
from recipes.federated_distillation.sites import labels_of_sites

STAGES = {
    "run": "all stages, then export",
    "teach": "task networks by FedAvg among the sites that hold their label",
    "label": "and the teachers' labels of unlabelled scans, which stay at the sites",
    "distil": "and the network with all heads",
    "test": "and the errors on every site's held-out part",
    "export": "weights, configuration and model card of a finished experiment",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; errors become one line and an exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        if args.command == "provision":
            return _provision(args)
        if args.command == "start":
            return _start(args)
        if args.command == "compare":
            return _compare(args)
        return _experiment(args)
    except CardiacCTError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Stopped. Finished rounds are kept; the same command goes on.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recipes.federated_distillation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in STAGES.items():
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("--out", type=Path, default=Path("runs/federation"), help="folder of all experiments")
        command.add_argument("--kit", type=Path, help="the lead's kit: run on a deployed federation")
        command.add_argument("--engine", choices=("simulator", "in-process"), default="simulator", help="with --local")
        command.add_argument("--processes", type=int, default=0, help="sites that work at the same time, with --local")
        command.add_argument("--step", default="", help="export: a training step other than the last")
        add_options(command)
    compare = commands.add_parser("compare", help="methods side by side on digital sites, as the paper's table")
    compare.add_argument("--out", type=Path, default=Path("runs/federation"), help="folder of all experiments")
    compare.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="in this order")
    compare.add_argument(
        "--networks", nargs="+", choices=NETWORKS, help="in this order (default: both; with --ckpt, --model-type)"
    )
    add_options(compare)
    provision = commands.add_parser("provision", help="start-up kits with certificates for server, sites and lead")
    provision.add_argument("--server", required=True, help="the name by which sites reach the server")
    provision.add_argument("--sites", nargs="+", required=True, metavar="NAME")
    provision.add_argument("--out", type=Path, required=True)
    provision.add_argument("--port", type=int, default=8002)
    provision.add_argument("--scheme", choices=("tcp", "grpc", "http"), default="tcp")
    provision.add_argument("--server-home", default="", help="where the server's kit will lie on its machine")
    start = commands.add_parser("start", help="run the kit of a server or a site in the foreground")
    start.add_argument("kit", type=Path)
    return parser


def _experiment(args: argparse.Namespace) -> int:
    """One of :data:`STAGES`."""
    from recipes.federated_distillation.checkpoint import check
    from recipes.federated_distillation.export import export, metrics, table, untested
    from recipes.federated_distillation.state import State

    stage = args.command if args.command not in ("run", "export") else "test"
    settings = settings_from(args, stage=stage)
    plan = make_plan(settings, labels_of_sites(settings))
    if not settings.local and args.kit is None:
        raise ConfigError(
            "Give --local for one machine with digital sites, or --kit with the lead's kit of a deployed federation."
        )
    home = args.out.resolve()
    if args.command == "export":
        if not (home / "server" / settings.exp_name / "settings.json").exists():
            raise ConfigError(f"{home} holds no experiment {settings.exp_name!r}; check --out and --exp-name.")
    else:
        if settings.local:
            check(settings, plan)
        _run(args, settings, home)
    state = State(home / "server" / settings.exp_name, settings)
    if args.command in ("run", "test"):
        for step in plan:
            if step.kind == "test":
                source = next((s for s in plan if s.name == step.source), None)
                print("\n".join([f"\n{step.source}", *table(metrics(settings, state, step, source))]))
                missing = untested(state, step)
                if missing:
                    print(f"no figures of {', '.join(missing)}; history.csv says why, the same command asks again")
    if args.command == "export" or (args.command == "run" and settings.mode == "train"):
        print(f"\nweights: {export(settings, state, home / 'models', args.step)}")
    return 0


def _teller() -> Callable[[str], None]:
    """Lines for people on stderr, with the seconds since now."""
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - begin:6.0f} s] {line}", file=sys.stderr, flush=True)

    return say


def _run(args: argparse.Namespace, settings: Settings, home: Path) -> None:
    """Carry the experiment out, wherever its sites are."""
    from recipes.federated_distillation.watch import plot

    say = _teller()
    if args.kit is not None:
        try:
            from recipes.federated_distillation.deployed import lead
        except ModuleNotFoundError as error:
            raise MissingExtraError("A federation", "federated") from error
        lead(settings, args.kit, home / "server", say)
    elif args.engine == "in-process":
        from recipes.federated_distillation.in_process import run_in_process

        run_in_process(settings, home, say=say)
    else:
        from recipes.federated_distillation.simulator import simulate

        simulate(settings, home, say, args.processes)
    picture = plot(home / "server" / settings.exp_name)
    if picture:
        say(f"plot: {picture}")


def _compare(args: argparse.Namespace) -> int:
    """Train and test what is missing, then print and write the table of all that is there."""
    from cardiac_ct_fm.files import atomic_write, write_json
    from recipes.federated_distillation.comparison import Comparison
    from recipes.federated_distillation.comparison_table import compare, markdown

    settings = settings_from(args)
    comparison = Comparison(settings, args.out.resolve(), _teller())
    comparison.run(args.methods, args.networks or ((settings.model_type,) if settings.ckpt else NETWORKS))
    result = compare(comparison)
    write_json(comparison.folder / "table.json", result)
    with atomic_write(comparison.folder / "table.md") as temporary:
        temporary.write_text(markdown(result), encoding="utf-8")
    print(markdown(result))
    return 0


def _provision(args: argparse.Namespace) -> int:
    try:
        from recipes.federated_distillation.provisioning import CERTIFICATE_DAYS, provision
    except ModuleNotFoundError as error:
        raise MissingExtraError("A federation", "federated") from error
    kits = provision(args.server, args.sites, args.out, args.port, args.scheme, args.server_home)
    for name, kit in kits.items():
        print(f"{name}: {kit}")
    print(
        f"Certificates are valid for {CERTIFICATE_DAYS} days. Send each kit to its party alone; keep the folder state."
    )
    return 0


def _start(args: argparse.Namespace) -> int:
    import subprocess

    try:
        from recipes.federated_distillation.deployed import party_command
    except ModuleNotFoundError as error:
        raise MissingExtraError("A federation", "federated") from error
    from recipes.federated_distillation.simulator import environment

    return subprocess.run(party_command(args.kit), env=environment(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
