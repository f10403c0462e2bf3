"""Starts the command line in one process or several."""

from collections.abc import Mapping, Sequence
from pathlib import Path
import socket
import subprocess
import sys

ROOT = Path(__file__).parents[1]


def free_address() -> str:
  """HOST:PORT of this machine at which nobody listens."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return f'localhost:{free.getsockname()[1]}'


def log(workdir: Path, number: int = 0) -> Path:
  """Where the output of a process goes that `start` has started."""
  return workdir.with_name(f'{workdir.name}-{number}.log')


def start(
  config: str,
  workdir: Path,
  environments: Sequence[Mapping[str, str]],
  *flags: str,
  of: Mapping[int, Sequence[str]] | None = None,
) -> list[subprocess.Popen]:
  """Starts the processes of one command.

  Args:
    config: a file below the root.
    workdir: of all.
    environments: of each process.
    *flags: of all.
    of: process -> flags of it alone.
  """
  address, count, started = free_address(), len(environments), []
  for number, environment in enumerate(environments):
    join = (
      f'--coordinator={address}',
      f'--num_processes={count}',
      f'--process_id={number}',
    )
    with log(workdir, number).open('w') as file:
      started.append(
        subprocess.Popen(
          [
            *(sys.executable, '-m', 'bam_jax.main'),
            f'--config={ROOT / config}',
            f'--workdir={workdir}',
            *(join if count > 1 else ()),
            *flags,
            *(of or {}).get(number, ()),
          ],
          cwd=workdir.parent,
          env=environment,
          stdout=file,
          stderr=file,
        )
      )
  return started


def kill(processes: Sequence[subprocess.Popen]) -> None:
  """Ends those that still run."""
  for process in processes:
    process.kill()
    process.wait()
