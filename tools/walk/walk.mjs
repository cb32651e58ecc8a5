// Walks /docs of a running demo as an integrator does, in a headless Chromium, and looks at each page at two widths, light
// and dark. The requests are those of the guides, sent from the page itself, and the webhook is verified by the code that
// the guide shows. Screenshots go to the directory that is the argument.
import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import assert from 'node:assert/strict';
import vm from 'node:vm';
import puppeteer from 'puppeteer-core';

const require = createRequire(import.meta.url);
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const { PAYMENTS_URL: base, PAYMENTS_API_KEY: key, CHROMIUM: executablePath = '/usr/bin/chromium' } = process.env;
const [shots] = process.argv.slice(2);
const guides = ['integrate', 'queries', 'live-updates', 'webhooks', 'errors'];
const found = [];

const browser = await puppeteer.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
try {
  for (const [width, height] of [[1280, 900], [390, 844]]) {
    for (const scheme of ['light', 'dark']) await look(width, height, scheme);
  }
  await integrate();
} finally {
  await browser.close();
}
if (found.length > 0) {
  console.error(found.join('\n'));
  process.exit(1);
}
console.log('walked /docs: no finding');

async function look(width, height, scheme) {
  const page = await browser.newPage();
  const at = (path) => `${path} at ${width} px, ${scheme}`;
  let path = '/';
  page.on('console', (m) => m.type() === 'error' && found.push(`${at(path)}: the console says ${m.text()}`));
  page.on('pageerror', (e) => found.push(`${at(path)}: ${e.message}`));
  page.on('request', (r) => new URL(r.url()).origin === base || r.url().startsWith('data:') || found.push(`${at(path)}: asks for ${r.url()}`));
  await page.setViewport({ width, height });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  await page.goto(base + path, { waitUntil: 'networkidle0' });
  assert.equal(new URL(page.url()).pathname, '/docs', 'GET / leads to the documentation');
  path = '/docs';
  await shows(page, 'First call');
  await check(page, at(path), '.guides');
  await page.screenshot({ path: `${shots}/docs-${width}-${scheme}.webp`, type: 'webp', quality: 40 });
  // By the links alone.
  for (const guide of guides) {
    await Promise.all([page.waitForNavigation({ waitUntil: 'networkidle0' }), page.click(`nav a[href="/docs/guides/${guide}"]`)]);
    path = `/docs/guides/${guide}`;
    await check(page, at(path));
    if (guide === 'integrate' || guide === 'webhooks') {
      await page.screenshot({ path: `${shots}/${guide}-${width}-${scheme}.webp`, type: 'webp', quality: 40 });
    }
  }
  await page.close();
}

// shows waits for text. It asks by the debugger again and again: the page's policy lets nothing be evaluated in it.
async function shows(page, text) {
  let body = '';
  for (const end = Date.now() + 30_000; Date.now() < end;) {
    body = await page.evaluate(() => document.body.innerText);
    if (body.includes(text)) return;
    await new Promise((resolve) => { setTimeout(resolve, 100); });
  }
  assert.fail(`the page does not show ${text}, but ${body.slice(0, 500)}`);
}

// check looks for what overflows, for text that is cut, and for what axe finds within the element.
async function check(page, at, within = 'html') {
  for (const fault of await page.evaluate(() => {
    const faults = [];
    const { scrollWidth } = document.scrollingElement;
    if (scrollWidth > innerWidth) faults.push(`the page is ${scrollWidth} px wide`);
    for (const e of document.querySelectorAll('main :is(h1, h2, h3, p, li, pre, .wide)')) {
      const { left, right } = e.getBoundingClientRect();
      if (left < 0 || right > innerWidth + 0.5) faults.push(`<${e.localName}> goes from ${left} to ${right} px: ${e.textContent.slice(0, 40)}`);
    }
    for (const link of document.querySelectorAll('nav a')) {
      if (link.getBoundingClientRect().height < 18) faults.push(`the link ${link.textContent} is ${link.getBoundingClientRect().height} px high`);
    }
    return faults;
  })) found.push(`${at}: ${fault}`);
  await page.evaluate(axe); // by the debugger, to which the page's policy does not apply
  const { violations } = await page.evaluate((selector) => globalThis.axe.run(selector, { resultTypes: ['violations'] }), within);
  for (const v of violations) found.push(`${at}: axe ${v.id}: ${v.help}: ${v.nodes.map((n) => n.html).slice(0, 3).join(' ')}`);
}

