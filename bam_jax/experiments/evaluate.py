"""The command `evaluate`: scores finished runs again from their checkpoints."""

from bam_jax.experiments import baselines
from bam_jax.experiments import plan as plan_lib
from bam_jax.experiments import records
from bam_jax.experiments import report
from bam_jax.training import evaluate as evaluate_lib


def evaluate(plan: plan_lib.Plan) -> None:
  """Scores the last checkpoints of all finished runs; writes the report.

  Missing baselines are computed.
  """
  finished = [run for run in plan.runs if plan.workspace.read_record(run.name)]
  plan.open_runs(plan.runs, finished)
  for run in finished:
    outputs, scores = evaluate_lib.evaluate(
      plan.setup.programs,
      plan.restore_params(run.name),
      plan.data.scored_splits(run),
      plan.config.packing,
      lambda _: plan.preemption_signal.check(),
    )
    record = plan.workspace.read_record(run.name)
    records.save_outputs(plan, run, record, outputs, scores)
  baselines.compute(plan)
  report.report(plan)
