"""Times the host's work: tokenising, writing and reading shards, batches.

  python -m benchmarks.host --data=$GLUE_DIR --vocab=vocab.txt

All nine tasks of GLUE, as `configs/minilm.py` prepares and trains them.
"""

import argparse
import dataclasses
import json
from pathlib import Path
import tempfile
import time

from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import train
from bam_jax.training import setup as setup_lib
from benchmarks import step_jax


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--data', required=True, help='GLUE as TSV files')
  parser.add_argument('--vocab', required=True, help="BERT's vocab.txt")
  parser.add_argument('--batches', default=500, type=int, help='of each run')
  args = parser.parse_args()
  config = dataclasses.replace(
    step_jax.make_config('minilm-l6', args.data, args.vocab),
    variants=('multi', 'single'),
  )
  with tempfile.TemporaryDirectory() as directory:
    workdir = Path(directory)
    setup_lib.configure_jax(config, workdir)
    seconds, plans = {}, {}
    for name in ('prepare_seconds', 'open_seconds'):
      start = time.perf_counter()
      plans[name] = plan_lib.make_plan(config, workdir)
      train.prepare(plans[name])
      seconds[name] = time.perf_counter() - start
    plan = plans['open_seconds']
    rows = sum(
      len(columns)
      for splits in plan.features.values()
      for columns in splits.values()
    )
    rates = {
      'rows': rows,
      **{key: round(value, 2) for key, value in seconds.items()},
      'prepared_rows_per_second': round(rows / seconds['prepare_seconds']),
    }
    for run in plan.runs:
      if run.name in ('multi-s0', 'single-s0-mnli'):
        spec = plan.data.make_spec(run, plan.packing)
        start = time.perf_counter()
        for step in range(args.batches):
          spec.batches(step)
        rate = args.batches / (time.perf_counter() - start)
        rates[f'{run.name}_batches_per_second'] = round(rate)
        rates[f'{run.name}_examples_per_second'] = round(
          rate * spec.length.batch_size
        )
  print(json.dumps(rates, indent=1))


if __name__ == '__main__':
  main()
