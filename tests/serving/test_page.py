"""The page, by a person's means: labels, a keyboard, what is announced.

In the Chromium of this machine; oracle: what the model says when it is called.
"""

import shutil

import pytest

from tests.serving import serving
from tests.serving import tiny_model

_CHROMIUM = next(
  filter(
    None,
    map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')),
  ),
  None,
)
pytestmark = pytest.mark.skipif(
  _CHROMIUM is None, reason='no Chromium on this machine'
)


@pytest.fixture(scope='module')
def model():
  return tiny_model.make().model


@pytest.fixture(scope='module')
def browser():
  sync_api = pytest.importorskip('playwright.sync_api')
  with sync_api.sync_playwright() as playwright:
    started = playwright.chromium.launch(
      executable_path=_CHROMIUM, args=['--no-sandbox']
    )
    yield started
    started.close()


@pytest.fixture
def page(browser):
  opened = browser.new_page()
  opened.told = []
  opened.on('console', lambda message: opened.told.append(message.text))
  opened.on('pageerror', lambda error: opened.told.append(str(error)))
  opened.asked = []
  opened.on('request', lambda request: opened.asked.append(request.url))
  yield opened
  opened.close()


def test_a_text_and_then_a_pair(page, model):
  with serving.Served(model) as served:
    address = f'http://127.0.0.1:{served.port}/'
    page.goto(address)
    page.get_by_text('tiny <plan> reads what you write').wait_for()
    page.get_by_label('Text', exact=True).fill('<b>a big</b> dog')
    page.get_by_role('button', name='Predict').click()
    cards = page.get_by_label('Predictions').get_by_role('article')
    page.get_by_role('status').get_by_text('Predictions of 1 task').wait_for()
    (one,) = model.predict(
      model.encode('demo_sentiment', [('<b>a big</b> dog',)])
    )
    assert cards.count() == 2
    shown = cards.nth(0).inner_text()
    assert shown.startswith(f'demo_sentiment\n\n{one.label}\n')
    for label, share in one.probabilities.items():
      assert f'{label}\n{100 * share:.1f} %' in shown
    assert 'give a second text' in cards.nth(1).inner_text()

    page.get_by_label('Second text').fill('a hound')
    page.keyboard.press('Control+Enter')
    page.get_by_role('status').get_by_text('Predictions of 2 task').wait_for()
    (pair,) = model.predict(
      model.encode('demo_similarity', [('<b>a big</b> dog', 'a hound')])
    )
    assert f'\n{pair.score:.2f}\n' in cards.nth(1).inner_text()
  assert page.told == []
  assert all(url.startswith((address, 'data:')) for url in page.asked)


def test_what_fails_is_told(page, model):
  with serving.Served(model, body=100) as served:
    page.goto(f'http://127.0.0.1:{served.port}/')
    page.get_by_label('Text', exact=True).fill('dog ' * 40)
    page.get_by_role('button', name='Predict').click()
    alert = page.get_by_role('alert')
    alert.get_by_text('The server says: the body is over 100 bytes').wait_for()
  page.get_by_role('button', name='Predict').click()
  alert.get_by_text('The server does not answer.').wait_for()
