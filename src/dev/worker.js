// The one event stream of all tabs.
'use strict';
const ports = new Set();
// Changes that a page which is loading at this moment may have missed.
let recent = [];
let digest = null;

const tell = (message) => ports.forEach((port) => port.postMessage(message));

const listen = () => {
  const source = new EventSource('events');
  source.addEventListener('state', (event) => {
    const now = JSON.parse(event.data).digest;
    if (digest !== null && digest !== now) tell({ restarted: true });
    digest = now;
  });
  source.addEventListener('change', (event) => {
    const change = JSON.parse(event.data);
    digest = change.digest;
    const at = performance.now() - change.age;
    recent = recent.filter((old) => performance.now() - old.at < 10000);
    recent.push({ change, at });
    tell(change);
  });
  source.addEventListener('error', () => {
    // It tries again by itself, unless the server said something else than a stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 500);
  });
};

onconnect = (event) => {
  const [port] = event.ports;
  ports.add(port);
  port.onmessage = () => ports.delete(port);
  for (const { change, at } of recent) {
    port.postMessage({ ...change, age: performance.now() - at });
  }
};
listen();
