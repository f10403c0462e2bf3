"""All kinds of tasks by name."""

from bam_jax.tasks import answers
from bam_jax.tasks import classification
from bam_jax.tasks import kind
from bam_jax.tasks import multilabel
from bam_jax.tasks import regression
from bam_jax.tasks import tagging

KINDS: dict[str, kind.Kind] = {
  each.name: each
  for each in (
    classification.Classification(),
    regression.Regression(),
    multilabel.Multilabel(),
    tagging.Tagging(),
    tagging.PlainTagging(),
    answers.Answers(),
  )
}
