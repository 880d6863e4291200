"""The commands: `bin/pulsegate --help`."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pulsegate import backups, bundles, canary, doctor, status
from pulsegate.frames import LogError
from pulsegate.installation import Installation, NoInstallationError, from_data, from_file

#: Finds the installation, or ends the command.
Found = Callable[[], Installation]
_PATH = click.Path(path_type=Path)


@contextmanager
def _told() -> Iterator[None]:
    """What cannot be done is said in one line, with status 1."""
    try:
        yield
    except (NoInstallationError, backups.BackupError, LogError, canary.CanaryError, OSError) as error:
        raise click.ClickException(" ".join(str(error).split())) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PULSEGATE"})
@click.option("--installation", type=_PATH, help="A TOML file that says where everything is.")
@click.option(
    "--data", type=_PATH, default=Path(".pulsegate"), show_default=True, help="The data folder of `make run`."
)
@click.pass_context
def pulsegate(context: click.Context, installation: Path | None, data: Path) -> None:
    """Operate an installation of Pulsegate.

    It is the one that --installation describes (docs/operations.md), or the one that `make run` runs on --data.
    """

    def found() -> Installation:
        with _told():
            return from_file(installation) if installation else from_data(data)

    # Looked for by the command, so that the help of each can be read everywhere.
    context.obj = found


@pulsegate.command("status")
@click.pass_obj
def show_status(found: Found) -> None:
    """Show services, lag, fill level and objectives. Status 1 unless every process is ready."""
    installation = found()
    processes = status.processes(installation)
    for line in status.lines(installation, processes):
        click.echo(line)
    sys.exit(0 if all(process.status == "ready" for process in processes) else 1)


@pulsegate.command("doctor")
@click.pass_obj
def look_over(found: Found) -> None:
    """Check everything; say what is wrong and what to do. Status 1 where something is."""
    installation = found()
    wrong = list(doctor.findings(installation))
    for finding in wrong:
        click.echo(f"- {finding.what}\n  {finding.remedy}")
    for left_out in doctor.unasked(installation):
        click.echo(f"Not asked: {left_out}.")
    click.echo(f"{len(wrong)} found." if wrong else "All is well.")
    sys.exit(1 if wrong else 0)


@pulsegate.command()
@click.pass_obj
def migrate(found: Found) -> None:
    """Bring every schema up to date. Safe while services run, and to repeat."""
    owners = found().owners
    if not owners:
        raise click.ClickException(
            "the installation names no owners: give their addresses, or on Kubernetes run `helm upgrade`"
        )
    for schema, dsn in owners.items():
        click.echo(f"{schema} …")
        environment = {**os.environ, "PULSEGATE_POSTGRES_OWNER_DSN": dsn}
        ran = subprocess.run([sys.executable, "-m", f"services.{schema}", "migrate"], check=False, env=environment)  # noqa: S603
        if ran.returncode:
            raise click.ClickException(f"{schema} was not migrated")


@pulsegate.command()
@click.argument("file", type=_PATH)
@click.pass_obj
def backup(found: Found, file: Path) -> None:
    """Write FILE: everything that was acknowledged until now. Services go on meanwhile.

    Keep it as you keep passwords, and apart from it the master key and the other secrets, which are not in it.
    """
    if file.exists():
        raise click.ClickException(f"{file} is there already")
    with _told():
        made = backups.make(found(), file.absolute())
    click.echo(f"{file}: the database, and {made.frames} frames of the log that were not in it yet")


@pulsegate.command()
@click.argument("file", type=_PATH)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def restore(found: Found, file: Path, yes: bool) -> None:
    """Replace database and log by those of FILE. Stop all services first, and start them afterwards."""
    with _told():
        held = backups.contents(file)
        made = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(held.made_at))
        if not yes:
            click.confirm(f"Everything that was counted since {made} will be forgotten. Go on?", abort=True)
        backups.restore(found(), file.absolute())
    click.echo(
        f"Restored as of {made}. Empty Valkey, whose answers are of what is forgotten, before you start the services;"
    )
    click.echo("last values are right within half a minute.")


@pulsegate.command("canary-key")
@click.argument("address")
@click.option("--email", required=True, help="Of an account that is the canary's alone; made where there is none.")
@click.option("--password", help="Better typed when it is asked for, or in PULSEGATE_CANARY_KEY_PASSWORD.")
def canary_key(address: str, email: str, password: str | None) -> None:
    """Print a new key for the canary, which may write and query in a project of its own and nothing else.

    ADDRESS is the gateway, as clients reach it. Needs no --installation.
    """
    with _told():
        # Asked for on standard error: standard output is for the key.
        key = canary.new_key(address, email, password or click.prompt("Password", hide_input=True, err=True))
    click.echo(key)


@pulsegate.command("support-bundle")
@click.argument("file", type=_PATH)
@click.pass_obj
def support_bundle(found: Found, file: Path) -> None:
    """Write FILE (.tar.gz): readiness, metrics, rules, alerts and logs, with secrets redacted."""
    if file.exists():
        raise click.ClickException(f"{file} is there already")
    installation = found()
    with _told():
        names = bundles.make(installation, file.absolute())
    click.echo(f"{file}: {len(names)} parts. Read it before you send it: logs name your tenants' ids.")
    if installation.logs is None:
        click.echo("The processes' logs are not in it: name their folder as `logs`, or send what your log system has.")


if __name__ == "__main__":
    pulsegate(prog_name="pulsegate")
