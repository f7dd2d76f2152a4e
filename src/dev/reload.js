// Live reload of etagd dev. One event stream serves all tabs, through a shared worker.
(() => {
  'use strict';
  const own = document.currentScript.src;
  const stream = new URL('events', own).href;
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

  const links = (rel) => [...document.querySelectorAll(`link[rel~="${rel}"][href]`)];
  const styles = () => links('stylesheet');

  // The old sheet goes when the new one is there: nothing flashes.
  const swap = (link) => {
    if (link.dataset.etagd === 'old' || path(link.href) === null) return;
    const next = link.cloneNode();
    next.href = fresh(link.href);
    link.dataset.etagd = 'old';
    next.onload = next.onerror = () => link.remove();
    link.after(next);
  };

  // Whatever chooses between several images chooses again.
  const renew = (image) => {
    const sources = image.parentElement?.matches('picture')
      ? image.parentElement.querySelectorAll('source')
      : [];
    const name = fresh(image.currentSrc || image.src);
    for (const element of [image, ...sources]) element.removeAttribute('srcset');
    image.src = name;
  };

  const isStyle = (name) => /\.css$/i.test(name);
  const isImage = (name) => /\.(avif|bmp|gif|ico|jpe?g|png|svg|webp)$/i.test(name);

  // The site has a page for errors, and this is one.
  const isError = () => performance.getEntriesByType('navigation')[0]?.responseStatus >= 400;

  // What was published before the page was asked for is told again while it loads.
  const known = (() => {
    try {
      return JSON.parse(sessionStorage.getItem('etagd')) ?? {};
    } catch {
      return {};
    }
  })();
  const isKnown = ({ run, number, age }) =>
    (run === known.run && number <= known.number) || age >= performance.now();

  const reload = ({ run, number }) => {
    try {
      sessionStorage.setItem('etagd', JSON.stringify({ run, number }));
    } catch {
      // A page without storage may be reloaded twice.
    }
    location.reload();
  };

  const apply = async (change) => {
    const changed = change.changed.map(plain);
    const concernsAll = (name) => name === '*' || (/(^|\/)404\.html$/.test(name) && isError());
    if (changed.includes(plain(location.pathname)) || changed.some(concernsAll)) {
      return reload(change);
    }
    const all = used();
    const ours = changed.filter((name) => all.has(name));
    if (!ours.every((name) => isStyle(name) || isImage(name))) return reload(change);
    let isElsewhere = false;
    for (const name of ours) {
      const sheets = styles().filter((link) => path(link.href) === name);
      const icons = links('icon').filter((link) => path(link.href) === name);
      const images = [...document.images].filter(
        (image) => path(image.currentSrc || image.src) === name,
      );
      sheets.forEach(swap);
      images.forEach(renew);
      for (const icon of icons) icon.href = fresh(icon.href);
      if (sheets.length + icons.length + images.length === 0) {
        isElsewhere = true;
        await fetch(encodeURI(name), { cache: 'reload' }).catch(() => {});
      }
    }
    if (!isElsewhere) return;
    // Asked for by a style: an import, or a background.
    const isInline = (style) => /url\(|@import/.test(style.getAttribute('style') ?? style.textContent);
    if ([...document.querySelectorAll('style, [style]')].some(isInline)) return reload(change);
    styles().forEach(swap);
  };

  // `age`: for how long the change has been published, in ms.
  const heard = (change) => {
    if (change.restarted) return location.reload();
    if (change.changed && !isKnown(change)) apply(change);
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

  const connect = () => {
    try {
      const worker = new SharedWorker(new URL('worker.js', own));
      worker.onerror = alone;
      worker.port.onmessage = (event) => heard(event.data);
      addEventListener('pagehide', () => worker.port.postMessage('bye'));
    } catch {
      // There are none, or the policy of the page has none.
      alone();
    }
  };
  // The page is shown first. What changes meanwhile is told then.
  let isBegun = false;
  const begin = () => {
    if (!isBegun) connect();
    isBegun = true;
  };
  requestAnimationFrame(() => setTimeout(begin));
  // Where nobody looks, there are no frames.
  setTimeout(begin, 200);
})();
