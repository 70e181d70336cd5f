/** The groups by entity. Only rows in view are in the page, so that ten thousand scroll as ten do. */

import * as React from 'react';

import type { IGroup } from './api';
import { Card } from './card';
import type { IContext } from './context';
import { dragFrom } from './drag';
import { definitionCell, servingCell } from './snippets';
import { lagWords, stateWords } from './states';
import { inView, offsetsOf, scrolledTo } from './windowing';

/** Heights follow the size of Lab's own texts, which its settings change. */
const ROW_EM = 3.3;
const HEADING_EM = 2.4;
const MARGIN_PX = 300;
const CARD_PX = 480;

interface IItem {
  readonly section: number;
  /** None for the section's heading. */
  readonly group: IGroup | null;
  /** The place in its section, from 1. */
  readonly place: number;
}

type Sections = readonly (readonly [string, readonly IGroup[]])[];

interface IProps extends IContext {
  readonly sections: Sections;
  readonly open: string | null;
  readonly toggle: (name: string) => void;
  readonly show: (name: string) => void;
}

function itemsOf(sections: Sections): IItem[] {
  return sections.flatMap(([, groups], section) => [
    { section, group: null, place: 0 },
    ...groups.map((group, index) => ({ section, group, place: index + 1 }))
  ]);
}

/**
 * How much of the list is seen, and the size of its letters. A state would be drawn after the frame
 * that was scrolled in, which shows a list without rows; what is outside of React is drawn in it.
 */
function useView(node: React.RefObject<HTMLElement>): { top: number; height: number; em: number } {
  const view = React.useRef({ top: 0, height: 800, em: 13 });
  const subscribe = React.useCallback(
    (tell: () => void) => {
      const element = node.current;
      if (!element) {
        return () => undefined;
      }
      const read = (): void => {
        const em = parseFloat(getComputedStyle(element).fontSize) || 13;
        view.current = { top: element.scrollTop, height: element.clientHeight, em };
        tell();
      };
      read();
      const sizes = new ResizeObserver(read);
      sizes.observe(element);
      element.addEventListener('scroll', read, { passive: true });
      return () => {
        sizes.disconnect();
        element.removeEventListener('scroll', read);
      };
    },
    [node]
  );
  return React.useSyncExternalStore(subscribe, () => view.current);
}

/** Tells a card's height whenever it changes. */
function Measured(props: {
  tell: (height: number) => void;
  children: React.ReactNode;
}): JSX.Element {
  const node = React.useRef<HTMLDivElement>(null);
  const { tell } = props;
  React.useLayoutEffect(() => {
    const element = node.current;
    if (!element) {
      return;
    }
    const sizes = new ResizeObserver(() => tell(element.offsetHeight));
    sizes.observe(element);
    tell(element.offsetHeight);
    return () => sizes.disconnect();
  }, [tell]);
  return <div ref={node}>{props.children}</div>;
}

/** What a row says of a group beside its name, state and lag. */
function asideWords(group: IGroup): string {
  const tags = group.tags.map(tag => `#${tag}`).join(' ');
  return [group.description, tags].filter(Boolean).join(' ');
}

function Row(
  props: IProps & {
    item: IItem;
    group: IGroup;
    top: number;
    row: number;
    tell: (h: number) => void;
  }
): JSX.Element {
  const { actions, group, item, sections, trans } = props;
  const open = group.name === props.open;
  const id = `fs-card-${group.name}`;
  const dragged = (): string =>
    actions.dragsDefinition || group.version === null ? definitionCell(group) : servingCell(group);
  return (
    <li
      className="fs-Row"
      style={{ top: props.top }}
      aria-posinset={item.place}
      aria-setsize={sections[item.section][1].length}
    >
      <button
        type="button"
        className="fs-Row-button"
        style={{ height: props.row }}
        data-name={group.name}
        aria-expanded={open}
        aria-controls={open ? id : undefined}
        onClick={() => props.toggle(group.name)}
        onPointerDown={event => dragFrom(event.nativeEvent, group.name, dragged)}
      >
        <span className="fs-Dot" data-state={group.state} aria-hidden="true" />
        <span className="fs-Row-name" title={group.name} data-status={group.status}>
          {group.name}
        </span>
        <span className="fs-Row-state">
          {stateWords(trans, group)}
          {group.deprecated && ` · ${trans.__('deprecated')}`}
        </span>
        <span className="fs-Row-lag fs-Dim">{lagWords(trans, group)}</span>
        <span className="fs-Row-aside fs-Dim" aria-hidden="true" title={asideWords(group)}>
          {asideWords(group)}
        </span>
      </button>
      {open && (
        <Measured tell={props.tell}>
          <Card {...props} id={id} />
        </Measured>
      )}
    </li>
  );
}

