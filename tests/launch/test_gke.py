"""What is given to GKE, and the image: YAML against schemas, the Dockerfile."""

import configparser
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

import jsonschema
import kubernetes_validate
import launching
import pytest
import yaml

_DOCKERFILE = launching.ROOT / 'launch' / 'Dockerfile'
_VERSIONS = ('1.31', '1.37')
_NAME = {'type': 'string', 'pattern': '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'}


def _fields(required: str, **properties: dict[str, Any]) -> dict[str, Any]:
  return {
    'type': 'object',
    'additionalProperties': False,
    'required': required.split(),
    'properties': properties,
  }


def _list(items: dict[str, Any]) -> dict[str, Any]:
  return {'type': 'array', 'items': items}


# Written from JobSet's API reference, v1alpha2, for the fields that are used:
# "[action] Valid values are FailJobSet, RestartJobSet,
# RestartJobSetAndIgnoreMaxRestarts, ..."; "maxRestarts defines the limit on the
# number of JobSet restarts"; "Currently, only a single item is supported in the
# DependsOn list", "Only Ready or Complete status can be set".
_JOBSET = _fields(
  'apiVersion kind metadata spec',
  apiVersion={'const': 'jobset.x-k8s.io/v1alpha2'},
  kind={'const': 'JobSet'},
  metadata=_fields('name', name=_NAME, annotations={'type': 'object'}),
  spec=_fields(
    'replicatedJobs',
    network=_fields(
      '', enableDNSHostnames={'type': 'boolean'}, subdomain=_NAME
    ),
    failurePolicy=_fields(
      '',
      maxRestarts={'type': 'integer', 'minimum': 0},
      rules=_list(
        _fields(
          'name action',
          name={'pattern': '^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$'},
          action={'enum': ['FailJobSet', 'RestartJobSet']},
          onJobFailureReasons=_list({'enum': ['PodFailurePolicy']}),
        )
      ),
    ),
    replicatedJobs=_list(
      _fields(
        'name template',
        name=_NAME,
        replicas={'type': 'integer', 'minimum': 1},
        dependsOn={
          **_list(
            _fields(
              'name status', name=_NAME, status={'enum': ['Ready', 'Complete']}
            )
          ),
          'maxItems': 1,
        },
        template=_fields('spec', spec={'type': 'object'}),
      )
    ),
  ),
)

_COMMON = ('--name=bam', '--image=R/bam:1', '--accelerator=type')
_KINDS = {
  'tpu': ('--topology=4x4', '--hosts=4', '--spot'),
  'gpu': ('--hosts=2', '--chips=8'),
  'shards': ('--hosts=3', '--restarts=7'),
}


def _jobset(kind: str, *arguments: str) -> dict[str, Any]:
  done = launching.run(
    'gke.sh', kind, '--dry-run', *_COMMON, *arguments, 'configs/bam.py', _NOTE
  )
  assert done.returncode == 0, done.stderr
  return yaml.safe_load(done.stdout)


# What YAML, the shell, bash's substitution or the template could take apart.
_NOTE = '--config.note=it\'s "a" \\ & #: {b} ${NAME} ${CLAIM}'


def _jobs(jobset: dict[str, Any]) -> dict[str, dict[str, Any]]:
  return {
    job['name']: job['template']['spec']
    for job in jobset['spec']['replicatedJobs']
  }


def _container(job: dict[str, Any]) -> dict[str, Any]:
  (container,) = job['template']['spec']['containers']
  return container


@pytest.mark.parametrize('kind', _KINDS)
def test_yaml_holds_against_the_schemas(kind):
  jobset = _jobset(kind, *_KINDS[kind])
  jsonschema.validate(jobset, _JOBSET)
  for name, spec in _jobs(jobset).items():
    job = {
      'apiVersion': 'batch/v1',
      'kind': 'Job',
      'metadata': {'name': name},
      'spec': spec,
    }
    for version in _VERSIONS:
      kubernetes_validate.validate(job, version, strict=True)
    assert _NOTE in _container(spec)['args']
    mounts = {mount['name'] for mount in _container(spec)['volumeMounts']}
    volumes = {volume['name'] for volume in spec['template']['spec']['volumes']}
    assert mounts == volumes == {'work'}


@pytest.mark.parametrize('kind', _KINDS)
def test_2_is_the_end_and_75_is_not(kind):
  jobset = _jobset(kind, *_KINDS[kind])
  spec = next(iter(_jobs(jobset).values()))
  policy = jobset['spec']['failurePolicy']
  rules = spec['podFailurePolicy']['rules']
  assert spec['template']['spec']['restartPolicy'] == 'Never'
  assert rules[0]['action'] == 'FailJob'
  assert rules[0]['onExitCodes']['values'] == [2]
  if kind == 'shards':
    assert policy['maxRestarts'] == 0
    assert spec['backoffLimit'] == 7
    assert rules[1]['action'] == 'Ignore'
    assert rules[1]['onExitCodes']['values'] == [75]
  else:
    assert policy['maxRestarts'] == 100
    assert spec['backoffLimit'] == 0
    (rule,) = policy['rules']
    assert rule['action'] == 'FailJobSet'
    assert rule['onJobFailureReasons'] == ['PodFailurePolicy']
    # Nothing but 2 fails the job for that reason.
    assert len(rules) == 1


