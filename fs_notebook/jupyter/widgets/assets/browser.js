const ROW_PX = 46;
const TYPING_MS = 120;
const SCROLL_MS = 50;
const AHEAD = 20;

/** The list of what was found: only the rows in sight are elements, whatever their number. */
class List {
  constructor(panel, open) {
    this.panel = panel;
    this.open = open;
    this.rows = new Map();
    this.search = null;
    this.active = 0;
    this.id = unique('list');
    this.room = h('div', { class: 'fsw-room', role: 'presentation' });
    this.box = h(
      'div',
      {
        class: 'fsw-list',
        role: 'listbox',
        tabindex: 0,
        'aria-label': 'Features',
        'data-key': 'list',
        on: { keydown: event => this.key(event), scroll: () => this.scrolled() }
      },
      this.room
    );
  }

  get total() {
    return this.panel.get('total');
  }

  /** Take in rows; those of another search are of another list. */
  take({ search, start, rows }) {
    if (search === undefined) {
      return;
    }
    if (search !== this.search) {
      this.rows.clear();
      this.search = search;
      this.active = Math.min(this.active, Math.max(this.total - 1, 0));
    }
    rows.forEach((row, n) => this.rows.set(start + n, row));
    this.draw();
  }

  range() {
    const first = Math.max(Math.floor(this.box.scrollTop / ROW_PX) - 4, 0);
    const shown = Math.ceil((this.box.clientHeight || 400) / ROW_PX) + 8;
    return [first, Math.min(first + shown, this.total)];
  }

  draw() {
    const [first, end] = this.range();
    this.room.style.height = `${this.total * ROW_PX}px`;
    const shown = [];
    for (let n = first; n < end; n += 1) {
      shown.push(this.row(n));
    }
    this.room.replaceChildren(...shown);
    this.box.setAttribute('aria-activedescendant', this.total ? `${this.id}-${this.active}` : '');
  }

  row(n) {
    const known = this.rows.get(n);
    const place = {
      id: `${this.id}-${n}`,
      role: 'option',
      class: 'fsw-row',
      'aria-selected': String(n === this.active),
      'aria-posinset': n + 1,
      'aria-setsize': this.total,
      style: `top:${n * ROW_PX}px`
    };
    if (!known) {
      return h('div', place, h('span', { class: 'fsw-soft' }, '…'));
    }
    const { name, entity, tags, features, version, lag, deprecated, progress } = known;
    const lead = [
      h('strong', { class: deprecated && 'fsw-gone' }, name),
      state(known.state),
      version !== null && h('span', { class: 'fsw-soft' }, `v${version}`),
      progress !== null &&
        known.state === 'bootstrapping' &&
        h('span', { class: 'fsw-soft' }, percent(progress)),
      lag > 0 && h('span', { class: 'fsw-soft' }, `lag ${short(lag)}`),
      deprecated && h('span', { class: 'fsw-soft' }, 'deprecated')
    ];
    const more = [
      entity.join(', '),
      features.map(one => one.name).join(', '),
      tags.map(one => `#${one}`).join(' ')
    ];
    const act = () => {
      this.move(n);
      this.open(name);
    };
    return h(
      'div',
      { ...place, 'data-name': name, on: { click: act } },
      h('div', { class: 'fsw-row-lead' }, lead),
      h('div', { class: 'fsw-row-more' }, more.filter(Boolean).join(' · '))
    );
  }

  move(n) {
    this.active = Math.max(0, Math.min(n, this.total - 1));
    const top = this.active * ROW_PX;
    if (top < this.box.scrollTop) {
      this.box.scrollTop = top;
    } else if (top + ROW_PX > this.box.scrollTop + this.box.clientHeight) {
      this.box.scrollTop = top + ROW_PX - this.box.clientHeight;
    }
    this.draw();
    this.want();
  }

  key(event) {
    const page = Math.max(Math.floor(this.box.clientHeight / ROW_PX) - 1, 1);
    const to = {
      ArrowDown: this.active + 1,
      ArrowUp: this.active - 1,
      PageDown: this.active + page,
      PageUp: this.active - page,
      Home: 0,
      End: this.total - 1
    }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.move(to);
    } else if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      const known = this.rows.get(this.active);
      if (known) {
        this.open(known.name);
      }
    }
  }

  scrolled() {
    this.draw();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.want(), SCROLL_MS);
  }

  /** Ask for the rows in sight that are not there yet. */
  want() {
    const [first, end] = this.range();
    for (let n = first; n < end; n += 1) {
      if (!this.rows.has(n)) {
        this.panel.ask('rows', { start: Math.max(n - AHEAD, 0), count: end - first + 2 * AHEAD });
        return;
      }
    }
  }
}