export function List(props: IProps): JSX.Element {
  const { open, sections, trans } = props;
  const node = React.useRef<HTMLDivElement>(null);
  const wanted = React.useRef<string | null>(null);
  const [card, tell] = React.useState(CARD_PX);
  const [focused, focus] = React.useState<string | null>(null);
  const view = useView(node);
  const [row, heading] = [Math.round(view.em * ROW_EM), Math.round(view.em * HEADING_EM)];
  const items = React.useMemo(() => itemsOf(sections), [sections]);
  const places = React.useMemo(
    () => new Map(items.map((item, index) => [item.group?.name ?? '', index])),
    [items]
  );
  const starts = React.useMemo(
    () => items.flatMap((item, index) => (item.group ? [] : [index])),
    [items]
  );
  const openAt = open === null ? undefined : places.get(open);
  const offsets = React.useMemo(() => {
    const heights = items.map(item => (item.group ? row : heading));
    if (openAt !== undefined) {
      heights[openAt] += card;
    }
    return offsetsOf(heights);
  }, [items, row, heading, openAt, card]);

  const bring = (index: number, height: number): void => {
    const element = node.current;
    if (element) {
      const [begin, top] = [offsets[index], element.scrollTop];
      // The section's heading stays at the top, over what lies there.
      const end = begin + height;
      element.scrollTop = scrolledTo(begin - heading, end, top, element.clientHeight);
    }
  };
  const isKnown = openAt !== undefined;
  React.useLayoutEffect(() => {
    if (openAt !== undefined) {
      bring(openAt, row + card);
    }
    // Once when another card is opened: what changes above it later must not move the page.
  }, [open, isKnown]);
  React.useLayoutEffect(() => {
    if (wanted.current !== null) {
      const name = CSS.escape(wanted.current);
      node.current?.querySelector<HTMLElement>(`[data-name="${name}"]`)?.focus();
      wanted.current = null;
    }
  });

  /** Move the focus between the search field and the rows, as in any list. */
  const onKeyDown = (event: React.KeyboardEvent<HTMLElement>): void => {
    const from = event.target as HTMLElement;
    const at = places.get(from.dataset.name ?? '');
    if (!from.matches('.fs-Row-button') || at === undefined) {
      return;
    }
    const page = Math.max(Math.floor(view.height / row) - 1, 1);
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -items.length,
      End: items.length
    };
    const step = steps[event.key];
    if (!step) {
      return;
    }
    event.preventDefault();
    let to = Math.min(Math.max(at + step, 0), items.length - 1);
    // A heading is passed in the direction of the step.
    to += items[to].group ? 0 : step < 0 && to > 0 ? -1 : 1;
    if (event.key === 'ArrowUp' && at === 1) {
      node.current?.parentElement?.querySelector<HTMLElement>('.fs-Search')?.focus();
      return;
    }
    const name = items[to]?.group?.name;
    if (name) {
      wanted.current = name;
      bring(to, row);
      focus(name);
    }
  };

  const [first, last] = inView(offsets, view.top, view.height, MARGIN_PX);
  const shown = new Set<number>();
  for (let index = first; index < last; index++) {
    shown.add(index);
  }
  // What has the focus and what is open stay, however far the page is scrolled.
  for (const index of [openAt, focused === null ? undefined : places.get(focused)]) {
    if (index !== undefined) {
      shown.add(index);
    }
  }
  const bySection = new Map<number, number[]>();
  for (const index of [...shown].sort((a, b) => a - b)) {
    const section = items[index].section;
    bySection.set(section, [...(bySection.get(section) ?? []), index]);
  }
  return (
    <div
      className="fs-List"
      ref={node}
      onKeyDown={onKeyDown}
      onFocus={event => focus((event.target as HTMLElement).dataset.name ?? null)}
      onBlur={() => wanted.current === null && focus(null)}
    >
      <div className="fs-List-all" style={{ height: offsets[items.length] }}>
        {[...bySection].map(([section, indices]) => {
          const [entity, groups] = sections[section];
          const start = starts[section];
          const top = offsets[start];
          const rows = indices.filter(index => items[index].group);
          return (
            <section
              key={entity}
              className="fs-Section"
              aria-label={trans.__('Entity %1', entity)}
              style={{ top, height: offsets[start + groups.length + 1] - top }}
            >
              <h3 className="fs-Entity" style={{ height: heading }}>
                {entity}
              </h3>
              <ul className="fs-Rows" role="list">
                {rows.map(index => {
                  const group = items[index].group;
                  return (
                    group && (
                      <Row
                        key={group.name}
                        {...props}
                        item={items[index]}
                        group={group}
                        top={offsets[index] - top}
                        row={row}
                        tell={tell}
                      />
                    )
                  );
                })}
              </ul>
            </section>
          );
        })}
      </div>
    </div>
  );
}
