/** What a group is made of and what is made of it, as a graph of few lines that a sidebar has room for. */

import * as React from 'react';

import type { ILineage, INode } from './api';
import type { IContext } from './context';

const ROW_PX = 22;
const LANE_PX = 14;
const LANES_PX_MAX = 110;
const SHOWN_MAX = 60;

function keyOf({ kind, name }: INode): string {
  return `${kind}\n${name}`;
}

/** Each node has a row and a lane of its own: an edge goes down its lane, then right. */
export function Lineage(
  props: Pick<IContext, 'trans'> & { lineage: ILineage; open: (name: string) => void }
): JSX.Element | null {
  const { lineage, trans } = props;
  const nodes = lineage.nodes.slice(0, SHOWN_MAX);
  if (nodes.length < 2) {
    return (
      <p className="fs-Dim">{trans.__('Nothing is made of it, and it is made of nothing.')}</p>
    );
  }
  const places = new Map(nodes.map((node, index) => [keyOf(node), index]));
  const lane = Math.min(LANE_PX, LANES_PX_MAX / nodes.length);
  const x = (index: number): number => 6 + index * lane;
  const y = (index: number): number => index * ROW_PX + ROW_PX / 2;
  const hidden = lineage.cut + lineage.nodes.length - nodes.length;
  return (
    <div className="fs-Lineage">
      <svg
        aria-hidden="true"
        width={x(nodes.length - 1) + 6}
        height={nodes.length * ROW_PX}
        className="fs-Lineage-graph"
      >
        {lineage.edges.map(([from, to]) => {
          const a = places.get(keyOf(from));
          const b = places.get(keyOf(to));
          return a === undefined || b === undefined ? null : (
            <path key={keyOf(from) + keyOf(to)} d={`M${x(a)} ${y(a)}V${y(b)}H${x(b)}`} />
          );
        })}
        {nodes.map((node, index) => (
          <circle
            key={keyOf(node)}
            cx={x(index)}
            cy={y(index)}
            r={4}
            data-kind={node.kind}
            data-here={keyOf(node) === keyOf(lineage.node)}
          />
        ))}
      </svg>
      <ul role="list">
        {nodes.map((node, index) => (
          <li key={keyOf(node)} style={{ height: ROW_PX, paddingLeft: x(index) + 10 }}>
            {node.kind === 'group' && node.name !== lineage.node.name ? (
              <button
                type="button"
                className="fs-Link"
                title={node.name}
                onClick={() => props.open(node.name)}
              >
                {node.name}
              </button>
            ) : (
              <span
                className="fs-Lineage-name"
                title={node.name}
                data-here={keyOf(node) === keyOf(lineage.node)}
              >
                {node.name}
              </span>
            )}{' '}
            <span className="fs-Dim">{node.note ?? node.kind}</span>
          </li>
        ))}
      </ul>
      {hidden > 0 && <p className="fs-Dim">{trans.__('and %1 more', hidden.toLocaleString())}</p>}
    </div>
  );
}