// integrate does what the guides say, with what stands on the pages.
async function integrate() {
  const page = await browser.newPage();
  await page.goto(`${base}/docs/guides/webhooks`);
  const sample = await page.evaluate(() => [...document.querySelectorAll('pre')].map((e) => e.textContent).find((t) => t.includes('timingSafeEqual')));
  const verify = vm.runInNewContext(`${sample}; verify`, { require, Buffer, Date, Math, Number });
  await page.goto(`${base}/docs/guides/integrate`);
  const methods = await page.evaluate(() => [...document.querySelectorAll('td code')].map((e) => e.textContent));
  assert.ok(methods.includes('pm_card_visa') && methods.includes('pm_card_declined') && methods.length >= 9, `test payment methods: ${methods}`);

  await page.goto(`${base}/docs`); // whose policy lets a page send requests to where it is from
  const send = (method, path, body, headers = {}) => page.evaluate(async (request) => {
    const { method, path, body, headers } = request;
    const r = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    return { status: r.status, type: r.headers.get('content-type'), text: await r.text() };
  }, { method, path, body, headers: { Authorization: `Bearer ${key}`, ...(body && { 'Content-Type': 'application/json', 'Idempotency-Key': crypto.randomUUID() }), ...headers } });
  const json = (a) => JSON.parse(a.text);

  const deliveries = [];
  let secret;
  const receiver = createServer(async (request, response) => {
    const chunks = [];
    for await (const c of request) chunks.push(c);
    deliveries.push({ headers: request.headers, body: Buffer.concat(chunks) });
    response.writeHead(204).end();
    receiver.emit('delivered');
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  try {
    const hook = await send('POST', '/v1/webhook_endpoints', { url: `http://127.0.0.1:${receiver.address().port}/`, events: ['order.confirmed', 'refund.succeeded'] });
    assert.equal(hook.status, 201, hook.text);
    secret = json(hook).secret;
    const pay = (payment_method, amount, sku) => send('POST', '/v1/payments', {
      amount, currency: 'EUR', payment_method, customer: { reference: 'walker' },
      order: { reference: `walk-${crypto.randomUUID()}`, lines: [{ sku, quantity: 1, unit_amount: amount }] },
    }, { Prefer: 'wait=20' });
    const paid = json(await pay('pm_card_visa', 2499, 'TSHIRT-M'));
    assert.equal(paid.status, 'succeeded', JSON.stringify(paid));
    const declined = json(await pay('pm_card_declined', 900, 'MUG'));
    assert.equal(declined.failure.code, 'card_declined');
    const refund = await send('POST', `/v1/payments/${paid.id}/refunds`, { amount: 1000 });
    assert.equal(refund.status, 202, refund.text);
    const list = json(await send('GET', '/v1/payments?customer=walker'));
    assert.ok(list.data.length >= 2, 'the list has both payments');
    const table = await send('GET', '/v1/payments?customer=walker', undefined, { Accept: 'text/csv' });
    assert.match(table.type, /^text\/csv/);
    const followed = await page.evaluate(async (path, authorization) => {
      const r = await fetch(path, { headers: { Authorization: authorization } });
      const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ''; ;) {
        const { value, done } = await reader.read();
        text += value ?? '';
        if (done || text.includes('event: order.confirmed')) {
          await reader.cancel();
          return text;
        }
      }
    }, `/v1/payments/${paid.id}/events`, `Bearer ${key}`);
    assert.match(followed, /event: payment\.captured/);
    const types = () => deliveries.map((d) => JSON.parse(d.body).type);
    while (!types().includes('refund.succeeded')) await once(receiver, 'delivered', { signal: AbortSignal.timeout(30_000) });
    for (const { headers, body } of deliveries) {
      assert.ok(verify(secret, headers, body), 'the code of the guide verifies the delivery');
      assert.ok(!verify(secret, headers, Buffer.concat([body, Buffer.from(' ')])), 'and refuses a changed one');
    }
    assert.equal((await send('DELETE', `/v1/webhook_endpoints/${json(hook).id}`)).status, 204);
  } finally {
    receiver.close();
    receiver.closeAllConnections();
  }
  await page.close();
}
