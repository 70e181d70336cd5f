/** The search field, the filters there are to choose from, and those that were chosen. */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import type { IGroup } from './api';
import { facetOf, parseQuery, withFilter, withoutTerm } from './query';
import type { Filter, ITerm } from './query';

const OFFERED: readonly Filter[] = ['tag', 'entity', 'owner', 'status'];

function offeredWords(trans: TranslationBundle, filter: Filter): string {
  switch (filter) {
    case 'tag':
      return trans.__('Tag');
    case 'entity':
      return trans.__('Entity');
    case 'owner':
      return trans.__('Owner');
    default:
      return trans.__('Status');
  }
}

function chipWords(term: ITerm): string {
  return `${term.negative ? '−' : ''}${term.filter}: ${term.values.join(', ')}`;
}

interface IProps {
  readonly trans: TranslationBundle;
  readonly groups: readonly IGroup[];
  readonly search: string;
  readonly change: (search: string) => void;
}

function Facet(props: IProps & { filter: Filter }): JSX.Element | null {
  const { change, filter, groups, search, trans } = props;
  const values = React.useMemo(() => facetOf(groups, filter), [groups, filter]);
  const words = offeredWords(trans, filter);
  return values.length === 0 ? null : (
    <select
      className="fs-Facet"
      aria-label={trans.__('Filter by %1', words.toLocaleLowerCase())}
      value=""
      onChange={event => change(withFilter(search, filter, event.target.value))}
    >
      <option value="">{`${words} ▾`}</option>
      {values.map(([value, count]) => (
        <option key={value} value={value}>
          {`${value} (${count.toLocaleString()})`}
        </option>
      ))}
    </select>
  );
}

export function Filters(props: IProps): JSX.Element {
  const { change, search, trans } = props;
  const query = parseQuery(search);
  const chosen = query.terms.filter(term => term.filter && term.values.length);
  return (
    <div className="fs-Filters">
      <input
        type="search"
        className="fs-Search"
        aria-label={trans.__('Search features')}
        placeholder={trans.__('Search, or tag:… type:…')}
        value={search}
        onChange={event => change(event.target.value)}
        onKeyDown={event => event.key === 'Escape' && change('')}
      />
      <div className="fs-Facets">
        {OFFERED.map(filter => (
          <Facet key={filter} {...props} filter={filter} />
        ))}
      </div>
      {chosen.length > 0 && (
        <ul className="fs-Chips" role="list" aria-label={trans.__('Filters')}>
          {chosen.map(term => (
            <li key={term.start}>
              <button
                type="button"
                className="fs-Chip"
                aria-label={trans.__('Remove the filter %1', chipWords(term))}
                onClick={() => change(withoutTerm(search, term))}
              >
                {chipWords(term)} <span aria-hidden="true">×</span>
              </button>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
