
(() => {
  const rows = [...document.querySelectorAll('tbody tr')];
  const links = () => rows.filter((row) => !row.hidden).map((row) => row.querySelector('a'));
  const field = document.createElement('input');
  field.type = 'search';
  field.placeholder = 'Filter by name ( / )';
  field.setAttribute('aria-label', 'Filter by name');
  document.querySelector('table').before(field);
  field.addEventListener('input', () => {
    const wanted = field.value.toLowerCase();
    for (const row of rows) {
      row.hidden = !row.querySelector('a').textContent.toLowerCase().includes(wanted);
    }
  });
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const isTyping = document.activeElement === field;
    if (event.key === '/' && !isTyping) {
      field.focus();
    } else if (event.key === 'Enter' && isTyping) {
      links()[0]?.click();
    } else if (event.key === 'Escape' && isTyping) {
      field.value = '';
      field.dispatchEvent(new Event('input'));
      field.blur();
    } else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      const all = links();
      const step = event.key === 'ArrowDown' ? 1 : -1;
      const at = all.indexOf(document.activeElement);
      const next = at < 0 && step < 0 ? all.length - 1 : at + step;
      all[Math.max(0, Math.min(all.length - 1, next))]?.focus();
    } else {
      return;
    }
    event.preventDefault();
  });
})();
