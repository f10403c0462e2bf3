"""The documentation site: `sphinx-build -W -c docs . build/site`, extra `docs`.

Its pages are the Markdown files of the repository; pdoc adds the reference.
"""

from pathlib import Path
import shutil

import pdoc

project = html_title = 'BAM-JAX'
extensions = ['myst_parser', 'sphinxcontrib.mermaid']
root_doc = 'README'
include_patterns = ['*.md', 'docs/*.md', 'docs/**/*.md', 'benchmarks/*.md']
exclude_patterns = ['**/report.md']
myst_fence_as_directive = ['mermaid']
myst_heading_anchors = 3  # Spelt as GitHub spells them.
html_theme = 'furo'

_CONTENTS = """
The <a href="api/bam_jax.html">reference</a> has every module and function.

```{toctree}
:hidden:
:glob:
:caption: Guides

docs/guides/*
```

```{toctree}
:hidden:
:glob:
:caption: Results

docs/results/README
docs/results/*/README
benchmarks/README
```

```{toctree}
:hidden:
:glob:
:caption: Design

docs/*
CONTRIBUTING
SECURITY
CHANGELOG
```
"""


def setup(app) -> None:
  app.connect('source-read', _add_contents)
  app.connect('build-finished', _add_pages)


def _add_contents(app, page: str, source: list[str]) -> None:
  if page == root_doc:
    source[0] += _CONTENTS


def _add_pages(app, exception: Exception | None) -> None:
  """Writes a first page, and one for each module of the package."""
  if exception is None:
    site = Path(app.outdir)
    shutil.copy(site / f'{root_doc}.html', site / 'index.html')
    pdoc.render.configure(docformat='google', show_source=False)
    pdoc.pdoc('bam_jax', output_directory=site / 'api')