def test_flags_of_several_hosts_and_of_shards():
  flags = {
    kind: {
      name: _container(spec)['args'][2:]
      for name, spec in _jobs(_jobset(kind, *_KINDS[kind])).items()
    }
    for kind in _KINDS
  }
  assert flags == {
    'tpu': {'slice': ['--workdir=/work/bam', '--distributed=auto']},
    'gpu': {
      'node': [
        '--workdir=/work/bam',
        '--coordinator=bam-node-0-0.bam:8476',
        '--num_processes=2',
        '--process_id=$(INDEX)',
      ]
    },
    'shards': {
      'shards': [
        '--workdir=/work/bam/shards/$(INDEX)',
        '--config.plan.shard=$(INDEX)/3',
      ],
      'merge': [
        '--workdir=/work/bam',
        '--mode=merge',
        '--from=/work/bam/shards/0,/work/bam/shards/1,/work/bam/shards/2',
      ],
    },
  }
  for kind in ('gpu', 'shards'):
    spec = next(iter(_jobs(_jobset(kind, *_KINDS[kind])).values()))
    (index,) = _container(spec)['env']
    assert index['name'] == 'INDEX'
    assert index['valueFrom']['fieldRef']['fieldPath'] == (
      "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    )
  for kind in ('tpu', 'gpu'):
    (spec,) = _jobs(_jobset(kind, '--topology=2x2')).values()
    assert _container(spec)['args'][2:] == ['--workdir=/work/bam']


def test_a_flag_that_is_no_line_is_refused():
  done = launching.run(
    'gke.sh', 'gpu', '--dry-run', *_COMMON, 'configs/bam.py', '--x=a\nb'
  )
  assert done.returncode == 2
  assert done.stdout == ''
  assert done.stderr.endswith(': has a line break or a tab; leave it out\n')


def test_the_yaml_goes_to_kubectl(tmp_path):
  launching.program(
    tmp_path, 'kubectl', f'echo "$*" >{tmp_path}/given; cat >>{tmp_path}/given'
  )
  arguments = ('gpu', *_COMMON, 'configs/bam.py')
  assert launching.run('gke.sh', *arguments, path=tmp_path).returncode == 0
  given = (tmp_path / 'given').read_text()
  dry = launching.run('gke.sh', *arguments[:1], '--dry-run', *arguments[1:])
  assert given == 'apply -f -\n' + dry.stdout


def test_hadolint_finds_nothing():
  hadolint = Path(sys.executable).with_name('hadolint')
  done = subprocess.run(
    [hadolint, _DOCKERFILE], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
  ('accelerator', 'extras'),
  [
    ('cpu', ['tfds']),
    ('gpu', ['cuda', 'tfds', 'gcs']),
    ('tpu', ['tpu', 'tfds', 'gcs']),
  ],
)
def test_an_image_installs_the_extras_of_its_accelerator(
  tmp_path, accelerator, extras
):
  """The RUN line is carried out, with pip's arguments noted."""
  text = _DOCKERFILE.read_text().replace('\\\n', ' ')
  (line,) = re.findall(r'^RUN (.*)$', text, re.MULTILINE)
  launching.program(tmp_path, 'pip', f'echo "$*" >>{tmp_path}/given\n')
  subprocess.run(
    ['/bin/sh', '-ec', line],
    env={'ACCELERATOR': accelerator, 'PATH': f'{tmp_path}:/usr/bin:/bin'},
    check=True,
  )
  first, second = (tmp_path / 'given').read_text().splitlines()
  assert re.search(r'\.\[(.+)\]$', first)[1].split(',') == extras
  setup = configparser.ConfigParser()
  setup.read(launching.ROOT / 'setup.cfg')
  assert set(extras) <= set(setup['options.extras_require'])
  # The weights of configs/minilm.py and configs/demo.py, as in the README.
  assert second.split()[-1] in (launching.ROOT / 'README.md').read_text()


def test_an_image_of_another_accelerator_is_refused():
  text = _DOCKERFILE.read_text().replace('\\\n', ' ')
  (line,) = re.findall(r'^RUN (.*)$', text, re.MULTILINE)
  done = subprocess.run(
    ['/bin/sh', '-ec', line],
    env={'ACCELERATOR': 'npu', 'PATH': ''},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stderr == 'ACCELERATOR=npu: cpu, gpu or tpu\n'


def test_an_image_has_all_that_it_copies():
  tracked = subprocess.run(
    ['git', 'ls-files'], cwd=launching.ROOT, capture_output=True, text=True
  ).stdout.splitlines()
  copied = re.findall(r'^COPY (.*) \S+$', _DOCKERFILE.read_text(), re.MULTILINE)
  for source in ' '.join(copied).split():
    assert any(name.split('/')[0] == source for name in tracked), source
