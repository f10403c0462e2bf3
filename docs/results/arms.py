"""Prints the table of a folder of results from its `runs.tar.xz`.

python docs/results/arms.py docs/results/settings
"""

import collections
import json
from pathlib import Path
import statistics
import sys
import tarfile

# Task -> the split and metric of the paper's average.
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


def read_scores(path: Path) -> dict[tuple[str, str], dict[str, list[float]]]:
  """Returns (plan, variant) -> task -> scores, one per seed."""
  result = collections.defaultdict(lambda: collections.defaultdict(list))

  def add(plan: str, variant: str, task: str, scores: dict) -> None:
    if task in COLUMNS:
      split, metric = COLUMNS[task]
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
      plan, run, *task_of_baselines, _ = member.name.split('/')
      scores = json.load(archive.extractfile(member))['scores']
      if task_of_baselines:
        for baseline in scores:
          add(plan, baseline, *task_of_baselines, scores[baseline])
      else:
        for task in scores:
          add(plan, run.split('-s')[0], task, scores[task])
  return result


def main(folder: Path) -> None:
  print('| plan | variant |', ' | '.join(COLUMNS), '| average |')
  print('|---|---|' + '--:|' * (len(COLUMNS) + 1))
  for (plan, variant), tasks in sorted(
    read_scores(folder / 'runs.tar.xz').items()
  ):
    median = {task: statistics.median(tasks[task]) for task in tasks}
    cells = [f'{median[t]:.1f}' if t in median else '' for t in COLUMNS]
    average = ''
    if len(median) == len(COLUMNS):
      each = [statistics.mean(scores) for scores in zip(*tasks.values())]
      average = f'{statistics.median(each):.1f}'
    print(f'| {plan} | {variant} |', ' | '.join(cells), f'| {average} |')


if __name__ == '__main__':
  main(Path(sys.argv[1]))
