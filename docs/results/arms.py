"""Prints the table of a folder of results from its `runs.tar.xz`.

  python docs/results/arms.py docs/results/settings
  python docs/results/arms.py docs/results/teachers \\
    --differences teachers:folds:single_to_multi

With --differences PLANS:VARIANT:OTHER (plans joined by commas) printed instead
is the mean difference of the average over seeds of the same number, with the
95% interval of the t-distribution.
"""

import argparse
import collections
from collections.abc import Sequence
import json
from pathlib import Path
import statistics
import tarfile

from scipy import stats

# GLUE's tasks -> the split and metric of the paper's average. Other tasks have
# Spearman's correlation, or their first metric.
COLUMNS = {
  'cola': ('dev', 'matthews'),
  'sst2': ('dev', 'accuracy'),
  'mrpc': ('dev', 'accuracy'),
  'stsb': ('dev', 'spearman'),
  'qqp': ('dev', 'accuracy'),
  'mnli': ('dev_matched', 'accuracy'),
  'qnli': ('dev', 'accuracy'),
  'rte': ('dev', 'accuracy'),
}
_NOT_IN_AVERAGE = {'wnli', 'ax'}


def read_scores(path: Path) -> dict[tuple[str, str], dict[str, list[float]]]:
  """Returns (plan, variant) -> task -> scores, one per seed."""
  result = collections.defaultdict(lambda: collections.defaultdict(list))

  def add(plan: str, variant: str, task: str, scores: dict) -> None:
    if task not in _NOT_IN_AVERAGE:
      split, metric = COLUMNS.get(task, ('dev', 'spearman'))
      if metric not in scores[split]:
        metric = next(iter(scores[split]))
      # A score that is undefined counts as 0.
      result[plan, variant][task].append(scores[split][metric] or 0.0)

  with tarfile.open(path) as archive:
    # By name, so that the scores of all tasks are in the order of the seeds.
    for member in sorted(archive, key=lambda member: member.name):
      if not member.name.endswith('/DONE') or any(
        # Teachers of folds, and runs of a search.
        word in member.name
        for word in ('-fold', '-heldout')
      ):
        continue
      parts = member.name.split('/')
      if parts[0] == 'baselines':  # An archive of one plan names no plan.
        parts.insert(0, 'runs')
      plan, run, *task_of_baselines, _ = parts
      scores = json.load(archive.extractfile(member))['scores']
      if task_of_baselines:
        for baseline in scores:
          add(plan, baseline, *task_of_baselines, scores[baseline])
      else:
        for task in scores:
          add(plan, run.split('-s')[0], task, scores[task])
  return result


def averages(tasks: dict[str, list[float]]) -> list[float]:
  """Returns the average over tasks of each seed."""
  return [statistics.mean(scores) for scores in zip(*tasks.values())]


def print_table(scores: dict[tuple[str, str], dict[str, list[float]]]) -> None:
  found = {task for tasks in scores.values() for task in tasks}
  columns = [task for task in COLUMNS if task in found]
  columns += sorted(found - {*columns})
  print('| plan | variant |', ' | '.join(columns), '| average |')
  print('|---|---|' + '--:|' * (len(columns) + 1))
  for (plan, variant), tasks in sorted(scores.items()):
    median = {task: statistics.median(tasks[task]) for task in tasks}
    cells = [f'{median[t]:.1f}' if t in median else '' for t in columns]
    average = ''
    if len(median) == len(columns):
      average = f'{statistics.median(averages(tasks)):.1f}'
    print(f'| {plan} | {variant} |', ' | '.join(cells), f'| {average} |')


def print_differences(
  scores: dict[tuple[str, str], dict[str, list[float]]], pairs: Sequence[str]
) -> None:
  for pair in pairs:
    plans, variant, other = pair.split(':')
    differences = [
      first - second
      for plan in plans.split(',')
      for first, second in zip(
        averages(scores[plan, variant]), averages(scores[plan, other])
      )
    ]
    count = len(differences)
    error = statistics.stdev(differences) / count**0.5
    half = stats.t.ppf(0.975, count - 1) * error
    mean = statistics.mean(differences)
    name = f'{plans}: {variant} - {other}'
    print(f'{name}: {mean:+.2f} +- {half:.2f} (n={count})')


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('folder', type=Path)
  parser.add_argument('--differences', nargs='+', metavar='PLANS:VARIANT:OTHER')
  args = parser.parse_args()
  scores = read_scores(args.folder / 'runs.tar.xz')
  if args.differences:
    print_differences(scores, args.differences)
  else:
    print_table(scores)


if __name__ == '__main__':
  main()
