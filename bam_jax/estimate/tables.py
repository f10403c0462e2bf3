"""Formats the output of `estimate`: runs by group, time, memory and disk."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rich.box
from rich.filesize import decimal
import rich.table

from bam_jax.estimate import remaining as remaining_lib
from bam_jax.runtime import phases
from bam_jax.runtime import progress as progress_lib


def make_table(
  remaining: Sequence[remaining_lib.Remaining],
  steps: Mapping[str, float],
  seconds: Mapping[str, Counter[str]],
  by_phase: Mapping[str, float],
) -> rich.table.Table:
  """Makes a table with a row per group of similar runs, and a total.

  `steps` maps run name -> seconds per step. `seconds` maps run name -> seconds
  by phase.
  """
  table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
  table.add_column('variant', no_wrap=True)
  table.add_column('tasks', overflow='fold')
  for name in ('runs', 'steps', 'examples', 'ms a step', 'time'):
    table.add_column(name, justify='right', no_wrap=True)

  def add_row(
    name: str,
    tasks: str,
    runs: Sequence[remaining_lib.Remaining],
    whole: float | None = None,
  ) -> None:
    took = [steps[e.run.name] for e in runs if tasks and e.run.name in steps]
    if whole is None:
      whole = sum(seconds[each.run.name].total() for each in runs)
    table.add_row(
      name,
      tasks,
      f'{len(runs):,}',
      f'{sum(each.left for each in runs):,}',
      f'{sum(each.examples for each in runs):,}',
      f'{1e3 * np.mean(took):.4g}' if took else '',
      progress_lib.duration(whole),
    )

  for group in dict.fromkeys(each.group for each in remaining):
    name, tasks = group
    label = tasks[0] if len(tasks) == 1 else f'{len(tasks)} tasks'
    add_row(name, label, [each for each in remaining if each.group == group])
  for name in (phases.START, phases.COMPILING, phases.PROBES, phases.REPORT):
    if name in by_phase:
      took = progress_lib.duration(by_phase[name])
      table.add_row(name, '', '', '', '', '', took)
  table.add_section()
  add_row('total', '', remaining, sum(by_phase.values()))
  return table


def describe_phases(seconds: Mapping[str, float]) -> str:
  """Describes seconds by phase: `2m 03s: training 1m 40s, report 10s, ...`."""
  longest_first = sorted(seconds.items(), key=lambda item: -item[1])
  parts = ', '.join(
    f'{name} {progress_lib.duration(value)}' for name, value in longest_first
  )
  return f'{progress_lib.duration(sum(seconds.values()))}: {parts}'


def sentences(
  counts: Mapping[str, int],
  by_phase: Mapping[str, float],
  longest: str,
  path: Path,
) -> str:
  """Describes time by phase, memory and disk.

  `counts` holds numbers of bytes, and the `seeds` and `rows` of the largest
  step. `longest` is a sentence about the variant that takes longest.
  """
  size = {name: decimal(count) for name, count in counts.items()}
  return (
    f'Time: {describe_phases(by_phase)}.\n'
    f'{longest}\n'
    f'Memory of a device: {size["needed"]} of {size["device"]}, for a step of'
    f' {counts["seeds"]} seeds x {counts["rows"]} rows: state and batch'
    f' {size["arguments"]}, temporary {size["temporary"]}.\n'
    f'Disk: {size["checkpoints"]} of checkpoints, {size["logits"]} of logits,'
    f' {size["while training"]} more while training; {size["free"]} are free.\n'
    'The times assume that nothing else runs on this machine.'
    f' {path} lists every run.'
  )
