// From the write of a file to the frame that shows it, in a real Chromium: etagd dev, live-server
// and Vite on the same folder, one after the other, 50 edits each of a page and of its style.
//
//   npm install playwright-core live-server vite       (anywhere)
//   node .../benches/live-reload.mjs PATH/TO/etagd     (there)
//
// CHROMIUM names the browser, if it is not /usr/bin/chromium; EDITS another number of edits.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const { chromium } = createRequire(join(process.cwd(), 'x'))('playwright-core');
const [etagd = 'etagd'] = process.argv.slice(2);
const edits = Number(process.env.EDITS ?? 50);
const bin = (name) => join(process.cwd(), 'node_modules/.bin', name);

const folder = mkdtempSync(join(tmpdir(), 'live-reload-'));
const write = (name, text) => writeFileSync(join(folder, name), text);
const writers = {
  html: (value) =>
    write(
      'index.html',
      `<!doctype html><html><head><link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css">
      </head><body><h1>${value}</h1>${'<p>Some text.</p>\n'.repeat(200)}</body></html>`,
    ),
  css: (value) => write('style.css', `h1 { font-size: 20px; width: ${value}px }`),
};
writers.html(0);
writers.css(0);
for (let number = 0; number < 200; number += 1) write(`page-${number}.html`, `<p>${number}`);

const servers = {
  'etagd dev': [etagd, 'dev', folder, '--strict-port', '--port'],
  'live-server': [bin('live-server'), folder, '--no-browser', '--quiet'],
  vite: [bin('vite'), folder, '--strictPort', '--port'],
};

// Tells of each frame that shows something else than the one before.
const watch = () => {
  let last = '';
  const look = () => {
    const title = document.querySelector('h1');
    const now = title && `html ${title.textContent}|css ${parseInt(getComputedStyle(title).width)}`;
    if (now && now !== last) window.shown(now, performance.timeOrigin + performance.now());
    last = now ?? last;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
};

const isUp = async (url) => {
  for (let tries = 0; tries < 200; tries += 1) {
    if (await fetch(url).then((response) => response.ok, () => false)) return;
    await sleep(100);
  }
  throw new Error(`${url} does not answer`);
};

const measure = async (browser, url) => {
  const page = await browser.newPage();
  let hear = () => {};
  await page.exposeFunction('shown', (what, at) => hear(what, at));
  await page.addInitScript(watch);
  await page.goto(url);
  await sleep(2000);
  const took = {};
  for (const kind of ['html', 'css']) {
    took[kind] = [];
    for (let value = 1; value <= edits; value += 1) {
      await sleep(150 + Math.random() * 200);
      const shown = new Promise((resolve) => {
        hear = (what, at) => what.split('|').includes(`${kind} ${value}`) && resolve(at);
      });
      const start = performance.timeOrigin + performance.now();
      writers[kind](value);
      const at = await Promise.race([shown, sleep(2000, Infinity, { ref: false })]);
      took[kind].push(at - start);
    }
    writers[kind](0);
    await sleep(1000);
  }
  await page.close();
  return took;
};

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
});
let port = 41730;
console.log('milliseconds          median    99 %');
for (const [name, [program, ...flags]] of Object.entries(servers)) {
  port += 1;
  const more = name === 'live-server' ? `--port=${port}` : port;
  const server = spawn(program, [...flags, more], { stdio: 'ignore' });
  const url = `http://localhost:${port}/`;
  try {
    await isUp(url);
    for (const [kind, all] of Object.entries(await measure(browser, url))) {
      const sorted = all.sort((a, b) => a - b);
      const figures = [0.5, 0.99].map((q) => quantile(sorted, q).toFixed(1).padStart(8));
      console.log(`${name.padEnd(12)} ${kind.padEnd(5)} ${figures.join('')}`);
    }
  } finally {
    server.kill();
  }
}
await browser.close();
rmSync(folder, { recursive: true });
