"""Registry of the encoder families, by `model_type` in config.json."""

from bam_jax.modeling import bert
from bam_jax.modeling import deberta
from bam_jax.modeling import distilbert
from bam_jax.modeling import electra
from bam_jax.modeling import ernie
from bam_jax.modeling import family
from bam_jax.modeling import modernbert
from bam_jax.modeling import roberta

FAMILIES: dict[str, family.Family] = {
  each.name: each
  for each in (
    bert.BERT,
    *roberta.FAMILIES,
    deberta.DEBERTA_V2,
    electra.ELECTRA,
    ernie.ERNIE,
    distilbert.DISTILBERT,
    modernbert.MODERNBERT,
  )
}


def presets() -> dict[str, dict[str, object]]:
  """Maps values of `config.model.arch` to arguments of `EncoderConfig`."""
  return {
    name: {**sizes, 'family': each.name}
    for each in FAMILIES.values()
    for name, sizes in each.presets.items()
  }