function filtersPart(panel, facets) {
  const chips = facets.flatMap(({ filter, values }) =>
    values
      .filter(([, , on]) => on)
      .map(([value]) =>
        button(
          `${filter}: ${value} ×`,
          `chip ${filter} ${value}`,
          () => panel.ask('toggle', { filter, value }),
          {
            class: 'fsw-chip',
            'aria-label': `Remove the filter ${filter}: ${value}`
          }
        )
      )
  );
  const selects = facets
    .filter(({ values }) => values.some(([, , on]) => !on))
    .map(({ filter, values }) => {
      const act = event => {
        const { value } = event.target;
        event.target.value = '';
        if (value) {
          panel.ask('toggle', { filter, value });
        }
      };
      const options = values
        .filter(([, , on]) => !on)
        .map(([value, n]) => h('option', { value }, `${value} (${n})`));
      return h(
        'select',
        {
          class: 'fsw-select',
          'aria-label': `Filter by ${filter}`,
          'data-key': `facet ${filter}`,
          on: { change: act }
        },
        h('option', { value: '' }, filter),
        options
      );
    });
  return [selects, chips];
}

export default widget(
  () => 'Feature catalog',
  panel => {
    let wanted = false;
    let timer = null;
    const open = name => {
      wanted = true;
      panel.ask('open_card', { name });
    };
    const list = new List(panel, open);
    const box = h('input', {
      type: 'search',
      class: 'fsw-search',
      placeholder: 'Search: words, tag:… entity:… owner:…',
      'aria-label': 'Search features',
      'data-key': 'search',
      spellcheck: 'false',
      autocomplete: 'off',
      on: {
        input: () => {
          clearTimeout(timer);
          timer = setTimeout(() => panel.ask('search', { query: box.value }), TYPING_MS);
        },
        keydown: event => {
          if (event.key === 'ArrowDown') {
            event.preventDefault();
            list.box.focus();
          } else if (event.key === 'Escape' && box.value) {
            box.value = '';
            panel.ask('search', { query: '' });
          }
        }
      }
    });
    const told = h('p', { role: 'status', class: 'fsw-soft' });
    const filters = h('div', { class: 'fsw-filters' });
    const notes = h('div');
    const names = [
      'title',
      'words',
      'buttons',
      'promotion',
      'text',
      'values',
      'health',
      'versions',
      'diff',
      'lineage',
      'uses'
    ];
    const places = Object.fromEntries(names.map(name => [name, h('div')]));
    const status = h('span', { role: 'status', class: 'fsw-soft' });
    const shut = () => {
      panel.ask('shut_card');
      list.box.focus();
    };
    const close = button('Close', 'shut', shut, { 'aria-label': 'Close the card' });
    const card = h(
      'div',
      {
        class: 'fsw-card',
        role: 'region',
        'aria-label': 'Feature',
        on: { keydown: event => event.key === 'Escape' && shut() }
      },
      h('div', { class: 'fsw-card-head' }, places.title, status, close),
      names.slice(1).map(name => places[name])
    );
    const left = h('div', { class: 'fsw-left' }, box, filters, told, notes, list.box);
    panel.body.classList.add('fsw-columns');
    panel.body.append(left, card);

    panel.on('query', query => {
      if (document.activeElement !== box) {
        box.value = query;
      }
    });
    panel.on('total', total => {
      told.textContent = total ? plural(total, 'feature', 'features') : 'Nothing matches.';
    });
    panel.on('notes', found => panel.parts.draw(notes, found, () => found.map(note)));
    panel.on('facets', found => panel.parts.draw(filters, found, () => filtersPart(panel, found)));
    panel.on('window', found => list.take(found));
    panel.on('card', found => {
      card.hidden = found === null;
      panel.body.classList.toggle('fsw-open', found !== null);
      if (found === null) {
        return;
      }
      card.setAttribute('aria-label', found.name);
      drawCard(panel, found, places, status);
      if (wanted) {
        wanted = false;
        status.textContent = '';
        card.scrollTop = 0;
        places.title.querySelector('h2').focus({ preventScroll: true });
      }
    });
    const values = () => drawValues(panel, places.values, panel.get('portrait'), panel.get('past'));
    panel.on('portrait', values);
    panel.on('past', values);
    panel.on('diff', found => drawDiff(panel, places.diff, found));
    panel.on('promotion', found =>
      drawPromotion(panel, places.promotion, found, () => panel.ask('dismiss'))
    );
    // The list knows how many rows fit once it is laid out.
    const observer = new ResizeObserver(() => list.scrolled());
    observer.observe(list.box);
    panel.undo.push(() => observer.disconnect());
  }
);
