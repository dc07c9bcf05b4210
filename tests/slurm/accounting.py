"""The accounting database of a test cluster: slurmdbd over a MariaDB of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import ETC, SYSTEM_PATH, daemon, kill_pidfile, run, wait_for

DATABASE_PORT, DAEMON_PORT = 16833, 16819
DAEMON = """\
AuthType=auth/munge
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={daemon_port}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=root
StorageLoc=slurm_accounting
"""
CONFIGURATION = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={daemon_port}
"""


def missing() -> str | None:
    """Why there can be no database here; None if there can."""
    for program in ("slurmdbd", "mariadbd", "mariadb-install-db"):
        if shutil.which(program, path=SYSTEM_PATH) is None:
            return f"{program} is not installed (apt install slurmdbd mariadb-server)"
    return None


@contextmanager
def accounting(folder: Path) -> Iterator[str]:
    """A running database; gives the lines that a cluster's configuration needs."""
    data, pidfile = folder / "database", folder / "mariadbd.pid"
    host = socket.gethostname().partition(".")[0]
    ports = {"daemon_port": DAEMON_PORT, "database_port": DATABASE_PORT}
    run("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}")
    database = subprocess.Popen(
        [
            *["/usr/sbin/mariadbd", "--no-defaults", "--user=root", "--skip-grant-tables"],
            *[f"--datadir={data}", f"--socket={folder}/database.sock", f"--pid-file={pidfile}"],
            *["--bind-address=127.0.0.1", f"--port={DATABASE_PORT}"],
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: open_port(DATABASE_PORT), "database", seconds=60)
        settings = folder / "slurmdbd.conf"
        settings.write_text(DAEMON.format(folder=folder, host=host, **ports))
        settings.chmod(0o600)
        link = ETC / "slurmdbd.conf"
        link.unlink(missing_ok=True)
        link.symlink_to(settings)
        daemon("slurmdbd")
        wait_for(lambda: open_port(DAEMON_PORT), "slurmdbd", seconds=60)
        yield CONFIGURATION.format(**ports)
    finally:
        kill_pidfile(folder / "slurmdbd.pid")
        (ETC / "slurmdbd.conf").unlink(missing_ok=True)
        database.kill()
        database.wait()


def open_port(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
