/** A definition in colours. The pieces are text: nothing in them is taken for HTML. */

import * as React from 'react';

import { tokensOf } from './tokens';

export function Sql(props: { text: string }): JSX.Element {
  const pieces = React.useMemo(() => tokensOf(props.text), [props.text]);
  return (
    <code>
      {pieces.map(({ text, kind }, index) =>
        kind ? (
          <span key={index} className={`fs-cm-${kind}`}>
            {text}
          </span>
        ) : (
          text
        )
      )}
    </code>
  );
}
