// Live reload of etagd dev. One event stream serves all tabs, through a shared worker.
(() => {
  'use strict';
  const stream = '/_etagd/events';
  // One path has several spellings.
  const plain = (path) => {
    try {
      return decodeURIComponent(path);
    } catch {
      return path;
    }
  };
  const path = (url) => {
    const parsed = new URL(url, location.href);
    return parsed.origin === location.origin ? plain(parsed.pathname) : null;
  };
  performance.setResourceTimingBufferSize?.(10000);

  // What this page has asked for, found or not.
  const used = () => {
    const entries = performance.getEntriesByType('resource');
    // A frame has a script of its own.
    const own = entries.filter((entry) => entry.initiatorType !== 'iframe');
    const urls = own.map((entry) => entry.name);
    for (const element of document.querySelectorAll('[src]:not(iframe), link[href]')) {
      urls.push(element.src || element.href);
    }
    return new Set(urls.filter((url) => typeof url === 'string').map(path));
  };

  const fresh = (url) => {
    const parsed = new URL(url, location.href);
    parsed.searchParams.set('etagd', Date.now().toString(36));
    return parsed.href;
  };

  const styles = () => [...document.querySelectorAll('link[rel~="stylesheet"][href]')];

  // The old sheet goes when the new one is there: nothing flashes.
  const swap = (link) => {
    if (link.dataset.etagd === 'old' || path(link.href) === null) return;
    const next = link.cloneNode();
    next.href = fresh(link.href);
    link.dataset.etagd = 'old';
    next.onload = next.onerror = () => link.remove();
    link.after(next);
  };

  const isStyle = (name) => /\.css$/i.test(name);
  const isImage = (name) => /\.(avif|bmp|gif|ico|jpe?g|png|svg|webp)$/i.test(name);

  // The site has a page for errors, and this is one.
  const isError = () => performance.getEntriesByType('navigation')[0]?.responseStatus >= 400;

  const apply = async (told) => {
    const changed = told.map(plain);
    const concernsAll = (name) => name === '*' || (/(^|\/)404\.html$/.test(name) && isError());
    if (changed.includes(plain(location.pathname)) || changed.some(concernsAll)) {
      return location.reload();
    }
    const all = used();
    const ours = changed.filter((name) => all.has(name));
    if (!ours.every((name) => isStyle(name) || isImage(name))) return location.reload();
    let viaStyles = false;
    for (const name of ours) {
      const links = styles().filter((link) => path(link.href) === name);
      const images = [...document.images].filter((image) => path(image.src) === name);
      links.forEach(swap);
      for (const image of images) {
        image.removeAttribute('srcset');
        image.src = fresh(image.src);
      }
      if (links.length + images.length === 0) {
        // Asked for by a style sheet: an import, or a background.
        await fetch(encodeURI(name), { cache: 'reload' }).catch(() => {});
        viaStyles = true;
      }
    }
    if (viaStyles) styles().forEach(swap);
  };

  // `age`: for how long the change has been published, in ms. Older than this page: it has it.
  const heard = ({ changed, age, restarted }) => {
    if (restarted) return location.reload();
    if (changed && age < performance.now()) apply(changed);
  };

  // A page that comes back from the cache may have missed something.
  addEventListener('pageshow', (event) => event.persisted && location.reload());

  let source = null;
  let digest = null;
  const listen = () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (source === null) {
      source = new EventSource(stream);
      source.addEventListener('state', (event) => {
        const now = JSON.parse(event.data).digest;
        if (digest !== null && digest !== now) heard({ restarted: true });
        digest = now;
      });
      source.addEventListener('change', (event) => {
        const change = JSON.parse(event.data);
        digest = change.digest;
        heard(change);
      });
    }
  };
  // A stream of one's own takes one of the few connections to a host: only where it is seen.
  const alone = () => {
    document.addEventListener('visibilitychange', listen);
    listen();
  };

  if (typeof SharedWorker !== 'function') return alone();
  const worker = new SharedWorker('/_etagd/worker.js');
  worker.onerror = alone;
  worker.port.onmessage = (event) => heard(event.data);
  addEventListener('pagehide', () => worker.port.postMessage('bye'));
})();
