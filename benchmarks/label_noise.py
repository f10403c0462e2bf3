"""Counts how many known wrong labels the report's list of them finds.

  python -m benchmarks.label_noise work/label_noise

Training labels of three generated tasks, which are right otherwise, are changed
in one row of twenty. The demo's models label each row by teachers that were not
trained on it (`distill.folds`): by one, and by the mean of several. Printed is
the share of changed labels among the first rows of the list (precision), per
task; by chance it would be one in twenty.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from bam_jax import config as config_lib
from bam_jax.configs import demo as demo_config
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import train
from bam_jax.tasks import demo

_TASKS = 'demo_opinion', 'demo_verdict', 'demo_visit'
_CHANGED = 0.05
_FIRST = 10, 20, 50


def write_rows(folder: Path, name: str, seed: int = 0) -> set[int]:
  """Writes NAME-train.tsv and NAME-dev.tsv; returns the changed rows."""
  task, rng = demo.TASKS[name], np.random.default_rng(seed)
  demo._DATA['tasks'][name]['wrong'] = 0
  changed = set()
  folder.mkdir(parents=True, exist_ok=True)
  for split in ('train', 'dev'):
    lines = ['a\tb\tlabel']
    rows = demo.generate(name, split)
    if split == 'train':
      count = round(_CHANGED * len(rows))
      changed = set(rng.choice(len(rows), count, replace=False).tolist())
    for number, row in enumerate(rows):
      label = row.label
      if split == 'train' and number in changed:
        others = [i for i in range(len(task.labels)) if i != label]
        label = rng.choice(others)
      lines.append(f'{row.text_a}\t{row.text_b or ""}\t{task.labels[label]}')
    (folder / f'{name}-{split}.tsv').write_text('\n'.join(lines) + '\n')
  return changed


def make_config(folder: Path, teachers: int, folds: int) -> config_lib.Config:
  """Returns the demo's configuration for these rows."""
  config = demo_config.get_config()
  names = [name.removeprefix('demo_') for name in _TASKS]
  for name, source in zip(names, _TASKS):
    task = demo.TASKS[source]
    config.custom_tasks[name] = config_lib.custom_task(
      labels=task.labels,
      text=('a', 'b') if task.is_pair else ('a',),
      train=f'{source}-train.tsv',
      dev=f'{source}-dev.tsv',
    )
  config.name, config.tasks = 'label_noise', tuple(names)
  config.variants, config.seeds = ('single_to_multi',), tuple(range(teachers))
  config.plan.shard = f'0/{teachers}'  # One student.
  config.data.dir = str(folder)
  config.distill.folds, config.distill.teachers = folds, teachers
  config.plan.baselines = False
  return config_lib.from_config_dict(config)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('workdir', type=Path)
  parser.add_argument('--folds', type=int, default=5)
  parser.add_argument('--teachers', type=int, nargs='+', default=[1, 4])
  arguments = parser.parse_args()
  data = arguments.workdir / 'data'
  changed = {
    name.removeprefix('demo_'): write_rows(data, name) for name in _TASKS
  }
  for teachers in arguments.teachers:
    config = make_config(data, teachers, arguments.folds)
    workdir = arguments.workdir / f'teachers_{teachers}'
    train.run(plan_lib.make_plan(config, workdir))
    found: dict[str, list[int]] = {name: [] for name in changed}
    for line in (workdir / 'errors.jsonl').open():
      row = json.loads(line)
      if row['reason'] == 'label':
        found[row['task']].append(row['row'])
    for name, rows in found.items():
      cells = [f'{teachers} teachers', name, f'{len(changed[name])} changed']
      cells.append(f'{len(rows)} contradicted')
      for first in _FIRST:
        hits = sum(row in changed[name] for row in rows[:first])
        cells.append(f'{hits / first:.0%} of the first {first}')
      print(' | '.join(cells), flush=True)


if __name__ == '__main__':
  main()
