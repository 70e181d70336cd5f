/** What a group becomes in a notebook: the call that serves it, or the cell that defines it. */

import type { IGroup } from './api';

function isIdentifier(name: string): boolean {
  return /^[A-Za-z_]\w*$/.test(name);
}

/** Python that asks for all features of a group; it runs as it is, and finds nobody called `…`. */
export function servingSnippet(group: IGroup): string {
  const features = group.features.map(feature => JSON.stringify(feature.name)).join(', ');
  const keys = [...group.entity, ...(group.requests ?? []).map(request => request.name)];
  const plain = keys.filter(isIdentifier).map(key => `${key}=["…"]`);
  const odd = keys.filter(key => !isIdentifier(key)).map(key => `${JSON.stringify(key)}: ["…"]`);
  const given = [...plain, ...(odd.length ? [`**{${odd.join(', ')}}`] : [])];
  return `fs.serve([${features}], ${given.join(', ')})`;
}

/** The serving call as a cell that says what is to be filled in. */
export function servingCell(group: IGroup): string {
  const keys = group.entity.join(', ');
  return `# Put values of ${keys} in place of …\n${servingSnippet(group)}`;
}

/** The cell that defines a group: its own text, or one that means the same. */
export function definitionCell(group: IGroup): string {
  if (group.source) {
    return group.source;
  }
  const isSql = /^\s*(?:--.*\n\s*|\/\*[\s\S]*?\*\/\s*)*(?:select|with|from)\b/i.test(
    group.definition
  );
  const words = [
    `%%feature ${group.name}`,
    group.entity.length ? `--entity ${group.entity.join(',')}` : '',
    group.tags.length ? `--tags ${quoted(group.tags.join(','))}` : '',
    group.description ? `--description ${quoted(group.description)}` : '',
    isSql ? '' : '-l polars'
  ];
  return `${words.filter(Boolean).join(' ')}\n${group.definition}`;
}

/** A value as the header line of a cell reads it: one line, quoted where a shell would. */
function quoted(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return /^[\w,.-]+$/.test(line) ? line : `"${line.replace(/(["\\])/g, '\\$1')}"`;
}
